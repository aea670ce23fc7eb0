"""WHAT IS IT WORTH? Returns, advantages, group statistics: pure functions of tensors, and annotations made of them; verifiers."""
