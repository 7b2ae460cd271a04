"""Minimal pairs from files: csv, BLiMP, zip; error messages name the file and the line."""

import codecs
import json
import random
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqexp.errors import UserError
from seqexp.exams import reading
from seqexp.exams.questions import Exam, MinimalPair
from seqexp.exams.reading import read_exams

BOTH = ("spelling", "grammar")


def read_one(path: Path | str, wanted: tuple[str, ...] = BOTH) -> Exam:
    (exam,) = read_exams(str(path), wanted)
    return exam


def sides(exam: Exam) -> list[tuple[str, str]]:
    return [(pair.good, pair.bad) for pair in exam.pairs]


def write(name: str, content: str | bytes) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def error_of(path: Path | str, wanted: tuple[str, ...] = BOTH) -> str:
    with pytest.raises(UserError) as caught:
        read_exams(str(path), wanted)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("house,hosue\ngarden,gradne\n", [("house", "hosue"), ("garden", "gradne")]),
        ("house, hosue", [("house", "hosue")]),
        ("He runs.,He run.\n\n   \nShe is.,She are.", [("He runs.", "He run."), ("She is.", "She are.")]),
        ('"Well, he runs.","Well, he run."\n', [("Well, he runs.", "Well, he run.")]),
        ('"Well, he runs.", "He said ""run""."\n', [("Well, he runs.", 'He said "run".')]),
        ("Well, he runs.\tWell, he run.\n", [("Well, he runs.", "Well, he run.")]),
        ("good,bad\nhouse,hosue\n", [("house", "hosue")]),
        ("sentence_good\tsentence_bad\na b\tb a", [("a b", "b a")]),
        ("house,hosue\ngood,bad\n", [("house", "hosue"), ("good", "bad")]),
        ("garçon,grçaon\r\nété,eté\r\n", [("garçon", "grçaon"), ("été", "eté")]),
        ("a\u2028b c,c a\u2028b\n", [("a\u2028b c", "c a\u2028b")]),
        ('{"good": "a, b", "bad": "b, a"}\n', [("a, b", "b, a")]),
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "bom"])
def test_lines(text: str, pairs: list[tuple[str, str]], mark: bytes) -> None:
    exam = read_one(write("pairs.csv", mark + text.encode()))
    assert sides(exam) == pairs
    assert exam.origin == "exams.path=pairs.csv"
    assert exam.pairs[0].seen is None


SIDE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(pairs=st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=5))
def test_pairs_from_json(pairs: list[tuple[str, str]]) -> None:
    kept = [(good, bad) for good, bad in pairs if good.strip() and bad.strip()] or [("a", "b")]
    rows = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in kept]
    assert sides(read_one(write("pairs.jsonl", "\n".join(rows)), ("grammar",))) == kept


def test_the_levels_of_blimp() -> None:
    row = {"sentence_good": "a b", "sentence_bad": "b a", "simple_LM_method": True, "pairID": "0"}
    levels = {"field": "syntax/semantics", "linguistics_term": "npi_licensing", "UID": "only_npi_scope"}
    exam = read_one(write("x.jsonl", json.dumps(row | levels)))
    assert exam.pairs == [MinimalPair("a b", "b a", "npi licensing", "syntax semantics", "only_npi_scope")]


def test_words_are_spelling_and_sentences_grammar() -> None:
    write("all/a_words.csv", "house,hosue\n")
    write("all/b_sentences.txt", "He runs.,He run.\nRun!,Ran!\n")
    write("all/notes.md", "no pairs here")
    exams = read_exams("all", BOTH)
    assert [(exam.name, sides(exam), exam.of_words) for exam in exams] == [
        ("spelling", [("house", "hosue")], True),
        ("grammar", [("He runs.", "He run."), ("Run!", "Ran!")], False),
    ]
    assert exams[0].notes == ["2 files"]
    for wanted in BOTH:
        assert (read_one("all", (wanted,)).name, len(read_one("all", (wanted,)).pairs)) == (wanted, 3)
    assert [exam.name for exam in read_exams("all/a_*.csv", BOTH)] == ["spelling"]


def zipped(name: str, members: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(name, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return Path(name)


def test_a_zip() -> None:
    members: dict[str, str | bytes] = {
        "data/b.jsonl": '{"good": "d c", "bad": "c d"}\n',
        "data/a.csv": "a b,b a\n",
        "__MACOSX/data/a.csv": b"\x00\xff",
        "README.md": "what it is",
    }
    exam = read_one(zipped("pairs.zip", members))
    assert sides(exam) == [("a b", "b a"), ("d c", "c d")]
    members["data/a.csv"] = "a b,b a\nnothing\n"
    assert "pairs.zip: data/a.csv, line 2: no comma" in error_of(zipped("pairs.zip", members))


def test_all_of_blimp(shared_data: Path) -> None:
    exam = read_one(shared_data / "blimp/BLiMP.zip")
    assert (exam.name, len(exam.pairs)) == ("grammar", 67_000)
    sets = Counter(pair.paradigm for pair in exam.pairs)
    assert len(sets) == 67
    assert set(sets.values()) == {1000}
    assert {pair.field for pair in exam.pairs} == {"morphology", "syntax", "semantics", "syntax semantics"}
    assert sum(pair.good == pair.bad for pair in exam.pairs) == 7, "so it was published: these are ties"


def test_the_twelve_phenomena_of_blimp(shared_data: Path) -> None:
    """Table 2 of Warstadt et al. (2020): argument structure includes two paradigms of animate subjects."""
    exam = read_one(shared_data / "blimp/BLiMP.zip")
    sets = {pair.paradigm: pair.phenomenon for pair in exam.pairs}
    assert Counter(sets.values()) == {
        "anaphor agreement": 2, "argument structure": 9, "binding": 7, "control raising": 5,
        "determiner noun agreement": 8, "ellipsis": 2, "filler gap dependency": 7, "irregular forms": 2,
        "island effects": 8, "npi licensing": 7, "quantifiers": 4, "subject verb agreement": 6,
    }  # fmt: skip


# Malformed files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b,b a\n\nhouse hosue\n", "line 3: no comma in 'house hosue'"),
        ("a b,b a\na, b,b, a\n", "line 2: 3 commas or tabs"),
        ("a b\tb a\tc\n", "line 1: 2 commas or tabs"),
        ("a b,b a\nhouse,\n", "line 2: one side is empty"),
        (",hosue\n", "line 1: one side is empty"),
        ('house,""\n', "line 1: one side is empty"),
        ("house,\u00a0\n", "line 1: one side is empty"),
        ('{"good": "a", "bad": " "}', "line 1: one side is empty"),
        ('{"good": "a", "bad": "b"}\n{"good": "a", "bad": }\n', "line 2: not JSON"),
        ('{"good": "a", "bad": "b"', "line 1: not JSON"),
        ('{"good": "a", "worse": "b"}', 'line 1: expected texts under "sentence_good"'),
        ('{"good": "a", "sentence_bad": "b"}', "line 1: expected texts"),
        ('{"good": "a", "bad": 3}', "line 1: expected texts"),
        ('{"good": ["a"], "bad": "b"}', "line 1: expected texts"),
        ('{"good": null, "bad": "b"}', "line 1: expected texts"),
        ('{"good": "a", "bad": "b", "field": {"x": 1}}', "line 1: expected texts"),
        ('{"good": "a", "bad": ' + "[" * 100_000, "line 1: not JSON"),
        (b"a b,b a\nc d,d \xe9\n", "line 2: not UTF-8 text"),
        (b"\xff\xfea\x00,\x00b\x00", "line 1: not UTF-8 text"),
        ("", "holds no pairs"),
        ("\n \n", "holds no pairs"),
        ("good,bad\n", "holds no pairs"),
        ("a," + "b" * 100_001, "line 1: a side has more than 100,000 characters"),
    ],
)
def test_malformed_files_name_the_line(text: str | bytes, expected: str) -> None:
    file = write("folder/pairs.csv", text)
    message = error_of(file)
    assert str(file) in message
    assert expected in message
    assert len(message) < 500
    zipped("pairs.zip", {"inner.csv": text})
    message = error_of("pairs.zip")
    assert "pairs.zip: inner.csv" in message
    assert expected in message


def test_long_lines_are_shown_in_short() -> None:
    assert len(error_of(write("pairs.csv", "x" * 5000))) < 400


def test_no_such_file() -> None:
    Path("empty").mkdir()
    write("other/readme.md", "a,b")
    for path in ("nowhere.csv", "empty", "other", "no*.csv"):
        message = error_of(path)
        assert f"exams.path={path}" in message
        assert "there is no such file" in message


def test_a_zip_without_pairs_is_an_error() -> None:
    """A requested exam is never skipped in silence."""
    zipped("pairs.zip", {"README.md": "nothing", "data/": ""})
    assert "pairs.zip" in error_of("pairs.zip")


def test_more_than_anyone_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, and the unpacked members of a zip, are read up to the limit in all."""
    monkeypatch.setattr(reading, "MOST_BYTES", 1000)
    write("many/a.csv", "a,b\n" * 200)
    assert len(read_one("many").pairs) == 200
    write("many/b.csv", "c,d\n" * 51)
    assert "many/b.csv is not read: the files have more than 1,000 bytes" in error_of("many")
    bomb = zipped("bomb.zip", {"a.csv": "a,b\n" * 1_000_000})
    assert bomb.stat().st_size < 20_000
    assert "bomb.zip: a.csv is not read" in error_of(bomb)
    several = zipped("several.zip", {f"{i}.csv": "a,b\n" * 100 for i in range(3)})
    assert "several.zip: 2.csv is not read" in error_of(several)


def damaged_zip(method: int) -> bytes:
    """Return a zip whose only member has noise in the middle of its data."""
    draw = random.Random(0)
    lines = "".join(f"{draw.random()} a,{draw.random()} b\n" for _ in range(300))
    content = bytearray(zipped("whole.zip", {"a.csv": lines}, method).read_bytes())
    content[200:1200] = draw.randbytes(1000)
    return bytes(content)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_zip(method: int) -> None:
    message = error_of(write("damaged.zip", damaged_zip(method)))
    assert "damaged.zip" in message


def test_half_a_zip() -> None:
    """A truncated zip is neither a zip nor text."""
    content = zipped("whole.zip", {"a.csv": "a,b\n" * 500}).read_bytes()
    assert "half.zip" in error_of(write("half.zip", content[: len(content) // 2]))
