"""Text out of models: sampling, and whatever else works over `start`, `step` and `select`."""
