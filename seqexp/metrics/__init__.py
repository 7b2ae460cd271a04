"""Measures of quality, as pure functions of predictions and references, and what a measured number carries."""
