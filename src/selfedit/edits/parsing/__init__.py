"""How a model's text is read: lines, question-answer pairs, logged rounds."""
