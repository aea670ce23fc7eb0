"""Token engines: prompts in, completions with log-probabilities, finish reasons and weight versions out."""
