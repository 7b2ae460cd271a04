"""Score translations against references: over all pairs, by source length, and for unseen targets."""

import math
from collections.abc import Collection
from typing import Any

from seqexp.metrics.bleu import ORDER, corpus_scores, reference_lengths

Pair = tuple[str, str]

# Length of the source in words: from, to (None: unlimited).
LENGTH_BUCKETS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, None))


def judge_translations(
    pairs: list[Pair],
    hypotheses: list[str],
    seen_targets: Collection[str] | None,
    nll: list[float],
    tokens: list[int],
    bleu_tokenizer: str = "13a",
) -> dict[str, Any]:
    """BLEU, chrF and TER with their signatures; the same by length, and of unseen targets.

    By length of the source there are BLEU, loss and perplexity, of targets unseen in training BLEU.
    BLEU is None for a group none of whose references has a 4-gram.
    Every pair counts once, with one reference. `seen_targets` are the target sentences of training; None
    where they are not known. `nll` is the negative log-likelihood of each pair's target in nats, over so many
    `tokens`.
    """
    references = [target for _, target in pairs]
    scores = corpus_scores(hypotheses, references, tokenizer=bleu_tokenizer)
    words = reference_lengths(references, bleu_tokenizer)

    def of(chosen: list[int]) -> dict[str, Any]:
        some = [hypotheses[i] for i in chosen], [references[i] for i in chosen]
        bleu = corpus_scores(*some, names=["bleu"], tokenizer=bleu_tokenizer)["bleu"].value
        return {"pairs": len(chosen), "bleu": bleu if max(words[i] for i in chosen) >= ORDER else None}

    report: dict[str, Any] = {
        "pairs": len(pairs),
        "sources": len({source for source, _ in pairs}),
        "scores": {name: {"value": s.value, "signature": s.signature} for name, s in scores.items()},
        "by_length": [],
    }
    lengths = [len(source.split()) for source, _ in pairs]
    for low, high in LENGTH_BUCKETS:
        chosen = [i for i, n in enumerate(lengths) if n >= low and (high is None or n <= high)]
        if chosen:
            label = f"{low}–{high}" if high else f"{low}+"
            loss = sum(nll[i] for i in chosen) / sum(tokens[i] for i in chosen)
            row = {"words": label, **of(chosen), "loss": loss}
            report["by_length"].append({**row, "perplexity": math.exp(min(loss, 700))})
    if seen_targets is not None:
        unseen = [i for i, target in enumerate(references) if target not in seen_targets]
        report["unseen_targets"] = of(unseen) if unseen else {"pairs": 0}
    return report
