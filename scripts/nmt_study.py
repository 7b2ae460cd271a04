"""The runs of docs/nmt.md: about four hours on two cores; finished runs are skipped.

    python scripts/nmt_study.py                  # missing runs, then the table
    python scripts/nmt_study.py gru transformer  # only these (--threads 1: on one core)
    python scripts/nmt_study.py --report         # the table of the finished runs

Every run is a command line of seqexp on data=tatoeba (conf/data/tatoeba.yaml has its location). Its result is
saved with the command line in docs/nmt/<label>.json; tables are in docs/nmt/tables.md, pictures in
docs/images/.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs"
OUT = DOCS / "nmt"
LUONG = (
    "base", "reverse", "dropout", "dot", "general", "concat", "bahdanau", "local_p", "general_feeding",
    "local_p_feeding",
)  # fmt: skip
# Label: the overrides of `train`.
JOBS = {
    "gru": ("experiment=nmt/gru",),
    "transformer": ("experiment=nmt/transformer",),
    "lab": ("experiment=nmt/lab",),
    **{f"luong_{row}": (f"experiment=nmt/luong/{row}",) for row in LUONG},
}
# Sentences written for the page; the translations are shown unselected.
SENTENCES = (
    "I am cold.",
    "Where did you buy this book?",
    "She doesn't know that he is here.",
    "My brother has been working in this town for ten years.",
    "If it rains tomorrow, we will stay at home.",
    "The old man sat down and began to read a newspaper.",
    "I would have called you if I had known your number.",
    "Don't forget to close the windows before you leave.",
    "He is taller than any other boy in his class.",
    "Why are you always late?",
)
ATTENTION = SENTENCES[3]


def seqexp(*arguments: str) -> str:
    """Run a command with its messages on the terminal; return its output."""
    print("seqexp", *arguments, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "seqexp", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def run_job(label: str, threads: int | None) -> None:
    overrides = JOBS[label]
    name = f"nmt_study_{label}"
    before = set(Path("outputs/train", name).glob("*"))
    seqexp("train", *overrides, f"name={name}", f"device.threads={threads or 'null'}")
    (folder,) = set(Path("outputs/train", name).glob("*")) - before
    judged = json.loads(seqexp("eval", f"run={folder}"))
    greedy = json.loads(seqexp("eval", f"run={folder}", "generation.beam_size=1"))
    (folder / "sentences.txt").write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    written = seqexp("generate", f"run={folder}", f"input={folder / 'sentences.txt'}")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if config["model"].get("attention") != "none":
        picture = DOCS / "images" / f"nmt_attention_{label}.png"
        seqexp("generate", f"run={folder}", f"text={ATTENTION}", f"attention={picture}")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((folder / "manifest.json").read_text())
    result = {
        "label": label,
        "command": command(label),
        "git_commit": manifest["git_commit"],
        "parameters": manifest["parameters"]["total"],
        "precision": manifest["precision"],
        "threads": manifest["threads"],
        "steps": rows[-1]["step"],
        "minutes": json.loads((folder / "result.json").read_text())["minutes"],
        "best": json.loads((folder / "result.json").read_text())["monitor"],
        "curves": {
            key: [[row["step"], row[key]] for row in rows if row.get(key) is not None]
            for key in ("val/loss", "val/bleu")
        },
        "tokens_per_s": statistics.median(
            row["speed/tokens_per_s"] for row in rows if "speed/tokens_per_s" in row
        ),
        "test": {key: judged[key] for key in ("metrics", "translation")},
        "test_greedy": greedy["metrics"],
        "translations": list(map(list, zip(SENTENCES, written.splitlines(), strict=True))),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / f"{label}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def command(label: str) -> str:
    return " ".join(("seqexp train", *JOBS[label])) + "; seqexp eval run=latest"


def load(label: str) -> dict[str, Any] | None:
    """Return the saved result of this command, or None."""
    file = OUT / f"{label}.json"
    result: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return result if result and result["command"] == command(label) else None


def report() -> None:
    """Return the tables of the saved results."""
    header = ["run", "parameters", "minutes", "threads", "steps", "val/loss", "BLEU", "greedy", "chrF", "TER"]
    header.append("BLEU, unseen")
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    signature = ""
    translations = []
    for label in JOBS:
        result = load(label)
        if result is None:
            continue
        metrics = {key.partition("/")[2]: value for key, value in result["test"]["metrics"].items()}
        scores = [metrics["bleu"], result["test_greedy"]["test/bleu"], metrics["chrf"], metrics["ter"]]
        scores.append(metrics["bleu_unseen"])
        cells = [label, f"{result['parameters']:,}", f"{result['minutes']:.0f}", str(result["threads"])]
        cells.append(f"{result['steps']:,}")
        cells += [f"{result['best']['best']:.3f}", *(f"{score:.2f}" for score in scores)]
        lines.append(" | ".join(cells))
        signature = result["test"]["translation"]["scores"]["bleu"]["signature"]
        if not label.startswith("luong"):
            rows = (f"{source} | {target}" for source, target in result["translations"])
            translations += [f"\n{label} | |", "--- | ---", *rows]
    OUT.mkdir(exist_ok=True)
    text = "\n".join([*lines, "", f"BLEU: {signature}", *translations]) + "\n"
    (OUT / "tables.md").write_text(text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", nargs="*", metavar="label", help="all that are missing, if none is named")
    parser.add_argument("--threads", type=int, help="all cores, if not given; the table says how many")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    for label in [] if options.report else options.labels or JOBS:
        if load(label) is None:
            run_job(label, options.threads)
    report()


if __name__ == "__main__":
    main()
