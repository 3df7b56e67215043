"""What calls an answer right, one metric per file."""
