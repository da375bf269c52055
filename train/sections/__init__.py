"""The keys of a training recipe, a file a section."""
