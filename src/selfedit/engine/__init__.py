"""Models and adapters: a frozen base, K adapters trained and asked at once beside it."""
