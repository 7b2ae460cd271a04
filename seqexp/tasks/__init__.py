"""Losses, metrics and decoding, one file a task."""
