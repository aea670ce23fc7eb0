"""Golden runs: small runs of every method whose numbers a change of structure must not move. See ``README.md`` beside this file."""
