"""What a classifier looked at: attention, integrated gradients, leave one out, and how they are shown."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran, _main, _stand_clean
from hypothesis import given
from hypothesis import strategies as st
from run_folders import PNG, said_shortly, strict_json
from test_classifiers import MODELS, C, D, V, task_of
from torch import Tensor, nn
from translation_models import wild

from seqexp.config.tokenizer import SentencePieceConfig, TokenizerConfig, WordConfig
from seqexp.data.labelled_data import encode_text, text_batch
from seqexp.errors import UserError
from seqexp.models.fasttext_bag import FastTextBag
from seqexp.models.rnn import LSTM
from seqexp.scored_text import ScoredText, colours, scored_text
from seqexp.tasks.base import Task
from seqexp.tasks.explanations import METHODS, Explainer, TextInWords, log_odds, text_in_words
from seqexp.tokenizers.base import Tokenizer
from seqexp.tokenizers.byte import ByteTokenizer
from seqexp.tokenizers.char import CharTokenizer
from seqexp.tokenizers.sentencepiece import SentencePieceTokenizer
from seqexp.tokenizers.word import WordTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

Main = Callable[..., Ran]

TEXTS = ["It isn't bad , is it ?", "a fine film of fine films , well-made .", "Où ? 这部电影 is 20% fun ..."]
SUBWORDS = SentencePieceConfig("sentencepiece", vocab_size=330)
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "word": lambda: WordTokenizer.fit(WordConfig("word", min_count=1), TEXTS[:2]),
    "char": lambda: CharTokenizer.fit(TokenizerConfig("char"), TEXTS),
    "byte": ByteTokenizer,
    "sentencepiece": lambda: SentencePieceTokenizer.fit(SUBWORDS, [" " + text for text in TEXTS]),
}


# Words


def words_of(found: TextInWords) -> list[str]:
    return [found.text[begin:end] for begin, end in found.words]


def test_words() -> None:
    found = [words_of(text_in_words(ByteTokenizer(), text, None, 999)) for text in TEXTS]
    assert found[0] == ["It", "isn't", "bad", ",", "is", "it", "?"]
    assert found[1] == ["a", "fine", "film", "of", "fine", "films", ",", "well-made", "."]
    assert found[2] == ["Où", "?", *"这部电影", "is", "20", "%", "fun", "..."]
    assert words_of(text_in_words(ByteTokenizer(), "did n't , it 's", None, 99)) == [
        "did",
        "n't",
        ",",
        "it",
        "'s",
    ]
    for blank in ("", "  \n"):
        nothing = text_in_words(ByteTokenizer(), blank, None, 99)
        assert (nothing.words, nothing.shares.shape) == ([], (2, 0))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_every_token_is_part_of_its_words(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    found = text_in_words(tokenizer, text, None, 999)
    assert found.tokens.tolist() == encode_text(tokenizer, text, None, 999).tolist()
    sums = found.shares.sum(axis=1)
    assert sums[[0, -1]].tolist() == [0, 0]
    assert sums[1:-1] == pytest.approx(1)
    assert (found.shares.sum(axis=0) > 0).all()
    if name in ("byte", "char"):  # as many tokens as characters of the word and the space before it
        unit = len if name == "char" else lambda word: len(word.encode())
        before = [begin > 0 and text[begin - 1] == " " for begin, _ in found.words]
        expected = [unit(word) + space for word, space in zip(words_of(found), before, strict=True)]
        assert found.shares.sum(axis=0).tolist() == expected


def test_a_token_in_two_words_counts_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = ByteTokenizer()
    monkeypatch.setattr(tokenizer, "offsets", lambda _: [(0, 2), (2, 4), (4, 7), (7, 7)])
    monkeypatch.setattr(tokenizer, "encode", lambda _: np.zeros(4, dtype=np.uint32))
    found = text_in_words(tokenizer, "abc de.", None, 99)  # "ab", "c ", "de.", and nothing
    assert words_of(found) == ["abc", "de", "."]
    assert found.shares[1:-1].tolist() == [[1, 0, 0], [1, 0, 0], [0, 2 / 3, 1 / 3], [0, 0, 1]]
    monkeypatch.setattr(tokenizer, "offsets", lambda _: None)
    with pytest.raises(UserError, match="does not say where its tokens stand"):
        text_in_words(tokenizer, "abc", None, 99)


def test_pairs_and_cut_texts() -> None:
    tokenizer = TOKENIZERS["word"]()
    found = text_in_words(tokenizer, " a fine\nfilm ", "well , it is", 99)
    assert found.text == "a fine film | well , it is"
    assert words_of(found) == ["a", "fine", "film", "well", ",", "it", "is"]
    assert found.tokens.tolist() == encode_text(tokenizer, "a fine film", "well , it is", 99).tolist()
    assert found.inside.tolist() == [False, True, True, True, False, *[True] * 4, False]
    assert found.without(1).tolist() == encode_text(tokenizer, "a film", "well , it is", 99).tolist()
    assert found.without(3).tolist() == encode_text(tokenizer, "a fine film", ", it is", 99).tolist()
    cut = text_in_words(tokenizer, "a fine film", "well , it is", 7)
    assert words_of(cut) == ["a", "fine", "film", "well"]
    assert cut.tokens.tolist() == encode_text(tokenizer, "a fine film", "well , it is", 7).tolist()
    assert cut.inside.tolist() == [False, True, True, True, False, True, False]
    assert cut.without(0).tolist() == encode_text(tokenizer, "fine film", "well , it is", 7).tolist()


# The methods

WORDS = [f"w{number}" for number in range(V - 2)]
TEXT = "w3 w0 , w5 w5 w8 w1"  # the comma is unknown


class Words(WordTokenizer):
    """Nine words, and two numbers for boundary and unknown: as many as the models below read."""

    def __init__(self) -> None:
        super().__init__(WORDS)


def small(name: str) -> tuple[nn.Module, Task]:
    kind, options = MODELS[name]
    model = wild(kind(vocab_size=V, n_outputs=C, **options)).eval()
    return model, task_of()


def explainer(model: nn.Module, task: Any, several: bool = False) -> Explainer:
    return Explainer(model, task._logits, several, torch.device("cpu"))


def odds(model: nn.Module, task: Any, tokens: list[int], label: int) -> float:
    with torch.inference_mode():
        p = task._logits(model, text_batch([np.array(tokens)])).double().softmax(dim=1)[0, label]
        return float((p / (1 - p)).log())


def test_log_odds() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    p = logits.double().softmax(dim=1)
    for label in range(4):
        torch.testing.assert_close(log_odds(logits, label, False), (p / (1 - p)).log()[:, label])
        one = logits.double().sigmoid()[:, label]
        torch.testing.assert_close(log_odds(logits, label, True), (one / (1 - one)).log())
    assert torch.isfinite(log_odds(torch.tensor([[500.0, -500.0]]), 0, False)).all()


@pytest.mark.parametrize("name", MODELS)
def test_leave_one_out_is_a_loop(name: str) -> None:
    model, task = small(name)
    found, about = explainer(model, task).leave_one_out(text_in_words(Words(), TEXT, None, 99), 1, "x")
    words = TEXT.split()
    tokens = [
        [0, *Words().encode(" ".join(words[:i] + words[i + 1 :])).tolist(), 0] for i in range(len(words))
    ]
    whole = odds(model, task, [0, *Words().encode(TEXT).tolist(), 0], 1)
    assert about["log_odds"] == pytest.approx(whole, rel=1e-4, abs=1e-4)
    expected = [whole - odds(model, task, some, 1) for some in tokens]
    assert list(found.scores) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert [word for word, _ in found.scored] == words


@pytest.mark.parametrize("name", [name for name in MODELS if "fasttext" not in name])
def test_integrated_gradients_add_up(name: str) -> None:
    """To the difference from a text whose words have zeros as embeddings."""
    model, task = small(name)
    text = text_in_words(Words(), TEXT, None, 99)
    found, about = explainer(model, task).gradients(text, 2, "x")
    whole = odds(model, task, text.tokens.tolist(), 2)
    zero = 7  # a word that is not in the text
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.num_embeddings == V:
                module.weight[zero] = 0
    base = odds(model, task, [0, *[zero] * 7, 0], 2)
    assert about["log_odds"] == pytest.approx(whole, abs=1e-4)
    assert about["log_odds_without_words"] == pytest.approx(base, abs=1e-4)
    assert abs(about["completeness_error"]) < 0.01 * max(1, abs(whole - base))
    assert sum(found.scores) == pytest.approx(whole - base + about["completeness_error"], abs=1e-3)
    assert len(set(found.scores)) > 3


def bag(n_gram: int) -> FastTextBag:
    return wild(FastTextBag(V, 2, n_embd=D, n_gram=n_gram, buckets=50)).eval()


def test_integrated_gradients_of_a_linear_model_are_weight_times_input() -> None:
    model, text = bag(1), text_in_words(Words(), TEXT, None, 99)
    found, about = explainer(model, task_of()).gradients(text, 1, "x")
    weight = (model.head.weight[1] - model.head.weight[0]).detach()
    inputs = model.embedding.weight.detach()[torch.from_numpy(text.tokens)] / len(text.tokens)
    expected = (inputs @ weight)[1:-1].tolist()
    assert list(found.scores) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert about["steps"] == 32
    assert about["completeness_error"] == pytest.approx(0, abs=1e-5)


def test_the_credit_of_an_n_gram_is_shared_by_its_words() -> None:
    """A third each for a trigram of words; at the ends of the text the words share what is not a boundary."""
    model, text = bag(3), text_in_words(Words(), TEXT, None, 99)
    found, _ = explainer(model, task_of()).gradients(text, 0, "x")
    weight = (model.head.weight[0] - model.head.weight[1]).detach()
    T = len(text.tokens)
    count, expected = T + (T - 1) + (T - 2), [0.0] * T
    features = model.features(torch.from_numpy(text.tokens)[None], torch.tensor([T]))
    for n, (rows, _) in enumerate(features, start=1):
        for end in range(n - 1, T):
            credit = float(model.embedding.weight.detach()[rows[0, end]] @ weight) / count
            members = [i for i in range(end - n + 1, end + 1) if 0 < i < T - 1]
            for i in members:
                expected[i] += credit / len(members)
    assert list(found.scores) == pytest.approx(expected[1:-1], rel=1e-3, abs=1e-4)


def test_explaining_leaves_no_trace() -> None:
    model, task = small("gpt")
    text = text_in_words(Words(), TEXT, None, 99)
    before = odds(model, task, text.tokens.tolist(), 0)
    explainer(model, task).gradients(text, 0, "x")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert odds(model, task, text.tokens.tolist(), 0) == before


def test_several_labels_are_explained_one_by_one() -> None:
    model, task = small("birnn gru")
    text = text_in_words(Words(), TEXT, None, 99)
    _, about = explainer(model, task, several=True).gradients(text, 1, "x")
    with torch.inference_mode():
        logit: Tensor = task._logits(model, text_batch([text.tokens]))[0, 1]  # type: ignore[attr-defined]
    assert about["log_odds"] == pytest.approx(float(logit), rel=1e-5)


def test_what_a_model_must_have() -> None:
    model = LSTM(vocab_size=V, hidden_size=4, n_outputs=C)
    task = task_of()
    task.check_explanation(model, "leave_one_out")
    for method, told in (
        ("gradients", "needs a model with an embedding"),
        ("attention", "task.pooling=attention"),
        ("gradient", "Did you mean 'gradients'"),
    ):
        with pytest.raises(UserError, match=told):
            task.check_explanation(model, method)
    task_of(pooling="attention").check_explanation(model, "attention")


# Scored texts as data, text and colours


@st.composite
def scored(draw: Any) -> ScoredText:
    text = draw(st.text(max_size=40))
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    words = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=False) if a < b]
    scores = draw(st.lists(st.floats(-1e6, 1e6), min_size=len(words), max_size=len(words)))
    return ScoredText(text, tuple(words), tuple(scores), draw(st.booleans()), draw(st.text(max_size=5)))


@given(scored())
def test_a_scored_text_keeps_its_text(one: ScoredText) -> None:
    pieces = list(one.pieces())
    assert "".join(piece for piece, _ in pieces) == one.text == str(one)
    shares = [share for _, share in pieces if share is not None]
    assert len(shares) == len(one.scores)
    assert all(-1 <= share <= 1 for share in shares)
    if any(one.scores):
        assert max(map(abs, shares)) == 1
    assert scored_text(json.loads(json.dumps(one.to_plain()))) == one
    short = one.cut(10)
    assert len(short.text) <= 10
    assert len(short.scores) == len(short.words) <= len(one.words)
    assert re.sub(r"\([+-]?[\d.]+\)", "", one.plain()) == re.sub(r"\([+-]?[\d.]+\)", "", one.text)


def test_plain_words_with_scores() -> None:
    one = ScoredText("It is dull.", ((0, 2), (6, 10)), (-0.126, 2.0))
    assert one.plain() == "It(-0.13) is dull(+2.00)."
    assert one.strongest() == "for it: dull +2.00; against it: It -0.13"
    assert ScoredText("a b", ((0, 1),), (0.5,), signed=False).plain() == "a(0.50) b"
    assert colours(0.01) is None is colours(None)
    assert [colours(share)[1] for share in (1.0, -1.0, 0.1, -0.1)] == ["#ffffff"] * 2 + ["#000000"] * 2  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        {"text": 5}, {"words": "ab"}, {"words": [[0, 1]]}, {"words": [[0, 1], [0, 2]]},
        {"words": [[1, 1], [2, 3]]},
        {"words": [[-1, 1], [2, 3]]}, {"words": [[0, 1], [2, 9]]}, {"words": [[0, 1.5], [2, 3]]},
        {"words": [[0, 1], None]}, {"words": [[0, True], [2, 3]]}, {"scores": [1]}, {"scores": [1, "2"]},
        {"scores": [1, 1e400]}, {"scores": [1, float("nan")]}, {"scores": None},
    ],
)  # fmt: skip
def test_scored_texts_of_strangers(change: dict[str, Any]) -> None:
    sound = ScoredText("a b", ((0, 1), (2, 3)), (1.0, -1.0)).to_plain()
    assert scored_text(sound) is not None
    assert scored_text({**sound, **change}) is None
    for value in (None, 5, [], "a"):
        assert scored_text(value) is None


# The commands

DEVICE = ("device=cpu", "device.threads=1")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> & 'fine' \"dull\" $x$ \x1b[31m"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """A classifier with attention, barely trained, of texts that would be code on a page."""
    place = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        monkeypatch.setattr("seqexp.commands.train.try_to_draw", lambda *_: None)
        rows = [{"text": f"{EVIL} w{i % 7}", "label": ("<i>yes</i>", "no")[i % 2]} for i in range(60)]
        Path("evil.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        ran = _main(
            "train", "debug=fast", "data=table", f"data.path={place}/evil.jsonl", "model=birnn",
            "model.n_embd=8", "model.hidden_size=6", "task.pooling=attention", "trainer.max_steps=3",
            "name=evil", *DEVICE,
        )  # fmt: skip
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs/train/evil").iterdir()
    return folder


def explained(main: Main, run: Path, *words: str) -> tuple[str, list[dict[str, Any]], Ran]:
    ran = main("generate", f"run={run}", *DEVICE, *words)
    assert ran.code == 0, ran.err
    newest = max(Path().glob("outputs/generate/*/*/predictions.jsonl"), key=lambda file: file.parent.name)
    return ran.out, [json.loads(line) for line in newest.read_text().splitlines()], ran


@pytest.mark.parametrize("method", METHODS)
def test_generate_explains(run_main: Main, run: Path, method: str) -> None:
    out, (row,), _ = explained(run_main, run, "text=fine , w3 !", f"explain={method}")
    found = row["explanation"]
    assert (found["method"], found["label"]) == (method, row["label"])
    assert [word for word, _ in found["words"]] == ["fine", ",", "w3", "!"]
    label, p, words = out.rstrip("\n").split("\t")
    assert (label, float(p)) == (row["label"], pytest.approx(max(row["probabilities"].values()), abs=1e-4))
    number = "{:.2f}" if method == "attention" else "{:+.2f}"
    assert words == " ".join(f"{word}({number.format(score)})" for word, score in found["words"])
    scores = [score for _, score in found["words"]]
    if method == "attention":
        assert sum(scores) + found["boundaries"] == pytest.approx(1, abs=1e-6)
        assert min(*scores, found["boundaries"]) > 0
    if method == "gradients":
        gap = found["log_odds"] - found["log_odds_without_words"]
        assert sum(scores) == pytest.approx(gap + found["completeness_error"], abs=1e-6)
    if method != "attention":
        p = row["probabilities"][row["label"]]
        assert found["log_odds"] == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_files_pictures_and_empty_lines(run_main: Main, run: Path) -> None:
    Path("in.txt").write_text("fine w1\n\nThis " + "very " * 120 + "dull $x$ 电影 " + "u" * 200 + "\n")
    words = ("input=in.txt", "output=out.txt", "explain=leave_one_out", "picture=p.png")
    out, rows, _ = explained(run_main, run, *words)
    assert out == ""
    lines = Path("out.txt").read_text().splitlines()
    assert [line.count("\t") for line in lines] == [2, 2, 2]
    assert rows[1]["explanation"]["words"] == []
    assert {path.name for path in Path().glob("*.png")} == {f"p_00{i}.png" for i in (1, 2, 3)}
    assert all(path.read_bytes().startswith(PNG[:8]) for path in Path().glob("*.png"))
    explained(run_main, run, "text=fine dull", "attention=a.svg")
    assert ">dull<" in Path("a.svg").read_text()
    assert not list(Path().glob("outputs/generate/*/*/plots"))


def test_colours_on_a_terminal(run_main: Main, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    words = ("text=fine [red]w3[/red] \x1b[31m", "explain=gradients")
    out, _, _ = explained(run_main, run, *words)
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m", out)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert plain[1] == r"fine [red]w3[/red] \x1b[31m"
    assert plain[2].startswith("integrated gradients: what each word adds")
    assert "\t" in plain[0]
    assert "(+" not in plain[1]
    monkeypatch.setenv("NO_COLOR", "1")
    out, _, _ = explained(run_main, run, *words)
    assert "\x1b" not in out
    assert re.search(r"fine\([+-]", out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("explain=gradient",),
            "explain=gradient is not known; there are attention, gradients, leave",
        ),
        (("picture=a.png",), "picture=a.png draws what explain= says"),
        (("explain=gradients", "attention=a.png"), "attention=<file> is short for explain=attention"),
        (("attention=a.png", "picture=b.png"), "attention=<file> is short for explain=attention"),
        (("explain=gradients", "picture=a.txt"), "picture=a.txt is not the name of a picture"),
        (("explain=gradients", "picture=no/a.png"), "picture=no/a.png cannot be written"),
        (("explain=gradients", "picture=a.png", "output=a.png"), "output= and picture= both name a.png"),
    ],
)
def test_explanations_that_cannot_be(run_main: Main, run: Path, words: tuple[str, ...], told: str) -> None:
    ran = run_main("generate", f"run={run}", "text=a", *DEVICE, *words)
    assert ran.code == 2
    assert told in said_shortly(ran)


class Page(HTMLParser):
    """The tags of a page, and the texts of its coloured words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if dict(attributes).get("class") == "words":
            self.texts.append("")
            self.inside = True
        if tag == "span":
            self.styles += [value or "" for name, value in attributes if name == "style"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self.inside = False

    inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


def test_mistakes_on_a_page(run_main: Main, run: Path) -> None:
    """Coloured, in full, and no text of a stranger becomes a tag."""
    ran = run_main("eval", f"run={run}", "split=train", *DEVICE)
    assert ran.code == 0, ran.err
    result = strict_json(ran.out)
    mistakes = result["classification"]["mistakes"]
    assert len(mistakes) == 10
    _, rows, _ = explained(run_main, run, f"text={mistakes[0]['text']}", "explain=leave_one_out")
    stored = scored_text(mistakes[0]["scored_words"])
    assert stored is not None
    assert [score for _, score in rows[0]["explanation"]["words"]] == pytest.approx(stored.scores, abs=1e-4)
    assert mistakes[0]["predicted"] == rows[0]["label"]
    assert run_main("report", run, "--output", "page.html").code == 0
    page = Page(Path("page.html").read_text())
    assert "script" not in page.tags
    assert "onerror" not in page.attributes
    assert "i" not in page.tags
    assert len(page.texts) == 10
    assert sorted(text.strip() for text in page.texts) == sorted(
        one["scored_words"]["text"] for one in mistakes
    )
    assert page.styles
    style = re.compile(r"background: #[0-9a-f]{6}; color: #[0-9a-f]{6}")
    assert all(style.fullmatch(one) for one in page.styles if "background" in one)
    assert run_main("report", run, "--output", "page.md").code == 0
    table = [line for line in Path("page.md").read_text().splitlines() if line.startswith("|")]
    assert any("alert(1)" in line for line in table)
    assert not any(re.search(r"(?<!\\)<", line) for line in table)
    assert strict_json(run_main("report", run, "--json").out)["evaluations"]
