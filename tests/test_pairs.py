"""Pairs of sentences: where they are found and how they are read, and split."""

import functools
import hashlib
import http.server
import random
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqexp.config.data import OtherDataConfig, ParallelDataConfig
from seqexp.config.run import GenerationConfig
from seqexp.config.tokenizer import WordConfig
from seqexp.data import download as download_module
from seqexp.data import unpack as unpack_module
from seqexp.data.lines import ORDINARY_SPACES, TYPOGRAPHIC_SPACE, fold_spaces
from seqexp.data.pairs import Pair, PairCorpus, find_pairs, read_pairs
from seqexp.data.parallel import ParallelData, divide, pair_tokenizer
from seqexp.data.preprocessor import Preprocessor
from seqexp.decoding.translation import Translator
from seqexp.errors import UserError
from seqexp.models.nmt import NMT

PAIRS = [(f"Sentence number {n} .", f"La phrase {n} !") for n in range(12)]
TABS = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
ABOUT = "** Info **\n" + "This is an archive of sentences.\twith a tab\n" * 3


def write(name: str, content: str | bytes) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def zipped(name: str, members: dict[str, str], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    file = write(name, b"")
    with zipfile.ZipFile(file, "w", kind) as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return file


def read(content: str | bytes, encoding: str | None = None, **options: Any) -> PairCorpus:
    return read_pairs([write("some.txt", content)], encoding, **options)


# Reading


def test_two_columns_three_columns_and_line_ends() -> None:
    good = read(TABS)
    assert good.pairs == PAIRS
    assert good.skipped == ()
    tatoeba = TABS.replace("\n", "\tCC-BY 2.0 (France) Attribution: tatoeba.org #1\n")
    for same in (tatoeba, TABS.replace("\n", "\r\n"), TABS.removesuffix("\n"), "\ufeff" + TABS):
        corpus = read(same)
        assert corpus.pairs == PAIRS
        assert (corpus.sha256, corpus.skipped) == (good.sha256, ())
    assert read(TABS.replace("number 3", "number \x0b 3\u2028 ")).pairs == PAIRS


def test_typographic_spaces_stay_inside_sentences() -> None:
    """As French writes them; around a sentence there is no white space of any kind."""
    french = "«\u00a0Où est-il\u202f?\u00a0» 5\u2009000 mots"
    assert fold_spaces(f"\u00a0 {french} \u202f") == french
    corpus = read(TABS.replace("La phrase 3 !", f" {french}\u00a0"))
    assert corpus.pairs[3] == (PAIRS[3][0], french)
    ordinary = read(TABS.replace("La phrase 3 !", "« Où est-il ? » 5 000 mots"))
    assert corpus.folded().pairs == ordinary.pairs
    assert corpus.folded().sha256 == ordinary.sha256 != corpus.sha256


def test_every_white_space_is_ordinary_or_typographic() -> None:
    for character in filter(str.isspace, map(chr, range(0x110000))):
        typographic = bool(TYPOGRAPHIC_SPACE.fullmatch(character))
        assert bool(ORDINARY_SPACES.fullmatch(character)) is not typographic
        assert fold_spaces(f" a{character}b{character}") == (f"a{character}b" if typographic else "a b")


def test_runs_of_versions_that_folded_spaces_find_their_pairs() -> None:
    write("some.txt", TABS.replace(" !", "\u00a0!"))
    config = ParallelDataConfig(name="parallel", path="some.txt")
    data = ParallelData.build(config, WordConfig(min_count=1))
    assert data.splits["train"].pairs[0][1].endswith("\u00a0!")
    old = read_pairs([write("folded.txt", TABS)], None)
    for files in (["some.txt"], ["gone.txt"]):
        manifest: dict[str, Any] = {"corpus": {"sha256": old.sha256, "files": files}}
        again = ParallelData.for_evaluation(config, data.preprocessor, manifest, OtherDataConfig(), 1)
        assert {pair[1][-2:] for pair in again.splits["train"].pairs} == {" !"}
    manifest = {"corpus": data.describe()}
    again = ParallelData.for_evaluation(config, data.preprocessor, manifest, OtherDataConfig(), 1)
    assert again.splits["train"].pairs == data.splits["train"].pairs


@pytest.mark.parametrize("typographic", [False, True])
def test_sources_of_generation_are_folded_as_those_of_training(typographic: bool) -> None:
    text = TABS.replace(" .\t", "\u00a0.\t") if typographic else TABS
    config = ParallelDataConfig(name="parallel", path=str(write("some.txt", text)))
    data = ParallelData.build(config, WordConfig(min_count=1))
    again = pair_tokenizer(Preprocessor.from_plain(data.preprocessor.to_plain()))
    assert again.typographic_spaces is typographic
    torch.manual_seed(0)
    model = NMT(**data.preprocessor.sizes(), n_embd=4, hidden_size=4, attention_size=4)
    greedy = GenerationConfig(beam_size=1, max_length_ratio=1.0)
    translator = Translator(model, again, greedy, torch.device("cpu"))
    ((_, _, note),) = translator.translate(["Sentence\u00a0."])
    assert note is None  # nothing in it is unknown


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_the_first_sentence(encoding: str | None) -> None:
    assert read(b"\xef\xbb\xbf" + TABS.encode(), encoding).pairs == PAIRS


def test_blank_sides_are_skipped_and_counted() -> None:
    lines = TABS.splitlines()
    lines[2:2] = ["", "no tab", "only source\t", "\tonly target", " \u00a0\tblank source", "\t\t"]
    corpus = read("\n".join(lines))
    assert corpus.pairs == PAIRS
    assert corpus.skipped == (
        "some.txt: 1 line with another number of columns than 2, the usual one; the first two are read",
        "some.txt: 6 lines without two sentences skipped",
    )
    assert corpus.sha256 == read(TABS).sha256
    with pytest.raises(UserError, match=r"9 lines hold a source.*10 are needed"):
        read("\n".join(TABS.splitlines()[:9]))
    assert len(read(TABS.splitlines()[0], least=1).pairs) == 1


def test_swap_exchanges_the_languages() -> None:
    assert read(TABS, swap=True).pairs == [(target, source) for source, target in PAIRS]
    assert read(TABS, swap=True).sha256 != read(TABS).sha256


def test_two_files() -> None:
    source = write("a.en", "".join(f"{s}\r\n" for s, _ in PAIRS))
    target = write("a.fr", "".join(f"{t}\n" for _, t in PAIRS))
    corpus = read_pairs([source, target], None)
    assert corpus.pairs == PAIRS
    assert corpus.sha256 == read(TABS).sha256
    assert corpus.files == [source, target]
    config = ParallelDataConfig(name="parallel", source_path="a.en", target_path="a.fr", swap=True)
    assert find_pairs(config).pairs == [(t, s) for s, t in PAIRS]
    target.write_text("one line more\n" + target.read_text())
    with pytest.raises(UserError, match=r"a\.en has 12 lines and a\.fr has 13"):
        read_pairs([source, target], None)


def test_encodings() -> None:
    latin = TABS.replace("phrase", "même").encode("latin-1")
    with pytest.raises(UserError, match=r"some\.txt is not UTF-8 text.*data\.encoding="):
        read(latin)
    assert read(latin, "latin-1").pairs[0][1] == "La même 0 !"
    assert read(TABS.encode("utf-16"), "utf-16").pairs == PAIRS
    with pytest.raises(UserError, match="is not ascii text"):
        read(latin, "ascii")


def test_the_text_in_a_zip() -> None:
    members = {
        "__MACOSX/._fra.txt": "x" * 10_000,
        "_about.txt": ABOUT,
        "fra.txt": TABS,
        "a.png": "p" * 10_000,
    }
    file = zipped("fra-eng.zip", members)
    corpus = read_pairs([file], None)
    assert corpus.pairs == PAIRS
    assert corpus.skipped == ("fra-eng.zip: only fra.txt is read, not _about.txt, a.png",)
    with pytest.raises(UserError, match=r"none\.zip holds no \.txt or \.tsv file"):
        read_pairs([zipped("none.zip", {"readme.md": TABS})], None)
    assert read_pairs([zipped("other.dat", {"pairs.tsv": TABS})], None).pairs == PAIRS


def test_a_zip_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    file = zipped("bomb.zip", {"bomb.txt": TABS})
    monkeypatch.setattr(unpack_module, "LARGEST_UNPACKED_BYTES", len(TABS.encode()))
    assert read_pairs([file], None).pairs == PAIRS
    monkeypatch.setattr(unpack_module, "LARGEST_UNPACKED_BYTES", len(TABS.encode()) - 1)
    with pytest.raises(UserError, match=r"bomb\.zip unpacks to more than"):
        read_pairs([file], None)


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_zip_is_a_message(kind: int) -> None:
    file = zipped("good.zip", {"fra.txt": TABS * 50}, kind)
    good, refused = file.read_bytes(), 0
    for seed in range(300):
        draw, data = random.Random(seed), bytearray(good)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            read_pairs(
                [write("damaged.zip", bytes(data[: None if seed % 4 else draw.randrange(len(data))]))], None
            )
        except UserError:
            refused += 1
    assert refused > 200


# Where pairs are found


def test_usual_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = ParallelDataConfig(name="tatoeba")
    with pytest.raises(UserError, match=r"data=tatoeba: no files were found; give data\.path="):
        find_pairs(config)
    write("data/tatoeba/_about.txt", ABOUT)
    write("data/tatoeba/notes.md", "no pairs")
    here = zipped("data/tatoeba/fra-eng.zip", {"fra.txt": TABS})
    assert find_pairs(config).files == [here]
    monkeypatch.setenv("SEQEXP_DATA", str(tmp_path / "texts"))
    assert find_pairs(config).files == [here]
    there = write(str(tmp_path / "texts/tatoeba/deu.txt"), TABS.replace("La", "Die"))
    assert find_pairs(config).pairs[0] == (PAIRS[0][0], "Die phrase 0 !")
    given = ParallelDataConfig(name="tatoeba", path="data/tatoeba/fra-eng.zip")
    assert find_pairs(given).pairs == PAIRS
    write(str(there.with_name("spa.txt")), TABS)
    with pytest.raises(UserError, match=r"several files \(deu\.txt, spa\.txt\); say which with data\.path="):
        find_pairs(config)
    with pytest.raises(UserError, match=r"nowhere\.txt is not a file \(seen from"):
        find_pairs(ParallelDataConfig(name="tatoeba", path="nowhere.txt"))


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an archive on a local server; an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SEQEXP_CACHE", str(tmp_path / "own cache"))
    monkeypatch.setattr(download_module, "RETRIES", 0)  # no seconds of waiting between tries
    zipped(str(tmp_path / "public/fra-eng.zip"), {"fra.txt": TABS})
    handler = functools.partial(Handler, directory=str(tmp_path / "public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/fra-eng.zip"
        server.shutdown()
        thread.join()


def test_download(address: str, tmp_path: Path) -> None:
    sha256 = hashlib.sha256((tmp_path / "public/fra-eng.zip").read_bytes()).hexdigest()

    def fetched(url: str, sha256: str) -> list[Pair]:
        return find_pairs(ParallelDataConfig(name="tatoeba", url=url, sha256=sha256)).pairs

    with pytest.raises(UserError, match=r"is not the file expected \(sha256 000.*data\.path="):
        fetched(address, "0" * 64)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/fra-eng.zip"
        with pytest.raises(UserError, match=r"no connection.*on a machine with a connection.*data\.path="):
            fetched(nowhere, sha256)
    assert fetched(address, sha256) == PAIRS
    (tmp_path / "public/fra-eng.zip").unlink()
    assert fetched(address, sha256) == PAIRS  # from the cache
    write("data/tatoeba/mine.txt", TABS.replace("Sentence", "Line"))
    assert fetched(address, sha256)[0][0] == "Line number 0 ."


# Splits

CORPORA = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 99)), min_size=10, max_size=120).map(
    lambda numbers: [(f"s{source}", f"t{target}") for source, target in numbers]
)


@given(CORPORA)
def test_by_source_no_sentence_is_in_two_splits(pairs: list[Pair]) -> None:
    distinct = {source for source, _ in pairs}
    if len(distinct) < 3:
        with pytest.raises(UserError, match=r"cannot be divided.*data\.split=random"):
            divide(pairs, "source")
        return
    parts = divide(pairs, "source")
    assert sorted(number for part in parts.values() for number in part) == list(range(len(pairs)))
    assert all(part == sorted(part) for part in parts.values())
    sources = {name: {pairs[number][0] for number in part} for name, part in parts.items()}
    sizes = {name: len(some) for name, some in sources.items()}
    tenth = max(1, len(distinct) // 10)
    assert sizes == {"train": len(distinct) - 2 * tenth, "val": tenth, "test": tenth}
    assert sum(sizes.values()) == len(set.union(*sources.values()))


@given(CORPORA)
def test_at_random_a_fifth_of_the_pairs_is_the_test_split(pairs: list[Pair]) -> None:
    parts = divide(pairs, "random")
    assert sorted(number for part in parts.values() for number in part) == list(range(len(pairs)))
    assert (len(parts["test"]), len(parts["val"])) == (len(pairs) // 5, len(pairs) // 10)


def test_the_validation_split_is_no_larger_than_2000() -> None:
    pairs = [(f"s{n}", "t") for n in range(30_000)]
    for split, test in (("source", 3000), ("random", 6000)):
        sizes = {name: len(part) for name, part in divide(pairs, split).items()}
        assert sizes == {"train": 28_000 - test, "val": 2000, "test": test}


def test_the_real_archive(shared_data: Path) -> None:
    """167,130 pairs, of which a cut at random shows the sources of 43 % of the test pairs in training too."""
    corpus = find_pairs(ParallelDataConfig(name="tatoeba", path=str(shared_data / "tatoeba/fra-eng.zip")))
    pairs = corpus.pairs
    assert len(pairs) == 167_130
    assert [note.rpartition(": ")[2] for note in corpus.skipped] == [
        "only fra-eng/fra.txt is read, not fra-eng/_about.txt"
    ]
    shares = {}
    for split in ("random", "source"):
        parts = divide(pairs, split)
        assert sum(map(len, parts.values())) == len(pairs)
        shown: set[str] = set()
        for name in ("train", "val"):
            shown |= {pairs[number][0] for number in parts[name]}
            shares[split, name] = sum(pairs[n][0] in shown for n in parts["test"]) / len(parts["test"])
    assert shares["random", "train"] == pytest.approx(0.430, abs=0.005)
    # As the course cuts, without a development part: all that is no test.
    assert shares["random", "val"] == pytest.approx(0.439, abs=0.005)
    assert shares["source", "val"] == 0
