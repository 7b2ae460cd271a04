"""Overrides of a sweep's jobs: keep text and paths quoted when Hydra formats them."""

from collections.abc import Sequence

from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString

from seqexp.quoting import LITERAL_KEYS, PATH_KEYS


def keep_quotes(overrides: Sequence[Override]) -> list[Override]:
    """Quote the strings of ``choice('ü.txt','a b')`` again if the key takes text or a path.

    Hydra drops the quotes inside ``choice(...)``, and could not parse the jobs' overrides without them.
    """
    for override in overrides:
        leaf = override.key_or_group.rpartition(".")[2]
        sweep = override.value() if override.is_choice_sweep() else None
        if isinstance(sweep, ChoiceSweep) and leaf in LITERAL_KEYS | PATH_KEYS:
            sweep.list = [
                QuotedString(value, Quote.single)
                if isinstance(value, str) and not (value == "null" and leaf in PATH_KEYS)
                else value
                for value in sweep.list
            ]
    return list(overrides)
