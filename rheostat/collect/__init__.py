"""WHO ACTS? Vector-environment stepping, token generation, behaviour policies."""
