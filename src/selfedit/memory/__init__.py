"""What was learned, kept: which document an edit belongs to, and what was made of it."""
