"""Whatever lies in a file: success, or a message; never a traceback."""

import base64
import bz2
import copy
import gzip
import hashlib
import io
import json
import lzma
import math
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, Ran, _main, make_book, make_pairs
from fuzz_helpers import examples, told_shortly
from hypothesis import given, settings
from hypothesis import strategies as st

from seqexp import registry
from seqexp.commands.build import load_trained_run
from seqexp.config.data import ParallelDataConfig, TextDataConfig
from seqexp.config.run import DeviceConfig
from seqexp.config.tokenizer import SentencePieceConfig, WordConfig
from seqexp.data.parallel import ParallelData
from seqexp.data.text import TextData
from seqexp.errors import UserError
from seqexp.tokenizers.base import tokenizer_from_plain
from seqexp.tokenizers.sentencepiece import SentencePieceTokenizer
from seqexp.tracking.run_folder import find_run
from seqexp.training.checkpoint import Checkpoints

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, float, int, bytes]]:
    """What is done to a file's bytes: how, where (as a share of its length), to how many, with what."""
    kinds = st.sampled_from(["flip", "put", "replace", "cut", "double", "swap", "end", "extend"])
    news = st.one_of(
        st.binary(min_size=1, max_size=12),
        st.sampled_from(
            [b"\0", b"\0" * 64, b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\x80",
            b"\r", b"\n",
             b"\t", b"\r\n", b"\x1a", b"\x7f" * 8, b"\xff" * 8, b"PK\x03\x04", b"-1", b"9" * 40,
             b"[" * 2000, b"nan",
             b"1e999", b"null", b"&a [*a]",
             b"!!python/object/apply:os.mkdir [executed]", b"${seed}", b"\xe2\x80\xa8"]
        ),
    )  # fmt: skip
    one = st.tuples(kinds, st.floats(0, 1), st.sampled_from([1, 1, 2, 4, 8, 100, 5000]), news)
    return draw(st.lists(one, min_size=1, max_size=4))


def changed(data: bytes, how: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, share, length, new in how:
        at = int(share * len(data))
        before, part, after = data[:at], data[at : at + length], data[at + length :]
        if kind == "flip" and part:
            data = before + bytes([part[0] ^ (1 << new[0] % 8)]) + part[1:] + after
        elif kind == "put":
            data = before + new + part + after
        elif kind == "replace":
            data = before + new[: len(part)] + part[len(new) :] + after
        elif kind == "cut":
            data = before + after
        elif kind == "double":
            data = before + part * 2 + after
        elif kind == "swap":
            data = before + after[:length] + part + after[length:]
        elif kind == "end":
            data = before
        elif kind == "extend":
            data += new * length
    return data


def or_refused(work: Callable[[], Any]) -> bool:
    """Whether it succeeded; False: it was refused with a message."""
    try:
        work()
    except UserError:
        return False
    return True


# Corpora


def learn_text(file: Path, tokenizer: str, encoding: str | None) -> None:
    config = TextDataConfig(name="text", path=str(file), encoding=encoding, seq_len=8, batch_size=2)
    options = registry.load_schema("tokenizer", tokenizer)(name=tokenizer)
    if tokenizer == "sentencepiece":
        options = SentencePieceConfig(vocab_size=320)
    data = TextData.build(config, options, seed=1)
    data.train_batch(0)
    for split in data.splits:
        for batch in data.eval_batches(split):
            assert batch.inputs.max() < data.tokenizer.vocab_size
    data.describe()


ENCODINGS = (
    None,
    None,
    None,
    "utf-8",
    "latin-1",
    "utf-16",
    "utf-32-le",
    "cp1252",
    "ascii",
    "utf-7",
    "shift_jis",
    "idna",
)
TEXT = "".join(make_book(1500))


@examples(100, 1000)
def test_changed_texts(count: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(
        changes(),
        st.sampled_from(["char", "byte", "word", "word", "sentencepiece"]),
        st.sampled_from(ENCODINGS),
        st.sampled_from(["utf-8", "utf-8", "utf-16", "cp1252"]),
        st.sampled_from([bytes, bytes, gzip.compress, bz2.compress, lzma.compress]),
    )
    def check(how: Any, tokenizer: str, encoding: str | None, written: str, pack: Any) -> None:
        file = Path("text.txt")
        file.write_bytes(changed(pack(TEXT.encode(written, errors="replace")), how))
        outcomes[or_refused(lambda: learn_text(file, tokenizer, encoding))] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes


def learn_pairs(file: Path, other: Path | None, tokenizer: str, encoding: str | None) -> None:
    where = {"source_path": str(file), "target_path": str(other)} if other else {"path": str(file)}
    config = ParallelDataConfig(name="parallel", encoding=encoding, **where)  # type: ignore[arg-type]
    options = (
        WordConfig() if tokenizer == "word" else registry.load_schema("tokenizer", tokenizer)(name=tokenizer)
    )
    data = ParallelData.build(config, options, seed=1)
    data.train_batch(0)
    for split in data.splits:
        list(data.eval_batches(split))
    data.describe()


def pair_files() -> dict[str, bytes]:
    """Sixty pairs as a file with tabs, as that packed in every way, and as two files."""
    pairs = make_pairs()[:60]
    found = {"pairs.tsv": "".join(f"{source}\t{target}\n" for source, target in pairs).encode()}
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", kind) as archive:
            archive.writestr("_about.txt", "Sentences.")
            archive.writestr("pairs.txt", found["pairs.tsv"])
        found[f"pairs{kind}.zip"] = packed.getvalue()
    for pack in (gzip, bz2, lzma):
        found[f"pairs.{pack.__name__}"] = pack.compress(found["pairs.tsv"])
    found["source.txt"], found["target.txt"] = (
        "".join(f"{pair[side]}\n" for pair in pairs).encode() for side in (0, 1)
    )
    return found


PAIR_FILES = pair_files()


@examples(100, 1000)
def test_changed_pairs(count: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(
        changes(),
        st.sampled_from([*PAIR_FILES][:-1]),
        st.sampled_from(["word", "char"]),
        st.sampled_from(ENCODINGS),
    )
    def check(how: Any, name: str, tokenizer: str, encoding: str | None) -> None:
        file, other = Path(name), None
        if name == "source.txt":
            other = Path("target.txt")
            other.write_bytes(PAIR_FILES["target.txt"])
        file.write_bytes(changed(PAIR_FILES[name], how))
        outcomes[or_refused(lambda: learn_pairs(file, other, tokenizer, encoding))] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes


# Tokenizers


def use(tokenizer: Any) -> None:
    for text in ("Don't go, (he said): Où?\n", "", " ", "☃ ▁x\0", "ａ½ﬁ"):
        ids = tokenizer.encode(text).tolist()
        assert all(number < tokenizer.vocab_size for number in ids)
        tokenizer.decode(ids)
        tokenizer.join(tokenizer.pieces(text))
        tokenizer.unknown_characters(text)
    tokenizer.decode(range(tokenizer.vocab_size))
    tokenizer.hash()


@pytest.fixture(scope="module")
def pieces() -> dict[str, bytes]:
    """A SentencePiece model of each kind."""
    made = {}
    for kind, size in (("bpe", 400), ("unigram", 360)):
        config = SentencePieceConfig(model_type=kind, vocab_size=size)
        made[kind] = SentencePieceTokenizer.fit(config, [make_book()]).model
    return made


@examples(100, 1000)
def test_changed_sentencepiece_models(pieces: dict[str, bytes], count: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(changes(), st.sampled_from(["bpe", "unigram"]))
    def check(how: Any, kind: str) -> None:
        state = {"model": base64.b64encode(changed(pieces[kind], how)).decode()}
        outcomes[
            or_refused(lambda: use(tokenizer_from_plain({"name": "sentencepiece", "state": state})))
        ] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes


# Runs

HUGE = 10**400
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 10**9, 2**63, HUGE, 0.5, -1.0, 1e300, math.nan, math.inf, "", "x", "1.5",
    "a\0b", "../../x",
    "/dev/null", "null", "${seed}", "\ud800", "x" * 300, [], {}, [1], ["x"], [[]], [{}], {"a": 1},
    {"name": "x"}, {1: 2},
    {"_target_": "os.mkdir"},
]  # fmt: skip
# What else a checkpoint may hold.
ODD_PLAIN: list[Any] = [
    *ODD_VALUES, (), (1,), {None: None}, b"x", torch.zeros(()), torch.zeros(0), torch.ones(3),
    torch.ones(2, 2).bool(),
    torch.ones(4, dtype=torch.int64), torch.full((2,), math.nan), torch.ones(2, dtype=torch.complex64),
    torch.zeros(1).expand(10**6, 10**7), torch.eye(3).to_sparse(), torch.ones(2, 3, device="meta"),
    torch.zeros(5056, dtype=torch.uint8),
]  # fmt: skip


def places_of(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, the whole included; of long lists the first entries."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value[:5])
    return [above, *(place for key, part in inside for place in places_of(part, (*above, key)))]


def put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not place:
        return new
    holder = list(value) if isinstance(value, tuple) else value
    holder[place[0]] = put(holder[place[0]], place[1:], new)
    return holder


DAMAGE = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())


def damaged(whole: Any, some: list[tuple[int, int, bool]], odd: list[Any]) -> Any:
    """A copy of plain data in which some values are other ones, or gone."""
    value = copy.deepcopy(whole)
    for place, new, gone in some:
        places = places_of(value)
        where = places[place % len(places)]
        if gone and where:
            holder = value
            for key in where[:-1]:
                holder = holder[key]
            if isinstance(holder, dict | list):
                del holder[where[-1]]
        else:
            value = put(value, where, copy.deepcopy(odd[new % len(odd)]))
    return value


def vouch(run: Path, file: Path) -> None:
    """Let the index say that this checkpoint is whole: a stranger writes both."""
    index = json.loads((run / "checkpoints/index.json").read_text())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    for entry in [index["last"], index["best"], *index["recent"]]:
        if entry["file"] == file.name:
            entry["sha256"] = sha256
    (run / "checkpoints/index.json").write_text(json.dumps(index))


# A checkpoint=average reads several; a run that goes on reads everything.
USES = [
    ("eval",), ("eval", "checkpoint=average"), ("eval", "checkpoint=last", "split=train"), ("generate",),
    ("train", "trainer.max_steps=12", "trainer.sample_tokens=0"),
]  # fmt: skip


def use_run(run_main: Main, run: Path, which: int) -> bool:
    """Judge the run, write with it or let it go on; whether that was possible."""
    command, *words = USES[which % len(USES)]
    if command == "generate":
        words += ["generation.max_new_tokens=2"]
        config = (run / "config.yaml").read_bytes()
        prompt = "prompt=01" if b"parity" in config else "prompt=The"
        words.append("text=Come in." if b"translation" in config else prompt)
    if command == "eval" and run.name == "schema_1":
        words += ["data.lengths=[8]", "data.sequences=20"]
    key = "resume" if command == "train" else "run"
    ran = run_main(command, f"{key}={run}", *words, "device=cpu", "device.threads=1")
    told_shortly([command, *words], ran)
    return ran.code == 0


@pytest.fixture(scope="module")
def carried_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path, book: Path) -> Path:
    """A recurrent network over bytes that carries its state from batch to batch."""
    place = tmp_path_factory.mktemp("carried")
    words = (
        "model=lstm", "tokenizer=byte", "data.carry_state=true", "model.hidden_size=8", "data.seq_len=16",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SEQEXP_CACHE", str(cache_folder))
        monkeypatch.chdir(place)
        small = [word for word in TINY if not word.startswith("model.")]
        ran = _main("train", "data=text", f"data.path={book}", *small, *words, "name=tiny")
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs/train/tiny").iterdir()
    return folder


@pytest.fixture(scope="module")
def runs(tiny_run: Path, nmt_run: Path, carried_run: Path) -> list[Path]:
    """Runs of every task."""
    return [tiny_run, nmt_run, carried_run, Path(__file__).with_name("runs") / "schema_1"]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time."""
    monkeypatch.setattr("seqexp.commands.train.try_to_draw", lambda *_: None)
    monkeypatch.setattr("seqexp.commands.generate._Writer._draw", lambda *_: None)


def fresh_copy(run: Path) -> Path:
    here = Path("outputs/train/x", run.name)
    shutil.rmtree("outputs", ignore_errors=True)
    shutil.copytree(run, here, ignore=shutil.ignore_patterns("tensorboard", "plots"))
    return here


FILES = ["config.yaml", "checkpoints/index.json", "manifest.json", "status.json"]


def open_run(run: Path, which: int) -> None:
    """Read a run as eval, generate and resume do."""
    folder = find_run(str(run))
    if which == 0:
        folder.read_config()
        Checkpoints(folder).load_newest()
    else:
        checkpoint = ("best", "last", "average")[which - 1]
        load_trained_run(folder, checkpoint, DeviceConfig("cpu", threads=1))


@examples(100, 1000)
def test_changed_checkpoints(runs: list[Path], count: int) -> None:
    """With a hash that tells, and with one that vouches for what was changed."""
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(st.integers(0, 3), st.integers(0, 3), changes(), st.booleans())
    def check(run: int, which: int, how: Any, vouched: bool) -> None:
        here = fresh_copy(runs[run])
        for file in sorted((here / "checkpoints").glob("*.pt")):
            file.write_bytes(changed(file.read_bytes(), how))
            if vouched:
                vouch(here, file)
        outcomes[or_refused(lambda: open_run(here, which))] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes


@examples(100, 1000)
def test_changed_files_of_a_run(runs: list[Path], count: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(st.integers(0, 3), st.integers(0, 3), changes(), st.sampled_from(FILES[:2]))
    def check(run: int, which: int, how: Any, name: str) -> None:
        here = fresh_copy(runs[run])
        (here / name).write_bytes(changed((here / name).read_bytes(), how))
        outcomes[or_refused(lambda: open_run(here, which))] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes


@pytest.mark.usefixtures("no_pictures")
@examples(10, 500)
def test_checkpoints_of_odd_values(run_main: Main, runs: list[Path], count: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(st.integers(0, 3), st.integers(0, 4), st.lists(DAMAGE, min_size=1, max_size=3))
    def check(run: int, which: int, some: Any) -> None:
        here = fresh_copy(runs[run])
        for file in sorted((here / "checkpoints").glob("*.pt")):
            torch.save(damaged(torch.load(file, weights_only=True), some, ODD_PLAIN), file)
            vouch(here, file)
        outcomes[use_run(run_main, here, which)] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes


@pytest.mark.usefixtures("no_pictures")
@examples(10, 500)
def test_odd_values_in_the_files_of_a_run(run_main: Main, runs: list[Path], count: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=count)
    @given(
        st.integers(0, 3), st.integers(0, 4), st.lists(DAMAGE, min_size=1, max_size=3),
        st.sampled_from(["config.yaml", "config.yaml", *FILES]),
    )  # fmt: skip
    def check(run: int, which: int, some: Any, name: str) -> None:
        here = fresh_copy(runs[run])
        whole = yaml.safe_load((here / name).read_text())
        (here / name).write_text(json.dumps(damaged(whole, some, ODD_VALUES)))
        outcomes[use_run(run_main, here, which)] += 1

    check()
    assert count < 500 or len(outcomes) == 2, outcomes
