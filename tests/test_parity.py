"""The parity laboratory: data, losses, accuracies, the curriculum and its resume, eval and generate."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Ran
from hypothesis import given
from hypothesis import strategies as st
from small_trainer import evaluate_split, token_batch
from torch import Tensor

from seqexp.config.data import ParityDataConfig
from seqexp.config.task import ParityConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.parity import ParityData, running_parity
from seqexp.metrics.intervals import wilson
from seqexp.metrics.metric import Metric
from seqexp.tasks.parity import Parity, hits
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

Main = Callable[..., Ran]

# A run of a second: three units, short sequences, one thread.
QUICK = (
    "data=parity", "model=gru", "data.seq_len=6", "data.eval_sequences=50", "data.eval_lengths=[4,12]",
    "trainer.max_steps=20", "trainer.eval_every=10", "trainer.log_every=5",
    "device=cpu", "device.threads=1", "device.compile=false",
)  # fmt: skip


def make_data(seed: int = 1, **options: Any) -> ParityData:
    config = ParityDataConfig(name="parity", **{"seq_len": 8, "batch_size": 5, **options})
    return ParityData.build(config, TokenizerConfig("bits"), seed)


# Data


@given(st.lists(st.integers(0, 1), min_size=1, max_size=50))
def test_the_target_is_the_parity_of_the_sum(bits: list[int]) -> None:
    expected = [sum(bits[: t + 1]) % 2 for t in range(len(bits))]
    assert running_parity(np.array(bits)).tolist() == expected


def test_a_batch_depends_on_seed_step_and_length_alone() -> None:
    data = make_data()
    batches = [data.train_batch(step) for step in range(5)]
    again = make_data()
    for step in (4, 0, 3):
        assert torch.equal(again.train_batch(step).inputs, batches[step].inputs)
    assert not torch.equal(batches[0].inputs, batches[1].inputs)
    assert not torch.equal(make_data(seed=2).train_batch(0).inputs, batches[0].inputs)
    for _ in again.eval_batches("val"):
        pass
    assert torch.equal(again.train_batch(2).inputs, batches[2].inputs)


def test_bits_are_fair_and_targets_follow() -> None:
    data = make_data(seq_len=100, batch_size=100)
    batch = data.train_batch(0)
    assert batch.inputs.shape == batch.targets.shape == (100, 100)
    assert batch.count == 10_000
    assert abs(float(batch.inputs.float().mean()) - 0.5) < 4 * 0.5 / 100
    assert torch.equal(batch.targets, batch.inputs.cumsum(1) % 2)


def test_lengths_are_drawn_between_the_bounds() -> None:
    data = make_data(min_seq_len=3, batch_size=200)
    batch = data.train_batch(0)
    lengths = (batch.targets != IGNORE).sum(1)
    assert sorted(set(lengths.tolist())) == [3, 4, 5, 6, 7, 8]
    assert batch.count == int(lengths.sum())
    assert batch.padded
    for row, length in enumerate(lengths.tolist()):
        real, padding = batch.targets[row, :length], batch.targets[row, length:]
        assert torch.equal(real, batch.inputs[row, :length].cumsum(0) % 2)
        assert (padding == IGNORE).all()


def test_held_out_sequences_are_the_same_for_every_run() -> None:
    one, other = make_data(seed=1), make_data(seed=7, batch_size=3)
    assert np.array_equal(one.held_out("val", 40, 10), other.held_out("val", 40, 10))
    assert not np.array_equal(one.held_out("val", 40, 10), one.held_out("test", 40, 10))
    assert not np.array_equal(one.held_out("val", 40, 10)[:, :30], one.held_out("val", 30, 10))
    # Fewer are the first of more.
    assert np.array_equal(one.held_out("test", 40, 3), one.held_out("test", 40, 10)[:3])


def test_the_test_part_is_drawn_from_the_seed_of_eval() -> None:
    one, other = make_data(seed=1), make_data(seed=2)
    assert not np.array_equal(one.held_out("test", 40, 10), other.held_out("test", 40, 10))
    assert np.array_equal(one.held_out("test", 40, 10), make_data(seed=1).held_out("test", 40, 10))


def test_held_out_batches_are_all_sequences_once() -> None:
    data = make_data(seq_len=700, eval_sequences=300)
    rows = torch.cat([batch.inputs for batch in data.eval_batches("val")])
    assert torch.equal(rows, torch.from_numpy(data.held_out("val", 700, 300)))
    assert data.eval_count("val") == rows.numel()


def test_the_curriculum_grows_when_the_loss_is_under_the_threshold() -> None:
    data = make_data(seq_len=10, max_seq_len=25, grow_by=10, grow_below=0.1, grow_every=7)
    assert (data.review_every, data.eval_length) == (7, 25)
    assert data.review(0.1) is None
    assert data.review(math.nan) is None
    assert data.train_batch(3).inputs.shape == (5, 10)
    assert "up to 20 bits" in str(data.review(0.09))
    assert data.train_batch(3).inputs.shape == (5, 20)
    resumed = make_data(seq_len=10, max_seq_len=25)
    resumed.load_state(data.state())
    assert torch.equal(resumed.train_batch(3).inputs, data.train_batch(3).inputs)
    assert "up to 25 bits" in str(data.review(0.09))
    assert data.review_every is None
    assert data.review(0.0) is None
    assert make_data().review_every is None


# Losses and accuracies


class Fixed:
    """A model whose logits are given."""

    training = False

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.logits[: len(tokens), : tokens.shape[1], None]

    def eval(self) -> None: ...
    def train(self, mode: bool) -> None: ...


def padded_batch() -> Batch:
    """Three sequences of 4, 2 and 3 bits."""
    bits = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    return Batch.of_targets(bits, bits.cumsum(1) % 2, np.array([4, 2, 3]))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", ["bce", "mse"])
def test_the_loss_is_a_sum_by_hand(full: bool, kind: str) -> None:
    batch = padded_batch()
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected, count = 0.0, 0
    for row, length in enumerate((4, 2, 3)):
        for t in range(length) if full else [length - 1]:
            p = 1 / (1 + math.exp(-float(logits[row, t])))
            y = int(batch.inputs[row, : t + 1].sum()) % 2
            expected += -math.log(p if y else 1 - p) if kind == "bce" else (p - y) ** 2
            count += 1
    task = Parity(ParityConfig(full_supervision=full, loss=kind))
    output = task.loss(Fixed(logits), batch)
    assert task.count(batch) == count
    assert float(output.loss_sum) == float(output.nll_sum) == pytest.approx(expected, rel=1e-5)
    # Without padding another path is taken: the same as of rows with one more column, which does not count.
    whole = token_batch(batch.inputs, batch.inputs.cumsum(1) % 2)
    wider = Batch.of_targets(*(F.pad(t, (0, 1)) for t in (whole.inputs, whole.targets)), np.full(3, 4))
    assert (whole.padded, wider.padded) == (False, True)
    garbage = torch.cat((logits, torch.full((3, 1), 9.0)), dim=1)
    first = float(task.loss(Fixed(logits), whole).loss_sum)
    assert first == pytest.approx(float(task.loss(Fixed(garbage), wider).loss_sum), rel=1e-6)


def test_padding_changes_no_loss() -> None:
    task = Parity(ParityConfig())
    batch = padded_batch()
    torch.manual_seed(0)
    from seqexp.models.rnn import LSTM

    model = LSTM(2, 4, n_outputs=1)
    alone = 0.0
    for row, length in enumerate((4, 2, 3)):
        bits = batch.inputs[row : row + 1, :length]
        alone += task.loss(model, token_batch(bits, bits.cumsum(1) % 2)).loss_sum.item()
    assert task.loss(model, batch).loss_sum.item() == pytest.approx(alone, rel=1e-5)


def test_hits_by_hand() -> None:
    batch = padded_batch()
    # Right but for step 2 of the first row; what stands in the padding is wrong on purpose.
    truth = batch.inputs.cumsum(1) % 2
    logits = truth * 2.0 - 1
    logits[0, 1] *= -1
    logits[1, 2:] *= -1
    found = {name: float(value) for name, value in hits(logits, batch).items()}
    assert found == {
        "steps": 9, "sequences": 3, "right": 8, "last": 3, "whole": 2,
        "share": 2.75, "share_squared": 0.5625 + 2,
    }  # fmt: skip


class Oracle(torch.nn.Module):
    """Knows the parity; `wrong_from` is the step from which it says the opposite."""

    def __init__(self, wrong_from: int = 10**9) -> None:
        super().__init__()
        self.wrong_from = wrong_from

    def forward(self, tokens: Tensor) -> Tensor:
        logits = (tokens.cumsum(1) % 2) * 20.0 - 10
        logits[:, self.wrong_from :] *= -1
        return logits[..., None]


def judge(model: torch.nn.Module, data: ParityData) -> dict[str, Metric]:
    return evaluate_split(Parity(ParityConfig()), model, data, "val")


def test_an_oracle_a_liar_and_one_that_gives_up() -> None:
    data = make_data(seq_len=20, eval_sequences=40)
    perfect = judge(Oracle(), data)
    for name in ("accuracy", "last_accuracy", "sequence_accuracy"):
        metric = perfect[f"val/{name}"]
        assert (metric.value, metric.interval) == (1.0, pytest.approx((40 / (40 + 1.959964**2), 1.0)))
    assert perfect["val/accuracy"].count == 800
    assert perfect["val/last_accuracy"].count == 40
    assert perfect["val/loss"].value == pytest.approx(math.log1p(math.exp(-10)), rel=1e-2)  # fp32
    assert judge(Oracle(0), data)["val/accuracy"].value == 0
    half = judge(Oracle(15), data)
    assert half["val/accuracy"].value == 0.75
    assert half["val/sequence_accuracy"].value == half["val/last_accuracy"].value == 0


def test_last_step_training_still_measures_every_step() -> None:
    task = Parity(ParityConfig(full_supervision=False))
    data = make_data(seq_len=20, eval_sequences=40)
    found = evaluate_split(task, Oracle(15), data, "val")
    assert found["val/loss"].count == 40
    assert found["val/loss"].value == pytest.approx(10, rel=1e-3)
    assert found["val/accuracy"].value == 0.75


# Commands


def only(folder: Path) -> Path:
    (path,) = [path for path in folder.iterdir() if path.is_dir()]
    return path


@pytest.fixture
def run(run_main: Main) -> Path:
    ran = run_main("train", *QUICK, "name=quick")
    assert ran.code == 0, ran.err
    return only(Path("outputs/train/quick"))


def test_a_run_and_what_it_leaves(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert {"val/loss", "val/accuracy", "val/last_accuracy", "val/sequence_accuracy"} <= set(
        result["metrics"]
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/seq_len"] for row in rows if "train/loss" in row] == [6, 6, 6, 6]
    assert all(row["train/grad_norm"] > 0 for row in rows if "train/loss" in row)
    flow = [json.loads(line) for line in (run / "gradient_flow.jsonl").read_text().splitlines()]
    assert [(row["step"], len(row["h"])) for row in flow] == [(0, 6), (10, 6), (20, 6)]
    for row in flow:
        # The last step's own loss is what h_6 has of both; one is averaged over 6 times as many.
        assert row["h_last"][-1] == pytest.approx(6 * row["h"][-1], rel=1e-4)
    pictures = {file.stem for file in (run / "plots").glob("*.png")}
    assert pictures == {"loss", "gradient_flow", "hidden_states", "accuracy_by_length"}
    assert (run / "samples/step_00000010.txt").read_text().startswith("bits      ")
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={IMAGES: 0})
    events.Reload()
    assert set(events.Tags()["images"]) == pictures


def test_eval_judges_each_length(run_main: Main, run: Path) -> None:
    ran = run_main("eval", f"run={run}", "device=cpu")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert [row["length"] for row in result["rows"]] == [4, 6, 12]
    main_row = result["rows"][1]["metrics"]
    assert result["metrics"]["val/accuracy"] == main_row["accuracy"]["value"]
    assert result["metrics"]["val/loss"] == pytest.approx(
        json.loads((run / "result.json").read_text())["metrics"]["val/loss"]
    )
    for row in result["rows"]:
        cell = row["metrics"]["sequence_accuracy"]
        assert cell["count"] == 50
        assert cell["interval"] == pytest.approx(list(wilson(round(cell["value"] * 50), 50)))
        assert row["metrics"]["accuracy"]["count"] == 50 * row["length"]
    assert (only(Path("outputs/eval/quick")) / "plots/accuracy_by_length.png").is_file()

    fresh = run_main(
        "eval", f"run={run}", "split=test", "data.lengths=[9]", "data.sequences=70", "device=cpu"
    )
    result = json.loads(fresh.out)
    (row,) = result["rows"]
    assert (row["length"], row["metrics"]["last_accuracy"]["count"]) == (9, 70)
    assert result["metrics"] == {}  # of the length that the run was trained for nothing is known


def test_generate_reads_bits(run_main: Main, run: Path) -> None:
    ran = run_main("generate", f"run={run}", "prompt=0110 1", "device=cpu")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[:2] == ["bits      01101", "truth     01001"]
    assert lines[2].startswith("predicted ")
    assert set(lines[2].split()[1]) <= {"0", "1"}
    wrong = [a != b for a, b in zip(lines[1][10:], lines[2][10:], strict=True)]
    assert f"{5 - sum(wrong)} of 5 steps right" in ran.out
    if any(wrong):
        assert lines[3] == ("wrong     " + "".join("^" if w else " " for w in wrong)).rstrip()
    picture = only(Path("outputs/generate/quick")) / "plots/hidden_states_001.png"
    assert f"hidden states: {picture.absolute()}" in ran.err
    assert picture.is_file()

    Path("two.txt").write_text("01\n\n111\n")
    two = run_main("generate", f"run={run}", "input=two.txt", "device=cpu")
    assert [line.split()[1] for line in two.out.splitlines() if line.startswith("truth")] == ["01", "101"]
    drawn = run_main("generate", f"run={run}", "device=cpu", "generation.num_samples=2")
    assert drawn.out.count("bits ") == 2
    Path("blank.txt").write_text("\n \n")
    for words in (("prompt= ",), ("input=blank.txt",)):
        blank = run_main("generate", f"run={run}", *words)
        assert (blank.code, "there are no bits to read" in blank.err) == (2, True)
    Path("two.txt").write_text("01\n0120\n")
    wrong = run_main("generate", f"run={run}", "input=two.txt")
    assert (wrong.code, "line 2: '2' at position 3 is not a bit" in wrong.err) == (2, True)


def test_a_transformer_takes_the_same_lab(run_main: Main) -> None:
    words = [*QUICK, "model=gpt", "model.n_layer=1", "model.n_embd=8", "model.n_head=2", "model.max_len=10"]
    ran = run_main("train", *words, "name=gpt")
    assert ran.code == 0, ran.err
    judged = run_main("eval", "run=latest", "device=cpu")
    result = json.loads(judged.out)
    assert [row["length"] for row in result["rows"]] == [4, 6]
    assert result["skipped"] == ["not judged: lengths 12; the model's window is 10"]
    assert "not judged: lengths 12" in judged.err
    refused = run_main("eval", "run=latest", "data.lengths=[11]")
    assert refused.code == 2
    assert "nothing is left to judge" in refused.err
    written = run_main("generate", "run=latest", "device=cpu")
    assert len(written.out.splitlines()[0].split()[1]) == 10
    refused = run_main("generate", "run=latest", "prompt=01010101010")
    assert (refused.code, "line 1 has 11 bits, and the model's window is 10" in refused.err) == (2, True)


def test_the_command_line_wins_over_the_data_set(run_main: Main) -> None:
    ran = run_main(
        "train", "data=parity", "model=lstm", "optimizer=adam", "model.hidden_size=5", "--cfg", "job"
    )
    assert "hidden_size: 5" in ran.out
    assert "name: adam" in ran.out
    default = run_main("train", "data=parity", "model=rnn", "--cfg", "job").out
    for line in ("name: rmsprop", "lr: 0.01", "decay: 0.9", "eps: 1.0e-05", "name: constant", "name: bits"):
        assert line in default, line


def test_a_sweep_over_models_takes_settings_that_the_default_has_not(run_main: Main) -> None:
    """Hydra composes first without what is swept over: there, the model is gpt, which has no hidden_size."""
    words = [word for word in QUICK if not word.startswith("model=")]
    ran = run_main(
        "train",
        "-m",
        "model=rnn,lstm",
        "model.hidden_size=4",
        *words,
        "data.min_seq_len=null",
        "trainer.max_steps=2",
        "sweep.name=s",
    )
    assert ran.code == 0, ran.err
    configs = [(path / "config.yaml").read_text() for path in Path("outputs/sweeps/s").glob("*_*/")]
    assert len(configs) == 2
    assert all("hidden_size: 4" in config for config in configs)
    assert Path("outputs/sweeps/s/compare/curves.png").is_file()
    assert "curves of all jobs" in ran.err


def test_after_the_curriculum_has_grown_the_best_begins_anew(run_main: Main) -> None:
    """Every step grows: the best is the last, whatever the loss; without growth it is the lowest."""
    words = [word for word in QUICK if not word.startswith(("data.seq_len", "trainer.eval"))]
    growing = ["data.seq_len=2", "data.max_seq_len=60", "data.grow_below=9", "data.grow_every=1"]
    growing += ["data.grow_by=1", "trainer.eval_every=1"]
    assert run_main("train", *words, *growing, "name=growing").code == 0
    best = json.loads((only(Path("outputs/train/growing")) / "checkpoints/index.json").read_text())["best"]
    assert (best["step"], best["stage"]) == (20, {"length": 22})


def test_pictures_that_fail_lose_nothing(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqexp.tracking import plots

    for failure in (RuntimeError("no fonts"), KeyboardInterrupt()):

        def fail(*arguments: object, failure: BaseException = failure) -> None:
            raise failure

        monkeypatch.setattr(plots, "loss_figure", fail)
        ran = run_main("train", *QUICK, "name=bare")
        assert ran.code == 0
        assert "pictures are missing" in ran.err
        run = max(Path("outputs/train/bare").iterdir())
        assert json.loads((run / "status.json").read_text())["status"] == "finished"
        assert (run / "result.json").is_file()


@pytest.mark.slow
def test_lengths_that_vary_with_a_loss_at_every_step_in_pieces(run_main: Main) -> None:
    """A batch in three pieces gives the same losses as whole, for both kinds of supervision."""
    for full in ("true", "false"):
        losses = []
        for pieces in (1, 3):
            name = f"{full}{pieces}"
            words = ("data.min_seq_len=1", f"task.full_supervision={full}", f"trainer.accumulate={pieces}")
            assert run_main("train", *QUICK, *words, f"name={name}").code == 0
            rows = (only(Path("outputs/train", name)) / "metrics.jsonl").read_text().splitlines()
            losses.append([row["val/loss"] for row in map(json.loads, rows) if "val/loss" in row])
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "length", "rnn_vs_lstm_vs_gru"])
def test_the_experiments_that_are_sweeps(run_main: Main, name: str) -> None:
    """Every job of the file, for one step each, without typing -m."""
    ran = run_main(
        "train", f"experiment=parity/{name}", "trainer.max_steps=1", "data.eval_sequences=2", "sweep.name=s",
        "device=cpu", "device.threads=1",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    jobs = list(Path("outputs/sweeps/s").glob("*_*/"))
    assert len(jobs) == {"clip": 25, "length": 25, "rnn_vs_lstm_vs_gru": 30}[name]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data.seq_len=0",), "data.seq_len=0 is out of range; it must be at least 1."),
        (("model.hidden_size=0",), "model.hidden_size=0 is out of range; it must be at least 1."),
        (("data.min_seq_len=9",), "data.min_seq_len=9 is above data.seq_len=6"),
        (("data.max_seq_len=5",), "data.max_seq_len=5 is below data.seq_len=6"),
        (
            ("task=language_modeling",),
            "task=language_modeling reads text, and data=parity gives bits; use task=parity, or data=text",
        ),
        (("tokenizer=char",), "tokenizer=char cannot read data=parity, which gives bits; use tokenizer=bits"),
        (("task.loss=hinge",), "task.loss=hinge is not known; it must be one of bce, mse."),
        (("model=rnn", "model.activation=elu"), "it must be one of tanh, relu, sigmoid."),
        (("model.impl=torch",), "it must be one of fused, reference."),
        (("model.init=zeros",), "it must be one of uniform, orthogonal, identity."),
        (("model.dropout=0.5",), "model.dropout=0.5 applies between layers, and there is one layer"),
        (("data.eval_lengths=[0]",), "data.eval_lengths=0 is out of range"),
        (("model=gpt", "model.max_len=5"), "model.max_len=5 is shorter than data.seq_len=6"),
        (("model=gpt", "model.max_len=6", "data.max_seq_len=9"), "is shorter than data.max_seq_len=9"),
    ],
)
def test_mistakes(run_main: Main, words: tuple[str, ...], told: str) -> None:
    ran = run_main("train", *QUICK, *words)
    assert ran.code == 2
    assert told in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not Path("outputs").exists()


def test_text_is_no_parity(run_main: Main, book: Path) -> None:
    ran = run_main("train", "data=text", f"data.path={book}", "task=parity")
    assert (ran.code, "use task=language_modeling" in ran.err) == (2, True)
    ran = run_main("train", "data=text", f"data.path={book}", "tokenizer=bits")
    assert (ran.code, "tokenizer=bits cannot read data=text" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("generate", "prompt=0120"), "'2' at position 3 is not a bit; write the sequence in 0 and 1"),
        (
            ("eval", "data.path=x.txt"),
            "data.path=: the data of this run has no such setting",
        ),
        (("eval", "data.lengths=[0]"), "data.lengths=0 is out of range"),
        (("eval", "data.lengths=30"), "data.lengths=30 must be a list; write data.lengths=[30]."),
        (("eval", "data.lengths=[5001]", "data.sequences=10000"), "and the limit is 50,000,000"),
        (("eval", "data.sequences=0"), "data.sequences=0 is out of range"),
        (("eval", "split=train"), "split=train does not exist; choose from val, test"),
    ],
)
def test_mistakes_with_a_run(run_main: Main, run: Path, words: tuple[str, ...], told: str) -> None:
    ran = run_main(words[0], f"run={run}", *words[1:])
    assert ran.code == 2
    assert told in ran.err.splitlines()[-1]


def test_eval_of_text_has_no_lengths(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("eval", f"run={tiny_run}", "data.lengths=[10]")
    assert (
        ran.code,
        "data.lengths=: the data of this run has no such setting; use data.path=" in ran.err,
    ) == (2, True)


def test_a_resumed_curriculum_is_the_same_to_the_bit(run_main: Main) -> None:
    """40 steps, and 20 + 20, stopped in the middle of a review's window: the same losses and weights."""
    words = [word for word in QUICK if not word.startswith(("trainer.", "data.seq_len"))]
    words += [
        "data.seq_len=2", "data.min_seq_len=1", "data.max_seq_len=12", "data.grow_by=1",
        "data.grow_below=0.7", "data.grow_every=7", "trainer.log_every=1", "trainer.eval_every=10",
    ]  # fmt: skip
    assert run_main("train", *words, "trainer.max_steps=40", "name=whole").code == 0
    assert run_main("train", *words, "trainer.max_steps=20", "name=parts").code == 0
    parts = only(Path("outputs/train/parts"))
    ran = run_main("train", f"resume={parts}", "trainer.max_steps=40")
    assert ran.code == 0, ran.err
    whole = only(Path("outputs/train/whole"))

    def logged(run: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        timed = ("speed/", "memory/")
        return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in rows]

    assert logged(parts) == logged(whole)
    lengths = [row["train/seq_len"] for row in logged(whole) if "train/seq_len" in row]
    assert lengths[0] == 2
    assert lengths[19] < lengths[-1]
    assert (parts / "gradient_flow.jsonl").read_text() == (whole / "gradient_flow.jsonl").read_text()
    states = [Checkpoints(RunFolder(run)).load("40") for run in (parts, whole)]
    assert states[0]["data"] == states[1]["data"]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_full_supervision_is_learnt(run_main: Main, model: str) -> None:
    """Fresh sequences of 100 bits and of 200, all right."""
    ran = run_main("train", "experiment=parity/full_supervision", f"model={model}", "device.threads=1")
    assert ran.code == 0, ran.err
    ran = run_main("eval", "run=latest", "split=test", "data.lengths=[100,200]", "data.sequences=1000")
    for row in json.loads(ran.out)["rows"]:
        assert row["metrics"]["sequence_accuracy"]["value"] == 1.0
