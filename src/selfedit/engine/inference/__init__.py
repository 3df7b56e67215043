"""Reading a model under adapters: answers, samples, constrained choices, and scores of given tokens."""
