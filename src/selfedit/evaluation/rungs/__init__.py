"""Ways of preparing a model that the ladder compares, one per file."""
