"""The machine that every method is composed for: models, parts, updates, stages, the dial."""
