"""The runs of docs/masked.md; finished steps are skipped, interrupted ones go on.

    python scripts/masked_study.py --folder study                  # all of it: about 20 hours on one thread
    python scripts/masked_study.py --folder study novels           # one part: novels or lab3
    python scripts/masked_study.py --folder study --minutes 1      # a rehearsal of everything
    python scripts/masked_study.py --report                        # the tables alone

Needs $SEQEXP_DATA with novels/, blimp/, tatoeba/, cls_books_fr/ and ud/. Every step is a command line of
seqexp; results are in docs/masked/<part>.json with the command lines, those of a rehearsal in its folder.
"""

import argparse
import gzip
import json
import os
import shlex
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs" / "masked"
DATA = Path(os.environ.get("SEQEXP_DATA", "data"))
COMMON = "device.threads=1 trainer.log_every=50 trainer.checkpoint_minutes=5"
SIZE = "model.n_layer=4 model.n_embd=256 model.n_head=4"
LEARN = (
    "optimizer.lr=1e-3 scheduler.warmup_steps=500 data.seq_len=128 data.batch_size=32 trainer.eval_every=2000"
)
# Pretraining on the novels: options by name.
NOVELS = {
    "masked, 15 %": "model=bert",
    "masked, 25 %": "model=bert task.mask_share=0.25",
    "masked, 40 %": "model=bert task.mask_share=0.4",
    "masked, words": "model=bert task.mask_unit=word",
    "masked, spans": "model=bert task.mask_unit=span",
    "masked, newer form": "model=bert_modern",
    "replaced tokens": "model=electra",
    "causal": f"model=gpt {SIZE} model.dropout=0.1 tokenizer=wordpiece",
}
# Scores of sentences: a discriminator has none, and a causal model one.
EXAMS: dict[str, tuple[str, ...]] = {"replaced tokens": (), "causal": ("",)}
RATES, SEEDS = ("1e-5", "3e-5", "1e-4"), (1, 2, 3, 4, 5)
EPOCHS = 5


class Study:
    """Command lines of seqexp in a folder; each has a name, and a finished one is not run again."""

    def __init__(self, folder: Path, minutes: float | None) -> None:
        self.folder, self.minutes = folder.resolve(), minutes
        self.results = DOCS if minutes is None else self.folder / "results"
        self.folder.mkdir(parents=True, exist_ok=True)

    def limit(self, minutes: float) -> float:
        """The minutes of a pretraining; those of the rehearsal, if it is one."""
        return minutes if self.minutes is None else self.minutes

    def train(self, name: str, words: str) -> Path:
        """Train, or go on, in the folder of this name; return the run."""
        known = sorted((self.folder / "outputs/train" / name).glob("*"))
        for run in known:
            status = json.loads((run / "status.json").read_text()) if (run / "status.json").exists() else {}
            if status.get("status") == "finished":
                return run
        resumable = [run for run in known if (run / "checkpoints/index.json").exists()]
        if resumable:
            self.seqexp("train", f"resume={resumable[-1]}")
            return resumable[-1]
        self.seqexp("train", f"{words} {COMMON} name={name}")
        return sorted((self.folder / "outputs/train" / name).glob("*"))[-1]

    def seqexp(self, command: str, words: str) -> str:
        """Run a command line and return what it printed."""
        arguments = [command, *shlex.split(words)]
        print("seqexp", shlex.join(arguments), flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "seqexp", *arguments],
            cwd=self.folder, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.returncode)
        return done.stdout

    def record(self, part: str, name: str, row: dict[str, Any]) -> None:
        """Add a result to the file of its part."""
        self.results.mkdir(parents=True, exist_ok=True)
        found = {**results(self.results, part), name: row}
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (self.results / f"{part}.json").write_text(text)

    def has(self, part: str, name: str) -> bool:
        return name in results(self.results, part)


def results(folder: Path, part: str) -> dict[str, Any]:
    file = folder / f"{part}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def novels(study: Study) -> None:
    """Pretrain on the novels; evaluate on held-out novels, and on BLiMP by (pseudo-)log-likelihood."""
    minutes, pairs = study.limit(90), 6700 if study.minutes is None else 100
    for name, options in NOVELS.items():
        if study.has("novels", name):
            continue
        words = f"data=text data.path={DATA / 'novels'} {options} {LEARN} trainer.max_minutes={minutes}"
        folder = "novels_" + "".join(c if c.isalnum() else "_" for c in name)
        run = study.train(folder, words)
        metrics: dict[str, float] = {}
        for more in EXAMS.get(name, ("", "exams.within_word=true")):
            exam = f"exams=grammar exams.path={DATA / 'blimp/BLiMP.zip'} exams.pairs={pairs} {more}"
            found = json.loads(study.seqexp("eval", f"run={run} device.threads=1 {exam}"))["metrics"]
            metrics |= {f"{key} {more}".strip(): value for key, value in found.items()}
        if not metrics:
            metrics = json.loads(study.seqexp("eval", f"run={run} device.threads=1"))["metrics"]
        step = json.loads((run / "result.json").read_text())["step"]
        study.record("novels", name, {"command": f"seqexp train {words}", "step": step, "metrics": metrics})


def french(folder: Path) -> Path:
    """Write the French that there is: Tatoeba's French side, the training reviews, and UD."""
    place = folder / "french"
    place.mkdir(exist_ok=True)
    with zipfile.ZipFile(DATA / "tatoeba/fra-eng.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("fra.txt"))
        lines = archive.read(name).decode().splitlines()
    sentences = dict.fromkeys(line.split("\t")[1] for line in lines if "\t" in line)
    (place / "tatoeba.txt").write_text("\n".join(sentences) + "\n")
    reviews = (DATA / "cls_books_fr/train.review.spm").read_text().splitlines()
    texts = ("".join(line.split()).replace("▁", " ").strip() for line in reviews)
    (place / "reviews.txt").write_text("\n".join(texts) + "\n")
    with (place / "ud.txt").open("w") as out:
        for file in sorted((DATA / "ud").glob("*fr*.gz")):
            with gzip.open(file, "rt") as treebank:
                out.writelines(
                    line.removeprefix("# text = ") for line in treebank if line.startswith("# text = ")
                )
    return place


def lab3(study: Study) -> None:
    """Pretrain on French; fine-tune on CLS-Books at three rates with five seeds, and from random weights."""
    model = "model=bert_lab3_small tokenizer=sentencepiece tokenizer.vocab_size=8000"
    words = (
        f"data=text data.path={french(study.folder)} data.split=per_file task.cross_documents=true {model} "
        f"data.seq_len=256 data.batch_size=16 optimizer.lr=5e-4 scheduler.warmup_steps=500 "
        f"trainer.eval_every=1000 trainer.max_minutes={study.limit(60)}"
    )
    run = study.train("french", words)
    # Random weights come from runs of no steps, which have the same tokenizer.
    untrained = {
        seed: study.train(f"french_untrained_{seed}", f"{words} trainer.max_steps=0 seed={seed}")
        for seed in SEEDS
    }
    steps = -(-1600 // 8) * EPOCHS if study.minutes is None else 10
    for rate, seed, pretrained in runs_of_lab3():
        name = f"{'pretrained' if pretrained else 'random'} {rate} {seed}"
        if study.has("lab3", name):
            continue
        fine = (
            f"data=cls_books model=bert init_from={run if pretrained else untrained[seed]} "
            f"data.batch_size=8 data.max_seq_len=256 optimizer.lr={rate} "
            f"scheduler=linear scheduler.min_lr=0 scheduler.warmup_steps={round(0.06 * steps)} "
            f"trainer.max_steps={steps} trainer.eval_every={max(1, steps // EPOCHS)} "
            f"trainer.monitor=val/accuracy seed={seed}"
        )
        tuned = study.train(f"lab3_{name.replace(' ', '_')}", fine)
        found = json.loads(study.seqexp("eval", f"run={tuned} split=test device.threads=1"))["metrics"]
        study.record("lab3", name, {"command": f"seqexp train {fine}", "metrics": found})


def runs_of_lab3() -> Iterator[tuple[str, int, bool]]:
    for seed in SEEDS:
        for rate in RATES:
            yield rate, seed, True
            yield rate, seed, False


def report(folder: Path) -> str:
    """Return the tables of what is finished."""
    lines: list[str] = []
    found = results(folder, "novels")
    if found:
        columns = {
            "loss": "val/loss", "fill-in accuracy": "val/accuracy", "5-gram": "val/ngram_accuracy",
            "unigram": "val/unigram_accuracy", "BLiMP": "exam/grammar",
            "BLiMP, within words": "exam/grammar exams.within_word=true",
        }  # fmt: skip
        lines += [f"| novels | steps | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
        for name, row in found.items():
            values = [row["metrics"].get(key) for key in columns.values()]
            cells = ["" if value is None else f"{value:.4f}" for value in values]
            lines.append(f"| {name} | {row['step']:,} | {' | '.join(cells)} |")
    found = results(folder, "lab3")
    if found:
        lines += ["", "| CLS-Books | rate | seeds | test accuracy, % | TF-IDF |", "|---|---|---|---|---|"]
        for kind in ("random", "pretrained"):
            for rate in RATES:
                rows = [row["metrics"] for name, row in found.items() if name.startswith(f"{kind} {rate} ")]
                values = [100 * row["test/accuracy"] for row in rows]
                if values:
                    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                    tfidf = 100 * rows[0]["test/tfidf_accuracy"]
                    mean = statistics.mean(values)
                    lines.append(f"| {kind} | {rate} | {len(values)} | {mean:.2f}{spread} | {tfidf:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", help="novels, lab3; default: both")
    parser.add_argument("--folder", type=Path, default=Path("study"))
    parser.add_argument("--minutes", type=float, help="of each pretraining, for a rehearsal")
    parser.add_argument("--report", action="store_true", help="print the tables of finished runs")
    given = parser.parse_args()
    parts = {"novels": novels, "lab3": lab3}
    if unknown := set(given.parts) - set(parts):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(parts)}")
    study = Study(given.folder, given.minutes)
    if not given.report:
        for name, part in parts.items():
            if not given.parts or name in given.parts:
                part(study)
    print(report(study.results))


if __name__ == "__main__":
    main()
