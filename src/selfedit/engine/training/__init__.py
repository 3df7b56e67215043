"""Training adapters: many inner loops at once, and losses of any kind on log-probabilities."""
