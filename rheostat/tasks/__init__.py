"""What is trained on: control environments, tabular MDPs, language tasks."""
