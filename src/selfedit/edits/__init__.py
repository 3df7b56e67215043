"""How a policy's output becomes an update."""
