"""The ladder, and whole experiments."""
