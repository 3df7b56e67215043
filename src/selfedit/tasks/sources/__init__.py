"""Where contexts with their probes come from, one source per file."""
