"""Speed of JoeyNMT on a folder of segmented sentence pairs, as one line of JSON, to compare with other tools.

    python scripts/bench_joeynmt.py DATA --model gru
    python scripts/bench_joeynmt.py DATA --model transformer --label-smoothing 0.1 --checkpoint-steps 1000

Run it with the Python of an environment that has JoeyNMT 2.3.0; it does not import this project. DATA has
train.src, train.tgt and test.src (subwords separated by spaces, one sentence per line) and vocab.txt (one
vocabulary for both sides, one subword per line), to which JoeyNMT adds <unk>, <pad>, <s> and </s>.

All timed code is JoeyNMT's: its configuration, `prepare`, `TrainManager` and `predict`. It runs unchanged
under current torch; the script only records the time at which each batch reaches the training step.

Training. A step lasts from one batch's arrival to the next one's: forward, loss, backward, clipping, Adam,
counters, and drawing the next batch in the same process. The first --warmup steps of an untrained model are
not timed, the next --steps are, and each figure is their median. Target tokens include the end symbol, not
the padding. Batches are 64 random sentences from a fixed seed, sorted inside the batch, as from JoeyNMT's
loader, which does not group similar lengths and therefore pads much. `--batches similar`, an addition of this
script, groups them: it sorts the sentences of 100 random batches and splits them again.

Decoding. An untrained model ends its sentences never or at once, so training continues up to
--checkpoint-steps steps before test.src is translated with JoeyNMT's beam search in batches of 64 sentences
in the file's order (it sorts inside a batch only), --rounds times; the figure is the median, reading and
joining the subwords included. A batch is searched until all hypotheses of all beams have ended, or up to 1.5
times its longest source, which is JoeyNMT's own limit, or to --max-output-length. `decode_ended` is the share
of the sentences with an end symbol, `decode_tokens_per_sentence` their mean length with the
end symbol, and `decode_steps_per_batch` the mean number of decoder steps: compare decoding speeds where these
are alike and the lengths near those of the training targets (`target_tokens_per_step` / 64).

The models. gru: embeddings 256, a bidirectional encoder and a decoder of one layer of 256, Bahdanau
attention, input feeding, a bridge between the two. transformer: 3 + 3 pre-norm layers of width 256, 4 heads,
feed-forward 1024. No matrices are shared unless --tie says so, as in JoeyNMT's defaults. fp32, on the CPU.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import joeynmt.datasets
import torch
from joeynmt.batch import Batch
from joeynmt.config import BaseConfig, parse_global_args
from joeynmt.datasets import BaseDataset, SentenceBatchSampler
from joeynmt.model import Model
from joeynmt.prediction import predict, prepare
from joeynmt.training import TrainManager

BATCH_SIZE = 64
STRETCH = 100  # batches that `--batches similar` sorts together
WIDTH = 256


class SimilarLengths(SentenceBatchSampler):
    """Group training sentences of similar length into batches; other splits are unchanged."""

    def __iter__(self) -> Iterator[list[int]]:
        data = self.sampler.data_source
        if data.split != "train":
            yield from super().__iter__()
            return
        order = list(self.sampler)
        sides = (data.data[data.trg_lang], data.data[data.src_lang])
        stretch = STRETCH * self.batch_size
        for first in range(0, len(order), stretch):
            near = sorted(
                order[first : first + stretch], key=lambda i: [side[i].count(" ") for side in sides]
            )
            batches = [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
            shuffled = torch.randperm(len(batches), generator=self.sampler.generator)
            yield from (batches[i] for i in shuffled.tolist())


class TimedTrainManager(TrainManager):
    """JoeyNMT's trainer, which also records the arrival and the target tokens of each batch."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.arrivals: list[tuple[float, int]] = []

    def _train_step(self, batch: Batch) -> tuple[float, int]:
        self.arrivals.append((time.perf_counter(), batch.ntokens))
        return super()._train_step(batch)


def model_config(name: str, dropout: float, tie: str) -> dict[str, Any]:
    """Return the `model` section of a JoeyNMT configuration."""
    embeddings = {"embedding_dim": WIDTH, "scale": name == "transformer", "dropout": dropout}
    common = {"embeddings": embeddings, "hidden_size": WIDTH, "dropout": dropout}
    if name == "transformer":
        common |= {"num_layers": 3, "num_heads": 4, "ff_size": 1024, "layer_norm": "pre"}
        encoder, decoder = {"type": "transformer"}, {"type": "transformer"}
    else:
        common |= {"rnn_type": "gru", "num_layers": 1}
        encoder = {"type": "recurrent", "bidirectional": True}
        decoder = {
            "type": "recurrent",
            "attention": "bahdanau",
            "input_feeding": True,
            "init_hidden": "bridge",
            "hidden_dropout": dropout,
        }
    return {
        "encoder": common | encoder,
        "decoder": common | decoder,
        "tied_embeddings": tie == "all",
        "tied_softmax": tie in ("softmax", "all"),
    }


def config(arguments: argparse.Namespace, model_dir: Path, updates: int) -> dict[str, Any]:
    """Return a JoeyNMT configuration, in the layout of its YAML files."""
    folder: Path = arguments.data
    side = {"level": "word", "voc_file": str(folder / "vocab.txt")}
    return {
        "name": "bench",
        "model_dir": str(model_dir),
        "use_cuda": False,
        "random_seed": arguments.seed,
        "data": {
            "train": str(folder / "train"),
            "test": str(folder / "test"),
            "dataset_type": "plain",
            "src": side | {"lang": "src"},
            "trg": side | {"lang": "tgt"},
        },
        "model": model_config(arguments.model, arguments.dropout, arguments.tie),
        "training": {
            "optimizer": "adam",
            "learning_rate": arguments.lr,
            "learning_rate_min": 1e-8,
            "learning_rate_warmup": 100,
            "scheduling": "warmupinversesquareroot",
            "clip_grad_norm": 1.0,
            "normalization": "tokens",
            "label_smoothing": arguments.label_smoothing,
            "batch_size": BATCH_SIZE,
            "epochs": 10**6,
            "updates": updates,
            "logging_freq": 100,
            "validation_freq": 10**9,
        },
        "testing": {
            "batch_size": BATCH_SIZE,
            "beam_size": arguments.beam_size,
            "beam_alpha": arguments.beam_alpha,
            "max_output_length": arguments.max_output_length,
        },
    }


def check_lines(folder: Path) -> None:
    """Check for empty lines and line breaks other than the newline, which make JoeyNMT misalign sentences."""
    for name in ("train.src", "train.tgt", "test.src", "vocab.txt"):
        path = folder / name
        if not path.is_file():
            raise SystemExit(f"{path} is missing; the folder needs train.src, train.tgt, test.src, vocab.txt")
        text = path.read_text(encoding="utf-8")
        lines = text.removesuffix("\n").split("\n")
        if lines != text.splitlines() or not all(line.strip() for line in lines):
            raise SystemExit(f"{path} has an empty line, or a line break that is not a newline; remove it")


def train(
    arguments: argparse.Namespace, args: BaseConfig, model: Model, data: BaseDataset, valid: BaseDataset
) -> dict[str, float]:
    """Train for all updates, without validation; return the median speed of the timed steps."""
    trainer = TimedTrainManager(
        rank=0,
        model=model,
        model_dir=args.model_dir,
        device=args.device,
        autocast=args.autocast,
        seed=args.seed,
        train_args=args.train,
        dev_args=args.test,
    )
    trainer.train_and_validate(train_data=data, valid_data=valid)
    if trainer.stats.steps < args.train.max_updates:
        raise SystemExit(130)  # JoeyNMT's trainer returns quietly when it is interrupted
    timed = trainer.arrivals[arguments.warmup : arguments.warmup + arguments.steps + 1]
    seconds = [after[0] - before[0] for before, after in pairwise(timed)]
    tokens = [count for _, count in timed[:-1]]
    return {
        "train_target_tokens_per_s": round(
            statistics.median(n / s for n, s in zip(tokens, seconds, strict=True)), 1
        ),
        "step_ms": round(1e3 * statistics.median(seconds), 2),
        "target_tokens_per_step": statistics.median(tokens),
    }


def decode(args: BaseConfig, model: Model, data: BaseDataset, rounds: int) -> dict[str, float]:
    """Translate the test sentences `rounds` times; return the median speed and how translations ended."""
    data.has_trg = False  # references, where there are any, are not read again
    seconds, steps = [], []
    counter = model.decoder.register_forward_hook(lambda *_: steps.append(1))
    for _ in range(rounds):
        started = time.perf_counter()
        tokens = predict(
            model=model, data=data, device=args.device, n_gpu=0, args=args.test, autocast=args.autocast
        )[3]
        seconds.append(time.perf_counter() - started)
    counter.remove()
    batches = -(-len(data) // BATCH_SIZE)
    end = data.tokenizer[data.trg_lang].eos_token
    return {
        "decode_sentences_per_s": round(len(data) / statistics.median(seconds), 2),
        "decode_ended": round(sum(sentence[-1] == end for sentence in tokens) / len(tokens), 3),
        "decode_tokens_per_sentence": round(sum(map(len, tokens)) / len(tokens), 1),
        "decode_steps_per_batch": round(len(steps) / (rounds * batches), 1),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with train.src, train.tgt, test.src, vocab.txt")
    parser.add_argument("--model", choices=("gru", "transformer"), default="gru")
    parser.add_argument("--steps", type=int, default=30, help="training steps that are timed")
    parser.add_argument("--warmup", type=int, default=5, help="training steps before those")
    parser.add_argument("--checkpoint-steps", type=int, default=300, help="steps trained before decoding")
    parser.add_argument("--rounds", type=int, default=3, help="times that test.src is decoded; 0: never")
    parser.add_argument("--batches", choices=("random", "similar"), default="random")
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--tie", choices=("none", "softmax", "all"), default="none")
    parser.add_argument("--lr", type=float, default=1e-3, help="reached after 100 steps, then 1/sqrt(step)")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--beam-alpha", type=float, default=1.0, help="length penalty")
    parser.add_argument("--max-output-length", type=int, default=-1, help="-1: 1.5 times the longest source")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if (
        min(arguments.steps, arguments.warmup + 1) < 1
        or min(arguments.rounds, arguments.checkpoint_steps) < 0
    ):
        parser.error("--steps must be 1 or more; --warmup, --rounds, --checkpoint-steps 0 or more")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    check_lines(arguments.data)
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.INFO)
    if arguments.batches == "similar":
        joeynmt.datasets.SentenceBatchSampler = SimilarLengths  # where its datasets look the name up
    updates = arguments.warmup + arguments.steps + 1  # the last step's end is one more batch's arrival
    if arguments.rounds:
        updates = max(updates, arguments.checkpoint_steps)
    with tempfile.TemporaryDirectory() as scratch:
        args = parse_global_args(config(arguments, Path(scratch), updates), mode="train")
        torch.manual_seed(arguments.seed)  # `prepare` sets the seed only after it has built the model
        model, train_data, _, test_data = prepare(args, rank=0, mode="train")
        result = {
            "tool": f"joeynmt {version('joeynmt')}",
            "model": arguments.model,
            **train(arguments, args, model, train_data, test_data),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        if arguments.rounds:
            result |= decode(args, model, test_data, arguments.rounds)
    chosen = ("batches", "label_smoothing", "dropout", "tie", "beam_size", "beam_alpha", "max_output_length")
    result |= {name: getattr(arguments, name) for name in chosen}
    result |= {"trained_steps": updates, "vocabulary": len(model.trg_vocab), "threads": arguments.threads}
    print(json.dumps(result | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
