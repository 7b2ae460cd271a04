"""Which way a metric is better, told from its name."""

HIGHER_IS_BETTER = ("accuracy", "bleu", "chrf", "exam/", "speed/")


def better_when(metric: str) -> str:
    """``max`` for metrics of which more is better, else ``min``."""
    return "max" if any(word in metric for word in HIGHER_IS_BETTER) else "min"
