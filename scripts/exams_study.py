"""Train the six runs of docs/exams.md, twenty minutes each on two cores, and run their exams.

    python scripts/exams_study.py --data path/to/novels --blimp path/to/BLiMP.zip
    python scripts/exams_study.py --data … --blimp … char_1 sentencepiece_1    # only these
    python scripts/exams_study.py --report               # tables and figures of the runs so far

By default the novels are $SEQEXP_DATA/stories and BLiMP $SEQEXP_DATA/blimp/BLiMP.zip. Each run's result is
written to docs/exams/<label>.json, and runs that have one are skipped. Tables are in docs/exams/tables.md,
figures in docs/images/.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from seqexp.exams.grading import credits_of
from seqexp.metrics.intervals import paired_difference
from seqexp.tracking.plots import new_figure, save

DOCS = Path(__file__).resolve().parents[1] / "docs"
OUT = DOCS / "exams"
TOKENIZERS, SEEDS = ("char", "sentencepiece"), (1, 2, 3)
LABELS = [f"{tokenizer}_{seed}" for seed in SEEDS for tokenizer in TOKENIZERS]
PROMPT = "The door opened and"


def seqexp(*words: str) -> str:
    """Run a command with its messages on the screen; return its standard output."""
    print("seqexp", *words, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "seqexp", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def run_job(label: str, data: str, blimp: str) -> None:
    tokenizer, _, seed = label.rpartition("_")
    name = f"exams_study_{label}"
    before = set(Path("outputs/train", name).glob("*"))
    seqexp("train", f"experiment=potter/{tokenizer}", f"data.path={data}", f"seed={seed}", f"name={name}")
    (folder,) = set(Path("outputs/train", name).glob("*")) - before
    evaluations = Path("outputs/eval", name)
    before = set(evaluations.glob("*"))
    judged = json.loads(seqexp("eval", f"run={folder}", "exams=all"))
    (judged_in,) = set(evaluations.glob("*")) - before
    on_blimp = json.loads(seqexp("eval", f"run={folder}", "exams=grammar", f"exams.path={blimp}"))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((folder / "manifest.json").read_text())
    trained = json.loads((folder / "result.json").read_text())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    result = {
        "label": label,
        "git_commit": manifest["git_commit"],
        "parameters": manifest["parameters"]["total"],
        "device": manifest["device"],
        "precision": manifest["precision"],
        "corpus_sha256": manifest["corpus"]["sha256"],
        "train_characters": manifest["corpus"]["splits"]["train"]["characters"],
        "train_tokens": manifest["corpus"]["splits"]["train"]["tokens"],
        "steps": rows[-1]["step"],
        "tokens_per_step": config["data"]["batch_size"] * config["data"]["seq_len"],
        "minutes": trained["minutes"],
        "best_step": trained["step"],
        "tokens_per_s": statistics.median(
            row["speed/tokens_per_s"] for row in rows if "speed/tokens_per_s" in row
        ),
        "bits_per_char": judged["metrics"]["val/bits_per_char"],
        "loss": judged["metrics"]["val/loss"],
        "curve": [[row["step"], row["val/bits_per_char"]] for row in rows if "val/bits_per_char" in row],
        "exams": {exam["name"]: exam for exam in judged["exams"]} | {"blimp": on_blimp["exams"][0]},
        "spelling_answers": answers(judged_in / "exam_spelling.jsonl"),
        "sample": seqexp("generate", f"run={folder}", f"prompt={PROMPT}", "generation.max_new_tokens=300"),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / f"{label}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def answers(file: Path) -> dict[str, str]:
    """Return strings of digits: the number of questions per word, and twice the credit of each question."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    words = [list(some) for _, some in itertools.groupby(rows, key=lambda row: row["good"])]
    kept = {"questions": "".join(str(len(some)) for some in words)}
    for who in ("model", "baseline"):
        good, bad = np.array([row[who] for row in rows]).T
        kept[who] = "".join(f"{2 * credit:.0f}" for credit in credits_of(good, bad))
    return kept


def spelling_compared(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Compare characters, subwords and 5-grams in pairs: means over seeds, 95 % intervals over words."""
    kept = {name: [run["spelling_answers"] for run in runs] for name, runs in found.items()}
    (questions,) = {some["questions"] for runs in kept.values() for some in runs}  # the same for all runs
    words = np.repeat(np.arange(len(questions)), [int(digit) for digit in questions])
    # (questions,) each
    means = {
        name: np.mean([credits_in(some["model"]) for some in runs], axis=0) for name, runs in kept.items()
    }
    means["5-gram"] = credits_in(next(iter(kept.values()))[0]["baseline"])
    lines = []
    for one, other in itertools.combinations(means, 2):
        ahead, (low, high) = paired_difference(means[one], means[other], words)
        lines.append(f"Spelling, {one} − {other}: {100 * ahead:.2f} ± {50 * (high - low):.2f} points.")
    return lines


def credits_in(digits: str) -> Any:
    return np.array([int(digit) / 2 for digit in digits])


def load(tokenizer: str) -> list[dict[str, Any]]:
    """Load the results with this tokenizer that exist."""
    files = [OUT / f"{tokenizer}_{seed}.json" for seed in SEEDS]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def spread(values: list[float], percent: bool = False) -> str:
    """Format mean ± standard deviation over seeds."""
    factor, digits = (100, 1) if percent else (1, 3)
    text = f"{factor * statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {factor * statistics.stdev(values):.{digits}f}"


def report() -> None:
    """Write tables and figures of the results so far."""
    found = {tokenizer: runs for tokenizer in TOKENIZERS if (runs := load(tokenizer))}
    lines = [
        "| run | parameters | steps | characters read | bits per character | spelling | grammar | BLiMP |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for runs in found.values():
        for run in runs:
            tokens = run["steps"] * run["tokens_per_step"]
            read = tokens * run["train_characters"] / run["train_tokens"]
            shares = [f"{100 * run['exams'][name]['overall']['accuracy']:.1f}" for name in run["exams"]]
            cells = [run["label"], f"{run['parameters']:,}", f"{run['steps']:,}", f"{read / 1e6:.0f} million"]
            lines.append("| " + " | ".join([*cells, f"{run['bits_per_char']:.3f}", *shares]) + " |")
    for exam in ("spelling", "grammar", "blimp"):
        lines += ["", f"### {exam}", "", *exam_table(found, exam)]
    if found:
        lines += ["", "Means over seeds, intervals over words:", ""]
        lines += [f"- {line}" for line in spelling_compared(found)]
    for tokenizer, runs in found.items():
        lines += [
            "",
            f"### {tokenizer}: generated text",
            "",
            "    " + runs[0]["sample"].replace("\n", "\n    "),
        ]
        for exam in ("spelling", "grammar"):
            shown = (
                f"{m['good']} / {m['bad']} ({m['log_probability_good'] - m['log_probability_bad']:.1f})"
                for m in runs[0]["exams"][exam]["mistakes"]
            )
            lines += ["", f"Most confident mistakes, {exam}: " + "; ".join(shown)]
    OUT.mkdir(exist_ok=True)
    (OUT / "tables.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if found:
        draw(found)


def exam_table(found: dict[str, list[dict[str, Any]]], exam: str) -> list[str]:
    """Return a table of accuracy per group in per cent, mean ± deviation over seeds, beside the 5-grams."""
    lines = [f"| pairs about | pairs | {' | '.join(found)} | 5-gram |", "|---" * (len(found) + 3) + "|"]
    for i, name in enumerate(groups(found, exam)):
        rows = {tokenizer: [cells(run, exam)[i] for run in runs] for tokenizer, runs in found.items()}
        first = next(iter(rows.values()))[0]
        shares = [spread([cell["accuracy"] for cell in some], percent=True) for some in rows.values()]
        baseline = f"{100 * first['baseline']['accuracy']:.1f}"
        lines.append("| " + " | ".join([name, f"{first['pairs']:,}", *shares, baseline]) + " |")
    return lines


def cells(run: dict[str, Any], exam: str) -> list[dict[str, Any]]:
    report = run["exams"][exam]
    return [report["overall"], *report["groups"]]


def groups(found: dict[str, list[dict[str, Any]]], exam: str) -> list[str]:
    first = next(iter(found.values()))[0]["exams"][exam]
    return ["all", *(f"{group['by']}: {group['name']}" for group in first["groups"])]


def draw(found: dict[str, list[dict[str, Any]]]) -> None:
    """Draw accuracy by group for the three exams, and the curves of bits per character."""
    for exam in ("spelling", "grammar", "blimp"):
        names = groups(found, exam)
        shown = [i for i, name in enumerate(names) if not name.startswith(("paradigm", "training"))]
        figure = new_figure(7.5, 1.4 + 0.36 * len(shown))
        axes = figure.subplots()
        for shift, (tokenizer, runs) in zip((-0.15, 0.15), found.items(), strict=False):
            for run in runs:
                values = [cells(run, exam)[i]["accuracy"] for i in shown]
                label = tokenizer if run is runs[0] else None
                colour = "tab:blue" if tokenizer == "char" else "tab:orange"
                positions = [position + shift for position in range(len(shown))]
                axes.plot(values, positions, "o", color=colour, ms=4, alpha=0.7, label=label)
        first = next(iter(found.values()))[0]
        baseline = [cells(first, exam)[i]["baseline"]["accuracy"] for i in shown]
        axes.plot(baseline, range(len(shown)), "|", color="gray", ms=14, mew=2, label="5-gram")
        axes.set_yticks(range(len(shown)), [names[i] for i in shown])
        axes.invert_yaxis()
        axes.axvline(0.5, color="gray", ls=":", lw=0.8)
        axes.set(xlabel="share of pairs whose good side is more likely", title=f"{exam}: one dot per run")
        axes.grid(alpha=0.3, axis="x")
        axes.legend(fontsize=8)
        save(figure, DOCS / "images" / f"exams_{exam}.png")
    figure = new_figure()
    axes = figure.subplots()
    for tokenizer, runs in found.items():
        for run in runs:
            steps, bits = zip(*run["curve"], strict=True)
            minutes = [step / run["steps"] * run["minutes"] for step in steps]
            colour = "tab:blue" if tokenizer == "char" else "tab:orange"
            axes.plot(minutes, bits, "o-", ms=3, color=colour, label=tokenizer if run is runs[0] else None)
    axes.set(xlabel="minutes", ylabel="bits per character, validation split")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, DOCS / "images" / "exams_bits_per_char.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(os.environ.get("SEQEXP_DATA", "data"))
    parser.add_argument("labels", nargs="*", metavar="label", help=f"of {', '.join(LABELS)}")
    parser.add_argument("--data", default=str(root / "stories"), help="a folder of novels")
    parser.add_argument("--blimp", default=str(root / "blimp" / "BLiMP.zip"))
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    for label in [] if options.report else options.labels or LABELS:
        if label not in LABELS:
            parser.error(f"unknown label {label}; choose from {', '.join(LABELS)}")
        if not (OUT / f"{label}.json").is_file():
            run_job(label, options.data, options.blimp)
    report()


if __name__ == "__main__":
    main()
