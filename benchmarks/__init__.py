"""Measurements that a reader can repeat: `python -m benchmarks.inner_loop --json FILE`."""
