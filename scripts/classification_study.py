"""The runs of docs/classification.md; finished runs are skipped.

    python scripts/classification_study.py --vectors glove.6B.50d.txt    # missing runs, then the tables
    python scripts/classification_study.py --report                      # the tables alone

Every run is a command line of seqexp and an evaluation of its best checkpoint on the test split. Results are
in docs/classification/<data>.json, with the command lines. Without --vectors the runs with pretrained vectors
are skipped. ``{vectors}`` stands for the options that name them, and ``{words}`` for those of a tokenizer
that keeps their most frequent words. Classifiers take about half a minute on one thread, and taggers two
minutes; two run at a time.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
CLASSIFIER = "device.threads=1 trainer.max_steps=1200 trainer.eval_every=100 trainer.monitor=val/accuracy"
TAGGER = "device.threads=1 trainer.max_steps=1500 trainer.eval_every=150 trainer.sample_tokens=0"
CNN = "model=textcnn data.batch_size=50 optimizer.lr=1e-3"
RNN = "model=birnn task.pooling=attention model.dropout=0.5"
# Options of each recipe by data set and name.
RUNS = {
    "sst2": {
        "TextCNN, random vectors": CNN,
        "TextCNN, static GloVe": f"{CNN} model.channels=static {{vectors}}",
        "TextCNN, GloVe": f"{CNN} {{vectors}}",
        "TextCNN, multichannel GloVe": f"{CNN} model.channels=multichannel {{vectors}}",
        "BiLSTM with attention, random vectors": RNN,
        "BiLSTM with attention, GloVe": f"{RNN} {{vectors}}",
        "bag of 1- and 2-grams": "experiment=classification/fasttext",
        "Transformer encoder": "model=transformer_encoder model.dropout=0.3",
        "GPT": "model=gpt model.dropout=0.3",
    },
    "trec": {
        "TextCNN, random vectors": CNN,
        "TextCNN, GloVe": f"{CNN} {{vectors}}",
        "BiLSTM with attention, GloVe": f"{RNN} {{vectors}}",
        "bag of 1- and 2-grams": "experiment=classification/fasttext",
    },
    "wnut17": {
        "words": "model.char_filters=0",
        "words and characters": "",
        "words and characters, GloVe": "{vectors} {words}",
        "the same without CRF": "task.crf=false {vectors} {words}",
        "the same, not constrained": "task.crf=false task.constrained=false {vectors} {words}",
    },
    "ud_ewt": {
        "words": "model.char_filters=0",
        "words and characters": "",
        "words and characters, GloVe": "{vectors} {words}",
    },
}
COMMON = {"sst2": CLASSIFIER, "trec": CLASSIFIER, "wnut17": TAGGER, "ud_ewt": TAGGER}
# Columns of the tables, and baselines with the columns that they have.
SCORES = {
    "sst2": ("accuracy", "macro_f1", "calibration_error"),
    "trec": ("accuracy", "macro_f1", "calibration_error"),
    "wnut17": ("f1", "accuracy", "unknown_accuracy"),
    "ud_ewt": ("accuracy", "unknown_accuracy"),
}
TEXT_BASELINES = {"majority": {"accuracy": "majority_accuracy"}, "tfidf": {"accuracy": "tfidf_accuracy"}}
BASELINES = {
    "sst2": TEXT_BASELINES,
    "trec": TEXT_BASELINES,
    "wnut17": {"most frequent tag of each word": {"f1": "baseline_f1", "accuracy": "baseline_accuracy"}},
    "ud_ewt": {"most frequent tag of each word": {"accuracy": "baseline_accuracy"}},
}
TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "calibration_error": "calibration error",
    "f1": "span F1",
    "unknown_accuracy": "accuracy on unknown words",
}
lock = Lock()


def command_of(data: str, options: str, seed: int) -> str:
    return " ".join(f"seqexp train data={data} {options} {COMMON[data]} seed={seed}".split())


def run(data: str, recipe: str, seed: int, vectors: dict[str, str]) -> None:
    """Train, evaluate on the test split, and add the result to the file of the data set."""
    options = RUNS[data][recipe]
    words = shlex.split(command_of(data, options.format(**vectors), seed))[1:]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        for arguments in (words, ["eval", "run=latest", "split=test", "device.threads=1"]):
            done = subprocess.run(
                [sys.executable, "-m", "seqexp", *arguments],
                cwd=folder, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{shlex.join(arguments)}\n{done.stderr[-2000:]}")
        result = json.loads(done.stdout)
    metrics = result["metrics"]
    names = [*SCORES[data], *(name for one in BASELINES[data].values() for name in one.values())]
    row = {"step": result["step"], **{name: metrics[f"test/{name}"] for name in names}}
    with lock:
        file = DOCS / "classification" / f"{data}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        entry = found.setdefault(recipe, {"command": command_of(data, options, 1), "seeds": {}})
        entry["seeds"][str(seed)] = row
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    main = SCORES[data][0]
    print(f"{data} {recipe}, seed {seed}: {main} {row[main]:.4f} (step {row['step']})", flush=True)


def missing(data: str, recipe: str, seed: int) -> bool:
    file = DOCS / "classification" / f"{data}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return str(seed) not in found.get(recipe, {}).get("seeds", {})


def report() -> str:
    """Return a table for each data set: mean and standard deviation over the seeds, in percent."""
    lines = []
    for data, recipes in RUNS.items():
        file = DOCS / "classification" / f"{data}.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text())
        first = next(iter(next(iter(found.values()))["seeds"].values()))
        lines += [
            f"**{data}**",
            "",
            f"| | seeds | {' | '.join(TITLES[name] for name in SCORES[data])} |",
            f"|---|---|{'---|' * len(SCORES[data])}",
        ]
        for baseline, names in BASELINES[data].items():
            cells = [f"{100 * first[names[name]]:.1f}" if name in names else "" for name in SCORES[data]]
            lines.append(f"| {baseline} | | {' | '.join(cells)} |")
        for recipe in recipes:
            rows = list(found.get(recipe, {"seeds": {}})["seeds"].values())
            if rows:
                cells = [_mean(rows, name) for name in SCORES[data]]
                lines.append(f"| {recipe} | {len(rows)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _mean(rows: list[dict[str, float]], name: str) -> str:
    values = [100 * row[name] for row in rows]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--report", action="store_true", help="print the tables of finished runs")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=[*RUNS], help="one data set")
    parser.add_argument("--recipe", help="one recipe of it")
    parser.add_argument("--vectors", help="GloVe's 50-dimensional vectors: a text file, or a .npy file")
    parser.add_argument("--vector-words", help="the words of a .npy file")
    given = parser.parse_args()
    if not given.report:
        vectors: dict[str, str] = {}
        if given.vectors:
            file, words = (
                path and shlex.quote(str(Path(path).resolve()))
                for path in (given.vectors, given.vector_words)
            )
            vectors = {
                "vectors": f"model.n_embd=50 model.vectors={file}"
                + (f" model.vector_words={words}" if words else ""),
                "words": f"tokenizer.words_path={words or file} tokenizer.vocab_size=50000 "
                "tokenizer.lower=true",
            }
        jobs = [
            (data, recipe, seed, vectors)
            for seed in range(1, given.seeds + 1)
            for data in RUNS
            if given.only in (None, data)
            for recipe, options in RUNS[data].items()
            if given.recipe in (None, recipe)
            if (vectors or "{vectors}" not in options) and missing(data, recipe, seed)
        ]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(run, *job) for job in jobs]:
                done.result()
    print(report())


if __name__ == "__main__":
    main()
