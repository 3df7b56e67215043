"""The embedded world: controlled English about fictional entities, and the base trained on it."""
