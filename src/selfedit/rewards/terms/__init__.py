"""Terms of a reward, beside the metrics, one per file."""
