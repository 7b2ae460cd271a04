"""Slow: the translators learn what can be learnt perfectly, and the phrase book nearly so."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran

pytestmark = pytest.mark.slow

MODELS = {
    "nmt": ("model=nmt", "model.n_embd=32", "model.hidden_size=96", "model.dropout=0"),
    "transformer": (
        "model=transformer", "model.n_layer=2", "model.n_head=2", "model.n_embd=64", "model.ffn_size=128",
        "model.dropout=0",
    ),
}  # fmt: skip
MACHINE = ("device=cpu", "device.threads=1", "device.precision=fp32")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_copying_and_reversing_are_learnt_perfectly(
    task: str, model: str, run_main: Callable[..., Ran], tmp_path: Path
) -> None:
    """Strings of one to eight different letters that training never showed: every one is right."""
    draw = random.Random(1)
    strings: dict[str, None] = {}
    while len(strings) < 6000:
        strings["".join(draw.sample("abcdefghijkl", k=draw.randint(1, 8)))] = None
    step = 1 if task == "copy" else -1
    (tmp_path / "pairs.tsv").write_text("".join(f"{text}\t{text[::step]}\n" for text in strings))
    ran = run_main(
        "train", *MODELS[model], "data=parallel", "data.path=pairs.tsv", "tokenizer=char", *MACHINE,
        "data.batch_tokens=512", "optimizer.lr=3e-3", "trainer.max_steps=1500", "trainer.eval_every=500",
        "trainer.sample_tokens=0",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    ran = run_main("eval", *MACHINE)
    assert ran.code == 0, ran.err
    (folder,) = Path("outputs/eval").glob("*/*")
    written = (folder / "hypotheses.txt").read_text().splitlines()
    wanted = (folder / "references.txt").read_text().splitlines()
    assert len(wanted) == 600
    assert written == wanted


def test_the_phrase_book_is_learnt(run_main: Callable[..., Ran]) -> None:
    """The README's first translation run: above 95 BLEU on sentences that training never showed."""
    ran = run_main("train", "model=nmt", "data=phrasebook", "trainer.sample_tokens=0", *MACHINE)
    assert ran.code == 0, ran.err
    ran = run_main("eval", *MACHINE)
    result = json.loads(ran.out)
    assert result["translation"]["pairs"] == 1138
    assert result["metrics"]["test/bleu"] > 95
