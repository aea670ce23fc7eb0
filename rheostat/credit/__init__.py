"""WHAT IS IT WORTH? Returns, advantages, group statistics, verifiers: pure functions of tensors."""
