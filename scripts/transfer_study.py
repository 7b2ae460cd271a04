"""What pretraining is worth: the runs of docs/transfer.md. Finished runs are skipped, so call it again.

    python scripts/transfer_study.py --folder study        # pretrain, then all runs that are missing
    python scripts/transfer_study.py --report              # the tables and the picture alone

A GPT of 4 layers and width 200 reads the French that there is in $SEQEXP_DATA (sentences of Tatoeba, three
times the texts of the training reviews, tweets, and UD's sentences). It is then fine-tuned on the sentiment
of French book reviews, beside the same network from random weights with the same tokenizer. Results are in
docs/transfer.json, with the command lines. Lower seeds come first, so that an unfinished study is balanced.
"""

import argparse
import gzip
import json
import math
import os
import random
import shlex
import statistics
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "transfer.json"
SIZES = "model=gpt model.n_layer=4 model.n_embd=200 model.n_head=4"
PRETRAIN = (
    f"seqexp train {SIZES} model.dropout=0.1 data=text data.path=french data.val_path=valid.txt "
    "tokenizer=sentencepiece tokenizer.vocab_size=8000 data.seq_len=256 data.batch_size=16 optimizer.lr=2e-3 "
    "trainer.eval_every=250 device.threads=1"
)
PRETRAINED = f"{PRETRAIN} trainer.max_steps=1500 name=pretrained resume=auto"
RANDOM = f"{PRETRAIN} trainer.max_steps=0 seed={{seed}} name=random_{{seed}}"
EPOCHS, BATCH, ALL = 15, 16, 1600
TUNE = (
    "seqexp train data=cls_books data.train_examples={examples} data.batch_size={batch} seed={seed} "
    f"trainer.max_epochs={EPOCHS} trainer.eval_every={{epoch}} scheduler.warmup_steps={{epoch}} "
    "device.threads=1 trainer.keep_last=1"
)
# The weights that each method starts from, and its options.
METHODS = {
    "from scratch": ("random_{seed}", "optimizer.lr=5e-4"),
    "frozen": ("pretrained", "optimizer.lr=2e-3 'trainer.freeze=[embedding.*,blocks.*,norm.*]'"),
    "gradual": ("pretrained", "optimizer.lr=5e-4 trainer.unfreeze_every=2"),
    "LoRA": ("pretrained", "optimizer.lr=2e-3 model.lora.rank=16"),
    "full": ("pretrained", "optimizer.lr=5e-4"),
}
# Numbers of reviews that each method is trained on.
EXAMPLES = {
    name: (50, 100, 200, 400, 800, ALL) if name in ("from scratch", "full") else (100, ALL)
    for name in METHODS
}
SCORES = ("accuracy", "macro_f1", "majority_accuracy", "tfidf_accuracy")
lock = Lock()


def steps_per_epoch(examples: int) -> int:
    return math.ceil(examples / BATCH)


def prepare(folder: Path) -> None:
    """Write the French texts as ``french/*.txt``, and those of the validation reviews as ``valid.txt``."""
    data = Path(os.environ["SEQEXP_DATA"])
    french = folder / "french"
    if (folder / "valid.txt").exists():
        return
    french.mkdir(parents=True, exist_ok=True)
    pairs = zipfile.ZipFile(data / "tatoeba/fra-eng.zip").read("fra-eng/fra.txt").decode().splitlines()
    sentences = sorted({line.split("\t")[1] for line in pairs if "\t" in line})
    random.Random(1).shuffle(sentences)
    parsed = gzip.decompress((data / "ud/fr_pud-ud-test.conllu.gz").read_bytes()).decode().splitlines()
    texts = {
        "tatoeba": sentences,
        "reviews": 3 * _joined(data / "cls_books_fr/train.review.spm"),
        "tweets": (data / "umsab/french/train_text.txt").read_text(encoding="utf-8").splitlines(),
        "pud": [line.removeprefix("# text = ") for line in parsed if line.startswith("# text = ")],
    }
    for name, lines in texts.items():
        (french / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    held_out = "\n".join(_joined(data / "cls_books_fr/valid.review.spm")) + "\n"
    (folder / "valid.txt").write_text(held_out, encoding="utf-8")


def _joined(pieces: Path) -> list[str]:
    lines = pieces.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [line.replace(" ", "").replace("\u2581", " ").strip() for line in lines]


def seqexp(folder: Path, command: str, *more: str) -> str:
    """Run a command line of seqexp in the folder; return its standard output.

    Raises:
        SystemExit: it failed.
    """
    words = [*shlex.split(command)[1:], *more]
    done = subprocess.run(
        [sys.executable, "-m", "seqexp", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"seqexp {shlex.join(words)}\n{done.stderr[-2000:]}")
    return done.stdout


def newest(folder: Path, name: str) -> Path:
    """Return the newest run of this name.

    Raises:
        IndexError: there is no run of this name.
    """
    return sorted((folder / "outputs/train" / name).glob("*"))[-1]


def finished(folder: Path, name: str) -> bool:
    runs = sorted((folder / "outputs/train" / name).glob("*/result.json"))
    return bool(runs)


def tune(folder: Path, method: str, examples: int, seed: int) -> None:
    """Fine-tune, evaluate the best checkpoint on the test split, and add both to the results."""
    source, options = METHODS[method]
    fields = {"examples": examples, "batch": BATCH, "seed": seed, "epoch": steps_per_epoch(examples)}
    command = f"{TUNE} {options}".format(**fields)
    source = source.format(**fields)
    name = f"{method.replace(' ', '_')}_{examples}_{seed}"
    seqexp(folder, command, f"init_from={newest(folder, source)}", f"name={name}")
    run = newest(folder, name)
    result = json.loads(seqexp(folder, f"seqexp eval run={run} split=test device.threads=1"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    entry = {
        "step": result["step"],
        **{key: result["metrics"][f"test/{key}"] for key in SCORES},
        "val_accuracy": [row["val/accuracy"] for row in rows if "val/accuracy" in row],
    }
    with lock:
        found = results()
        runs = found.setdefault(method, {"command": f"{TUNE} {options} init_from={source}", "runs": {}})[
            "runs"
        ]
        runs.setdefault(str(examples), {})[str(seed)] = entry
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{method}, {examples} reviews, seed {seed}: {entry['accuracy']:.4f}", flush=True)


def results() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def missing(method: str, examples: int, seed: int) -> bool:
    return str(seed) not in results().get(method, {"runs": {}})["runs"].get(str(examples), {})


def report() -> str:
    """Return a table of test accuracies: mean and standard deviation over the seeds, in percent."""
    found = results()
    sizes = EXAMPLES["full"]
    lines = [f"| | {' | '.join(f'{n:,}' for n in sizes)} |", f"|---|{'---|' * len(sizes)}"]
    for method in METHODS:
        runs = found.get(method, {"runs": {}})["runs"]
        cells = [_mean([one["accuracy"] for one in runs.get(str(n), {}).values()]) for n in sizes]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    by_size: list[dict[str, float]] = [
        next(iter(found.get("full", {"runs": {}})["runs"].get(str(n), {}).values()), {}) for n in sizes
    ]
    for name in ("tfidf", "majority"):
        cells = [f"{100 * one[f'{name}_accuracy']:.1f}" if one else "" for one in by_size]
        lines.append(f"| {name}, seed 1 | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread} ({len(values)})"


def draw() -> None:
    """Draw validation accuracy over the epochs with all reviews, and test accuracy over their number."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    over_epochs, over_examples = figure.subplots(1, 2)
    for method, found in results().items():
        runs = found["runs"]
        curves = [one["val_accuracy"] for one in runs.get(str(ALL), {}).values()]
        if curves:
            mean = [100 * statistics.mean(column) for column in zip(*curves, strict=False)]
            over_epochs.plot(range(1, len(mean) + 1), mean, marker=".", label=method)
        points = sorted((int(n), [100 * one["accuracy"] for one in of.values()]) for n, of in runs.items())
        means = [statistics.mean(values) for _, values in points]
        spreads = [statistics.stdev(values) if len(values) > 1 else 0 for _, values in points]
        over_examples.errorbar([n for n, _ in points], means, spreads, marker=".", capsize=3, label=method)
    over_epochs.set(xlabel="epoch", ylabel="validation accuracy, %")
    over_examples.set(xlabel="training reviews", ylabel="test accuracy, %", xscale="log")
    over_epochs.legend()
    figure.savefig(DOCS / "images" / "transfer.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--report", action="store_true", help="print the table and draw the picture alone")
    parser.add_argument("--folder", type=Path, default=Path("study"), help="where the runs are")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    given = parser.parse_args()
    if not given.report:
        folder = given.folder.absolute()
        prepare(folder)
        if not finished(folder, "pretrained"):
            seqexp(folder, PRETRAINED)
        for seed in range(1, given.seeds + 1):
            if not finished(folder, f"random_{seed}"):
                seqexp(folder, RANDOM.format(seed=seed))
        jobs = [
            (method, examples, seed)
            for seed in range(1, given.seeds + 1)
            for examples in sorted(EXAMPLES["full"], reverse=True)
            for method in METHODS
            if examples in EXAMPLES[method] and missing(method, examples, seed)
        ]
        with ThreadPoolExecutor(given.jobs) as pool:
            for done in [pool.submit(tune, folder, *job) for job in jobs]:
                done.result()
    if results():
        draw()
        print(report())


if __name__ == "__main__":
    main()
