"""Self-adapting language models: a model writes its own training data, learns from it, and learns to write better."""
