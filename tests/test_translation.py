"""Training translation models, and judging them: `seqexp train` and `eval` on pairs of sentences."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
import yaml
from conftest import TINY_NMT, TINY_TRANSFORMER, Ran, make_pairs, write_pairs

from seqexp.commands.build import load_trained_run
from seqexp.config.run import DeviceConfig
from seqexp.data.pair_batch import pair_batch
from seqexp.data.parallel import divide, pair_tokenizer
from seqexp.data.phrasebook import phrasebook
from seqexp.metrics.outcomes import from_bytes
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

Main = Callable[..., Ran]

DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")
# What is not about the beam is searched without one.
GREEDY = ("generation.beam_size=1", *DEVICE)

CORPUS = make_pairs()


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def train(main: Main, *words: str) -> Path:
    """Train on `CORPUS`, or what the words name; the folder of the run."""
    if not any(word.startswith(("data.", "data=phrasebook")) for word in words):
        words = (*words, f"data.path={write_pairs(Path('pairs.tsv'), CORPUS)}")
    before = set(Path("outputs").glob("train/*/*"))
    ran = main("train", *words)
    assert ran.code == 0, ran.err
    (run,) = set(Path("outputs").glob("train/*/*")) - before
    return run.absolute()


# What training leaves behind


def test_a_run_on_the_phrasebook(run_main: Main) -> None:
    run = train(run_main, *TINY_NMT, "data=phrasebook", "trainer.max_steps=1", "task.bleu=false")
    corpus = read(run / "manifest.json")["corpus"]
    assert corpus["generated"] is True
    assert "generated" in corpus["origin"]
    assert corpus["files"] == []
    parts = {name: part["pairs"] for name, part in corpus["splits"].items()}
    n = len(phrasebook())
    assert parts == {"train": n - 2 * (n // 10), "val": n // 10, "test": n // 10}
    assert set(read(run / "result.json")["metrics"]) == {"val/loss", "val/perplexity"}
    assert "generated from a small grammar" in (run / "train.log").read_text(encoding="utf-8")


def test_the_folder_of_a_run(nmt_run: Path) -> None:
    names = {path.name for path in nmt_run.iterdir()}
    assert names == {
        "config.yaml", "manifest.json", "status.json", "train.log", "metrics.jsonl", "result.json",
        "tensorboard", "checkpoints", "samples", "plots", ".lock",
    }  # fmt: skip
    rows = rows_of(nmt_run / "metrics.jsonl")
    validated = [row for row in rows if "val/loss" in row]
    assert [row["step"] for row in validated] == [5, 10]
    for row in validated:
        assert set(row) == {"step", "val/loss", "val/perplexity", "val/bleu"}
        assert 0 <= row["val/bleu"] <= 100
    manifest = read(nmt_run / "manifest.json")
    assert manifest["corpus"]["generated"] is False
    assert manifest["corpus"]["pairs"] == len(CORPUS)
    assert manifest["corpus"]["files"] == [str(nmt_run.parents[3] / "pairs.tsv")]
    assert read(nmt_run / "status.json")["status"] == "finished"


def test_samples_have_references_and_a_picture(nmt_run: Path) -> None:
    development = {CORPUS[number] for number in divide(CORPUS, "source")["val"]}
    for step in (5, 10):
        text = (nmt_run / f"samples/step_{step:08d}.txt").read_text(encoding="utf-8")
        blocks = [block.splitlines() for block in text.strip("\n").split("\n\n")]
        assert len(blocks) == 5
        for block in blocks:
            assert [line[:12].strip() for line in block] == ["source", "reference", "translation"]
            assert (block[0][12:], block[1][12:]) in development
        picture = nmt_run / f"samples/step_{step:08d}_attention.png"
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model=gpt", "data=phrasebook"), "model="),
        (("model=gru", "data=phrasebook"), "model=gru is of kind causal, and task=translation"),
        (
            ("model=nmt", "data=text", "data.path=pairs.tsv"),
            "kind encoder_decoder, and task=language_modeling",
        ),
        (("model=nmt", "data=parity"), "model=nmt is of kind encoder_decoder, and task=parity"),
        (("data=phrasebook", "tokenizer=byte"), "tokenizer=byte cannot read data=phrasebook"),
        (("data=phrasebook", "task.bleu=false", "trainer.monitor=val/bleu"), "trainer.monitor=val/bleu"),
        (("data=parallel",), "data.source_path=<file>"),
        (("data=parallel", "data.source_path=pairs.tsv"), "go together"),
        (("data=parallel", "data.path=few.tsv"), "cannot be divided"),
    ],
)
def test_mistakes_with_train(run_main: Main, words: tuple[str, ...], told: str) -> None:
    write_pairs(Path("pairs.tsv"), CORPUS)
    write_pairs(Path("few.tsv"), [(f"source {n % 2}", f"target {n}") for n in range(20)])
    ran = run_main("train", *words, *DEVICE)
    assert ran.code == 2, ran.err
    assert told in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith("seqexp train: error: ")
    assert "Traceback" not in ran.err


# Going on, in pieces, and what is kept


def losses(run: Path) -> list[tuple[int, str, float]]:
    rows = rows_of(run / "metrics.jsonl")
    names = ("train/loss", "train/grad_norm", "val/loss", "val/bleu")
    return [(row["step"], name, row[name]) for row in rows for name in names if name in row]


def test_a_resumed_run_is_the_uninterrupted_one(
    run_main: Main, nmt_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout; of two files, and from another folder than the one it began in."""
    for name, side in (("pairs.en", 0), ("pairs.fr", 1)):
        Path(name).write_text("".join(f"{pair[side]}\n" for pair in CORPUS), encoding="utf-8")
    words = ("data.source_path=pairs.en", "data.target_path=pairs.fr", "trainer.max_steps=5")
    run = train(run_main, *TINY_NMT, *words)
    assert losses(run) == losses(nmt_run)[: len(losses(run))]
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    ran = run_main("train", f"resume={run}", "trainer.max_steps=10")
    assert ran.code == 0, ran.err
    assert losses(run) == losses(nmt_run)
    weights = [Checkpoints(RunFolder(some)).load("last")["model"] for some in (run, nmt_run)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resume_latest(run_main: Main) -> None:
    run = train(run_main, *TINY_NMT, "task.bleu=false", "trainer.max_steps=1")
    ran = run_main("train", "resume=latest", "trainer.max_steps=2")
    assert ran.code == 0, ran.err
    assert [row["step"] for row in rows_of(run / "metrics.jsonl") if "train/loss" in row] == [1, 2]
    write_pairs(Path("pairs.tsv"), CORPUS[1:])
    ran = run_main("train", "resume=latest", "trainer.max_steps=3")
    assert (ran.code, "corpus has changed" in ran.err) == (2, True)
    ran = run_main("eval", *GREEDY)
    assert (ran.code, "corpus has changed" in ran.err) == (2, True)


@pytest.mark.slow
def test_batches_in_pieces_train_alike(run_main: Main, transformer_run: Path) -> None:
    run = train(run_main, *TINY_TRANSFORMER, "trainer.accumulate=3", "trainer.max_steps=3", "task.bleu=false")
    first = [row["train/loss"] for row in rows_of(transformer_run / "metrics.jsonl") if "train/loss" in row]
    again = [row["train/loss"] for row in rows_of(run / "metrics.jsonl") if "train/loss" in row]
    # Up to the third loss all rates are those of the warm-up, whatever the length of the run.
    assert again[:3] == pytest.approx(first[:3], rel=1e-4)


def test_the_average_is_the_mean_of_the_weights_kept(run_main: Main, transformer_run: Path) -> None:
    """Its embeddings are tied to its output layer: they too are summed once."""
    checkpoints = Checkpoints(RunFolder(transformer_run))
    states = [checkpoints.load(step)["model"] for step in ("6", "8", "10")]
    average = checkpoints.load("average")
    assert average["step"] == 10
    for name, weight in average["model"].items():
        mean = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(weight.double(), mean, rtol=1e-6, atol=1e-7)
        assert not torch.equal(weight, states[2][name])
    ran = run_main("eval", f"run={transformer_run}", "checkpoint=average", *GREEDY)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["checkpoint"] == "average"


def test_an_average_of_one(run_main: Main, nmt_run: Path) -> None:
    ran = run_main("eval", f"run={nmt_run}", "checkpoint=average", *GREEDY)
    assert ran.code == 2
    assert "several checkpoints, and 1 is in" in ran.err


def test_the_highest_bleu_is_the_best(transformer_run: Path) -> None:
    scores = {
        row["step"]: row["val/bleu"]
        for row in rows_of(transformer_run / "metrics.jsonl")
        if "val/bleu" in row
    }
    best = max(scores, key=lambda step: scores[step])
    assert list(scores) == [2, 4, 6, 8, 10]
    assert len(set(scores.values())) > 1
    monitor = read(transformer_run / "result.json")["monitor"]
    assert monitor == {"name": "val/bleu", "mode": "max", "best": scores[best], "step": best}
    kept = {file.name for file in (transformer_run / "checkpoints").glob("*.pt")}
    assert kept == {f"step_{step:08d}.pt" for step in {6, 8, 10, best}}
    assert Checkpoints(RunFolder(transformer_run)).load("best")["step"] == best


# eval


def judge(main: Main, run: Path, *words: str) -> dict[str, Any]:
    ran = main("eval", f"run={run}", *GREEDY, *words)
    assert ran.code == 0, ran.err
    return dict(json.loads(ran.out))


def by_sacrebleu(references: list[str], hypotheses: list[str]) -> dict[str, Any]:
    """What the program `sacrebleu` says."""
    Path("ref.txt").write_text("\n".join(references) + "\n", encoding="utf-8")
    Path("hyp.txt").write_text("\n".join(hypotheses) + "\n", encoding="utf-8")
    words = ["ref.txt", "-i", "hyp.txt", "-m", "bleu", "chrf", "ter", "-w", "10", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return {score["name"].lower(): score for score in json.loads(done.stdout)}


def test_the_report_of_eval(run_main: Main, nmt_run: Path) -> None:
    """Scores against sacreBLEU's own program; lengths and unseen targets counted by hand."""
    ran = run_main("eval", f"run={nmt_run}", "generation.beam_size=3", *DEVICE)
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    parts = divide(CORPUS, "source")
    pairs = [CORPUS[number] for number in parts["test"]]
    sources, references = ([pair[side] for pair in pairs] for side in (0, 1))
    assert len(set(sources)) < len(sources)
    folder = only("outputs/eval/tiny/*")
    lines = {
        name: (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        for name in ("sources", "references", "hypotheses")
    }
    assert (lines["sources"], lines["references"]) == (sources, references)
    hypotheses = lines["hypotheses"]
    assert len(hypotheses) == len(pairs)
    report, metrics = result["translation"], result["metrics"]
    assert (result["split"], report["pairs"], report["sources"]) == ("test", len(pairs), len(set(sources)))
    for name, score in by_sacrebleu(references, hypotheses).items():
        found = report["scores"]["chrf" if name == "chrf2" else name]
        assert found["value"] == pytest.approx(score["score"], abs=1e-8)
        assert found["signature"] == score["signature"]
        assert metrics[f"test/{'chrf' if name == 'chrf2' else name}"] == found["value"]

    def bleu(chosen: list[int]) -> dict[str, Any]:
        some = sacrebleu.corpus_bleu([hypotheses[i] for i in chosen], [[references[i] for i in chosen]])
        return {"pairs": len(chosen), "bleu": pytest.approx(some.score, abs=1e-8)}

    words = [len(source.split()) for source in sources]
    buckets = {"1–5": range(1, 6), "6–10": range(6, 11), "11–15": range(11, 16), "16–20": range(16, 21)}
    expected = {name: [i for i, n in enumerate(words) if n in bucket] for name, bucket in buckets.items()}
    assert sum(row["pairs"] for row in report["by_length"]) == len(pairs)
    losses = [row.pop("loss") for row in report["by_length"]]
    assert [row.pop("perplexity") for row in report["by_length"]] == pytest.approx(
        list(map(math.exp, losses))
    )
    assert report["by_length"] == [{"words": name, **bleu(some)} for name, some in expected.items() if some]
    trained = load_trained_run(RunFolder(nmt_run), "best", DeviceConfig(name="cpu", threads=1))
    tokenizer = pair_tokenizer(trained.preprocessor)
    tokens = [len(tokenizer.encode_target(target)) + 1 for target in references]
    weights = [sum(tokens[i] for i in some) for some in expected.values() if some]
    together = sum(map(math.prod, zip(weights, losses, strict=True))) / sum(tokens)
    assert together == pytest.approx(metrics["test/loss"], rel=1e-5)
    shown = {CORPUS[number][1] for number in parts["train"]}
    unseen = [i for i, reference in enumerate(references) if reference not in shown]
    assert 0 < len(unseen) < len(pairs)
    assert report["unseen_targets"] == bleu(unseen)
    assert metrics["test/bleu_unseen"] == report["unseen_targets"]["bleu"]


def test_scores_of_given_translations(run_main: Main, nmt_run: Path) -> None:
    """One line a pair, in their order; all together they are the loss."""
    ran = run_main("eval", f"run={nmt_run}", "score=true", *DEVICE)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    pairs = [CORPUS[number] for number in divide(CORPUS, "source")["test"]]
    assert [(row["source"], row["target"]) for row in rows] == pairs
    folder = only("outputs/eval/tiny/*")
    assert (folder / "scores.jsonl").read_text(encoding="utf-8") == ran.out
    result = read(folder / "result.json")
    tokens = sum(row["tokens"] for row in rows)
    assert tokens == result["tokens"]
    loss = -sum(row["log_probability"] for row in rows) / tokens
    assert result["metrics"]["test/loss"] == pytest.approx(loss, rel=1e-6)
    assert "translation" not in result


def test_parts_and_other_pairs(run_main: Main, nmt_run: Path) -> None:
    parts = divide(CORPUS, "source")
    result = judge(run_main, nmt_run, "split=val")
    assert (result["split"], result["translation"]["pairs"]) == ("val", len(parts["val"]))
    trained = read(nmt_run / "result.json")["metrics"]
    for name in ("val/loss", "val/bleu"):
        assert result["metrics"][name] == pytest.approx(trained[name], rel=1e-5)
    others = [(source, target) for source, target in CORPUS[:7] if target]
    write_pairs(Path("other.tsv"), others)
    for name, side in (("en.txt", 0), ("fr.txt", 1)):
        Path(name).write_text("".join(f"{pair[side]}\n" for pair in others), encoding="utf-8")
    one = judge(run_main, nmt_run, "data.path=other.tsv")
    two = judge(run_main, nmt_run, "data.source_path=en.txt", "data.target_path=fr.txt")
    assert one["metrics"] == two["metrics"]
    assert (one["split"], one["pairs"], one["translation"]["pairs"]) == ("all", 7, 7)
    assert "unseen_targets" not in one["translation"]
    assert set(one["metrics"]) == {f"all/{name}" for name in ("loss", "perplexity", "bleu", "chrf", "ter")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("split=all",), "split=all does not exist; choose from train, val, test (all is another text"),
        (("split=test", "data.path=other.tsv"), "split=test does not exist; choose from all."),
        (("data.path=nowhere.tsv",), "nowhere.tsv is not a file"),
        (("data.path=other.tsv", "data.source_path=a", "data.target_path=b"), "were both given"),
        (("data.source_path=other.tsv",), "go together"),
        (("data.lengths=[3]",), "data.lengths=: the data of this run has no such setting; use data.path="),
        (("ensemble=[LM]",), "has other tokenizers than"),
        (("ensemble=[nowhere]",), "ensemble=nowhere: there is no such folder"),
        (("run=LM", "score=true"), "score= is not available for the task of this run"),
        (("run=LM", "ensemble=[NMT]"), "has other tokenizers than"),
        (("run=LM", "ensemble=[LM]"), "ensemble= is not available for the task of this run"),
        (("generation.n_best=9",), "generation.n_best=9 is more than generation.beam_size"),
    ],
)
def test_mistakes_with_eval(
    run_main: Main, nmt_run: Path, tiny_run: Path, words: tuple[str, ...], told: str
) -> None:
    write_pairs(Path("other.tsv"), CORPUS[:3])
    words = tuple(word.replace("LM", str(tiny_run)).replace("NMT", str(nmt_run)) for word in words)
    ran = run_main("eval", *([] if "run=" in words[0] else [f"run={nmt_run}"]), *GREEDY, *words)
    assert ran.code == 2, ran.err
    assert told in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


# Ensembles


def test_an_ensemble_of_a_run_with_itself_is_the_run(run_main: Main, nmt_run: Path) -> None:
    write_pairs(Path("other.tsv"), CORPUS[:20])
    alone, together = (
        judge(run_main, nmt_run, "data.path=other.tsv", *words) for words in ((), (f"ensemble=[{nmt_run}]",))
    )
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-5)
    texts = {file.read_text(encoding="utf-8") for file in Path().glob("outputs/eval/tiny/*/hypotheses.txt")}
    assert len(texts) == 1
    for file in Path().glob("outputs/eval/tiny/*/outcomes.safetensors"):
        outcomes = from_bytes(file.read_bytes())
        assert outcomes["bleu"].value == pytest.approx(alone["metrics"]["all/bleu"], rel=1e-9)
        assert len(outcomes["bleu"].values) == 20


def test_an_ensemble_gives_the_mean_probability(run_main: Main, nmt_run: Path, transformer_run: Path) -> None:
    pairs = CORPUS[:10]
    write_pairs(Path("other.tsv"), pairs)
    words = (f"ensemble=[{transformer_run}]", "data.path=other.tsv", "score=true")
    ran = run_main("eval", f"run={nmt_run}", *words, *DEVICE)
    assert ran.code == 0, ran.err
    cpu = DeviceConfig(name="cpu", precision="fp32", threads=1)
    runs = [load_trained_run(RunFolder(folder), "best", cpu) for folder in (nmt_run, transformer_run)]
    for row, (source, target) in zip(map(json.loads, ran.out.splitlines()), pairs, strict=True):
        tokenizer = pair_tokenizer(runs[0].preprocessor)
        batch = pair_batch([tokenizer.encode_source(source)], [tokenizer.encode_target(target)], 0)
        with torch.no_grad():
            logits = [run.model(batch.source, batch.lengths["source"], batch.inputs)[0] for run in runs]
        mean = sum(some.double().softmax(dim=1) for some in logits) / 2
        each = [math.log(mean[place, token]) for place, token in enumerate(batch.targets[0].tolist())]
        assert row["log_probability"] == pytest.approx(sum(each), rel=1e-5)
        assert row["tokens"] == len(each)


def test_an_ensemble_of_other_tokenizers_is_refused(run_main: Main, nmt_run: Path) -> None:
    words = ("trainer.max_steps=0", "task.bleu=false", "trainer.sample_tokens=0", "tokenizer.min_count=1")
    other = train(run_main, *TINY_NMT, *words)
    ran = run_main("eval", f"run={nmt_run}", f"ensemble=[{other}]", *GREEDY)
    assert ran.code == 2
    assert "has other tokenizers than" in ran.err.splitlines()[-1]


def test_a_sweep_over_the_files_of_a_folder(run_main: Callable[..., Ran]) -> None:
    """The rows of Luong's table are one sweep; Hydra's own glob would find nothing in a folder of a group."""
    ran = run_main(
        "train", "-m", "experiment=glob(nmt/luong/d*)", "data=phrasebook", "tokenizer.vocab_size=500",
        "model.hidden_size=8", "model.n_embd=8", "trainer.max_minutes=null", "trainer.max_steps=1",
        "trainer.sample_tokens=0", "task.bleu=false", "sweep.name=rows",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    jobs = sorted(Path("outputs/sweeps/rows").glob("*/config.yaml"))
    configs = [yaml.safe_load(job.read_text())["model"] for job in jobs]
    rows = [(model["attention"], model["reverse_source"], model["dropout"]) for model in configs]
    assert rows == [("dot", True, 0.2), ("none", True, 0.2)]  # dot, dropout
    ran = run_main("train", "-m", "experiment=glob(nmt/nothing/*)")
    assert ran.code == 2
    assert "names no option" in ran.err


def test_a_run_goes_on_with_its_own_tokenizer_or_not_at_all(run_main: Main, nmt_run: Path) -> None:
    """Another version of a tokenizer would give the same sentences other numbers."""
    folder = Path("changed")
    shutil.copytree(nmt_run, folder)
    checkpoints = Checkpoints(RunFolder(folder))
    state = checkpoints.load("last")
    words = state["preprocessor"]["tokenizers"]["source"]["state"]["words"]
    words[0], words[1] = words[1], words[0]
    checkpoints.save(state.pop("step"), state)
    ran = run_main("train", f"resume={folder}", "trainer.max_steps=1000")
    assert ran.code == 2
    assert "the tokenizers of this run are not the ones" in ran.err


def test_long_sentences_need_no_longer_table_of_positions(run_main: Main) -> None:
    """`max_len` is about learned positions; with sinusoids it does not limit `data.max_seq_len`."""
    words = (*TINY_TRANSFORMER, "data=phrasebook", "data.max_seq_len=300", "trainer.max_steps=1")
    assert run_main("train", *words).code == 0
    ran = run_main("train", *words, "model.positions=learned", "model.max_len=256")
    assert ran.code == 2
    assert "model.max_len=256 is shorter" in ran.err
