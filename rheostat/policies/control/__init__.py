"""Networks and distributions of control policies."""
