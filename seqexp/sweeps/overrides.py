"""Overrides of a sweep's jobs: text and paths stay quoted when Hydra writes them anew."""

from collections.abc import Sequence

from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString

from seqexp.quoting import LITERAL_KEYS, PATH_KEYS


def keep_quotes(overrides: Sequence[Override]) -> list[Override]:
    """Quote the strings of ``choice('ü.txt','a b')`` again, where the key takes text or a path.

    Hydra drops the quotes of what stands in ``choice(...)``, and could not read the jobs' words without.
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
