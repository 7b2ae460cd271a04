"""A command-line laboratory for sequence models."""
