"""The frozen model: loading it, its texts as tokens, batches of sequences, and forward passes."""
