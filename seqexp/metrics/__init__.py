"""Metrics: scores and confidence intervals as pure functions, and the declaration of a metric."""
