"""Kinds of self-edits, one per file: the change that an edit makes."""
