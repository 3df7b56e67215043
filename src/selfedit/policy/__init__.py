"""What writes self-edits."""
