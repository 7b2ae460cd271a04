"""The door: help, flags, free text, short errors, exit codes, Ctrl-C and tab completion."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, Ran
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seqexp import registry
from seqexp.quoting import quote_free_text

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]

SENTENCE = "Don't go, (he said): Où?"


def only_run(name: str) -> Path:
    """The one training run of this name under the current folder."""
    (folder,) = Path("outputs/train", name).iterdir()
    return folder


def status_of(run: Path) -> dict[str, str]:
    return dict(json.loads((run / "status.json").read_text()))


# Help and flags


def test_help_imports_nothing_heavy() -> None:
    """The claim of 0.3 s, without a clock: what costs time is not imported."""
    program = (
        "import sys\n"
        "from seqexp.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'yaml', 'matplotlib', 'tqdm', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert all(
        word in done.stdout
        for word in ("train", "eval", "generate", "export", "runs", "compare", "report", "--version")
    )


def test_composing_a_configuration_does_not_import_torch() -> None:
    program = (
        "import sys\n"
        "from seqexp.cli import main\n"
        "assert main(['train', '--cfg', 'job']) == 0\n"
        "assert main(['train', 'model.dropout=2']) == 2\n"
        "print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_version_from_the_module(seqexp: Process) -> None:
    done = seqexp("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "seqexp"
    assert done.stdout.split()[1][0].isdigit()


def test_no_words_show_the_help(run_main: Main) -> None:
    assert run_main().out == run_main("--help").out != ""


@pytest.mark.parametrize("command", ["train", "eval", "generate"])
def test_help_of_a_command(run_main: Main, command: str) -> None:
    ran = run_main(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"seqexp {command}" in ran.out
    assert "base_" not in ran.out
    assert "seed: 1" in ran.out
    if command == "train":
        assert "gpt, gpt2_124m, gpt_course" in ran.out


def test_cfg_job_prints_yaml_and_makes_nothing(run_main: Main) -> None:
    ran = run_main("train", "model=gpt_course", "data.seq_len=99", "--cfg", "job")
    assert ran.code == 0
    printed = yaml.safe_load(ran.out)
    assert printed["model"]["n_embd"] == 384
    assert printed["data"]["seq_len"] == 99
    assert "hydra" not in printed
    assert not any(Path.cwd().iterdir())


def test_cfg_job_of_a_generation(run_main: Main) -> None:
    printed = yaml.safe_load(run_main("generate", f"prompt={SENTENCE}", "name=x", "--cfg", "job").out)
    assert printed["prompt"] == SENTENCE


def test_info_tells_where_options_are_found(run_main: Main) -> None:
    ran = run_main("train", "--info", "searchpath")
    assert ran.code == 0
    assert "conf" in ran.out + ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "train", "seed=1,2"),
        ("train", "-m", "seed=1,2"),
        ("train", "name=x", "-m", "seed=1,2"),
        ("train", "seed=1,2", "--multirun"),
    ],
)
def test_multirun_anywhere_on_the_line(run_main: Main, book: Path, words: tuple[str, ...]) -> None:
    # No steps: each job judges its untrained model.
    rest = (*TINY, "trainer.max_steps=0", "trainer.sample_tokens=0", "sweep.name=s")
    ran = run_main(*words, "data=text", f"data.path={book}", *rest)
    assert ran.code == 0, ran.err
    jobs = sorted(Path("outputs/sweeps/s").glob("*_*/"))
    assert [job.name.partition("_")[0] for job in jobs if job.is_dir()] == ["0", "1"]
    seeds = [yaml.safe_load((job / "config.yaml").read_text())["seed"] for job in jobs if job.is_dir()]
    assert seeds == [1, 2]


def test_config_dir_adds_an_option(run_main: Main, tmp_path: Path) -> None:
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/narrow.yaml").write_text("defaults: [base_gpt]\nn_embd: 24\n")
    for words in (
        ("--config-dir", "mine", "model=narrow"),
        ("model=narrow", "--config-dir", "mine"),
        ("--config-dir=mine", "model=narrow"),
    ):
        ran = run_main("train", *words, "--cfg", "job")
        assert ran.code == 0, ran.err
        assert yaml.safe_load(ran.out)["model"]["n_embd"] == 24
    ran = run_main("train", "--config-dir", "mine", "model=narow")
    assert ran.code == 2
    assert "Did you mean 'narrow'?" in ran.err


# Free text

FREE_TEXT = st.text(
    st.one_of(
        st.sampled_from("'\"\\${},:()[]=#~@|& \t\n"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=30,
)
NASTY = (
    "'",
    "\\",
    "\\'",
    "\\\\${a}",
    "${oc.env:HOME}",
    "a,b",
    "[1",
    "a=b",
    "null ",
    "1e3",
    " x ",
    "a\nb",
    "",
)


def read_back(word: str, key: str) -> object:
    """What a configuration holds after Hydra and OmegaConf have read this word."""
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == key
    config = OmegaConf.create()
    OmegaConf.update(config, key, override.value(), merge=True)
    return OmegaConf.select(config, key)


@pytest.mark.parametrize("key", ["prompt", "data.path", "name", "generation.stop"])
@given(text=FREE_TEXT)
def test_free_text_survives(key: str, text: str) -> None:
    for word in (text, *NASTY):
        assert read_back(quote_free_text(f"{key}={word}"), key) == word


@given(text=FREE_TEXT)
@example(text=SENTENCE)
@example(text="a,b")
def test_free_text_survives_a_sweep(text: str) -> None:
    """The sweeper writes each job's words anew, and they are read a second time."""
    parser = OverridesParser.create()
    words = parser.parse_overrides([quote_free_text(f"prompt={text}"), "seed=1,2"])
    jobs = BasicSweeper.split_arguments(words, None)[0]
    assert len(jobs) == 2
    for job in jobs:
        assert read_back(job[0], "prompt") == text


def test_null_is_a_word_in_text_and_nothing_in_a_path() -> None:
    assert read_back(quote_free_text("prompt=null"), "prompt") == "null"
    assert read_back(quote_free_text("data.path=null"), "data.path") is None


def test_other_keys_keep_the_grammar_of_hydra() -> None:
    assert quote_free_text("optimizer.betas=[0.9,0.95]") == "optimizer.betas=[0.9,0.95]"
    assert quote_free_text("model=gpt,lstm") == "model=gpt,lstm"


def test_prompt_with_everything_in_it(run_main: Main, tiny_run: Path) -> None:
    ran = run_main(
        "generate",
        f"run={tiny_run}",
        f"prompt={SENTENCE}",
        "generation.max_new_tokens=12",
        "device.threads=1",
    )
    assert ran.code == 0, ran.err
    assert ran.out.startswith(SENTENCE)
    assert ran.out.endswith("\n")
    (folder,) = Path("outputs/generate").glob("*/*")
    assert yaml.safe_load((folder / "config.yaml").read_text())["prompt"] == SENTENCE


def test_a_prompt_that_looks_like_an_interpolation(run_main: Main, tiny_run: Path) -> None:
    prompt = "A = [b], ${c} \\"
    ran = run_main(
        "generate", f"run={tiny_run}", f"prompt={prompt}", "generation.max_new_tokens=3", "device.threads=1"
    )
    assert ran.code == 0, ran.err
    assert ran.out.startswith(prompt)


@pytest.mark.parametrize("folder", ["it's = [a], {b} $x\\", "cost ${y}"])
def test_a_path_with_everything_in_it(run_main: Main, book: Path, folder: str) -> None:
    """Through training, evaluation, generation and resume, each of which reads it from somewhere else."""
    place = Path(folder)
    place.mkdir()
    file = place / "bo,ok=1.txt"
    shutil.copy(book, file)
    ran = run_main("train", "data=text", f"data.path={file}", "name=odd", *TINY, "trainer.max_steps=2")
    assert ran.code == 0, ran.err
    shutil.move("outputs", place / "outputs")
    (run,) = (place / "outputs/train/odd").iterdir()
    for words in (
        ("eval", f"run={run}"),
        ("eval", f"run={run}", f"data.path={file}"),
        ("train", f"resume={run}", "trainer.max_steps=3"),
        ("generate", f"run={run}", "generation.max_new_tokens=3", f"output={place}/o,ut.txt"),
    ):
        ran = run_main(*words, *(["device.threads=1"] if words[0] != "train" else []))
        assert ran.code == 0, (words, ran.err)
    assert (place / "o,ut.txt").is_file()
    assert status_of(run)["status"] == "finished"
    ran = run_main("train", f"resume={run}", "trainer.max_steps=4")
    assert ran.code == 0, ran.err
    assert "from step 3" in ran.err


# Mistakes


def refused(ran: Ran) -> str:
    """The message of a user's mistake: one short last line, no traceback, nothing on stdout."""
    assert ran.code == 2, (ran.code, ran.err[-2000:])
    assert ran.out == ""
    assert "Traceback" not in ran.err
    line = ran.err.splitlines()[-1]
    assert ": error: " in line
    assert len(line) < 400
    return line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("trian", ["'trian'", "train, eval, generate", "Did you mean 'train'?"]),
        ("train model=gtp", ["model=gtp", "gpt, gpt2_124m, gpt_course", "Did you mean 'gpt'?"]),
        ("train modle=gpt", ["modle", "model, task", "Did you mean 'model'?"]),
        (
            "train data=poter",
            ["data=poter", "parity, phrasebook, potter, shakespeare", "'potter'"],
        ),
        ("train experiment=potter/corse", ["potter/corse", "Did you mean 'potter/course'?"]),
        ("train debug=fats", ["debug=fats", "'fast'"]),
        ("train model.n_layr=3", ["model.n_layr", "n_head", "Did you mean 'model.n_layer'?"]),
        ("train optimizer.nesterov=true", ["optimizer.nesterov", "betas"]),
        ("train +model.foo=1", ["model.foo", "n_layer"]),
        ("train nmae=x", ["nmae", "Did you mean 'name'?"]),
        ("train model.n_layer=abc", ["model.n_layer=abc", "whole number"]),
        ("train model.n_layer=2.5", ["model.n_layer=2.5", "whole number"]),
        ("train model.n_layer=", ["model.n_layer=", "whole number"]),
        ("train optimizer.lr=fast", ["optimizer.lr=fast", "a number"]),
        ("train model.bias=maybe", ["model.bias=maybe", "true or false"]),
        ("train model.dropout=1.5", ["model.dropout=1.5", "at least 0", "below 1"]),
        ("train model.dropout=nan", ["model.dropout=nan", "at least 0"]),
        ("train optimizer.lr=0", ["optimizer.lr=0", "above 0"]),
        ("train model.n_layer=0", ["model.n_layer=0", "at least 1"]),
        ("train seed=-1", ["seed=-1", "0 to"]),
        (
            "train model.positions=rotray",
            ["model.positions=rotray", "learned, sinusoidal, rotary", "'rotary'"],
        ),
        ("train device.compile=perhaps", ["device.compile=perhaps", "auto, true, false"]),
        ("train model.n_embd=130 model.n_head=4", ["model.n_embd=130", "model.n_head=4", "132"]),
        ("train model.max_len=4", ["model.max_len=4", "data.seq_len=128"]),
        ("train scheduler.min_lr=1", ["scheduler.min_lr=1.0", "optimizer.lr=0.0"]),
        ("train optimizer.betas=[0.9]", ["optimizer.betas", "two numbers"]),
        ("train data.split=thirds", ["data.split=thirds", "contiguous, per_file"]),
        ("train data.encoding=klingon", ["data.encoding=klingon", "latin-1"]),
        ("train data=text", ["data.path", "a file, a folder"]),
        ("train data.stand_in=false", ["data.path=", "$SEQEXP_DATA/potter/*.txt", "./data/potter/*.txt"]),
        ("train data=text data.path=nowhere.txt", ["nowhere.txt", "no such file"]),
        ("train name=../up", ["name='../up'", "letters, digits"]),
        ("train seed", ["'seed'", "key=value"]),
        ("train model.n_layer=[1", ["model.n_layer=[1", "key=value"]),
        ("train seed=1,2", ["seed=1,2", "multirun"]),
        ("train model=3", ["model=3", "gpt, gpt2_124m, gpt_course"]),
        ("train model=null", ["model", "gpt, gpt2_124m, gpt_course"]),
        ("train data=[1,2]", ["data=[1,2]", "parallel, parity"]),
        ("train ~sweep=3", ["~sweep=3", "grid, optuna"]),
        ("train hydra.verbose=39", ["hydra.verbose=39", "leave it out"]),
        (f"train optimizer.lr={'9' * 400}", ["too large to convert"]),
        ("train model.name=lstm", ["model.name=lstm", "write model=lstm"]),
        ("train model=rnn model.name=gru", ["model.name=gru", "write model=gru"]),
        ("train optimizer.name=sgd", ["optimizer.name=sgd", "write optimizer=sgd"]),
        ("train model.n_layer=1001", ["model.n_layer=1001", "at most 1000"]),
        ("train data.batch_size=10000000000", ["data.batch_size=10000000000", "at most 1000000000"]),
        ("train --config-dir nowhere", ["nowhere", "not found"]),
        ("train --experimental-rerun x", ["--experimental-rerun", "pickle"]),
        ("train resume=nowhere", ["resume=nowhere", "no such folder", "latest"]),
        ("train resume=latest", ["resume=latest", "seqexp train"]),
        ("train resume=latest -m", ["resume=", "-m"]),
        ("eval run=nowhere", ["run=nowhere", "no such folder", "run=latest"]),
        ("eval run=.", ["run=.", "not a training run", "config.yaml"]),
        ("eval", ["run=latest", "no training run", "seqexp train"]),
        ("generate run=nowhere", ["run=nowhere", "no such folder"]),
        ("generate name=x prompt=a input=b", ["prompt=", "input="]),
        ("generate name=x generation.top_p=0", ["generation.top_p=0", "above 0"]),
    ],
)
def test_a_mistake_is_one_short_message(run_main: Main, words: str, told: list[str]) -> None:
    line = refused(run_main(*words.split(" ")))
    assert [part for part in told if part not in line] == [], line


@pytest.mark.parametrize(
    "words",
    [
        "train data=text data.path=X", "train data=parallel data.path=X", "train resume=X",
        "eval run=X name=a", "generate run=X", "generate name=a output=X", "runs show X", "compare X",
        "report X",
    ],
)  # fmt: skip
def test_a_path_that_cannot_be(run_main: Main, words: str) -> None:
    line = refused(run_main(*words.replace("X", "x" * 260).split()))
    assert "too long" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        ValueError(
            "array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size."
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_a_short_failure(
    run_main: Main, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("seqexp.commands.train.train", fail)
    ran = run_main("train")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    last = ran.err.splitlines()[-1]
    assert last.startswith("seqexp train: failed: there is not enough memory")
    assert "lower data.batch_size" in last


def test_mistakes_leave_no_run_behind(run_main: Main) -> None:
    refused(run_main("train", "model.dropout=1.5"))
    refused(run_main("train", "model=gtp"))
    assert not Path("outputs").exists()


def test_a_device_that_is_not_there(run_main: Main, book: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    line = refused(run_main("train", "data=text", f"data.path={book}", *TINY, "device=cuda"))
    assert "device=cuda" in line
    assert "cpu" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\x7fELF\0\0" * 500, "NUL bytes"),
        (b"Too short for a window.", "too short"),
    ],
)
def test_files_that_cannot_be_learned_from(run_main: Main, content: bytes, told: str) -> None:
    Path("corpus.txt").write_bytes(content)
    line = refused(run_main("train", "data=text", "data.path=corpus.txt", *TINY, "data.seq_len=64"))
    assert told in line
    if told == "too short":
        assert "data.seq_len=64" in line
    else:
        assert "corpus.txt" in line


def test_a_file_that_cannot_be_read(run_main: Main) -> None:
    file = Path("closed.txt")
    file.write_text("nobody may read this " * 100)
    file.chmod(0)
    if os.access(file, os.R_OK):  # root reads everything; reading this one is an error for root too
        file = Path("/proc/self/mem")
        if not file.exists():
            pytest.skip("everything can be read by this user, and there is no /proc")
    line = refused(run_main("train", "data=text", f"data.path={file}", *TINY))
    assert str(file) in line
    assert "cannot be read" in line


def test_mistakes_with_a_run_that_is_there(run_main: Main, tiny_run: Path) -> None:
    line = refused(run_main("generate", f"run={tiny_run}", "prompt=Ω and ☃"))
    assert "'Ω'" in line
    assert "'☃'" in line
    assert "tokenizer=byte" in line
    line = refused(run_main("eval", f"run={tiny_run}", "checkpoint=99"))
    assert "checkpoint=99" in line
    assert "best" in line
    line = refused(run_main("eval", f"run={tiny_run}", "split=test"))
    assert "split=test" in line
    assert "train, val" in line
    line = refused(run_main("generate", f"run={tiny_run}", "output=no/such/folder.txt"))
    assert "no/such/folder.txt" in line
    line = refused(run_main("generate", f"run={tiny_run}", "input=nowhere.txt"))
    assert "input=nowhere.txt" in line
    line = refused(run_main("train", f"resume={tiny_run}", "model.n_layer=3"))
    assert "model.n_layer=3" in line


def test_exit_code_and_streams_of_a_real_process(seqexp: Process) -> None:
    done = seqexp("train", "model=gtp")
    refused(Ran(done.returncode, done.stdout, done.stderr))
    assert len(done.stderr.splitlines()) == 1


BROKEN = """
from torch import nn

class Broken(nn.Module):
    def __init__(self, vocab_size, **options):
        super().__init__()
        self.weight = nn.Linear(1, 1)

    def forward(self, tokens):
        return 1 / 0
"""


def test_a_bug_keeps_its_traceback(
    run_main: Main, tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_model.py").write_text(BROKEN)
    (tmp_path / "extra/model").mkdir(parents=True)
    (tmp_path / "extra/model/broken.yaml").write_text("defaults: [base_broken]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = registry.Entry("broken_model:Broken", "seqexp.models.gpt_options:GPTConfig")
    monkeypatch.setitem(registry.ENTRIES["model"], "broken", entry)
    ran = run_main(
        "train", "--config-dir", "extra", "data=text", f"data.path={book}", "debug=fast", "model=broken",
        "device.threads=1", "name=broken",
    )  # fmt: skip
    assert ran.code == 1
    assert ran.err.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "broken_model.py" in ran.err
    status = status_of(only_run("broken"))
    assert status["status"] == "failed"
    assert "ZeroDivisionError" in status["error"]


def test_other_jobs_go_on_after_one_has_failed(run_main: Main, book: Path) -> None:
    ran = run_main(
        "train", "-m", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=0",
        "trainer.sample_tokens=0", "model.n_head=2,3,4", "sweep.name=s",
    )  # fmt: skip
    assert ran.code == 1
    assert "model.n_embd=32 is not a multiple of model.n_head=3" in ran.err.splitlines()[-1]
    assert len(list(Path("outputs/sweeps/s").glob("*/result.json"))) == 2


def test_a_loss_that_is_not_finite(run_main: Main, book: Path) -> None:
    ran = run_main(
        "train", "data=text", f"data.path={book}", *TINY, "optimizer=sgd", "optimizer.lr=1e30",
        "scheduler=constant", "trainer.max_grad_norm=0", "trainer.eval_every=1", "name=wild",
    )  # fmt: skip
    assert ran.code == 1
    line = ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert "not finite at step " in line
    assert "last good checkpoint" in line
    assert "optimizer.lr" in line
    status = status_of(only_run("wild"))
    assert status["status"] == "failed"
    assert "not finite" in status["error"]


# Ctrl-C


def read_until(process: subprocess.Popen[str], wanted: str, seconds: float = 60) -> list[str]:
    """Lines of the process's standard error up to one that begins with `wanted`."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    seen: list[str] = []
    end = time.monotonic() + seconds
    while not seen or not seen[-1].startswith(wanted):
        line = lines.get(timeout=max(0.1, end - time.monotonic()))
        assert line is not None, f"the process ended too early: {''.join(seen)}"
        seen.append(line)
    return seen


def test_control_c_keeps_what_is_finished(run_main: Main, book: Path) -> None:
    words = ["train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=1000000"]
    words += ["trainer.eval_every=1000000", "trainer.log_every=1", "name=stopped"]
    process = subprocess.Popen(
        [sys.executable, "-m", "seqexp", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        read_until(process, "step ")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.wait()
    assert process.stdout is not None
    assert process.stdout.read() == ""
    run = only_run("stopped")
    assert status_of(run)["status"] == "interrupted"
    index = json.loads((run / "checkpoints/index.json").read_text())
    step = index["last"]["step"]
    assert step >= 10
    state = torch.load(run / "checkpoints" / index["last"]["file"], weights_only=True)
    assert state["step"] == step

    ran = run_main("train", f"resume={run}", f"trainer.max_steps={step + 2}")
    assert ran.code == 0, ran.err
    assert f"from step {step}" in ran.err
    assert status_of(run)["status"] == "finished"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == list(range(1, step + 3))


# Tab completion

TOKENIZERS = ("bare_word", "bits", "bpe", "byte", "char", "sentencepiece", "whitespace", "word", "wordpiece")
BERT_SIZES = ("tiny", "mini", "small", "medium", "base", "lab3_small", "modern")


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("seqexp ", {"train", "eval", "generate", "export", "runs", "compare", "report"}),
        ("seqexp tr", {"train"}),
        (
            "seqexp train model=",
            {
                "model=gpt",
                "model=gpt2_124m",
                "model=gpt_course",
                "model=rnn",
                "model=lstm",
                "model=lstm_tagger",
                "model=gru",
                "model=nmt",
                "model=transformer",
                "model=transformer_encoder",
                "model=birnn",
                "model=textcnn",
                "model=fasttext_bag",
                "model=word2vec",
                "model=fasttext",
                "model=bert",
                "model=electra",
                *(f"model=bert_{size}" for size in BERT_SIZES),
                "model=glove",
            },
        ),
        ("seqexp train model=gpt_", {"model=gpt_course"}),
        ("seqexp train model.n_", {"model.n_embd=", "model.n_head=", "model.n_layer="}),
        (
            "seqexp train model=gpt tokenizer=",
            {f"tokenizer={name}" for name in TOKENIZERS},
        ),
        ("seqexp generate generation.top_", {"generation.top_k=", "generation.top_p="}),
        ("seqexp train base_", set()),
        ("seqexp trian model=", set()),
    ],
)
def test_completion(run_main: Main, monkeypatch: pytest.MonkeyPatch, line: str, answers: set[str]) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    ran = run_main("-sc", "query=bash")
    assert (ran.code, ran.err) == (0, "")
    assert set(ran.out.split()) == answers


def test_completion_of_a_first_setting(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "seqexp train ")
    answers = set(run_main("-sc", "query=bash").out.split())
    assert {"model=", "model.", "data=", "optimizer=", "seed="} <= answers
    assert not [answer for answer in answers if "base_" in answer]


def with_seqexp_on_path() -> dict[str, str]:
    """An environment in which a shell finds this very seqexp."""
    folder = Path("bin").absolute()
    folder.mkdir()
    script = folder / "seqexp"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m seqexp "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_completion_inside_bash() -> None:
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    program = """
        eval "$(seqexp -sc install=bash)"
        function=$(complete -p seqexp | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        complete_line() {
            COMP_LINE="$1" COMP_POINT=${#1}
            COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            $function; echo "${COMPREPLY[@]}"
        }
        complete_line "seqexp ge"
        complete_line "seqexp train model=gpt"
        complete_line "seqexp train model.n_l"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        env=with_seqexp_on_path(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "generate",
        "model=gpt model=gpt2_124m model=gpt_course",
        "model.n_layer=",
    ], done.stderr


def test_completion_inside_fish() -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    program = """
        seqexp -sc install=fish | source
        complete -C "seqexp ge"
        complete -C "seqexp train model=gpt_"
    """
    done = subprocess.run(
        ["fish", "--no-config", "-c", program],
        env=with_seqexp_on_path(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["generate", "model=gpt_course"], done.stderr


def test_completion_inside_zsh() -> None:
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    # Hydra's zsh support is its bash function behind bashcompinit.
    program = """
        autoload -Uz compinit bashcompinit && compinit -u && bashcompinit
        eval "$(seqexp -sc install=bash)"
        (( $+functions[hydra_bash_completion] )) && echo defined
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", program],
        env=with_seqexp_on_path(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["defined"], done.stderr
