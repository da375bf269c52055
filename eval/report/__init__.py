"""What a run found, for people: a console table, a Markdown table and one self-contained page."""
