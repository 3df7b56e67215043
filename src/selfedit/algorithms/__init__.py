"""Algorithms that turn a round's edits and outcomes into a better policy, one per file."""
