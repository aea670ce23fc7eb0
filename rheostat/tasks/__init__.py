"""What is trained on: control environments, tabular worlds, language tasks."""
