"""Recurrent language models whose state goes on from batch to batch (truncated back-propagation)."""

import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran
from small_trainer import evaluate_split
from torch.nn import functional as F

from seqexp.config.data import TextDataConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.batch import IGNORE
from seqexp.data.text import TextData
from seqexp.models.rnn import GRU, LSTM
from seqexp.tasks.carried import CarriedState
from seqexp.tasks.language_modeling import LanguageModeling

Main = Callable[..., Ran]

WORDS = (
    "model=gru", "model.hidden_size=16", "data.carry_state=true", "data.seq_len=16", "data.batch_size=4",
    "trainer.eval_every=10", "trainer.log_every=1", "trainer.sample_tokens=20",
    "device=cpu", "device.threads=1", "device.compile=false",
)  # fmt: skip


def make_data(book: Path, **options: Any) -> TextData:
    config = TextDataConfig(name="text", path=str(book), carry_state=True, **options)
    return TextData.build(config, TokenizerConfig("char"), seed=1)


def whole_part(data: TextData) -> torch.Tensor:
    """All tokens of the validation part, (1, N)."""
    part = data.splits["val"]
    return torch.from_numpy(part.windows(np.zeros(1, dtype=np.int64), part.tokens))


def test_each_row_goes_on_where_it_ended(book: Path) -> None:
    data = make_data(book, seq_len=50, batch_size=3)
    steps = int(data.steps_per_epoch)
    assert steps == (27_000 - 50) // 50 // 3
    batches = [data.train_batch(step) for step in range(steps + 2)]
    assert [batch.continues for batch in batches] == [False] + [True] * (steps - 1) + [False, True]
    for before, after in itertools.pairwise(batches[:steps]):
        # The last target of a row is the first input of the same row in the next batch.
        assert torch.equal(before.targets[:, -1], after.inputs[:, 0])
    assert torch.equal(batches[0].targets[:, :-1], batches[0].inputs[:, 1:])
    # Another epoch cuts the text elsewhere.
    assert not torch.equal(batches[0].inputs, batches[steps].inputs)


@pytest.mark.parametrize(("seq_len", "batch_size"), [(50, 3), (64, 1), (999, 8)])
def test_validation_reads_every_target_once(book: Path, seq_len: int, batch_size: int) -> None:
    data = make_data(book, seq_len=seq_len, batch_size=batch_size)
    rows: dict[int, list[int]] = {}
    for number, batch in enumerate(data.eval_batches("val")):
        assert batch.continues == (number > 0)
        for row, targets in enumerate(batch.targets):
            rows.setdefault(row, []).extend(targets[targets != IGNORE].tolist())
    read = [token for row in sorted(rows) for token in rows[row]]
    assert (
        read
        == data.splits["val"]
        .windows(torch.zeros(1).long().numpy(), data.splits["val"].tokens)[0, 1:]
        .tolist()
    )


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_windows_with_carried_state_are_one_long_sequence(book: Path, kind: Any) -> None:
    """With one row, the loss of a split is that of a single forward pass over all of it."""
    data = make_data(book, seq_len=37, batch_size=1)
    torch.manual_seed(0)
    model = kind(data.tokenizer.vocab_size, 12, n_layer=2)
    task = LanguageModeling(LanguageModelingConfig())
    found = evaluate_split(task, model, data, "val")
    tokens = whole_part(data)
    with torch.inference_mode():
        logits = model(tokens[:, :-1])[0]
    assert found["val/loss"].value == pytest.approx(float(F.cross_entropy(logits, tokens[0, 1:])), rel=1e-5)
    without = replace(data.config, carry_state=False)
    cold = TextData.build(without, None, 1, data.preprocessor)
    other = evaluate_split(task, model, cold, "val")
    assert not math.isclose(other["val/loss"].value, found["val/loss"].value, rel_tol=1e-5)


def test_gradients_end_at_the_border(book: Path) -> None:
    data = make_data(book, seq_len=10, batch_size=2)
    model = GRU(data.tokenizer.vocab_size, 8)
    carried = CarriedState(model)
    for step in (0, 1):
        batch = data.train_batch(step)
        carried.begin(batch)
        carried(batch.inputs).sum().backward()  # would fail on the second pass through a freed graph
        assert carried.state is not None
        assert not carried.state[0].requires_grad
    carried.begin(data.train_batch(0))
    assert carried.state is None


def test_a_resumed_run_carries_on(run_main: Main, book: Path) -> None:
    """Stopped in the middle of an epoch, with its state in the checkpoint: the same losses to the bit."""
    words = ("train", "data=text", f"data.path={book}", *WORDS)
    assert run_main(*words, "trainer.max_steps=20", "name=whole", "scheduler=constant").code == 0
    assert run_main(*words, "trainer.max_steps=10", "name=parts", "scheduler=constant").code == 0
    ran = run_main("train", "resume=latest", "trainer.max_steps=20")
    assert ran.code == 0, ran.err
    losses = []
    for name in ("whole", "parts"):
        (run,) = Path("outputs/train", name).iterdir()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([(row["step"], row.get("train/loss"), row.get("val/loss")) for row in rows])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 22


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_a_recurrent_language_model_writes(run_main: Main, book: Path, model: str) -> None:
    words = [word for word in WORDS if not word.startswith(("model=", "data.carry"))]
    ran = run_main(
        "train", "data=text", f"data.path={book}", f"model={model}", *words, "trainer.max_steps=10"
    )
    assert ran.code == 0, ran.err
    judged = json.loads(run_main("eval", "run=latest", "device=cpu").out)
    assert 0 < judged["metrics"]["val/bits_per_char"] < 8
    written = run_main("generate", "run=latest", "prompt=The ", "generation.max_new_tokens=30", "device=cpu")
    assert written.out.startswith("The ")
    assert len(written.out) > 10


def test_mistakes(run_main: Main, book: Path) -> None:
    words = ("train", "data=text", f"data.path={book}", "data.carry_state=true", "debug=fast")
    ran = run_main(*words, "model=gpt")
    assert ran.code == 2
    assert "data.carry_state=true needs a model that carries a state" in ran.err.splitlines()[-1]
    ran = run_main(*words, "model=rnn", "data.batch_size=2000")
    assert (ran.code, "too few for 2000 rows" in ran.err) == (2, True)
    ran = run_main(*words, "model=rnn", "trainer.accumulate=2")
    assert (ran.code, "needs trainer.accumulate=1" in ran.err) == (2, True)


def test_a_saved_configuration_that_carries_what_is_not_there(run_main: Main, tiny_run: Path) -> None:
    """The run is a GPT; a stranger changed its configuration."""
    shutil.copytree(tiny_run, "run")
    text = Path("run/config.yaml").read_text(encoding="utf-8")
    Path("run/config.yaml").write_text(
        text.replace("carry_state: false", "carry_state: true"), encoding="utf-8"
    )
    ran = run_main("eval", "run=run", "device=cpu")
    assert ran.code == 2
    assert "data.carry_state=true needs a model that carries a state" in ran.err.splitlines()[-1]
