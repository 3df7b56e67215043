"""Models that a user brings or fetches: a catalogue, a folder of models by name, and the conversion of GGUF files."""
