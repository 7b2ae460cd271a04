"""Predictions come from a task alone: nothing is printed, no folder is made, and `generate` uses them."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, TINY_NMT, Ran, _main, _stand_clean, make_pairs, write_pairs

from seqexp.commands.build import TrainedRun, build_task, load_trained_run
from seqexp.config.run import DeviceConfig, GenerationConfig
from seqexp.data.parallel import ParallelData
from seqexp.decoding.translation import BATCH_ROWS
from seqexp.tasks.base import Prediction, PredictOptions, Sample, Task
from seqexp.tasks.translation import Translation
from seqexp.tracking.run_folder import RunFolder

Main = Callable[..., Ran]
PARITY = (
    "model=rnn", "data=parity", "data.seq_len=8", "data.eval_sequences=20", "device=cpu", "device.threads=1",
    "trainer.max_steps=2", "trainer.sample_tokens=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def parity_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    place = tmp_path_factory.mktemp("parity_run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        ran = _main("train", *PARITY, "name=tiny")
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs" / "train" / "tiny").iterdir()
    return folder


RUNS = ("tiny_run", "nmt_run", "parity_run")
# Of each run an input, another, and the key that they are typed under.
INPUTS = {
    "tiny_run": ("The old", "She", "prompt"),
    "nmt_run": (make_pairs()[0][0], "", "text"),
    "parity_run": ("0110100", "1", "prompt"),
}
OPTIONS = PredictOptions(GenerationConfig(max_new_tokens=5, beam_size=2))


def loaded(folder: Path) -> tuple[Task, TrainedRun]:
    trained = load_trained_run(
        RunFolder(folder), "best", DeviceConfig(name="cpu", precision="fp32", threads=1)
    )
    return build_task(trained.config.task), trained


def plainly_in_training(model: torch.nn.Module) -> bool:
    """Whether someone who trains meanwhile would notice nothing."""
    return torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not model.training


@pytest.mark.parametrize("name", RUNS)
def test_predict_prints_nothing_and_writes_nothing(
    name: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task, trained = loaded(request.getfixturevalue(name))
    first, second, _ = INPUTS[name]
    capfd.readouterr()
    found = []
    for prediction in task.predict(trained.model, trained.preprocessor, [first, second], OPTIONS):
        assert plainly_in_training(trained.model)
        found.append(prediction)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    final = {prediction.index: prediction for prediction in found if prediction.final}
    assert final.keys() == {0, 1}
    assert all(isinstance(one, Prediction) and one.texts and one.values for one in final.values())
    # Alone as together.
    *_, alone = task.predict(trained.model, trained.preprocessor, [first], OPTIONS)
    assert alone.texts == final[0].texts


@pytest.mark.parametrize("name", RUNS)
def test_predict_works_when_asked(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hands out one prediction has not worked on the next."""
    task, trained = loaded(request.getfixturevalue(name))
    first, _, _ = INPUTS[name]
    calls: list[int] = []
    method = "forward" if name == "parity_run" else "step"
    original = getattr(trained.model, method)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(trained.model, method, counted)
    many = [first] * (BATCH_ROWS + 1 if name == "nmt_run" else 2)
    predictions = task.predict(trained.model, trained.preprocessor, many, OPTIONS)
    assert isinstance(predictions, Iterator)
    assert not calls
    next(one for one in predictions if one.final)
    early = len(calls)
    assert sum(one.final for one in predictions) == len(many) - 1
    assert 0 < early < len(calls)


@pytest.mark.parametrize("name", RUNS)
def test_the_command_line_prints_what_the_task_predicts(
    name: str, request: pytest.FixtureRequest, run_main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(name)
    task, _ = loaded(folder)
    _, _, key = INPUTS[name]
    given: list[list[str]] = []

    def predict(self: Task, model: Any, preprocessor: Any, inputs: list[str], options: Any) -> Any:
        given.append(list(inputs))
        return iter([Prediction(0, ("from the task",), {"said": "so"})])

    monkeypatch.setattr(type(task), "predict", predict)
    ran = run_main("generate", f"run={folder}", f"{key}=1", "device=cpu", "device.threads=1")
    assert (ran.code, ran.out) == (0, "from the task\n"), ran.err
    assert given == [["1"]]
    (file,) = Path().glob("outputs/generate/tiny/*/predictions.jsonl")
    assert file.read_text() == '{"said": "so"}\n'


@pytest.mark.parametrize(("name", "wrong"), [("tiny_run", "€"), ("parity_run", "012"), ("parity_run", "")])
def test_what_cannot_be_read_is_said_at_the_call(
    name: str, wrong: str, request: pytest.FixtureRequest
) -> None:
    from seqexp.errors import UserError

    task, trained = loaded(request.getfixturevalue(name))
    with pytest.raises(UserError):
        task.predict(trained.model, trained.preprocessor, [wrong], OPTIONS)


@pytest.mark.parametrize("attention", ["dot", "none"])
def test_a_translator_never_returns_nothing(run_main: Main, attention: str) -> None:
    """A prediction for each input, blank ones too, and a sample from data without any option set."""
    write_pairs(Path("pairs.tsv"), make_pairs())
    words = () if attention == "dot" else ("model.attention=none", "model.input_feeding=false")
    ran = run_main("train", *TINY_NMT, "data.path=pairs.tsv", "trainer.max_steps=0", *words)
    assert ran.code == 0, ran.err
    (folder,) = Path("outputs/train").glob("*/*")
    task, trained = loaded(folder)
    inputs = ["", "I am cold .", "  ", "Zebulon\u2028?", "a " * 700]
    found = list(task.predict(trained.model, trained.preprocessor, inputs, OPTIONS))
    assert sorted(one.index for one in found) == list(range(len(inputs)))
    assert all(isinstance(one.text, str) and one.final for one in found)
    data = ParallelData.build(
        trained.config.data, trained.config.tokenizer, seed=1, preprocessor=trained.preprocessor
    )
    sample = task.sample(trained.model, data, PredictOptions())
    assert isinstance(sample, Sample)
    assert sample.text.count("translation ") == 5
    assert bool(sample.figures) == (attention == "dot")
    assert not hasattr(Translation, "generate")


# What the user is advised to type next

STRANGE = """Où? "it's" $HOME `x` ~ !y \\ é; 鬼 (a=b)"""


def strange_lines(n: int) -> list[str]:
    """All of them unusual, wherever a split is cut."""
    return [f"{STRANGE[number % 20 :]} {STRANGE} nº {number}" for number in range(n)]


def advice(ran: Ran) -> list[str]:
    """The commands that training ends with."""
    assert ran.code == 0, ran.err
    (line,) = re.findall(r"next {4}(seqexp eval run=latest)   or   (.*)\Z", ran.err.rstrip("\n"), re.S)
    return list(line)


def in_a_shell(command: str) -> "subprocess.CompletedProcess[str]":
    """As printed, where `seqexp` is installed."""
    program = f'seqexp() {{ {sys.executable} -m seqexp "$@"; }}\nset -u\n{command}\n'
    return subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


@pytest.mark.parametrize(
    "family",
    ["text", *(pytest.param(name, marks=pytest.mark.slow) for name in ("text that is new", "pairs", "bits"))],
)
def test_the_advice_is_tried(run_main: Main, family: str) -> None:
    """With quotes, dollars, backslashes and letters outside ASCII in all of the text."""
    if family.startswith("text"):
        lines = strange_lines(150)
        if family == "text that is new":  # the validation text begins with letters that training never showed
            lines[-20:] = [f"ЖЖ {line} Ж" for line in lines[-20:]]
        Path("b.txt").write_text("\n".join(lines), encoding="utf-8")
        words = ("data=text", "data.path=b.txt", *TINY, "trainer.sample_tokens=0")
    elif family == "pairs":
        lines = strange_lines(60)
        write_pairs(Path("b.tsv"), [(line, line.upper()) for line in lines])
        words = (*TINY_NMT, "data.path=b.tsv", "trainer.sample_tokens=0")
    else:
        words = PARITY
    ran = run_main("train", *words, "trainer.max_steps=1", "generation.max_new_tokens=5")
    evaluate, generate = advice(ran)
    key = "text" if family == "pairs" else "prompt"
    assert generate.startswith(f"seqexp generate run=latest {key}=")
    if family != "bits":
        assert set(generate) & set("$`\"'鬼\\")
    for command in (evaluate, generate):
        done = in_a_shell(command)
        assert done.returncode == 0, done.stderr
        assert done.stdout
