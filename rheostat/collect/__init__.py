"""WHO ACTS? Collectors: stepping of environments, generation of tokens, behaviour policies."""
