"""The ladder, the base's card, and whole experiments."""
