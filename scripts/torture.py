"""Kill runs repeatedly, and check that they end like uninterrupted ones: docs/reliability.md.

    python scripts/torture.py                  # four models, 50 kills each
    python scripts/torture.py --kills 6 lstm   # one model, a few kills
    python scripts/torture.py --report         # the table of the saved results

One run is not interrupted. A second one is killed with SIGKILL in turn inside a training step, the writing of
a checkpoint and a validation, each time after at least one more checkpoint, and resumed. At the end weights,
optimizer, random state, metrics, TensorBoard and samples are compared bit by bit; only times and memory may
differ. The result is saved in docs/reliability.json; finished models are skipped.
"""

import argparse
import json
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

DOCS = Path(__file__).resolve().parents[1] / "docs"
CHILD = Path(__file__).with_name("torture_child.py")
RESULTS = DOCS / "reliability.json"
WINDOWS = ("step", "checkpoint", "validation")
COMMON = shlex.split("""
    device=cpu device.threads=1 device.precision=fp32 trainer.eval_every=20
    trainer.checkpoint_every=5 trainer.log_every=3 name=tortured seed=7
""")
# Tagged words beside the runs: sentences with names of one word or two.
NAMES = "names.conll"
TAGGED = "".join(
    f"Anna{i % 7}\tB-person\n"
    + "Lee\tI-person\n" * (i % 2)
    + "saw\tO\n" * (1 + i % 3)
    + f"Rome{i % 5}\tB-place\n\n"
    for i in range(60)
)
# The runs: small, but with every component that has a state.
MODELS = {
    name: shlex.split(overrides)
    for name, overrides in {
        "lstm": """
            model=lstm data=parity data.seq_len=5 data.max_seq_len=40 data.grow_by=3 data.grow_every=20
            data.grow_below=0.69 data.batch_size=16 data.eval_sequences=30 model.n_layer=2 model.dropout=0.1
            trainer.patience=400
        """,
        "gpt": """
            model=gpt data=potter data.seq_len=16 data.batch_size=8 model.n_layer=2 model.n_head=2
            model.n_embd=16 model.dropout=0.2 trainer.accumulate=2 trainer.sample_tokens=30
        """,
        "gru": """
            model=nmt data=phrasebook tokenizer=word model.n_embd=16 model.hidden_size=24 model.dropout=0.2
            data.batch_tokens=256 task.bleu=false
        """,
        "transformer": """
            model=transformer data=phrasebook tokenizer=word model.n_layer=1 model.n_embd=32 model.n_head=2
            model.ffn_size=48 model.dropout=0.2 data.batch_tokens=256 task.bleu=false
        """,
        "bert": """
            model=bert data=potter data.seq_len=16 data.batch_size=8 model.n_layer=2 model.n_head=2
            model.n_embd=16 model.dropout=0.2 tokenizer.vocab_size=300 trainer.accumulate=2
        """,
        "textcnn": """
            model=textcnn data=opinions model.n_embd=16 model.n_filter=4 data.batch_size=8
            trainer.monitor=val/macro_f1
        """,
        "birnn": """
            model=birnn data=opinions model.n_embd=16 model.hidden_size=12 model.n_layer=2 data.batch_size=8
            task.pooling=attention trainer.ema_decay=0.9
        """,
        "lstm_tagger": f"""
            model=lstm_tagger data=tagged data.path=PLACE/{NAMES} model.n_embd=12 model.hidden_size=8
            model.char_filters=6 data.batch_size=8 task.crf=true
        """,
        "word2vec": """
            model=word2vec data=potter model.n_embd=16 data.seq_len=100 data.batch_size=4
        """,
        "glove": """
            model=glove data=potter model.n_embd=16 data.seq_len=100 data.batch_size=4
        """,
    }.items()
}
# Values that may differ between two equal runs.
OF_THE_CLOCK = ("speed/", "memory/")


def seqexp(place: Path, *arguments: str, killer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = [str(CHILD), *killer, "--"] if killer else ["-m", "seqexp"]
    place.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=place, text=True, capture_output=True, check=False
    )


def run_of(place: Path) -> Path:
    (run,) = place.glob("outputs/train/tortured/*")
    return run


def last_step(run: Path) -> int:
    index = run / "checkpoints" / "index.json"
    return int(json.loads(index.read_text())["last"]["step"]) if index.is_file() else 0


def torture(name: str, kills: int, steps: int, place: Path) -> dict[str, Any]:
    """Train a model without interruption, and with `kills` kills; return a summary and the differences."""
    started = time.time()
    (place / NAMES).write_text(TAGGED)
    own = (word.replace("PLACE", str(place)) for word in MODELS[name])
    arguments = ("train", *own, *COMMON, f"trainer.max_steps={steps}")
    done = seqexp(place / "peace", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    draw = random.Random(name)
    counts = dict.fromkeys(WINDOWS, 0)
    progress, refused = 0, []
    for kill in range(kills):
        window = WINDOWS[kill % len(WINDOWS)]
        first = not (place / "killed/outputs").exists()
        line = arguments if first else ("train", "resume=latest")
        ended = seqexp(place / "killed", *line, killer=(window, "1", f"{draw.random():.3f}"))
        if ended.returncode == 0:
            break  # it came to its end first
        if ended.returncode != -9:
            refused.append(ended.stderr[-2000:])
            break
        counts[window] += 1
        step = last_step(run_of(place / "killed"))
        assert step > progress, f"no progress since step {progress}"
        progress = step
        print(f"{name}: kill {kill + 1}, inside a {window}, last checkpoint at step {step}", flush=True)
    while not refused and (ended := seqexp(place / "killed", "train", "resume=latest")).returncode != 0:
        refused.append(ended.stderr[-2000:])
    differences = refused or compare(run_of(place / "peace"), run_of(place / "killed"))
    return {
        "kills": counts,
        "steps": last_step(run_of(place / "peace")),
        "differences": differences,
        "minutes": round((time.time() - started) / 60, 1),
    }


def compare(first: Path, second: Path) -> list[str]:
    """Return the differences between two runs, except times."""
    different = []
    states = [Checkpoints(RunFolder(run)).load("last") for run in (first, second)]
    for state in states:
        # Times; the hashes of files that hold times; a name that is made of the time.
        del state["elapsed"], state["config"]["sweep"]
        state["index"]["best"].pop("sha256", None)
    different += same(states[0], states[1], "state")
    for what in (metrics, gradient_flow, curves, samples, result):
        if what(first) != what(second):
            different.append(what.__name__)
    return different


def same(one: Any, other: Any, place: str) -> list[str]:
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{place}: {set(one) ^ set(other)}"]
        return [found for key in one for found in same(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in same(a, b, f"{place}[{i}]")]
    return [] if one == other else [f"{place}: {one!r:.50} and {other!r:.50}"]


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(OF_THE_CLOCK)} for row in rows]


def gradient_flow(run: Path) -> str:
    file = run / "gradient_flow.jsonl"
    return file.read_text() if file.is_file() else ""


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars in TensorBoard's files by tag, except times."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(OF_THE_CLOCK)]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def samples(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / "samples").glob("*.txt"))}


def result(run: Path) -> dict[str, Any]:
    found = json.loads((run / "result.json").read_text())
    return {key: found[key] for key in ("step", "metrics", "monitor", "ending")}


def load() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text())) if RESULTS.is_file() else {}


def report() -> None:
    print("model | kills in a step | in a checkpoint | in a validation | steps | minutes | differences")
    print("--- | --- | --- | --- | --- | --- | ---")
    for name, found in load().items():
        kills = " | ".join(str(found["kills"][window]) for window in WINDOWS)
        differences = ", ".join(found["differences"]) or "none"
        print(f"{name} | {kills} | {found['steps']} | {found['minutes']} | {differences}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", metavar="model", help=f"of {', '.join(MODELS)}; all, if none is named"
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--no-record", action="store_true", help="leave docs/reliability.json as it is")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    bad = False
    for name in [] if options.report else options.models or MODELS:
        if name in load() and not options.no_record:
            continue
        with tempfile.TemporaryDirectory() as place:
            found = torture(name, options.kills, options.steps, Path(place))
        print(f"{name}: {json.dumps(found)}", flush=True)
        bad |= bool(found["differences"])
        if not options.no_record:
            RESULTS.write_text(json.dumps({**load(), name: found}, indent=1) + "\n")
    if not options.no_record:
        report()
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
