"""The exact laboratory: identities as properties of random processes, and refusals."""
