"""How much of everything fits into the machine's memory at once, and how its results are made repeatable."""
