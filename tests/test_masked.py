"""Masked language models from the command line: train, fill in, exams, fine-tune, resume."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ran, _main, _stand_clean
from exam_helpers import rows_of
from run_folders import read, said_shortly
from translation_models import wild

from seqexp.config.exams import ExamsConfig
from seqexp.config.tokenizer import BPEConfig, WordPieceConfig
from seqexp.errors import UserError
from seqexp.exams.pseudo import PseudoScorer
from seqexp.models.bert import Bert
from seqexp.tasks.masked_language_modeling import encode_masked
from seqexp.tokenizers.hugging_face import BPETokenizer, WordPieceTokenizer
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")

Main = Callable[..., Ran]
DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")
MODEL = ("model=bert", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "tokenizer.vocab_size=300")
FAST = ("debug=fast", "data=text", *MODEL, "data.seq_len=16", "optimizer.lr=1e-2", *DEVICE)


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path, english: Path) -> Path:
    """The folder of a finished run that sat exams at validations; tests must not change it."""
    place = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        ran = _main("train", *FAST, f"data.path={english}", "exams=all", "exams.pairs=10", "name=masked")
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs/train").glob("*/*")
    return folder


def only(pattern: str) -> Path:
    (found,) = Path().glob(pattern)
    return found


def test_a_run(masked_run: Path) -> None:
    """It learns, fills in validation sentences as samples, and leaves its tokenizer for other programs."""
    rows = rows_of(masked_run / "metrics.jsonl")
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert len(losses) == 2
    assert losses[1] < losses[0] < 1.1 * math.log(300)
    result = read(masked_run / "result.json")
    details = result["details"]
    assert details["val/accuracy"]["unit"] == "share of masked tokens"
    assert details["val/perplexity"]["value"] == pytest.approx(math.exp(result["metrics"]["val/loss"]))
    assert {"exam/spelling", "exam/grammar"} <= set(result["metrics"])
    assert "[MASK] 1: " in (masked_run / "samples/step_00000010.txt").read_text()
    kept = json.loads((masked_run / "tokenizer.json").read_text())
    assert kept["model"]["type"] == "WordPiece"
    config = (masked_run / "config.yaml").read_text()
    assert "name: masked_language_modeling" in config
    assert "name: wordpiece" in config


def test_masks_are_filled_in(run_main: Main, masked_run: Path) -> None:
    texts = "The old [MASK] was very [MASK].\n\n[MASK]"
    Path("texts.txt").write_text(texts)
    ran = run_main("generate", f"run={masked_run}", "input=texts.txt", "generation.top_k=3", *DEVICE)
    assert ran.code == 0, ran.err
    rows = rows_of(only("outputs/generate/masked/*/predictions.jsonl"))
    assert [len(row["masks"]) for row in rows] == [2, 0, 1]
    assert rows[1]["note"] == "empty text"
    for row in (rows[0], rows[2]):
        for mask in row["masks"]:
            p = [one["probability"] for one in mask]
            assert len(p) == 3
            assert p == sorted(p, reverse=True)
            assert 0 < sum(p) < 1
    assert rows[0]["filled"].startswith("The old ")
    assert "[MASK]" not in rows[0]["filled"]
    lines = ran.out.splitlines()
    assert lines[0] == rows[0]["filled"]
    assert lines[1].startswith("  [MASK] 1: ")

    again = run_main("generate", f"run={masked_run}", "text=The old [MASK] was very [MASK].", *DEVICE)
    assert again.out.splitlines()[1].count(", ") >= 4, "five candidates"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The old man.", "there is no [MASK] in the text"),
        ("[MASK] " * 20, "the model's window is 16; give a shorter text"),
    ],
)
def test_texts_that_cannot_be_filled_in(run_main: Main, masked_run: Path, text: str, message: str) -> None:
    ran = run_main("generate", f"run={masked_run}", f"text={text}", *DEVICE)
    assert message in said_shortly(ran)


def test_the_probabilities_are_the_models(run_main: Main, masked_run: Path) -> None:
    """Of the token at the mask, without special tokens."""
    ran = run_main("generate", f"run={masked_run}", "text=The old [MASK].", "generation.top_k=295", *DEVICE)
    assert ran.code == 0, ran.err
    (row,) = rows_of(only("outputs/generate/masked/*/predictions.jsonl"))
    state = Checkpoints(RunFolder(masked_run)).load("best")
    text = state["preprocessor"]["tokenizers"]["text"]["state"]
    tokenizer = WordPieceTokenizer.from_state(text)
    model = Bert(tokenizer.vocab_size, 16, 1, 2, 16)
    model.load_state_dict(state["model"])
    ids = encode_masked(tokenizer, "The old [MASK].")
    assert ids == [2, *tokenizer.encode("The old").tolist(), 4, *tokenizer.encode(".").tolist(), 3]
    logits = model.eval()(torch.tensor([ids]))[0, ids.index(4)]
    logits[:5] = -math.inf
    p = logits.softmax(dim=0)
    found = {one["token"]: one["probability"] for one in row["masks"][0]}
    assert sum(found.values()) == pytest.approx(1, abs=1e-4)
    for number in range(5, tokenizer.vocab_size):
        assert found[tokenizer.piece(number)] == pytest.approx(p[number].item(), abs=1e-5)


def test_a_space_before_a_mask_belongs_to_its_token() -> None:
    tokenizer = BPETokenizer.fit(BPEConfig(vocab_size=400), ["the old house by the old house " * 50])
    ids = encode_masked(tokenizer, "the old [MASK] by the [MASK]")
    whole = tokenizer.encode(" the old house by the house").tolist()
    house = tokenizer.encode(" house").tolist()
    assert len(house) == 1
    assert ids == [0, *(4 if number == house[0] else number for number in whole), 2]


# Evaluation and exams


def test_eval_is_the_validation(run_main: Main, masked_run: Path) -> None:
    ran = run_main("eval", f"run={masked_run}", "exams=grammar", "exams.pairs=10", *DEVICE)
    assert ran.code == 0, ran.err
    now, then = json.loads(ran.out), read(masked_run / "result.json")["metrics"]
    for name in ("val/loss", "val/accuracy"):
        assert now["metrics"][name] == pytest.approx(then[name], rel=1e-5)
    assert now["metrics"]["exam/grammar"] == then["exam/grammar"]


SENTENCES = ["The old man opened the garden.", "a", "the houses, and the houses of man", ""]


@pytest.mark.parametrize("within_word", [False, True])
def test_pseudo_log_likelihood_is_its_loop(within_word: bool) -> None:
    """Token by token, each text alone; also longer than the window."""
    tokenizer = WordPieceTokenizer.fit(
        WordPieceConfig(vocab_size=100), ["the old man opened a garden of houses, and. Th"]
    )
    torch.manual_seed(0)
    for window in (64, 8):
        model = wild(Bert(tokenizer.vocab_size, window, 2, 2, 8))
        scores = PseudoScorer(model, tokenizer, within_word=within_word).score(SENTENCES, words=False)
        for text, found in zip(SENTENCES, scores.log_probabilities, strict=True):
            ids = [2, *tokenizer.encode(text).tolist(), 3]
            assert 1 not in ids
            total = 0.0
            for t in range(1, len(ids) - 1):
                seen = list(ids)
                seen[t] = 4
                later = t + 1
                while within_word and tokenizer.piece(ids[later]).startswith("##"):
                    seen[later] = 4
                    later += 1
                first = max(0, min(t - window // 2, len(ids) - window))
                logits = model(torch.tensor([seen[first : first + window]]))[0, t - first]
                total += logits.log_softmax(dim=0)[ids[t]].item()
            assert found == pytest.approx(total, abs=1e-5)
    pieces = [tokenizer.pieces(text) for text in SENTENCES]
    assert any(piece.startswith("##") for some in pieces for piece in some)


def test_unknown_words_have_no_score() -> None:
    tokenizer = WordPieceTokenizer.fit(WordPieceConfig(vocab_size=100), ["the old man " * 9])
    model = Bert(tokenizer.vocab_size, 64, 1, 2, 8)
    scores = PseudoScorer(model, tokenizer).score(["the man", "the £"], words=False)
    assert np.isnan(scores.log_probabilities).tolist() == [False, True]
    assert scores.unknown == ["", "£"]


# Fine-tuning


def test_classifiers_and_taggers_begin_with_its_weights(run_main: Main, masked_run: Path) -> None:
    """All but the heads; the sizes, the window and the tokenizer come along."""
    short = ("debug=fast", "trainer.max_steps=2", "trainer.sample_tokens=0", *DEVICE)
    Path("words.conll").write_text("\n\n".join(["The\tD\nman\tN\nopened\tV\nit\tP"] * 30))
    for name, words in {
        "classified": ("data=opinions", "data.max_seq_len=16", "model=bert"),
        "tagged": ("data=tagged", "data.path=words.conll", "model=bert"),
    }.items():
        ran = run_main("train", *words, f"init_from={masked_run}", f"name={name}", *short)
        assert ran.code == 0, ran.err
        run = only(f"outputs/train/{name}/*")
        taken = read(run / "manifest.json")["init_from"]
        weights = Checkpoints(RunFolder(masked_run)).load("best")["model"]
        assert set(taken["taken"]) == {key for key in weights if not key.startswith("head.")}
        assert set(taken["new"]) == {"head.weight", "head.bias"}
        config = (run / "config.yaml").read_text()
        assert "max_seq_len: 16" in config
        assert "name: wordpiece" in config
    ran = run_main("generate", f"run={only('outputs/train/classified/*')}", "text=A fine film .", *DEVICE)
    assert ran.code == 0, ran.err


def test_pretraining_goes_on_with_another_text(run_main: Main, masked_run: Path, book: Path) -> None:
    """The task comes along with the model."""
    ran = run_main(
        "train", f"init_from={masked_run}", "data=text", f"data.path={book}", "data.seq_len=16", "debug=fast",
        "trainer.max_steps=0", "task.mask_unit=span", "name=on", *DEVICE,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert not read(only("outputs/train/on/*") / "manifest.json")["init_from"]["new"]


def test_a_resumed_run_is_the_whole_run(run_main: Main, english: Path) -> None:
    """With dropout, masks of words that stay, and micro-batches."""
    common = (
        *FAST, f"data.path={english}", "trainer.sample_tokens=0", "model.dropout=0.2", "task.mask_unit=word",
        "task.dynamic=false", "trainer.accumulate=2", "scheduler=constant",
    )  # fmt: skip
    rows = []
    for name, ends in {"whole": (7,), "parts": (4, 7)}.items():
        assert run_main("train", *common, f"name={name}", f"trainer.max_steps={ends[0]}").code == 0
        run = only(f"outputs/train/{name}/*")
        for end in ends[1:]:
            assert run_main("train", f"resume={run}", f"trainer.max_steps={end}").code == 0
        values = (row.items() for row in rows_of(run / "metrics.jsonl") if row["step"] in (5, 6, 7))
        rows.append([{k: v for k, v in row if k.startswith(("train/", "val/"))} for row in values])
    assert rows[0] == rows[1]
    assert len([row for row in rows[0] if "train/loss" in row]) == 3


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("tokenizer=char",),
            "needs a tokenizer with a mask token; use tokenizer=sentencepiece, wordpiece, bpe",
        ),
        (("model=gpt", "task=masked_language_modeling", "tokenizer=bpe"), "accepts masked; use model=bert"),
        (("task=language_modeling",), "model=bert is of kind masked, and task=language_modeling"),
        (("task.mask_share=0",), "task.mask_share=0.0 is out of range"),
        (("task.mask_token_share=0.8", "task.random_token_share=0.3"), "so that their sum is at most 1"),
        (
            ("task.mask_unit=sentence",),
            "task.mask_unit=sentence is not known; it must be one of token, word",
        ),
        (
            ("data.carry_state=true",),
            "data.carry_state=True is for language models that read from left to right",
        ),
        (("data.boundary_share=0.5",), "data.boundary_share=0.5 is for language models"),
        (("data.seq_len=4",), "data.seq_len=4 is too short"),
        (("model.activation=swish",), "model.activation=swish is not known"),
        (
            ("data=opinions", "task=masked_language_modeling"),
            "reads text, and data=opinions gives labelled text",
        ),
    ],
)
def test_what_does_not_go_together(
    run_main: Main, english: Path, words: tuple[str, ...], message: str
) -> None:
    path = () if "data=opinions" in words else (f"data.path={english}",)
    ran = run_main("train", *FAST[:2], *path, "model=bert", *words)
    assert message in said_shortly(ran)


def test_within_word_is_for_masked_models(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("eval", f"run={tiny_run}", "exams=all", "exams.within_word=true", *DEVICE)
    assert "exams.within_word=true is for masked language models" in said_shortly(ran)
    with pytest.raises(UserError):
        ExamsConfig(name="grammr")


def test_pseudo_log_likelihoods_of_lines(run_main: Main, masked_run: Path) -> None:
    Path("lines.txt").write_text("The old man.\n\nThe man old.\n")
    ran = run_main("eval", f"run={masked_run}", "score=true", "data.path=lines.txt", *DEVICE)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["line"], row["text"]) for row in rows] == [(1, "The old man."), (3, "The man old.")]
    for row in rows:
        mean = -row["pseudo_log_likelihood"] / row["tokens"]
        assert row["pseudo_perplexity"] == pytest.approx(math.exp(mean))


# Replaced tokens


def test_replaced_tokens(run_main: Main, english: Path) -> None:
    """Train, judge, find what does not fit, and fine-tune the discriminator."""
    words = [word for word in FAST if word != "model=bert"]
    ran = run_main("train", "model=electra", *words, f"data.path={english}", "name=replaced")
    assert ran.code == 0, ran.err
    run = only("outputs/train/replaced/*")
    metrics = read(run / "result.json")["metrics"]
    assert {"val/accuracy", "val/original_share", "val/replaced_f1", "val/generator_loss"} <= set(metrics)
    assert 0.8 < metrics["val/original_share"] < 0.9
    ran = run_main("eval", f"run={run}", *DEVICE)
    assert json.loads(ran.out)["metrics"] == pytest.approx(metrics, rel=1e-4)
    ran = run_main("generate", f"run={run}", "text=The old man was old.", *DEVICE)
    assert ran.code == 0, ran.err
    (row,) = rows_of(only("outputs/generate/replaced/*/predictions.jsonl"))
    assert [one["token"] for one in row["tokens"]][:1] == ["The"]
    assert ran.out.splitlines()[1].startswith("  replaced: ")
    short = ("debug=fast", "data=opinions", "data.max_seq_len=16", "trainer.max_steps=1", *DEVICE)
    ran = run_main("train", *short, f"init_from={run}", "model=electra", "name=tuned")
    assert ran.code == 0, ran.err
    taken = read(only("outputs/train/tuned/*") / "manifest.json")["init_from"]
    assert set(taken["new"]) == {"head.weight", "head.bias"}
    assert all(name.startswith("generator.") for name in taken["left"])


def test_the_generators_samples_and_both_losses() -> None:
    """By loops: the samples by cumulative probabilities; the loss of the paper's equation for each window."""
    from seqexp.config.masked import ReplacedTokensConfig
    from seqexp.data.batch import IGNORE, Batch
    from seqexp.models.electra import Electra
    from seqexp.tasks.replaced_tokens import ReplacedTokens

    torch.manual_seed(0)
    V = 9
    model = wild(Electra(V, 8, 2, 2, 8), torch.float32)
    tokens = torch.tensor([[2, 5, 4, 7, 4, 3], [2, 4, 6, 3, 0, 0]])
    positions, lengths = torch.tensor([[2, 4], [1, 0]]), torch.tensor([6, 4])
    targets = torch.tensor([[8, 5], [7, IGNORE]])
    uniform = torch.tensor([[0.3, 0.9], [0.5, 0.1]])
    tensors = {"tokens": tokens, "positions": positions, "targets": targets, "uniform": uniform}
    batch = Batch(tensors, np.array([2, 1]), {"tokens": lengths})
    found = model.replace(tokens, lengths, positions, uniform)
    p = model.generator(tokens, lengths).softmax(dim=2).detach()
    filled = tokens.clone()
    for b, t, u in ((0, 2, 0.3), (0, 4, 0.9), (1, 1, 0.5)):
        filled[b, t] = next(v for v in range(V) if p[b, t, : v + 1].sum() > u)
    assert torch.equal(found.tokens, filled)
    original = tokens.clone()
    original[0, 2], original[0, 4], original[1, 1] = 8, 5, 7
    logits = model(filled, lengths)[:, :, 0].sigmoid().detach()
    expected, reported = 0.0, 0.0
    for b, n in ((0, 4), (1, 2)):
        bce = [-math.log(logits[b, t] if filled[b, t] != original[b, t] else 1 - logits[b, t])
               for t in range(1, n + 1)]  # fmt: skip
        nll = [-math.log(p[b, t, original[b, t]]) for t in range(1, n + 1) if tokens[b, t] == 4]
        expected += n * sum(nll) / len(nll) + 50 * sum(bce)
        reported += sum(bce)
    task = ReplacedTokens(ReplacedTokensConfig())
    assert task.count(batch) == 6
    for training in (True, False):
        loss = task.loss(model, batch, training=training)
        assert loss.loss_sum.item() == pytest.approx(expected, rel=1e-5)
        assert loss.nll_sum.item() == pytest.approx(reported, rel=1e-5)
    pieces = [task.loss(model, some, training=True).loss_sum for some in batch.split(2)]
    assert sum(pieces).item() == pytest.approx(expected, rel=1e-5)
    assert model.generator.embedding is model.embedding
    assert not [name for name in Electra(V, 8, 2, 2, 8, n_outputs=3).state_dict() if "generator" in name]
