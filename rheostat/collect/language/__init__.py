"""WHO ACTS in language: groups of completions, hints, expert rows, token engines."""
