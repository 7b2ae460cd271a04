"""Whatever is typed: success, or a message; never a traceback."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ran, make_pairs, write_pairs
from fuzz_helpers import examples, told_shortly
from hypothesis import given, settings
from hypothesis import strategies as st

from seqexp import registry
from seqexp.config.paths import conf_dir
from seqexp.config.root import EvalConfig, ExportConfig, GenerateConfig, TrainConfig
from seqexp.tracking.catalog import flatten

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = {"train": TrainConfig, "eval": EvalConfig, "generate": GenerateConfig, "export": ExportConfig}


def options() -> dict[str, list[str]]:
    """The groups of choices, such as ``model``, and their options."""
    found: dict[str, list[str]] = {}
    for file in sorted(conf_dir().glob("*/**/*.yaml")):
        group, _, option = file.relative_to(conf_dir()).with_suffix("").as_posix().partition("/")
        if group == "hydra":
            group, _, option = f"hydra/{option}".rpartition("/")
        found.setdefault(group, []).append(option)
    return found


def keys(schema: type, above: str = "") -> dict[str, Any]:
    """Every setting of a dataclass, such as ``model.n_layer``, those of all choices, and its default."""
    found: dict[str, Any] = {}
    for spec in fields(schema):
        key = f"{above}{spec.name}"
        found[key] = spec.default
        if spec.name in registry.ENTRIES and not above:
            for name in registry.ENTRIES[spec.name]:
                found |= keys(registry.load_schema(spec.name, name), f"{key}.")
        elif isinstance(spec.type, type) and is_dataclass(spec.type):
            found |= keys(spec.type, f"{key}.")
    return found


OPTIONS = options()
KEYS = {command: keys(schema) for command, schema in COMMANDS.items()}
HYDRA_KEYS = ["hydra.verbose", "hydra.job.name", "hydra.job.chdir", "hydra.mode", "hydra.output_subdir"]

ODD = (
    "", "0", "1", "-1", "2", "2.5", "1e-3", "1e400", "-0", "nan", "inf", "-inf", ".5", "1_000", "0x10", "007",
    "9" * 30, "9" * 400, "9" * 5000, str(2**63), str(-(2**63) - 1), "true", "False", "yes", "null", "None",
    "~", "???",
    "'???'", "2026-01-31", "12:30:00", "latest", "auto", "best", "val", "test", "''", '""', "'", '"', "'a",
    "\\",
    "a\\'b", "[]", "[1,2]", "[1", "]", "[[]]", "[a,null,1.5]", "{}", "{a:1}", "{a:{b:[1,2]}}", "{", "}",
    "(", "a,b",
    "1,2,3", ",", "${seed}", "${model}", "${model.n_layer}", "${nothing}", "${seed", "${}", "${${seed}}", "$",
    "${oc.env:HOME}", "${oc.env:NOT_THERE}", "${now:%Y}", "${run_name:x}", "${hydra:job.name}", "${a b}",
    "${.}",
    "${..seed}", "${oc.decode:'[1'}", "${oc.create:{a:1}}", "${name}", "é☃", "\u202e", "𝄞", "a b", " ",
    "\t", "\n",
    "a\nb", "\x1b[31m", "#", "a#b", "%", "@", "=", "a=b", "../up", "/", ".", "/dev/null", "~/x", "*", "**",
    "x" * 300,
    "!!python/object", "_target_", "int(1)", "str(1)", "choice(1)", "choice(1,2)", "range(1,3)",
    "interval(0,1)",
    "glob(*)", "sort(2,1)", "shuffle(1,2)", "tag(a,1)", "json_str('1')", "float(x)", "int(a)", "bool(maybe)",
    "cast(1)", "extend_list(1)", "append(1)", "char", "utf-8", "utf-16", "rot13", "idna", "punycode", "0.999",
)  # fmt: skip

WORDS = sorted(
    {option for names in OPTIONS.values() for option in names} | {"gpt", "cpu", "fp32", "base_gpt"}
)
LETTERS = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda text: "\0" not in text)
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from(WORDS),
    st.integers(-3, 300).map(str),
    st.floats().map(str),
    LETTERS,
    st.text("[]{}()'\"\\$,:=~+|%@ a1.-", max_size=6),
)


@st.composite
def typos(draw: st.DrawFn, word: str) -> str:
    """The word with a letter left out, doubled or put in."""
    at = draw(st.integers(0, max(0, len(word) - 1)))
    put = draw(
        st.sampled_from(["", "x", ".", "/", "@", "-", " ", word[at : at + 1] * 2, "é", "..", "_", ":"])
    )
    return word[:at] + put + word[at + 1 :]


def fitting(default: Any) -> st.SearchStrategy[str]:
    """Values of the right type, most of them in a range that makes sense."""
    if isinstance(default, bool):
        return st.sampled_from(["true", "false"])
    if isinstance(default, int):
        return st.integers(0, 300).map(str)
    if isinstance(default, float):
        return st.floats(0, 1).map(str)
    return st.sampled_from(["null", "x", "2", "0.5", "[1,2]", str(default)])


@st.composite
def overrides(draw: st.DrawFn, command: str) -> str:
    kind = draw(
        st.sampled_from(["setting"] * 4 + ["odd setting"] * 3 + ["choice"] * 3 + ["typo", "hydra", "package"])
    )
    if kind in ("choice", "package"):
        key = draw(st.sampled_from(sorted(OPTIONS)))
        value = draw(st.one_of(st.sampled_from(OPTIONS[key]), st.sampled_from(OPTIONS[key]), VALUES))
        if kind == "package":
            key += draw(st.sampled_from(["@x", "@_global_", "@", "/x", "@a.b"]))
    elif kind == "hydra":
        key, value = draw(st.sampled_from(HYDRA_KEYS)), draw(VALUES)
    else:
        key = draw(st.sampled_from(list(KEYS[command])))
        value = draw(fitting(KEYS[command][key]) if kind == "setting" else VALUES)
    if kind == "typo":
        key = draw(typos(key))
    sign = draw(st.sampled_from([""] * 24 + ["+", "++", "~", "+++", "-"]))
    equals = draw(st.sampled_from(["="] * 30 + ["", "=="]))
    return f"{sign}{key}{equals}{value if equals else ''}"


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command and up to four words, in a tenth of the lines for a sweep."""
    command = draw(st.sampled_from(["train", "train", "train", "eval", "generate", "export"]))
    flags = draw(st.sampled_from([[]] * 9 + [["-m"]]))
    return [command, *flags, *draw(st.lists(overrides(command), min_size=1, max_size=4))]


def test_the_keys_are_those_of_the_commands() -> None:
    assert {"model.n_layer", "tokenizer.vocab_size", "trainer.max_steps", "resume", "seed"} <= set(
        KEYS["train"]
    )
    assert {"generation.beam_size", "prompt", "device.threads"} <= set(KEYS["generate"])
    assert {"model", "experiment", "pair", "hydra/sweeper"} <= set(OPTIONS)
    assert "parity/clip" in OPTIONS["experiment"]


@pytest.fixture
def only_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands compose and check their configuration; the work itself is left out."""
    import seqexp.commands.eval
    import seqexp.commands.export
    import seqexp.commands.generate
    import seqexp.commands.train

    monkeypatch.setattr(seqexp.commands.train, "train", lambda config, job=None: None)
    monkeypatch.setattr(seqexp.commands.eval, "evaluate", lambda config: None)
    monkeypatch.setattr(seqexp.commands.generate, "generate", lambda config: None)
    monkeypatch.setattr(seqexp.commands.export, "export", lambda config: None)


@pytest.fixture
def run_here(tiny_run: Path) -> None:
    """A run that ``latest`` finds."""
    shutil.copytree(tiny_run, "outputs/train/tiny/one")


@pytest.mark.usefixtures("only_checked", "run_here")
@examples(30, 500)
def test_random_lines(run_main: Main, count: int) -> None:
    @settings(max_examples=count)
    @given(lines())
    def check(words: list[str]) -> None:
        told_shortly(words, run_main(*words))

    check()


# What would take long, or read from the network.
LARGE = re.compile(r"\d{4,}|e\+?\d|experiment|tatoeba|shakespeare|124m|course|resume|glob|range")
SIZES = re.compile(r"(_size|_len|n_\w+|_tokens|_sequences|_lengths|samples|beam_size|max_\w+)=.*\d\d")

# Commands of seconds.
WHOLE = (
    ("train", "debug=fast", "data=text", "data.path=book.txt", "data.seq_len=8", "model.n_layer=1",
     "model.n_embd=8"),
    ("train", "debug=fast", "data=parity", "model=rnn", "model.hidden_size=4", "data.seq_len=8",
     "data.eval_sequences=20"),
    ("train", "debug=fast", "data=parallel", "data.path=pairs.tsv", "tokenizer=word", "model.n_embd=8",
     "model.hidden_size=8"),
    ("eval", "run=latest"),
    ("generate", "run=latest", "generation.max_new_tokens=5"),
)  # fmt: skip
LAST = {"train": ["trainer.max_steps=1", "trainer.sample_tokens=5"], "eval": [], "generate": []}


def near(default: Any) -> st.SearchStrategy[str]:
    """Values like this one, most of which a command takes and is done in seconds."""
    if isinstance(default, bool):
        return st.sampled_from(["true", "false"])
    if isinstance(default, int):
        return st.integers(min(0, default), 2 * default + 2).map(str)
    if isinstance(default, float):
        return st.floats(0, 1).map(str)
    return st.sampled_from(["null", "null" if default is None else str(default)])


@st.composite
def whole_lines(draw: st.DrawFn, line: tuple[str, ...], composed: dict[str, Any]) -> list[str]:
    """The command with some of the settings that it is composed of changed."""
    command, *words = line

    def change(key: str) -> st.SearchStrategy[str]:
        return near(composed[key]).map(lambda value: f"{key}={value}")

    setting = st.sampled_from(sorted(composed)).flatmap(change)
    small = draw(st.sampled_from([setting, setting, setting, overrides(command)]))
    small = small.filter(lambda word: not LARGE.search(word) and not SIZES.search(word))
    words += draw(st.lists(small, min_size=1, max_size=3))
    return [command, *words, *LAST[command], "device=cpu", "device.threads=1"]


@pytest.mark.parametrize("line", WHOLE, ids=[" ".join(line[:3:2]) for line in WHOLE])
@examples(1, 10)
def test_random_whole_commands(
    run_main: Main, seqexp: Process, tiny_run: Path, book: Path, line: tuple[str, ...], count: int
) -> None:
    shutil.copy(book, "book.txt")
    write_pairs(Path("pairs.tsv"), make_pairs())
    shutil.copytree(tiny_run, "outputs/train/tiny/one")
    composed = flatten(yaml.safe_load(run_main(*line, "--cfg", "job").out))

    codes: Counter[int] = Counter()

    @settings(max_examples=count)
    @given(whole_lines(line, composed))
    def check(words: list[str]) -> None:
        shutil.rmtree("outputs")
        shutil.copytree(tiny_run, "outputs/train/tiny/one")
        done = seqexp(*words)
        codes[done.returncode] += 1
        told_shortly(words, Ran(done.returncode, done.stdout, done.stderr))

    check()
    assert count < 10 or codes[0] >= 2, codes
