"""CPU time of training two classifiers of texts, beside fastText and a plain torch loop.

    python scripts/bench_classification.py                # both; texts are SST-2's, in $SEQEXP_DATA or data/
    python scripts/bench_classification.py --rounds 9

All variants run in one process on one thread and take turns, and the seconds are those of CPU time, so that
other programs disturb all of them alike; each figure is the median over the rounds, each ratio the median of
the rounds' ratios, with the lowest and the highest round.

- `fasttext_bag` with the recipe of experiment=classification/fasttext, beside fastText's own classifier
  (``pip install fasttext-community``) with as many dimensions, pairs of words and buckets. fastText's time
  is that of the whole call, which reads the file, for 5 epochs (its default) and for 25.
- `textcnn` of Kim's size in batches of 50, beside the same network of torch's layers in a plain fp32 loop
  that updates all words at each step.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp import registry
from seqexp.config.classification import ClassificationConfig
from seqexp.config.labelled import LabelledConfig
from seqexp.config.optimizer import AdamConfig, OptimizerConfig, SchedulerConfig, SGDConfig
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.tokenizer import WordConfig
from seqexp.data.labelled_data import LabelledData
from seqexp.tasks.classification import Classification
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.device import setup_device
from seqexp.training.loop import Trainer

Run = Callable[[], int]  # trains, and returns the number of texts


def sst2(batch_size: int, similar_lengths: bool) -> LabelledData:
    config = LabelledConfig(
        "sst2", folder="sentconv", format="label_first", label_names=["negative", "positive"],
        max_seq_len=100, batch_size=batch_size, similar_lengths=similar_lengths,
        train_file="stsa.binary.train", val_file="stsa.binary.dev",
    )  # fmt: skip
    return LabelledData.build(config, WordConfig("word", min_count=1), 1)


def seqexp_steps(
    model_name: str, optimizer: OptimizerConfig, data: LabelledData, precision: str, folder: Path, steps: int
) -> Run:
    """Return a run of steps of the Trainer on real batches, with its logging."""
    device = setup_device(DeviceConfig(precision=precision, threads=1))
    options = registry.load_schema("model", model_name)()
    config = TrainConfig(
        model=options, task=ClassificationConfig(), tokenizer=WordConfig("word"), optimizer=optimizer,
        scheduler=SchedulerConfig("linear"), data=data.config, device=DeviceConfig(),
        trainer=TrainerConfig(max_steps=10**6), name="bench",
    )  # fmt: skip
    torch.manual_seed(0)
    task = Classification(config.task)
    model = registry.load("model", model_name)(**task.sizes(data.preprocessor))
    folder.mkdir()
    trainer = Trainer(config, model, model, task, data, device, RunFolder(folder))
    trainer.metrics = MetricsLog(folder / "metrics.jsonl", folder / "tensorboard")
    model.train()
    running = trainer.steps(Progress(0, 10**6, None))

    def run() -> int:
        first = trainer.step
        for _ in range(steps):
            next(running)
        return sum(len(data.train_batch(step)) for step in range(first, first + steps))

    return run


def fasttext_run(data: LabelledData, folder: Path, epochs: int) -> Run | None:
    """Return fastText's training on the texts, or None if it is not installed."""
    try:
        import fasttext
    except ImportError:
        return None
    file, part = folder / "train.txt", data.splits["train"]
    lines = (f"__label__{one.labels[0]} {one.text}\n" for one in part.examples)
    file.write_text("".join(lines), encoding="utf-8")
    settings: dict[str, Any] = {"dim": 100, "wordNgrams": 2, "bucket": 100_000, "lr": 0.5}

    def run() -> int:
        fasttext.train_supervised(str(file), epoch=epochs, thread=1, verbose=0, **settings)
        return epochs * len(part.examples)

    return run


class PlainCNN(nn.Module):
    """Kim's network of torch's own layers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 300)
        self.filters = nn.ModuleList(nn.Conv1d(300, 100, width, padding=width - 1) for width in (3, 4, 5))
        self.head = nn.Linear(300, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        features = torch.cat([F.relu(filters(x)).amax(dim=2) for filters in self.filters], dim=1)
        logits: Tensor = self.head(F.dropout(features, 0.5, self.training))
        return logits


def plain_loop(data: LabelledData, steps: int) -> Run:
    """Forward, backward, clip and Adam over all words, in fp32."""
    torch.manual_seed(0)
    model = PlainCNN(data.preprocessor["text"].vocab_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batches = [data.train_batch(step) for step in range(len(data._batches["train"]))]
    done = 0

    def run() -> int:
        nonlocal done
        texts = 0
        for _ in range(steps):
            batch = batches[done % len(batches)]
            F.cross_entropy(model(batch.tokens), batch.labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done, texts = done + 1, texts + len(batch)
        return texts

    return run


def in_turn(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return texts per second of CPU time of each run in each round; the first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.process_time()
            texts = run()
            if number:
                rates[name].append(texts / (time.process_time() - started))
    return rates


def show(title: str, rates: dict[str, list[float]], bases: tuple[str, ...]) -> None:
    print(f"\n{title}")
    for name, values in rates.items():
        print(
            f"  {name:<36}{statistics.median(values):>9,.0f} texts/s of CPU time"
            f"   ({min(values):,.0f} to {max(values):,.0f})"
        )
        for base in bases:
            if base != name and base in rates and name not in bases:
                ratios = [one / other for one, other in zip(values, rates[base], strict=True)]
                spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
                print(f"    {statistics.median(ratios):.2f} times {base}   {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--steps", type=int, default=100, help="steps of a round (the bag: three times as many)"
    )
    parser.add_argument("--only", choices=["bag", "cnn"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.only != "cnn":
            data = sst2(96, similar_lengths=False)
            sgd = SGDConfig("sgd", lr=48, momentum=0.0, lr_scale={"head.*": 0.125})
            runs = {
                "fasttext_bag, fp32": seqexp_steps(
                    "fasttext_bag", sgd, data, "fp32", folder / "bag", 3 * given.steps
                )
            }
            for epochs in (5, 25):
                if (other := fasttext_run(data, folder, epochs)) is not None:
                    runs[f"fastText, {epochs} epochs"] = other
            if len(runs) == 1:
                print("fastText is not installed: pip install fasttext-community")
            show(
                "bag of words and pairs, 100 dimensions, 100,000 buckets, batch 96",
                in_turn(runs, given.rounds),
                ("fastText, 5 epochs", "fastText, 25 epochs"),
            )
        if given.only != "bag":
            data = sst2(50, similar_lengths=True)
            runs = {"plain torch loop, fp32": plain_loop(data, given.steps // 2)}
            for precision in ("fp32", "bf16"):
                for choice in ("false", "auto"):
                    adam = AdamConfig("adam", lr=1e-3, sparse_embeddings=choice)
                    name = (
                        f"textcnn, {precision}, {'all words' if choice == 'false' else 'rows of the batch'}"
                    )
                    runs[name] = seqexp_steps(
                        "textcnn", adam, data, precision, folder / f"{precision}{choice}", given.steps // 2
                    )
            words = data.preprocessor["text"].vocab_size
            show(
                f"TextCNN, 300 dimensions, 100 filters of 3, 4 and 5 words, batch 50, {words:,} words",
                in_turn(runs, given.rounds),
                ("plain torch loop, fp32",),
            )


if __name__ == "__main__":
    main()
