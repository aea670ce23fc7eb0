"""Networks: control actors and critics, language policies."""
