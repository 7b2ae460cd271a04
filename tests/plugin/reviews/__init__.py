"""A plugin for the tests: text classification, written against the documented contracts alone."""

from pathlib import Path

from seqexp.registry import register


def plug_in() -> None:
    """What the entry point names."""
    conf = str(Path(__file__).with_name("conf"))
    register("data", "reviews", "reviews.data:Reviews", "reviews.options:ReviewsConfig", conf)
    register("model", "bag", "reviews.model:Bag", "reviews.options:BagConfig", conf)
    register("task", "sentiment", "reviews.task:Sentiment", "reviews.options:SentimentConfig", conf)
