"""Milliseconds of recurrent training steps, compared with a bare torch loop, and of both implementations.

    python scripts/bench_rnn.py                          # the course's size: batch 10, length 100, 3 units
    python scripts/bench_rnn.py --hidden 512 --batch 16 --length 128 --vocab 65

The variants of one line alternate step by step, so that changes of the machine's speed affect all of them;
each figure is the median. Run it on an idle machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from seqexp import registry
from seqexp.config.data import ParityDataConfig
from seqexp.config.optimizer import ConstantConfig, RMSpropConfig
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.task import ParityConfig
from seqexp.config.tokenizer import BitsConfig
from seqexp.data.parity import ParityData
from seqexp.models.rnn import GRU, LSTM, RNN, RecurrentNetwork
from seqexp.tasks.parity import Parity
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.device import Device, setup_device
from seqexp.training.loop import Trainer

KINDS: dict[str, tuple[type[RecurrentNetwork], Callable[..., nn.RNNBase]]] = {
    "rnn": (RNN, nn.RNN),
    "lstm": (LSTM, nn.LSTM),
    "gru": (GRU, nn.GRU),
}


def interleaved(steps: dict[str, Callable[[], Any]], rounds: int, warmup: int = 20) -> dict[str, float]:
    """Return the median milliseconds of each step; the steps alternate."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warmup + rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= warmup:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def bare_loop(kind: str, batch: int, length: int, hidden: int) -> Callable[[], None]:
    """Run torch's layer, loss, backward, clip and RMSprop on new random bits."""
    layer = KINDS[kind][1](1, hidden, batch_first=True)
    head = nn.Linear(hidden, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.RMSprop(parameters, lr=1e-2, alpha=0.9, eps=1e-5)

    def step() -> None:
        bits = torch.randint(0, 2, (batch, length))
        targets = (bits.cumsum(1) % 2).float()
        states, _ = layer(bits.unsqueeze(2).float())
        F.binary_cross_entropy_with_logits(head(states).squeeze(2), targets).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seqexp_step(
    kind: str, batch: int, length: int, hidden: int, device: Device, folder: Path
) -> tuple[Callable[[], Any], MetricsLog]:
    """Return a step of the Trainer on real batches, and its metrics log, which the caller closes."""
    config = TrainConfig(
        model=registry.load_schema("model", kind)(name=kind, hidden_size=hidden),
        task=ParityConfig(),
        tokenizer=BitsConfig("bits"),
        optimizer=RMSpropConfig("rmsprop", lr=1e-2),
        scheduler=ConstantConfig("constant"),
        data=ParityDataConfig(name="parity", seq_len=length, batch_size=batch),
        trainer=TrainerConfig(max_steps=10**9),
        name="bench",
    )
    model = KINDS[kind][0](2, hidden, n_outputs=1)
    data = ParityData.build(config.data, config.tokenizer, 1)
    folder.mkdir()
    trainer = Trainer(config, model, model, Parity(config.task), data, device, RunFolder(folder))
    trainer.metrics = MetricsLog(folder / "metrics.jsonl", folder / "tensorboard")
    steps = trainer.steps(Progress(0, 10**9, None))
    return lambda: next(steps), trainer.metrics


def implementations(
    kind: str, batch: int, length: int, hidden: int, vocab: int
) -> dict[str, Callable[[], None]]:
    """Time only forward and backward: fused, reference, and torch's layer."""
    tokens = torch.randint(0, vocab, (batch, length))
    n_embd = 0 if vocab == 2 else hidden
    steps: dict[str, Callable[[], None]] = {}
    for impl in ("fused", "reference"):
        model = KINDS[kind][0](vocab, hidden, n_embd=n_embd, impl=impl, n_outputs=1)

        def step(model: RecurrentNetwork = model) -> None:
            model(tokens).sum().backward()

        steps[impl] = step
    layer = KINDS[kind][1](n_embd or 1, hidden, batch_first=True)
    inputs = torch.randn(batch, length, n_embd or 1)

    def torchs() -> None:
        layer(inputs)[0].sum().backward()

    steps["torch's layer"] = torchs
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=2, help="2: bits, and training steps too")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    device = setup_device(DeviceConfig(name="cpu", precision="fp32", threads=arguments.threads))
    size = (arguments.batch, arguments.length, arguments.hidden)
    print(f"batch {size[0]}, length {size[1]}, {size[2]} units, {device.name}, fp32; medians in ms")
    if arguments.vocab == 2:
        print(f"\n{'training step':<16}{'bare loop':>12}{'seqexp':>12}{'seqexp / bare':>16}")
        with tempfile.TemporaryDirectory() as scratch:
            for kind in KINDS:
                ours, metrics = seqexp_step(kind, *size, device, Path(scratch) / kind)
                took = interleaved({"bare": bare_loop(kind, *size), "seqexp": ours}, arguments.rounds)
                metrics.close()
                ratio = took["seqexp"] / took["bare"]
                print(f"{kind:<16}{took['bare']:>12.2f}{took['seqexp']:>12.2f}{ratio:>16.2f}")
    columns = ("reference", "torch", "fused", "ref. / fused", "torch / fused")
    print(f"\n{'forward+backward':<16}" + "".join(f"{column:>15}" for column in columns))
    for kind in KINDS:
        took = interleaved(implementations(kind, *size, arguments.vocab), arguments.rounds)
        reference, torchs, fused = took["reference"], took["torch's layer"], took["fused"]
        print(
            f"{kind:<16}{reference:>15.2f}{torchs:>15.2f}{fused:>15.2f}{reference / fused:>15.2f}"
            f"{torchs / fused:>15.2f}"
        )


if __name__ == "__main__":
    main()
