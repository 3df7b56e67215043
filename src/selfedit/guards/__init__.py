"""Guards, one per file: what a round's new policy has to keep, or the round is rolled back."""
