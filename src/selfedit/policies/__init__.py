"""What writes self-edits, one policy per file."""
