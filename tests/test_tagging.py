"""Taggers: the files they read, their batches and loss, and `seqexp train`, `eval` and `generate`."""

import gzip
import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran, _main, _stand_clean
from run_folders import read, rows_of, said_shortly, strict_json
from translation_models import wild

from seqexp.config.run import GenerationConfig
from seqexp.config.tagged import TaggedConfig
from seqexp.config.tagging import TaggingConfig
from seqexp.config.tokenizer import SentencePieceConfig, TokenizerConfig, WhitespaceConfig, WordConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.characters import BEGIN, END, MOST_BYTES, word_characters
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.span_schemes import invalid_steps, may_follow
from seqexp.data.tagged import Sentence, read_tagged, usual_tags, with_all_splits
from seqexp.data.tagged_data import TaggedData, encode_words, word_batch
from seqexp.errors import UserError
from seqexp.metrics.outcomes import OUTCOMES, from_bytes
from seqexp.metrics.spans import score_spans
from seqexp.models.bert import Bert
from seqexp.models.crf import negative_log_likelihood, viterbi
from seqexp.models.recurrent_encoder import RecurrentEncoder
from seqexp.tasks.base import EvalOptions
from seqexp.tasks.tagging import Tagging
from seqexp.tokenizers.word import WordTokenizer
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")

Main = Callable[..., Ran]

DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")
FAST = ("debug=fast", "scheduler=constant", "optimizer.lr=1e-2", *DEVICE)
BIRNN = ("model=birnn", "model.n_embd=8", "model.hidden_size=6")

NAMES = {
    "person": ["Anna", "Zoë", "Peter Pan", "Mary Ann Lee"],
    "place": ["Rome", "New York", "Le Mans", "Oslo"],
}


def sentences(n: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Words with the BIO tags of names."""
    draw, made = random.Random(seed), []
    for _ in range(n):
        words = []
        for kind, text in (("person", "saw"), ("place", ".")):
            name = draw.choice(NAMES[kind]).split()
            words += [(word, f"{'I' if i else 'B'}-{kind}") for i, word in enumerate(name)]
            words += [(text, "O")] if text == "." else [(draw.choice(["saw", "liked"]), "O"), ("in", "O")]
        made.append(words)
    return made


def columns(some: list[list[tuple[str, str]]], separator: str = "\t") -> str:
    return "\n".join("".join(f"{word}{separator}{tag}\n" for word, tag in one) for one in some)


def write(name: str, text: str) -> Path:
    Path(name).write_text(text, encoding="utf-8", newline="")
    return Path(name)


def own(n: int = 60) -> str:
    """The words that name a file of tagged words."""
    return f"data.path={write('some.conll', columns(sentences(n)))}"


def config(**options: Any) -> TaggedConfig:
    return TaggedConfig(**{"name": "tagged", "path": "some.conll", **options})


def plain(found: list[Sentence]) -> list[list[tuple[str, str]]]:
    return [list(zip(one.words, one.tags, strict=True)) for one in found]


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path.absolute()


# Files


def test_columns_between_tabs_or_spaces() -> None:
    expected = [[("a b", "O"), ("#tag", "B-x")], [("c", "O")]]
    assert plain(read_tagged(write("a", "a b\tO\n#tag\tB-x\n\t\nc\tO"), config())) == expected
    spaces = "-DOCSTART- -X- O\n\n\na  NN O\n#tag NN B-x \n\n-DOCSTART- -X- O\nc NN O\n\n"
    expected[0][0] = ("a", "O")
    assert plain(read_tagged(write("b", spaces), config())) == expected
    parts = [[("a", "NN"), ("#tag", "NN")], [("c", "NN")]]
    assert plain(read_tagged(Path("b"), config(tag_column="1"))) == parts
    found = read_tagged(write("d", "1\tB-x\tc\n2\tO\td\n"), config(word_column=2, tag_column="1"))
    assert plain(found) == [[("c", "B-x"), ("d", "O")]]
    assert found[0].where == "d, line 1"


def test_line_ends_and_packed_files() -> None:
    expected = sentences(5)
    text = columns(expected).replace("\n", "\r\n")
    assert plain(read_tagged(write("a", text), config())) == expected
    Path("b.gz").write_bytes(gzip.compress(text.encode()))
    assert plain(read_tagged(Path("b.gz"), config())) == expected
    Path("c").write_bytes(columns(expected).encode("latin-1"))
    assert plain(read_tagged(Path("c"), config(encoding="latin-1"))) == expected


CONLLU = """\
# sent_id = 1
# text = Don't go.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\tSpaceAfter=No
3.1\tgone\tgo\tVERB\tVBN\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

# sent_id = 2
1\t#\t#\tSYM\tNFP\t_\t0\troot\t_\t_
2\t10 000\t10 000\tNUM\tCD\t_\t1\tdep\t_\t_
"""


@pytest.mark.parametrize("name", ["a.conllu", "a.txt", "a.conllu.gz"])
def test_universal_dependencies(name: str) -> None:
    data = CONLLU.encode()
    Path(name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = read_tagged(Path(name), config())
    assert plain(found) == [
        [("Do", "AUX"), ("n't", "PART"), ("go", "VERB"), (".", "PUNCT")],
        [("#", "SYM"), ("10 000", "NUM")],
    ]
    assert [one.where for one in found] == [f"{name}, line 4", f"{name}, line 11"]
    own_tags = [tag for one in read_tagged(Path(name), config(tag_column="xpos")) for tag in one.tags]
    assert own_tags == ["VBP", "RB", "VB", ".", "NFP", "CD"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\tO\nb\n", {}, "some, line 2: expected 2 columns, as in the first row, got 1: 'b'"),
        ("a O\n\nb c O\n", {}, "some, line 3: expected 2 columns"),
        ("a\nb\n", {}, "some, line 1: expected a word and its tag in two columns"),
        ("a O\n", {"tag_column": "3"}, "some, line 1 has 2 columns, so data.tag_column=3 does not exist"),
        ("a O\n", {"word_column": 2}, "some, line 1 has 2 columns, so data.word_column=2 does not exist"),
        ("a O\n", {"word_column": 1}, "some, line 1: expected a word and its tag"),
        ("a\tO\n\tO\n", {}, "some, line 2: there is no word: '\\tO'"),
        ("a\tO\nb\t\n", {}, "some, line 2: there is no tag: 'b\\t'"),
        ("a O\n", {"tag_column": "upos"}, "data.tag_column=upos is a column of CoNLL-U"),
        (" \n\n", {}, "some has no tagged words"),
        (CONLLU.replace("\tSpaceAfter=No", ""), {}, "some, line 6: expected the 10 columns of CoNLL-U"),
        (CONLLU.replace("3.1", "x"), {}, "some, line 7: expected the id of a word, such as 1, 1-2 or 1.1"),
        (CONLLU.replace("AUX", "_"), {}, "some, line 4: the word 'Do' has no upos; add it, or use data.tag"),
        (CONLLU, {"tag_column": "2"}, "are for CoNLL columns, and some is CoNLL-U"),
        (CONLLU, {"word_column": 2}, "are for CoNLL columns, and some is CoNLL-U"),
    ],
)
def test_malformed_files(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_tagged(write("some", text), config(**options))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_splits_are_tenths_of_training() -> None:
    train = [Sentence((f"w{number}",), ("O",)) for number in range(100)]
    made = with_all_splits({"train": train})
    assert [len(made[name]) for name in ("train", "val", "test")] == [81, 10, 9]
    assert sorted(one.words[0] for some in made.values() for one in some) == sorted(
        one.words[0] for one in train
    )
    assert with_all_splits({"train": train}) == made
    given = with_all_splits({"train": train, "test": train[:3]})
    assert (len(given["train"]), given["test"], given["val"]) == (90, train[:3], made["val"])
    assert [len(some) for some in with_all_splits({"train": train[:3]}).values()] == [1, 1, 1]
    with pytest.raises(UserError, match=r"2 training sentences cannot be cut into .* data\.test_path="):
        with_all_splits({"train": train[:2]})


# Tokens and batches


def data_of(
    some: list[list[tuple[str, str]]] | None = None, tokenizer: Any = None, **options: Any
) -> TaggedData:
    write("some.conll", columns(some or sentences(60)))
    return TaggedData.build(config(**options), tokenizer or WordConfig())


def test_a_tag_belongs_to_the_first_token_of_its_word() -> None:
    """The words @ann and don't are several tokens; 1 is the unknown one."""
    tokenizer = WordTokenizer.fit(WordConfig(min_count=1), ["@ann", "don't"])
    (row,) = encode_words(tokenizer, ["@ann", "x", "don't", "@"], 100, first=7)
    assert [tokenizer.piece(int(number)) for number in row.tokens[1:-1]] == [
        *("@", "￭ann"), "<unk>", *("don", "'t"), "@",
    ]  # fmt: skip
    assert row.tokens[0] == tokenizer.bos_id
    assert row.tokens[-1] == tokenizer.eos_id
    assert row.starts.tolist() == [1, 3, 4, 6]
    assert (row.first, row.words) == (7, slice(7, 11))


def test_long_sentences_are_cut_between_words() -> None:
    tokenizer = WordTokenizer.fit(WordConfig(min_count=1), ["a", "b-c-d-e"])
    rows = encode_words(tokenizer, ["a", "a", "b-c-d-e", "a", "a"], 5)
    assert [(row.first, row.starts.tolist(), len(row.tokens)) for row in rows] == [
        (0, [1, 2], 4), (2, [1], 5), (3, [1, 2], 4),
    ]  # fmt: skip
    whole = encode_words(tokenizer, ["a"] * 8, 10)
    assert [len(row.tokens) for row in whole] == [10]
    (empty,) = encode_words(tokenizer, [], 10)
    assert (empty.tokens.tolist(), empty.starts.tolist()) == ([0, 0], [])


@pytest.mark.parametrize(
    ("tokenizer", "options"),
    [
        (WordConfig(), {}),
        (WordConfig(min_count=1), {"max_seq_len": 5}),
        (TokenizerConfig("char"), {"batch_tokens": 100}),
        (TokenizerConfig("char"), {"max_seq_len": 9}),
        (SentencePieceConfig(vocab_size=320), {}),
    ],
    ids=["word", "parts", "char", "char-parts", "sentencepiece"],
)
def test_every_word_has_its_target_once(tokenizer: Any, options: dict[str, Any]) -> None:
    data = data_of(None, tokenizer, **options)
    tags = data.preprocessor.labels
    assert tags == ("B-person", "B-place", "I-person", "I-place", "O")
    for name, part in data.splits.items():
        found: dict[int, list[str]] = {}
        for batch in data.eval_batches(name):
            assert batch.starts.shape == batch.targets.shape
            assert batch.lengths["words"].tolist() == [len(part.rows[one].starts) for one in batch.index]
            assert batch.tokens.shape[1] == batch.lengths["tokens"].max() <= data.config.max_seq_len
            assert batch.counts.tolist() == (batch.targets != IGNORE).sum(1).tolist()
            for number, targets in zip(batch.index.tolist(), batch.targets, strict=True):
                assert number not in found
                found[number] = [tags[tag] for tag in targets[targets != IGNORE].tolist()]
        in_order = [tag for number in range(len(part.rows)) for tag in found[number]]
        assert in_order == [tag for sentence in part.sentences for tag in sentence.tags]
        assert data.eval_count(name) == len(in_order)
    epoch = [data.train_batch(step) for step in range(int(data.steps_per_epoch))]
    assert sum(batch.count for batch in epoch) == len(data.splits["train"].targets)
    again = data_of(None, tokenizer, **options).train_batch(1)
    assert torch.equal(again.tokens, epoch[1].tokens)
    assert not all(
        torch.equal(one.index, data.train_batch(step + len(epoch)).index) for step, one in enumerate(epoch)
    )


def test_a_word_that_no_token_stands_for() -> None:
    class Silent(WordTokenizer):
        def encode(self, text: str) -> Any:
            return super().encode(text) if text != "\xad" else np.array([], dtype=np.uint32)

    tokenizer = Silent(["a"])
    (row,) = encode_words(tokenizer, ["a", "\xad", "a"], 10)
    assert row.tokens.tolist() == [0, 2, 1, 2, 0]
    assert row.starts.tolist() == [1, 2, 3]


def test_characters_are_bytes_between_marks() -> None:
    """Of any letter; an empty word has marks alone, and of a long one the first bytes are read."""
    words = ["", "ab", "é\x00", "\U0001f600", "x" * 1000]
    found = word_characters(words)
    assert found.shape == (5, MOST_BYTES + 2)
    for word, row in zip(words, found.tolist(), strict=True):
        expected = [BEGIN, *(byte + 1 for byte in word.encode()[:MOST_BYTES]), END]
        assert row == expected + [0] * (len(row) - len(expected))
    assert word_characters([]).shape == (0, 2)


def test_characters_stand_at_the_first_token_of_their_word() -> None:
    long = "http://" + "x" * MOST_BYTES
    data = data_of([[("don't", "O"), ("Zoë", "B-x"), (long, "O")]] * 30, WordConfig(min_count=1))
    batch = next(data.eval_batches("val"))
    starts = batch.starts[0].tolist()
    assert batch.tokens.shape[1] > len(starts) + 2  # words of several tokens
    for position, characters in enumerate(batch.characters[0].numpy()):
        here = starts.index(position) if position in starts else None
        word = [] if here is None else word_characters([("don't", "Zoë", long)[here]])[0]
        assert characters[: len(word)].tolist() == list(word)
        assert not characters[len(word) :].any()
    assert (
        "val: 3 words of 9 longer than 48 bytes; of their characters, models read the first" in data.notes()
    )
    assert data.describe()["splits"]["val"]["cut_words"] == 3


def test_unknown_words_differ_by_their_characters() -> None:
    """Two words of unknown letters are the same token, and read alike without characters only."""
    data = data_of(None, WhitespaceConfig())
    for model in models(data)[:2]:
        one, other = (
            read_by(model, word_batch(encode_words(data.preprocessor["text"], [word], 10)))[0, 1]
            for word in ("日本", "ŵŷ")
        )
        assert torch.equal(one, other) != getattr(model, "reads_characters", False)


def test_usual_tags() -> None:
    some = [Sentence(("a", "a", "b", "c"), ("X", "Y", "Z", "Y")), Sentence(("a", "c"), ("Y", "X"))]
    assert usual_tags(some) == {"a": "Y", "b": "Z", "c": "X"}


# Loss and evaluation


def models(data: TaggedData) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    sizes = data.preprocessor.sizes()
    return [
        RecurrentEncoder(**sizes, n_embd=5, hidden_size=4).eval().requires_grad_(False),
        RecurrentEncoder(**sizes, n_embd=5, hidden_size=4, char_embd=3, char_filters=6)
        .eval()
        .requires_grad_(False),
        wild(Bert(**sizes, max_len=60, n_layer=1, n_embd=8, n_head=2), torch.float32).requires_grad_(False),
    ]


def read_by(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The outputs (B, T, C)."""
    characters = (batch.characters,) if getattr(model, "reads_characters", False) else ()
    outputs: torch.Tensor = model(batch.tokens, batch.lengths["tokens"], *characters)
    return outputs


def test_the_loss_is_that_of_a_loop_over_words() -> None:
    data = data_of()
    batch = data.train_batch(0)
    for model in models(data):
        expected = 0.0
        logits = read_by(model, batch).double()
        for row, starts, targets in zip(logits, batch.starts, batch.targets.tolist(), strict=True):
            for position, target in zip(starts.tolist(), targets, strict=True):
                if target != IGNORE:
                    scores = [math.exp(float(x)) for x in row[position]]
                    expected -= math.log(scores[target] / sum(scores))
        found = Tagging(TaggingConfig()).loss(model, batch, training=True)
        assert float(found.loss_sum) == pytest.approx(expected, rel=1e-5)
        assert float(found.nll_sum) == pytest.approx(expected, rel=1e-5)
        smooth = Tagging(TaggingConfig(label_smoothing=0.1)).loss(model, batch, training=True)
        assert float(smooth.nll_sum) == pytest.approx(expected, rel=1e-5)
        assert float(smooth.loss_sum) != pytest.approx(expected, rel=1e-4)
        unsmoothed = Tagging(TaggingConfig(label_smoothing=0.1)).loss(model, batch)
        assert float(unsmoothed.loss_sum) == pytest.approx(expected, rel=1e-5)


def test_padding_changes_nothing() -> None:
    data = data_of()
    rows = data.splits["train"].rows
    short, long = (pick(rows, key=lambda row: len(row.tokens)) for pick in (min, max))
    assert len(short.tokens) < len(long.tokens)
    for model in models(data):
        alone, together, swapped = (
            read_by(model, word_batch(some)) for some in ([short], [short, long], [long, short])
        )
        torch.testing.assert_close(together[0, : len(short.tokens)], alone[0])
        torch.testing.assert_close(together, swapped.flip(0))


def test_evaluation_is_that_of_single_sentences() -> None:
    """With sentences in parts, too, and the same for batches of any size."""
    task, tags = Tagging(TaggingConfig(constrained=False)), data_of().preprocessor.labels
    for options in ({}, {"max_seq_len": 5}):
        data = data_of(None, None, **options)
        part = data.splits["val"]
        for model in models(data):
            chosen: list[list[str]] = [[] for _ in part.sentences]
            nll = 0.0
            numbers = part.sentence_numbers
            for row in part.rows:
                logp = read_by(model, word_batch([row]))[0, row.starts].log_softmax(dim=1)
                chosen[numbers[row.first]] += [tags[tag] for tag in logp.argmax(dim=1)]
                nll -= sum(float(one[tag]) for one, tag in zip(logp, part.targets[row.words], strict=True))
            true = [sentence.tags for sentence in part.sentences]
            pairs = [
                pair for one, other in zip(true, chosen, strict=True) for pair in zip(one, other, strict=True)
            ]
            found = task.evaluate(model, data, "val")
            assert found["loss"].value == pytest.approx(nll / len(pairs), rel=1e-5)
            accuracy = found["accuracy"]
            assert accuracy.value == pytest.approx(np.mean([one == other for one, other in pairs]))
            assert accuracy.count == len(pairs)
            assert accuracy.interval is not None
            assert accuracy.interval[0] < accuracy.value < accuracy.interval[1]
            assert found["f1"].value == pytest.approx(score_spans(true, chosen)[0].f1)


def test_a_field_is_trained_and_read_by_its_own_functions() -> None:
    """Loss and tags are those of single sentences, with and without constraints."""
    data = data_of()
    tags, part = data.preprocessor.labels, data.splits["val"]
    for constrained in (True, False):
        task = Tagging(TaggingConfig(crf=True, constrained=constrained))
        for model in models(data)[:2]:
            task.extend(model, data.preprocessor)
            torch.manual_seed(2)
            transitions = model.crf.transitions.detach().normal_(std=2)
            allowed = [
                [float(constrained and not may_follow("IOB2", one, other)) for other in (*tags, "O")]
                for one in (*tags, "O")
            ]
            nll, chosen = 0.0, []
            for row in part.rows:
                emissions = read_by(model, word_batch([row]))[:, row.starts]
                real = torch.ones(1, len(row.starts), dtype=torch.bool)
                targets = torch.from_numpy(part.targets[row.words])[None]
                nll += float(negative_log_likelihood(emissions, real, transitions, targets))
                best = viterbi(emissions, real, transitions - 1e6 * torch.tensor(allowed))
                chosen.append([tags[tag] for tag in best[0]])
            found = task.evaluate(model, data, "val", EvalOptions(generation=GenerationConfig()))
            assert found["loss"].value == pytest.approx(nll / len(part.targets), rel=1e-5)
            lines = found.files["predictions.tsv"].splitlines()
            assert [line.split("\t")[2] for line in lines if line] == [tag for some in chosen for tag in some]
            assert (invalid_steps("IOB2", chosen) == 0) == constrained


def test_tags_that_training_does_not_have_are_errors() -> None:
    odd = sentences(20, seed=1)
    odd[0][0] = (odd[0][0][0], "B-planet")
    odd[1][0] = (odd[1][0][0], "strange")
    write("val.conll", columns(odd))
    data = data_of(None, None, val_path="val.conll")
    words = sum(map(len, odd))
    assert any(
        note
        == f"val: 2 words of {words} with tags that do not occur in training (B-planet, strange); counted "
        "as errors, left out of the loss"
        for note in data.notes()
    )
    task, model = Tagging(TaggingConfig()), models(data)[0]
    evaluation = task.evaluate(model, data, "val", EvalOptions(generation=GenerationConfig()))
    assert evaluation["loss"].count == words - 2
    assert evaluation["accuracy"].count == words
    report = evaluation.details["tagging"]
    assert [one for one in report["spans"] if one["type"] == "planet"] == [
        {"type": "planet", "precision": 0, "recall": 0, "f1": 0, "true": 1, "predicted": 0, "correct": 0}
    ]
    nll = sum(float(task.loss(model, batch).nll_sum) for batch in data.eval_batches("val"))
    assert evaluation["loss"].value == pytest.approx(nll / (words - 2), rel=1e-6)


def test_the_baseline_by_hand() -> None:
    """It knows Rome as a place; the unknown Bergen is O, and the most frequent tag without O."""
    train = [[("Rome", "B-place"), ("x", "O")]] * 3 + [[("Rome", "O"), ("Oslo", "B-place")]]
    held_out = [[("Rome", "B-place"), ("Bergen", "B-place"), ("x", "O")]]
    write("val.conll", columns(held_out))
    write("test.conll", columns(held_out))
    data = data_of(train, WordConfig(min_count=1), val_path="val.conll", test_path="test.conll")
    task, full = Tagging(TaggingConfig()), EvalOptions(generation=GenerationConfig())
    found = task.evaluate(models(data)[0], data, "test", full)
    assert found["baseline_accuracy"].value == pytest.approx(2 / 3)
    assert found["baseline_f1"].value == pytest.approx(2 / 3)  # 1 of 1 predicted, 1 of 2 true
    assert found["unknown_accuracy"].count == 1
    swap = {"B-place": "NOUN", "O": "VERB"}
    train, held_out = (
        [[(word, swap[tag]) for word, tag in one] for one in some] for some in (train, held_out)
    )
    write("val.conll", columns(held_out))
    write("test.conll", columns(held_out))
    data = data_of(train, WordConfig(min_count=1), val_path="val.conll", test_path="test.conll")
    task.check(data, "val")
    found = task.evaluate(models(data)[0], data, "test", full)
    assert found["f1"].value == found["accuracy"].value
    assert task.metrics["f1"].unit == "F1 of words, micro average: their accuracy"
    assert "baseline_f1" not in found
    assert found["baseline_accuracy"].value == pytest.approx(1)  # NOUN and VERB are equally frequent
    (table, *_) = task.tables(found.details)
    assert [row[0] for row in table.rows] == sorted({"NOUN", "VERB"})


def test_a_tag_that_is_no_span_is_said() -> None:
    odd = sentences(40)
    odd[2][0] = (odd[2][0][0], "B_person")
    write("val.conll", columns(sentences(5)))
    write("test.conll", columns([[("Rome", "I-place"), ("Oslo", "B-place")]]))
    line = 1 + sum(len(one) + 1 for one in odd[:2])
    paths = {"val_path": "val.conll", "test_path": "test.conll"}
    data = data_of(odd, None, **paths)
    assert data.preprocessor.values["span_scheme"] is None
    assert (
        "the tag 'B_person' is neither O nor B, I, E or S with a type (sentence at some.conll, line "
        f"{line}), so that no tags count as spans"
    ) in data.notes()
    data = data_of(None, None, **paths)
    assert data.preprocessor.values["span_scheme"] == "IOB2"
    assert "test: 1 pair of neighbouring tags not valid in IOB2" in data.notes()


# The commands


@pytest.fixture(scope="module")
def tagged_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of a finished run of ten steps on `sentences`; tests must not change it."""
    place = tmp_path_factory.mktemp("tagged_run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        ran = _main("train", "data=tagged", own(), *FAST, *BIRNN, "data.batch_size=8", "name=tiny")
    assert ran.code == 0, ran.err
    assert "pictures are missing" not in ran.err
    assert "generate run=latest text=" in ran.err
    (folder,) = (place / "outputs/train/tiny").iterdir()
    return folder


def train(main: Main, *words: str, name: str = "new") -> Path:
    ran = main("train", *FAST, "trainer.sample_tokens=0", *words, f"name={name}")
    assert ran.code == 0, ran.err
    return only(f"outputs/train/{name}/*")


def judge(main: Main, run: Path, *words: str) -> dict[str, Any]:
    ran = main("eval", f"run={run}", *DEVICE, *words)
    assert ran.code == 0, ran.err
    return dict(strict_json(ran.out))


def test_the_folder_of_a_run(tagged_run: Path) -> None:
    details = read(tagged_run / "result.json")["details"]
    assert {name: (one["unit"], one["higher_is_better"]) for name, one in details.items()} == {
        "val/loss": ("nats per word", False),
        "val/accuracy": ("share of words", True),
        "val/f1": ("F1 of spans, micro average", True),
    }
    corpus = read(tagged_run / "manifest.json")["corpus"]
    assert {name: part["sentences"] for name, part in corpus["splits"].items()} == {
        "train": 49, "val": 6, "test": 5,
    }  # fmt: skip
    assert corpus["preprocessor"]["labels"] == ["B-person", "B-place", "I-person", "I-place", "O"]
    sample = (tagged_run / "samples/step_00000010.txt").read_text()
    blocks = sample.strip().split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        tags, prediction = (line.split()[1:] for line in block.splitlines())
        assert [word.rpartition("/")[0] for word in tags] == [word.rpartition("/")[0] for word in prediction]
        assert all(word.rpartition("/")[2] in (*corpus["preprocessor"]["labels"],) for word in prediction)


def test_eval(run_main: Main, tagged_run: Path) -> None:
    result = judge(run_main, tagged_run)
    assert result["split"] == "test"
    assert set(result["metrics"]) >= {
        "test/loss", "test/accuracy", "test/f1", "test/baseline_accuracy", "test/baseline_f1",
    }  # fmt: skip
    assert result["tables"][0]["title"].endswith("by type")
    folder = only("outputs/eval/tiny/*")
    pairs = [line.split("\t")[1:] for line in (folder / "predictions.tsv").read_text().splitlines() if line]
    right = np.mean([true == guess for true, guess in pairs])
    assert result["metrics"]["test/accuracy"] == pytest.approx(right)
    outcomes = from_bytes((folder / OUTCOMES).read_bytes())
    assert list(outcomes) == ["accuracy", "f1"]
    for name, outcome in outcomes.items():
        assert len(outcome.values) == 5  # sentences
        assert outcome.value == pytest.approx(result["metrics"][f"test/{name}"], rel=1e-12)
    wrong = Counter((true, guess) for true, guess in pairs if true != guess)
    assert {(one["true"], one["predicted"]): one["words"] for one in result["tagging"]["confusions"]} == dict(
        wrong.most_common(10)
    )
    sure = [one["probability"] for one in result["tagging"]["surest"]]
    assert sure == sorted(sure, reverse=True)
    assert len(sure) == min(10, sum(wrong.values()))


def test_eval_of_other_words(run_main: Main, tagged_run: Path) -> None:
    """Without the training files, too: the checkpoint knows the baseline."""
    run = Path(shutil.copytree(tagged_run, "run")).absolute()
    write("other.conll", columns([[("Anna", "B-person"), ("xyzzy", "O"), ("Rome", "B-moon")]]))
    result = judge(run_main, run, "data.path=other.conll")
    metrics = result["metrics"]
    assert result["words"] == 3
    assert metrics["all/baseline_accuracy"] == pytest.approx(2 / 3)
    assert result["rows"][0]["metrics"]["unknown_accuracy"]["count"] == 1
    assert "all: 1 word of 3 with tags that do not occur in training (B-moon)" in "".join(result["skipped"])


def test_generate(run_main: Main, tagged_run: Path) -> None:
    """The same for a line alone and among others, for words of several tokens, and for none."""
    lines = ["Anna saw New-York .", "", "don't  \t@you"]
    write("lines.txt", "\n".join(lines) + "\n")
    ran = run_main("generate", f"run={tagged_run}", "input=lines.txt", *DEVICE)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in only("outputs/generate/tiny/*/predictions.jsonl").open()]
    printed = ran.out.splitlines()
    for line, row, text in zip(lines, rows, printed, strict=True):
        assert row["words"] == line.split()
        assert len(row["tags"]) == len(row["probabilities"]) == len(row["words"])
        assert all(0.2 <= p <= 1 for p in row["probabilities"])
        assert text == " ".join(map("/".join, zip(row["words"], row["tags"], strict=True)))
    assert "line 2: " in ran.err
    alone = run_main("generate", f"run={tagged_run}", f"text={lines[0]}", *DEVICE)
    assert alone.out == f"{printed[0]}\n"


@pytest.mark.parametrize(
    "words",
    [
        (*BIRNN, "model.cell=gru", "data.batch_tokens=64", "trainer.ema_decay=0.5"),
        ("model=lstm_tagger", "model.n_embd=8", "model.hidden_size=6", "task.crf=true", "model.dropout=0",
         "trainer.accumulate=2"),
        (*BIRNN, "tokenizer=char", "trainer.accumulate=2", "task.label_smoothing=0.1"),
        (*BIRNN, "tokenizer=sentencepiece", "tokenizer.vocab_size=320", "data.max_seq_len=8"),
        ("model=bert_tiny", "model.n_embd=8", "model.n_head=2", "model.ffn_size=16",
         "model.positions=learned", "model.max_len=6", "data.max_seq_len=6"),
        ("model=gpt", "model.n_embd=8", "model.n_head=2", "model.n_layer=1", "data.max_seq_len=8"),
        ("model=lstm", "model.hidden_size=6", "model.n_embd=8"),
    ],
    ids=lambda words: "-".join(word.partition("=")[2] for word in words),
)  # fmt: skip
def test_every_model_learns(run_main: Main, words: tuple[str, ...]) -> None:
    """And tags a sentence longer than its window."""
    length = ("trainer.max_steps=30", "trainer.eval_every=30", "data.batch_size=16")
    run = train(run_main, "data=tagged", own(), *words, *length)
    found = [row["train/loss"] for row in rows_of(run) if "train/loss" in row]
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    ran = run_main("generate", f"run={run}", f"text={'Anna liked Rome . ' * 5}", *DEVICE)
    assert ran.code == 0, ran.err
    assert [word.partition("/")[0] for word in ran.out.split()] == ["Anna", "liked", "Rome", "."] * 5
    judge(run_main, run, "split=val")


def test_it_learns_names(run_main: Main) -> None:
    words = (
        "trainer.max_steps=150",
        "trainer.eval_every=50",
        "trainer.monitor=val/f1",
        "data.batch_size=16",
    )
    run = train(run_main, "data=tagged", own(200), *BIRNN, *words)
    metrics = judge(run_main, run)["metrics"]
    assert metrics["test/f1"] > 0.95
    assert metrics["test/accuracy"] > 0.97


def test_a_resumed_run_is_the_straight_one(run_main: Main) -> None:
    words = (
        "data=tagged",
        own(),
        *BIRNN,
        "model.dropout=0.2",
        "trainer.eval_every=3",
        "task.crf=true",
        "model.char_filters=5",
        "tokenizer=whitespace",
    )
    straight = train(run_main, *words, "trainer.max_steps=6", name="straight")
    parts = train(run_main, *words, "trainer.max_steps=3", name="parts")
    torch.manual_seed(12345)  # the process that goes on has a history of its own
    ran = run_main("train", f"resume={parts}", "trainer.max_steps=6")
    assert ran.code == 0, ran.err
    states = [Checkpoints(RunFolder(run)).load("last") for run in (straight, parts)]
    for name, weights in states[0]["model"].items():
        assert torch.equal(weights, states[1]["model"][name])
    assert states[0]["preprocessor"] == states[1]["preprocessor"]
    one, other = (
        [{key: row[key] for key in row if key.startswith(("train/", "val/"))} for row in rows_of(run)]
        for run in (straight, parts)
    )
    assert one == other


def test_init_from_another_run(run_main: Main, tagged_run: Path) -> None:
    """The tags are those of the other run; another tag is refused."""
    words = ("data=tagged", own(30), f"init_from={tagged_run}", "task=tagging")
    run = train(run_main, *words, "trainer.max_steps=2")
    assert read(run / "manifest.json")["init_from"]["new"] == []
    write("moons.conll", columns([*sentences(20), [("Io", "B-moon")]] * 2))
    ran = run_main("train", *FAST, *words, "data.path=moons.conll", "name=moons")
    assert "the tag 'B-moon' is not one of the labels of the run that init_from= names" in said_shortly(ran)


def test_parts_of_speech_have_no_spans(run_main: Main) -> None:
    for name in ("train", "val", "test"):
        write(f"{name}.conllu", CONLLU)
    paths = ("data.path=train.conllu", "data.val_path=val.conllu", "data.test_path=test.conllu")
    run = train(run_main, "data=tagged", *paths, *BIRNN, "trainer.max_steps=2")
    saved = read(run / "result.json")
    assert saved["monitor"]["name"] == "val/f1"
    assert saved["metrics"]["val/f1"] == saved["metrics"]["val/accuracy"]
    result = judge(run_main, run)
    assert "test/baseline_f1" not in result["metrics"]
    assert result["tables"][0]["title"].endswith("by tag")
    assert "test: 2 sentences of 2 also in training" in result["skipped"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=textcnn",), "model=textcnn is of kind classifier, and task=tagging"),
        (("task=classification",), "task=classification reads labelled text, and data=tagged gives tagged"),
        (("data=opinions", "task=tagging"), "task=tagging reads tagged words, and data=opinions gives"),
        (("tokenizer=byte",), "tokenizer=byte cannot read data=tagged"),
        (("data.path=null",), "no words were given; write data.path="),
        (("data.path=nowhere",), "data.path: there is no "),
        (("data.path=.",), "is a folder; give a file of tagged words"),
        (("data.val_path=nowhere",), "data.val_path: there is no "),
        (("data.format=csv",), "data.format=csv is not known; it must be one of auto, conll, conllu"),
        (("data.tag_column=pos",), "data.tag_column=pos is not a column; give an index from 0"),
        (("data.tag_column=0",), "data.tag_column=0 and data.word_column=0 are the same column"),
        (("data.tag_column=-1",), "data.tag_column=-1 is not a column"),
        (("data.max_seq_len=2",), "data.max_seq_len=2 is out of range"),
        (("data.format=conllu",), "some.conll, line 1: expected the 10 columns of CoNLL-U"),
        (("task.label_smoothing=1",), "task.label_smoothing=1.0 is out of range"),
        (("task.crf=true", "task.label_smoothing=0.1"), "task.label_smoothing is for tags one by one"),
        (
            ("data=opinions", "task=classification", "model=lstm_tagger"),
            "model.char_filters=30 reads the characters of words, and data=opinions gives none",
        ),
        (
            ("tokenizer=whitespace", "tokenizer.words_path=nowhere"),
            "nowhere is not a file",
        ),
        (("exams=all",), "exams=all is for task=language_modeling"),
        (
            ("data=ud_ewt", "data.path=null"),
            "data=ud_ewt: en_ewt-ud-train.rebuilt.conllu.gz was not found in ",
        ),
    ],
)
def test_what_is_refused(run_main: Main, words: tuple[str, ...], message: str) -> None:
    given = ["data=tagged", own(5), "task=tagging", "model=birnn"]
    changed = {word.partition("=")[0] for word in words}
    kept = [word for word in given if word.partition("=")[0] not in changed]
    if "data=opinions" in words:
        kept.remove("data.path=some.conll")
    said = said_shortly(run_main("train", *FAST, *kept, *words))
    assert message in said


def test_one_tag_is_too_few(run_main: Main) -> None:
    write("one.conll", "a O\n\nb O\n\nc O\n")
    ran = run_main("train", *FAST, "data=tagged", "data.path=one.conll")
    assert "the training split has 1 tag (O); a tagger needs two or more" in said_shortly(ran)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"word_tags": {"a": 99}, "tag_counts": {}},
        {"word_tags": {"a": "O"}, "tag_counts": {}},
        {"word_tags": {"a": 0}, "tag_counts": 3},
        {"word_tags": {"a": 0}, "tag_counts": {"O": "many"}},
    ],
)
def test_damaged_values_of_a_checkpoint(values: dict[str, Any]) -> None:
    whole = data_of()
    damaged = Preprocessor.from_plain({**whole.preprocessor.to_plain(), "values": values})
    data = TaggedData(whole.config, whole.corpus, damaged, 1)
    with pytest.raises(UserError, match="does not have the tags of the training words"):
        Tagging(TaggingConfig()).evaluate(
            models(data)[0], data, "val", EvalOptions(generation=GenerationConfig())
        )


# Real files


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("wnut17", "wnut17", {"train": 3394, "val": 1009, "test": 1287}),
        ("ud_ewt", "ud", {"train": 12544, "val": 2001, "test": 2077}),
    ],
)
def test_real_files(
    run_main: Main,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    folder: str,
    expected: dict[str, int],
) -> None:
    if not (shared_data / folder).is_dir():
        pytest.skip(f"there is no folder {folder} in SEQEXP_DATA")
    monkeypatch.setenv("SEQEXP_DATA", str(shared_data))
    run = train(run_main, f"data={name}", *BIRNN, "trainer.max_steps=1")
    corpus = read(run / "manifest.json")["corpus"]
    assert {split: part["sentences"] for split, part in corpus["splits"].items()} == expected
    assert len(corpus["preprocessor"]["labels"]) == {"wnut17": 13, "ud_ewt": 17}[name]
