"""What the processes of a run do about signals, about each other, and about torch's extension cache."""
