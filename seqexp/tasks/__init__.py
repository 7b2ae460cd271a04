"""Tasks: losses, metrics and predictions, one file per task."""
