"""Where contexts and their probes come from."""
