"""What the tests share: a clean place to stand, a small book, a trained run, two ways to run commands."""

import contextlib
import io
import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run; `--hypothesis-profile=default` looks for new ones.
settings.register_profile(
    "seqexp",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("seqexp")

# Taken before any test hides it.
ORIGINAL_DATA = os.environ.get("SEQEXP_DATA")

# A model and a run that train in about a second.
TINY = (
    "debug=fast",
    "data.seq_len=16",
    "model.n_layer=2",
    "model.n_head=2",
    "model.n_embd=32",
    "device=cpu",
    "device.threads=1",
    "device.precision=fp32",
    "device.compile=false",
)


@dataclass(frozen=True)
class Ran:
    """What came of a command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Many tiny products: threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _stand_clean(monkeypatch: pytest.MonkeyPatch, cache: Path, place: Path) -> None:
    monkeypatch.setenv("SEQEXP_CACHE", str(cache))
    for name in ("SEQEXP_DATA", "SEQEXP_CONF", "HYDRA_FULL_ERROR", "COMP_LINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)


@pytest.fixture(autouse=True)
def _clean_place(monkeypatch: pytest.MonkeyPatch, cache_folder: Path, tmp_path: Path) -> None:
    """Each test stands in a folder of its own, with a cache of this session and no settings of the user's."""
    _stand_clean(monkeypatch, cache_folder, tmp_path)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache for this test alone."""
    folder = tmp_path / "own cache"
    monkeypatch.setenv("SEQEXP_CACHE", str(folder))
    return folder


@pytest.fixture
def shared_data() -> Path:
    """The folder that $SEQEXP_DATA named when the tests began."""
    if not ORIGINAL_DATA or not Path(ORIGINAL_DATA).is_dir():
        pytest.skip("SEQEXP_DATA names no folder, so the real texts are not here")
    return Path(ORIGINAL_DATA).resolve()


def _main(*words: str) -> Ran:
    """`seqexp.cli.main` in this process; what Hydra and logging leave behind is cleaned up."""
    from hydra.core.global_hydra import GlobalHydra

    from seqexp.cli import main

    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    argv, handlers, level = sys.argv, root.handlers[:], root.level
    GlobalHydra.instance().clear()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
    finally:
        GlobalHydra.instance().clear()
        sys.argv = argv
        root.handlers[:] = handlers
        root.setLevel(level)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def run_main() -> Callable[..., Ran]:
    """Run a command line in this process: ``run_main("train", "debug=fast").code``."""
    return _main


@pytest.fixture
def seqexp() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line as a process of its own; standard input is empty unless `input=` is given."""

    def run(*words: str, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "seqexp", *map(str, words)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            **options,
        )

    return run


WORDS = {
    kind: words.split()
    for kind, words in {
        "nouns": "door house garden river stone letter boy girl king owl lamp road castle winter train",
        "verbs": "opened closed found watched followed carried forgot painted answered asked kept",
        "adjectives": "old small quiet golden broken strange narrow warm grey clever hollow",
        "names": "Anna Peter Quentin Zoë Xavier James Violet",
    }.items()
}


def make_book(characters: int = 30_000, seed: int = 0) -> str:
    """Sentences of a few hundred words, drawn by chance but always the same."""
    draw = random.Random(seed)
    nouns = WORDS["nouns"]
    verbs, adjectives, names = WORDS["verbs"], WORDS["adjectives"], WORDS["names"]
    sentences = ["Don't go, (he said): Où? ", 'She asked: "Why not?" ', "It was 1926 - or 1837; who knows! "]
    sentences += ["A = [b], ${c} \\\\ #1 "]
    size = sum(map(len, sentences))
    while size < characters:
        subject = draw.choice([draw.choice(names), f"The {draw.choice(adjectives)} {draw.choice(nouns)}"])
        sentence = f"{subject} {draw.choice(verbs)} the {draw.choice(adjectives)} {draw.choice(nouns)}"
        if draw.random() < 0.3:
            sentence += f", and {draw.choice(names)} {draw.choice(verbs)} it"
        sentence += draw.choice([". ", ". ", ".\n", "!\n\n", "? "])
        sentences.append(sentence)
        size += len(sentence)
    return "".join(sentences)


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of about 30,000 characters that reads a little like English."""
    file = tmp_path_factory.mktemp("books") / "book.txt"
    file.write_text(make_book(), encoding="utf-8", newline="\n")
    return file


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path, book: Path) -> Path:
    """The folder of a finished run of ten steps on the book; tests must not change it."""
    place = tmp_path_factory.mktemp("tiny_run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        ran = _main("train", "data=text", f"data.path={book}", "name=tiny", *TINY)
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs" / "train" / "tiny").iterdir()
    return folder


# Translation models that train in a second on `make_pairs`.
TINY_NMT = (
    "debug=fast", "data=parallel", "tokenizer=word", "model=nmt", "model.n_embd=16", "model.hidden_size=16",
    "scheduler=constant", "optimizer.lr=1e-2", "device=cpu", "device.threads=1", "device.precision=fp32",
    "trainer.keep_last=1",
)  # fmt: skip
TINY_TRANSFORMER = (
    "debug=fast", "data=parallel", "tokenizer=word", "model=transformer", "model.n_layer=1",
    "model.n_embd=32", "model.n_head=2", "model.ffn_size=64", "model.dropout=0", "device=cpu",
    "device.threads=1", "device.precision=fp32",
)  # fmt: skip


def make_pairs() -> list[tuple[str, str]]:
    """Sentences of the phrasebook; some with two translations, some targets with two sources."""
    from seqexp.data.phrasebook import phrasebook

    book = list(phrasebook()[:130])
    twice = [(source, f"{target} Bien sûr !") for source, target in book[:20]]
    return [*book, *twice, *((f"Well: {source}", target) for source, target in book[:60])]


def write_pairs(file: Path, pairs: list[tuple[str, str]]) -> Path:
    """A file of lines with source, tab, target."""
    file.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return file


def _translation_run(place: Path, cache: Path, *words: str) -> Path:
    pairs = write_pairs(place / "pairs.tsv", make_pairs())
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache, place)
        ran = _main("train", *words, f"data.path={pairs}", "name=tiny")
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs" / "train" / "tiny").iterdir()
    return folder


@pytest.fixture(scope="session")
def nmt_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of a finished run of ten steps on `make_pairs`; tests must not change it."""
    return _translation_run(tmp_path_factory.mktemp("nmt_run"), cache_folder, *TINY_NMT)


@pytest.fixture(scope="session")
def transformer_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The same with a Transformer; three checkpoints are kept, and the one of the highest BLEU."""
    words = ("trainer.eval_every=2", "trainer.keep_last=3", "trainer.monitor=val/bleu")
    return _translation_run(
        tmp_path_factory.mktemp("transformer_run"), cache_folder, *TINY_TRANSFORMER, *words
    )


@pytest.fixture(scope="session")
def parity_sweep(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of a finished sweep: two models, two lengths, three seeds; tests must not change it."""
    place = tmp_path_factory.mktemp("parity_sweep")
    words = (
        "model=rnn,lstm", "data=parity", "data.seq_len=8,12", "seed=1,2,3", "trainer.max_steps=20",
        "trainer.eval_every=10", "trainer.sample_tokens=0", "data.eval_sequences=20", "device.threads=1",
        "sweep.name=s",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        ran = _main("train", "-m", *words)
    assert ran.code == 0, ran.err
    return place / "outputs" / "sweeps" / "s"


@pytest.fixture
def sweep(parity_sweep: Path) -> Path:
    """A copy of the finished sweep, in the place of the test."""
    copy: Path = shutil.copytree(parity_sweep, Path("outputs/sweeps/s"))
    return copy


@pytest.fixture(scope="session")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of about 40,000 characters from which both exams can be made."""
    from exam_helpers import make_english

    file = tmp_path_factory.mktemp("english") / "english.txt"
    file.write_text(make_english(), encoding="utf-8", newline="\n")
    return file


@pytest.fixture(scope="session")
def sat_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path, english: Path) -> Path:
    """The folder of a finished run that sat exams at steps 3 and 6; tests must not change it."""
    from exam_helpers import train_in

    words = ("trainer.max_steps=6", "trainer.eval_every=3", "trainer.monitor=exam/spelling")
    exams = ("exams=all", "exams.pairs=20", "name=sat")
    return train_in(tmp_path_factory.mktemp("sat"), cache_folder, f"data.path={english}", *words, *exams)
