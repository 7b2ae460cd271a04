"""Measures of quality as pure functions, and what a measured number carries."""
