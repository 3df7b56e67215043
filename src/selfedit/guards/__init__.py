"""Gates and monitors: what a new policy has to keep."""
