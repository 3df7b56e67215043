"""Learned weights kept together: what a merge may cost, which passage a question belongs to, consolidation."""
