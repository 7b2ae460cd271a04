"""Labelled texts: every format, splits, labels, notes, and what is refused."""

import bz2
import csv
import gzip
import importlib.util
import json
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran
from run_folders import read as read_json
from run_folders import said_shortly

from seqexp.config.data import OtherDataConfig
from seqexp.config.labelled import LabelledConfig, OpinionsConfig, OwnLabelledConfig
from seqexp.config.tokenizer import WordConfig
from seqexp.data.labelled import Example, find_labelled, label_counts, read_labelled, with_all_splits
from seqexp.data.labelled_data import LabelledData, encode_text
from seqexp.data.opinions import opinions
from seqexp.data.opinions_data import OpinionsData
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.registry import load_schema

Main = Callable[..., Ran]
WORD = WordConfig(min_count=1)


def write(name: str, content: str | bytes) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def config(**options: Any) -> LabelledConfig:
    return LabelledConfig(**{"name": "table", "path": "unused", **options})


def read(name: str, content: str | bytes, **options: Any) -> list[Example]:
    return read_labelled(write(name, content), config(**options))


def plain(examples: list[Example]) -> list[tuple[str, ...]]:
    return [(one.text, *one.labels) for one in examples]


GOOD = [("a fine film", "good"), ("a dull film", "bad")]

# Formats


def test_csv() -> None:
    """Cells with quotes, separators and line breaks; columns in any order; a mark and CRLF; blank rows."""
    text = (
        "\ufeffid,label,text\r\n"
        '1, good ,"She said ""yes"", twice"\r\n'
        '2,bad,"two\r\nlines, and\n\na third"\r\n'
        ",,\r\n"
        "\r\n"
        "3,good,  wide   spaces \r\n"
    )
    examples = read("some.csv", text)
    assert plain(examples) == [
        ('She said "yes", twice', "good"),
        ("two lines, and a third", "bad"),
        ("wide spaces", "good"),
    ]
    assert [one.where for one in examples] == [f"some.csv, line {n}" for n in (2, 3, 9)]


def test_what_pythons_csv_writes_comes_back() -> None:
    cells = ['"', '""', "a,b", "a\tb", "l'été ça", "=1+1", "'", '"quoted"', "x" * 200_000, "\\", "#"]
    for name, dialect in (("a.csv", "excel"), ("a.tsv", "excel-tab")):
        with Path(name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, dialect)
            writer.writerows([["text", "label"], *([cell, f"l{n}"] for n, cell in enumerate(cells))])
        examples = read_labelled(Path(name), config())
        assert plain(examples) == [(" ".join(cell.split()), f"l{n}") for n, cell in enumerate(cells)]


def test_tsv_and_other_column_names() -> None:
    text = "sentence\tsentiment\na fine film\tgood\na dull film\tbad\n"
    for name in ("some.tsv", "some.txt"):  # a tab in the first line tells
        assert plain(read(name, text, text="sentence", label="sentiment")) == GOOD
    assert plain(read("some.txt", text.replace("\t", ","), format="csv", text="sentence", label="sentiment"))


def test_jsonl() -> None:
    """Labels may be numbers or truth values."""
    rows = [
        {"text": 'a "fine"\nfilm', "label": "good", "more": [1]},
        {"label": 3, "text": "été 🦉"},
        {"label": True, "text": ""},
    ]
    text = "\n\n".join(json.dumps(row) for row in rows)
    for name in ("some.jsonl", "some.ndjson"):
        assert plain(read(name, text)) == [('a "fine" film', "good"), ("été 🦉", "3"), ("", "True")]


def test_half_of_a_character_in_json_is_replaced() -> None:
    """It could be written neither to a file nor to the hash."""
    text = '{"text": "a \\ud83d b", "label": "x\\udc00"}\n{"text": "\\ud83e\\udd89", "label": "y"}'
    Path("some.jsonl").write_text(text)
    corpus = with_all_splits({"train": read("some.jsonl", text), "val": [], "test": []})
    assert plain(corpus["train"]) == [("a \ufffd b", "x\ufffd"), ("🦉", "y")]


def test_parquet() -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow, which reads parquet files, is not installed")
    import pyarrow.parquet

    table = arrow.table({"label": [1, 0], "text": ["a fine film", "a dull film"]})
    pyarrow.parquet.write_table(table, "some.parquet")
    assert plain(read_labelled(Path("some.parquet"), config())) == [
        ("a fine film", "1"),
        ("a dull film", "0"),
    ]
    with pytest.raises(UserError, match=r"row 1 has no 'txt'.*Did you mean 'text'"):
        read_labelled(Path("some.parquet"), config(text="txt"))
    with pytest.raises(UserError, match="is not a parquet file"):
        read("other.parquet", "text,label\n")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow() -> None:
    with pytest.raises(UserError, match="pip install pyarrow"):
        read("some.parquet", b"PAR1")


def test_a_folder_for_each_label() -> None:
    write("films/good/2.txt", "a fine\nfilm\n")
    write("films/good/1.txt", "a warm film")
    write("films/bad/1.txt.gz", gzip.compress(b"a dull film"))
    write("films/bad/.hidden", "not read")
    write("films/.git/x", "not read")
    write("films/about.txt", "not read")
    examples = read_labelled(Path("films"), config())
    assert plain(examples) == [("a dull film", "bad"), ("a warm film", "good"), ("a fine film", "good")]
    assert examples[0].where == "films/bad/1.txt.gz"
    Path("empty").mkdir()
    with pytest.raises(UserError, match="empty has no folders; put the texts of each label into a folder"):
        read_labelled(Path("empty"), config())


def test_a_file_where_a_folder_was_expected() -> None:
    with pytest.raises(UserError, match=r"data\.format=folders.*some\.txt is a file"):
        read("some.txt", "a b\n", format="folders")


def test_label_lines() -> None:
    """As fastText writes them."""
    text = "__label__good a fine film\n\n  __label__bad\ta dull film \n__label__bad\n"
    assert plain(read("some.txt", text)) == [*GOOD, ("", "bad")]
    several = "__label__b __label__a a film __label__c\nno label\n__label__a x"
    with pytest.raises(UserError, match=r"some\.txt, line 1: .*data\.multilabel=true"):
        read("some.txt", several)
    examples = read("some.txt", several.replace("no label\n", ""), multilabel=True)
    assert plain(examples) == [("a film __label__c", "a", "b"), ("x", "a")]
    with pytest.raises(UserError, match=r"some\.txt, line 2: expected __label__x before the text, got 'no l"):
        read("some.txt", several, multilabel=True)


def test_label_first() -> None:
    assert plain(read("some.train", "good a fine film\nbad a dull film\n", format="label_first")) == GOOD
    trec = "NUM:date When ?\nHUM:ind Who : him ?\nNUM:count How many ?\n"
    assert plain(read("some", trec, format="label_first")) == [
        ("When ?", "NUM:date"), ("Who : him ?", "HUM:ind"), ("How many ?", "NUM:count"),
    ]  # fmt: skip
    cut = read("some", trec, format="label_first", label_until=":")
    assert [one.labels for one in cut] == [("NUM",), ("HUM",), ("NUM",)]


def test_texts_beside_labels() -> None:
    texts = write("train.txt", "a fine film\na dull film\n\n")
    examples = read_labelled(texts, config(), write("labels.txt", "good\nbad\ngood\n"))
    assert plain(examples) == [*GOOD, ("", "good")]
    assert examples[1].where == "train.txt, line 2"
    with pytest.raises(UserError, match=r"train\.txt has 3 lines and labels\.txt has 2"):
        read_labelled(texts, config(), write("labels.txt", "good\nbad\n"))
    with pytest.raises(UserError, match=r"train\.txt, line 2: there is no label"):
        read_labelled(texts, config(), write("labels.txt", "good\n\nbad\n"))


def test_pieces_are_joined() -> None:
    """Sentences of SentencePiece pieces, as in the French reviews."""
    pieces = "\u2581Je \u2581n ' ai \u2581pas \u2581aimé . \u2581Du \u2581tout !\n"
    (one,) = read_labelled(write("a.spm", pieces), config(pieces=True), write("a.label", "0\n"))
    assert one.text == "Je n'ai pas aimé. Du tout!"


def test_pairs_of_texts() -> None:
    text = "premise,hypothesis,label\nA man sleeps.,Nobody  sleeps.,no\n"
    (one,) = read("some.csv", text, text="premise", text_pair="hypothesis")
    assert (one.text, one.pair, one.labels) == ("A man sleeps.", "Nobody sleeps.", ("no",))
    row = {"premise": "A", "hypothesis": "B", "label": 1}
    (one,) = read("some.jsonl", json.dumps(row), text="premise", text_pair="hypothesis")
    assert (one.text, one.pair, one.labels) == ("A", "B", ("1",))


def test_several_labels() -> None:
    text = 'text,label\none,"b, a"\ntwo,\nthree,"a,,a"\n'
    assert plain(read("some.csv", text, multilabel=True)) == [("one", "a", "b"), ("two",), ("three", "a")]
    other = text.replace('"b, a"', "b|a")
    assert read("some.csv", other, multilabel=True, label_separator="|")[0].labels == ("a", "b")
    rows = '{"text": "one", "label": ["b", "a"]}\n{"text": "two", "label": []}\n{"text": "x", "label": "b,a"}'
    examples = read("some.jsonl", rows, multilabel=True)
    assert [one.labels for one in examples] == [("a", "b"), (), ("a", "b")]
    with pytest.raises(UserError, match=r"line 1: 'label' has several values; use data\.multilabel=true"):
        read("some.jsonl", rows)


def test_a_separator_inside_a_label_of_a_list() -> None:
    """A list has its own separators."""
    row = {"text": "one", "label": ["sad, very", "b"]}
    assert read("some.jsonl", json.dumps(row), multilabel=True)[0].labels == ("b", "sad, very")


def test_names_of_numbered_labels() -> None:
    names = ["negative", "positive"]
    examples = read("some", "1 fine\n0 dull\n", format="label_first", label_names=names)
    assert plain(examples) == [("fine", "positive"), ("dull", "negative")]
    for wrong in ("2", "-1", "x", "1.0"):
        with pytest.raises(UserError, match=rf"line 2: label '{wrong}' is not a number from 0 to 1"):
            read("some", f"1 fine\n{wrong} dull\n", format="label_first", label_names=names)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_packed(ending: str) -> None:
    table = b"text,label\na fine film,good\na dull film,bad\n"
    if ending == "zip":
        with zipfile.ZipFile("some.tsv.zip", "w") as archive:
            archive.writestr("some.tsv", table.replace(b",", b"\t"))
        examples = read_labelled(Path("some.tsv.zip"), config())
    else:
        packed = {"gz": gzip.compress(table), "bz2": bz2.compress(table), "xz": lzma.compress(table)}
        examples = read(f"some.csv.{ending}", packed[ending])
    assert plain(examples) == GOOD


def test_encodings() -> None:
    table = "text,label\nl'été,bon\n".encode("latin-1")
    assert read("some.csv", table, encoding="latin-1")[0].text == "l'été"
    with pytest.raises(UserError, match=r"some\.csv is not utf-8 text"):
        read("some.csv", table, encoding="utf-8")


def test_tsv_without_quoting() -> None:
    """A quotation mark that does not enclose a field is a character; the user is told."""
    Path("a.tsv").write_text('text\tlabel\n"So!" he said\tyes\nan inch is 1"\tno\n', encoding="utf-8")
    notes: list[str] = []
    examples = read_labelled(Path("a.tsv"), config(), None, notes)
    assert [one.text for one in examples] == ['"So!" he said', 'an inch is 1"']
    assert notes == ["a.tsv: quotation marks are read as they stand, since they do not enclose fields"]


# Mistakes


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "text,label\na,b\na,b,c\n", r"a\.csv, line 3: 3 columns, and the header has 2"),
        ("a.csv", 'text,label\n"x\ny",b\na\n', r"a\.csv, line 4: 1 column, and the header has 2"),
        ("a.csv", 'text,label\n"a"b,c\n', r"a\.csv, line 2: .*check the quotes and data\.format"),
        ("a.csv", 'text,label\n"a,c\nb,d\n', r"a\.csv, line 2: unexpected end of data; check the quotes"),
        ("a.csv", 'text,label\n"x\ny",b,c\n', r"a\.csv, line 2: 3 columns, and the header has 2"),
        ("a.tsv", 'text\tlabel\n"a\tb\tc\n', r"a\.tsv, line 2: unexpected end of data"),
        ("a.csv", "text,label\na,\n", r"a\.csv, line 2: there is no label"),
        ("a.csv", "txt,label\na,b\n", r"no column 'text' \(data\.text\); it has txt, label\. Did you.*'txt'"),
        ("a.csv", "text,Labels\na,b\n", r"no column 'label' \(data\.label\); it has text, Labels\. Did you"),
        ("a.csv", "", r"a\.csv has no column 'text' \(data\.text\); it has none"),
        ("a.csv", "text,label\n", r"a\.csv has no examples"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": }\n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1 is not JSON"),
        ("a.jsonl", '["a", "b"]\n', r"a\.jsonl, line 1: expected an object with text and label"),
        ("a.jsonl", '{"txt": "a", "label": 1}', r"line 1 has no 'text'.*it has txt, label\. Did you.*'txt'"),
        ("a.jsonl", '{"text": "a", "label": null}', r"line 1 has no 'label'"),
        ("a.jsonl", '{"text": 3, "label": 1}', r"line 1: 'text' is not text"),
        ("a.jsonl", "\n", r"a\.jsonl has no examples"),
        ("a.txt", "a b\n", r"a\.txt: the format is not known from its name; give data\.format="),
        ("a.txt", b"a\0b", r"a\.txt is not text: it holds NUL bytes"),
        ("a.csv.gz", b"\x1f\x8b\x08broken", r"a\.csv\.gz cannot be read"),
    ],
)  # fmt: skip
def test_malformed_files(name: str, content: str | bytes, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read(name, content)


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"data\.path: there is no none\.csv \(seen from"):
        find_labelled(config(path="none.csv"))
    some = str(write("some.csv", "text,label\na,b\n"))
    for key in ("val_path", "test_path", "label_path"):
        with pytest.raises(UserError, match=r"there is no none\.csv"):
            find_labelled(config(**{"path": some, key: "none.csv"}))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": None, "test_path": "a"}, r"data\.val_path and data\.test_path go with data\.path"),
        ({"val_label_path": "a"}, r"data\.val_label_path has the labels of the lines of data\.val_path"),
        ({"format": "xml"}, r"data\.format"),
        ({"batch_size": 0}, r"data\.batch_size"),
        ({"max_seq_len": 1}, r"data\.max_seq_len"),
        ({"encoding": "klingon"}, r"data\.encoding=klingon"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        config(**options)


def test_data_with_and_without_files() -> None:
    with pytest.raises(UserError, match=r"no texts were given; write data\.path="):
        OwnLabelledConfig(name="table")
    with pytest.raises(UserError, match="data=opinions needs no file"):
        OpinionsConfig(name="opinions", path="some.csv")


# Splits


def labelled(counts: dict[str, int]) -> list[Example]:
    """Texts that are all different, in a mixed order."""
    labels = np.random.default_rng(0).permutation([label for label, n in counts.items() for _ in range(n)])
    return [Example(f"text {n}", (str(label),)) for n, label in enumerate(labels)]


def test_missing_splits_are_stratified_and_always_the_same() -> None:
    counts = {"a": 500, "b": 137, "c": 30, "d": 3}
    examples = labelled(counts)
    splits = with_all_splits({"train": examples})
    assert list(splits) == ["train", "val", "test"]
    together = [one.text for part in splits.values() for one in part]
    assert sorted(together) == sorted(one.text for one in examples)
    assert len(set(together)) == len(together)
    order = {one.text: number for number, one in enumerate(examples)}
    for name, part in splits.items():
        numbers = [order[one.text] for one in part]
        assert numbers == sorted(numbers)
        found = label_counts(part)
        assert set(found) == set(counts)
        for label, n in found.items():
            assert n / counts[label] == pytest.approx(0.8 if name == "train" else 0.1, abs=0.05 + 1 / n / 2)
    # The first texts are not simply taken, and nothing is drawn anew.
    assert [order[one.text] for one in splits["val"][:5]] != [0, 1, 2, 3, 4]
    assert with_all_splits({"train": list(examples)}) == splits
    held_out = labelled({"a": 4})
    assert with_all_splits({"train": examples, "test": held_out})["test"] == held_out
    assert with_all_splits({"train": examples, "test": held_out})["val"] == splits["val"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 10, 11, 19, 20, 25])
def test_small_classes_stay_in_training(n: int) -> None:
    """From three texts on, a class is in every split."""
    splits = with_all_splits({"train": labelled({"a": 100, "b": n})})
    found = [label_counts(part)["b"] for part in splits.values()]
    assert sum(found) == n
    assert found[0] >= max(found[1:])
    assert (min(found) > 0) == (n >= 3)


def test_too_few_texts_to_cut() -> None:
    with pytest.raises(UserError, match=r"2 examples with 2 labels are too few.*data\.val_path="):
        with_all_splits({"train": labelled({"a": 1, "b": 1})})


def test_splits_from_files() -> None:
    train = write("train.csv", "text,label\n" + "".join(f"t{n},{n % 2}\n" for n in range(40)))
    val, labels = write("val.txt", "v1\nv2\n"), write("val.labels", "0\n1\n")
    corpus = find_labelled(config(path=str(train), val_path=str(val), val_label_path=str(labels)))
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 36, "val": 2, "test": 4}
    assert corpus.files == ("train.csv", "val.txt", "val.labels")
    assert not corpus.generated


def test_the_usual_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = {"name": "trec", "path": None, "folder": "few", "train_file": "a.train", "test_file": "a.test",
               "format": "label_first", "source": "example.org"}  # fmt: skip
    unset = r"data/few or \$SEQEXP_DATA/few \(the variable is not set\)"
    with pytest.raises(UserError, match=rf"data=trec: a\.train was not found in {unset}\. Get it from"):
        find_labelled(config(**options))
    write("data/few/a.train", "a x\nb y\n" * 20)
    with pytest.raises(UserError, match=r"data=trec: there is no data/few/a\.test"):
        find_labelled(config(**options))
    write("data/few/a.test", "a z\n")
    assert find_labelled(config(**options)).origin == "data/few"
    monkeypatch.setenv("SEQEXP_DATA", str(tmp_path / "texts"))
    assert find_labelled(config(**options)).origin == "data/few"
    write(str(tmp_path / "texts/few/a.train"), "a x\nb y\n" * 10)
    write(str(tmp_path / "texts/few/a.test"), "a z\n")
    corpus = find_labelled(config(**options))
    assert [len(part) for part in corpus.splits.values()] == [18, 2, 1]


# As a data set


def table(name: str, rows: list[tuple[str, str]]) -> str:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return name


ROWS = [(f"{'good' if n % 2 else 'bad'} text number {'very ' * (n % 7)}{n}", "ab"[n % 2]) for n in range(60)]


def build(rows: list[tuple[str, str]], **options: Any) -> LabelledData:
    return LabelledData.build(config(path=table("some.csv", rows), **options), WORD)


def test_batches() -> None:
    """Every text of a split once, with texts of similar length together, padded with zeros."""
    data = build(ROWS, batch_size=7)
    assert data.preprocessor.labels == ("a", "b")
    assert data.preprocessor.sizes()["n_outputs"] == 2
    for split, part in data.splits.items():
        seen: Counter[int] = Counter()
        for batch in data.eval_batches(split):
            assert len(batch) == batch.count <= 7
            lengths = batch.lengths["tokens"].tolist()
            assert batch.tokens.shape[1] == max(lengths)
            for row, index in enumerate(batch.index.tolist()):
                seen[index] += 1
                expected = encode_text(data.preprocessor["text"], part.examples[index].text, None, 99)
                assert batch.tokens[row, : lengths[row]].tolist() == expected.tolist()
                assert not batch.tokens[row, lengths[row] :].any()
                assert data.preprocessor.labels[batch.labels[row]] == part.examples[index].labels[0]
        assert seen == Counter(range(data.eval_count(split)))
    epoch = [data.train_batch(step).index.tolist() for step in range(int(data.steps_per_epoch))]
    assert sorted(number for batch in epoch for number in batch) == list(range(48))
    again = build(ROWS, batch_size=7)
    assert [again.train_batch(step).index.tolist() for step in range(len(epoch))] == epoch
    later = [data.train_batch(step + len(epoch)).index.tolist() for step in range(len(epoch))]
    assert later != epoch


def test_batches_of_so_many_tokens() -> None:
    data = build(ROWS, batch_tokens=40)
    shapes = [tuple(batch.tokens.shape) for batch in data.eval_batches("train")]
    assert all(rows * longest <= 40 for rows, longest in shapes)
    assert len({rows for rows, _ in shapes}) > 1


def test_tokens_of_texts_and_pairs() -> None:
    """A boundary begins, and ends each text; what is cut ends with a boundary too."""
    tokenizer = build(ROWS).preprocessor["text"]
    word = {name: int(tokenizer.encode(name)[0]) for name in ("good", "text", "very")}
    end = tokenizer.eos_id
    assert encode_text(tokenizer, "good text", None, 99).tolist() == [end, word["good"], word["text"], end]
    pair = [end, word["good"], end, word["text"], word["very"], end]
    assert encode_text(tokenizer, "good", "text very", 99).tolist() == pair
    assert encode_text(tokenizer, "good", "text very", 5).tolist() == [*pair[:4], end]
    assert encode_text(tokenizer, "", None, 99).tolist() == [end, end]


def test_long_texts_are_cut_and_counted() -> None:
    data = build(ROWS, max_seq_len=6)
    for part in data.splits.values():
        full = [encode_text(data.preprocessor["text"], one.text, None, 99) for one in part.examples]
        assert part.cut == sum(len(ids) > 6 for ids in full) > 0
        assert [len(ids) for ids in part.tokens] == [min(6, len(ids)) for ids in full]
        for ids, whole in zip(part.tokens, full, strict=True):
            assert ids.tolist() == [*whole[:5].tolist(), data.preprocessor["text"].eos_id]
    note = next(note for note in data.notes() if note.startswith("train"))
    cut = data.splits["train"].cut
    assert note == f"train: {cut} texts of 48 cut after 6 tokens (data.max_seq_len)"
    assert data.describe()["splits"]["train"]["cut"] == cut
    assert not build(ROWS).notes()


def test_numbers_are_sorted_by_value() -> None:
    labels = ["10", "9", "-1", "100"]
    assert build([(f"t{n}", labels[n % 4]) for n in range(60)]).preprocessor.labels == (
        "-1",
        "9",
        "10",
        "100",
    )
    labels = ["10", "--1", "1"]  # digits with two signs are no number
    assert build([(f"t{n}", labels[n % 3]) for n in range(60)]).preprocessor.labels == ("--1", "1", "10")


def test_labels_that_are_the_same_number_keep_an_order() -> None:
    rows = [(f"t{n}", ["01", "1", "0"][n % 3]) for n in range(60)]
    assert build(rows).preprocessor.labels == build(rows[::-1]).preprocessor.labels == ("0", "01", "1")


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"has 1 label \(a\); a classifier needs two or more"):
        build([(text, "a") for text, _ in ROWS])
    rows = [(text, "") for text, _ in ROWS]
    with pytest.raises(UserError, match=r"has 0 labels \(none\); a classifier needs two or more"):
        build(rows, multilabel=True)


def test_notes() -> None:
    """On empty texts, classes with a single text, and texts that are in training too."""
    rows = [*ROWS, ("", "a"), ("only one", "c"), (" ", "b")]
    write("test.csv", "text,label\nonly one,c\nnew,a\n")
    data = build(rows, test_path="test.csv")
    assert data.notes() == [
        "2 texts of some.csv empty (some.csv, line 62 is the first)",
        "test: 1 text of 2 also in training",
        "1 label with a single training text: c",
    ]
    assert data.describe()["skipped"] == data.notes()
    lengths = [len(ids) for part in data.splits.values() for ids in part.tokens]
    assert min(lengths) == 2


def test_an_unknown_label_at_test() -> None:
    write("test.csv", "text,label\nx,a\ny,bb\n")
    with pytest.raises(
        UserError, match=r"test\.csv, line 3: label 'bb' does not occur in training, which has a, b\. Did you"
    ):
        build(ROWS, test_path="test.csv")


def test_several_labels_in_a_batch() -> None:
    rows = [(f"t{n}", ["", "a", "b", "a,b"][n % 4]) for n in range(60)]
    data = build(rows, multilabel=True)
    batch = next(data.eval_batches("val"))
    assert batch.labels.dtype == torch.float32
    assert batch.labels.shape == (len(batch), 2)
    examples = data.splits["val"].examples
    for index, row in zip(batch.index.tolist(), batch.labels.tolist(), strict=True):
        assert [float(label in examples[index].labels) for label in ("a", "b")] == row


def test_the_preprocessor_of_another_run() -> None:
    """Its tokenizer is taken, and its labels if it has any."""
    first = build(ROWS)
    bare = Preprocessor({"text": first.preprocessor["text"]})
    other = config(path=table("other.csv", [(f"unseen {text}", label + "x") for text, label in ROWS]))
    taken = LabelledData.build(other, WORD, 1, bare)
    assert taken.preprocessor["text"] is first.preprocessor["text"]
    assert taken.preprocessor.labels == ("ax", "bx")
    same = LabelledData.build(config(path="some.csv", max_seq_len=9), WORD, 1, first.preprocessor)
    assert same.preprocessor["text"] is first.preprocessor["text"]
    assert same.preprocessor.values == {**first.preprocessor.values, "max_seq_len": 9}
    with pytest.raises(UserError, match=r"label '.x' does not occur in training, which has a, b"):
        LabelledData.build(other, WORD, 1, first.preprocessor)


def test_the_hash_depends_on_texts_and_labels() -> None:
    first = build(ROWS).corpus.sha256
    assert build(list(ROWS)).corpus.sha256 == first
    for changed in ([("x", "a"), *ROWS[1:]], [(ROWS[0][0], "b"), *ROWS[1:]], ROWS[:-1]):
        assert build(changed).corpus.sha256 != first


# Evaluation


def test_evaluation_on_other_texts() -> None:
    data = build(ROWS)
    write("other.csv", "text,label\ngood thing,a\n,b\n")
    other = LabelledData.for_evaluation(
        data.config, data.preprocessor, {}, OtherDataConfig(path="other.csv"), 1
    )
    assert list(other.splits) == ["all"]
    assert other.default_split == "all"
    assert other.corpus.sha256 != data.corpus.sha256
    assert other.notes()[0] == "1 text of other.csv empty (other.csv, line 3 is the first)"
    with pytest.raises(UserError, match=r"data\.lengths=: the data of this run has no such setting"):
        LabelledData.for_evaluation(data.config, data.preprocessor, {}, OtherDataConfig(lengths=[3]), 1)


def test_evaluation_in_another_encoding() -> None:
    data = build(ROWS)
    write("other.csv", "text,label\nl'\xe9t\xe9 ça,a\n".encode("utf-16-le"))
    wanted = OtherDataConfig(path="other.csv", encoding="utf-16-le")
    other = LabelledData.for_evaluation(data.config, data.preprocessor, {}, wanted, 1)
    assert other.splits["all"].examples[0].text == "l'été ça"


TINY = (
    "model=fasttext_bag", "model.n_embd=4", "model.buckets=50", "debug=fast", "trainer.max_steps=2",
    "trainer.sample_tokens=0", "device=cpu", "device.threads=1", "device.precision=fp32", "name=tiny",
)  # fmt: skip


def test_changed_texts_are_refused_by_eval(run_main: Main) -> None:
    """And other texts are evaluated with data.path=."""
    ran = run_main("train", "data=table", f"data.path={table('some.csv', ROWS)}", *TINY)
    assert ran.code == 0, ran.err
    assert run_main("eval", "device.threads=1").code == 0
    table("some.csv", [("changed", "a"), *ROWS[1:]])
    told = said_shortly(run_main("eval", "device.threads=1"))
    assert "the corpus has changed" in told
    assert "data.path=" in told
    write("other.csv", "text,label\ngood text,b\nbad text,a\nbad,a\n")
    ran = run_main("eval", "data.path=other.csv", "device.threads=1")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert (result["split"], result["classification"]["texts"]) == ("all", 3)
    assert {name for name in result["metrics"] if "tfidf" in name} == set()
    write("other.csv", "text,label\ngood text,c\n")
    assert "other.csv, line 2: label 'c'" in said_shortly(
        run_main("eval", "data.path=other.csv", "device.threads=1")
    )
    assert "none.csv" in said_shortly(run_main("eval", "data.path=none.csv", "device.threads=1"))


def test_what_train_refuses_and_notes(run_main: Main) -> None:
    write("bad.csv", "text,label\na\n")
    told = said_shortly(run_main("train", "data=table", "data.path=bad.csv", *TINY))
    assert "bad.csv, line 2: 1 column, and the header has 2." in told
    told = said_shortly(run_main("train", "data=table", *TINY))
    assert "no texts were given; write data.path=" in told
    ran = run_main("train", "data=table", f"data.path={table('a.csv', [*ROWS, ('', 'c')])}", *TINY)
    assert ran.code == 0, ran.err
    for note in ("a.csv empty", "1 label with a single training text: c"):
        assert any(line.startswith("NOTE: ") and note in line for line in ran.err.splitlines()), ran.err
    run = max(Path("outputs/train/tiny").iterdir())
    first, *_ = read_json(run / "manifest.json")["corpus"]["skipped"]
    assert "a.csv empty" in first


# Data sets


def test_the_opinions() -> None:
    """The same each time; about as many of each kind; no text twice; an adjective alone does not decide."""
    found = opinions()
    assert found == opinions()
    assert len(found) == len({one.text for one in found}) == 4000
    counts = label_counts(found)
    assert abs(counts["negative"] - counts["positive"]) < 200
    # The expected film is not the film that was seen.
    with_dull = Counter(one.labels[0] for one in found if " dull" in one.text)
    assert min(with_dull.values()) > 0.3 * sum(with_dull.values())
    data = OpinionsData.build(OpinionsConfig(name="opinions", max_seq_len=60), WORD)
    sizes = [len(part.examples) for part in data.splits.values()]
    assert sum(sizes) == 4000
    assert sizes[1] == pytest.approx(400, abs=3)
    assert not any(part.cut for part in data.splits.values())
    assert data.describe()["generated"] is True


def real(shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str) -> dict[str, Any]:
    """The configuration of ``conf/data/<name>.yaml``, if its files are here."""
    import yaml

    if not (shared_data / folder).is_dir():
        pytest.skip(f"{folder} is not in $SEQEXP_DATA")
    monkeypatch.setenv("SEQEXP_DATA", str(shared_data))
    file = Path(__file__).parents[1] / f"conf/data/{name}.yaml"
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    del values["defaults"]
    assert values["folder"] == folder
    if isinstance(values["max_seq_len"], str):  # it goes by the model
        values["max_seq_len"] = 256
    return {"name": name, **values}


@pytest.mark.parametrize(
    ("name", "folder", "sizes", "labels"),
    [
        ("sst2", "sentconv", (6920, 872, 1821), ["negative", "positive"]),
        ("sst5", "sentconv", (8544, 1101, 2210),
         ["negative", "neutral", "positive", "very_negative", "very_positive"]),
        ("trec", "sentconv", (5452, 500), ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]),
        ("banking77", "banking77", (10_003, 3080), 77),
        ("cls_books", "cls_books_fr", (1600, 400, 2000), ["negative", "positive"]),
        ("umsab", "umsab/english", (1839, 324, 870), ["negative", "neutral", "positive"]),
    ],
)  # fmt: skip
def test_the_real_data_sets(
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    folder: str,
    sizes: tuple[int, ...],
    labels: list[str] | int,
) -> None:
    """The published sizes, and all labels in each split; of two files, the training file is cut."""
    values = real(shared_data, monkeypatch, name, folder)
    corpus = find_labelled(load_schema("data", name)(**values))
    found = {split: len(part) for split, part in corpus.splits.items()}
    if len(sizes) == 3:
        assert tuple(found.values()) == sizes
    else:
        assert (found["train"] + found["val"], found["test"]) == sizes
        assert found["val"] == pytest.approx(sizes[0] / 10, rel=0.05)
    for part in corpus.splits.values():
        there = sorted(label_counts(part))
        assert (there if isinstance(labels, list) else len(there)) == labels
    assert corpus.notes == ()
    assert corpus.origin == str(shared_data / folder)


def test_the_french_reviews_are_text_again(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = real(shared_data, monkeypatch, "cls_books", "cls_books_fr")
    texts = [one.text for one in find_labelled(LabelledConfig(**values)).splits["train"]]
    assert not any("\u2581" in text for text in texts)
    # Words are joined: the mean length of a word is that of French, not that of pieces.
    words = sum(len(text.split()) for text in texts)
    assert 4.5 < sum(map(len, texts)) / words < 7


def test_the_fine_kinds_of_trec(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = real(shared_data, monkeypatch, "trec", "sentconv")
    corpus = find_labelled(LabelledConfig(**{**values, "label_until": None}))
    kinds = label_counts([one for part in corpus.splits.values() for one in part])
    assert len(kinds) == 50
