"""Tokens per second of training and generation, compared with a bare loop and Hugging Face's GPT-2.

    python scripts/bench_gpt.py                    # both sizes, fp32 and bf16, eager
    python scripts/bench_gpt.py --compile          # and compiled
    python scripts/bench_gpt.py --size course --rounds 20

The variants of one line alternate step by step, so that changes of the machine's speed affect all of them;
each figure is the median step. Hugging Face needs the extra `bench`; without it, it is skipped with a note.
"""

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from seqexp.config.data import OwnTextConfig
from seqexp.config.optimizer import AdamConfig, ConstantConfig
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.text import TextData
from seqexp.decoding.sampling import sample
from seqexp.models.gpt import GPT
from seqexp.models.gpt_options import GPTConfig
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.device import Device, setup_device
from seqexp.training.loop import Trainer

SIZES: dict[str, dict[str, Any]] = {
    "course": {"n_layer": 6, "n_head": 6, "n_embd": 384, "dropout": 0.2, "seq_len": 256, "batch_size": 32},
    "nanogpt_cpu": {
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 128,
        "dropout": 0.0,
        "seq_len": 64,
        "batch_size": 12,
    },
}
CHARACTERS = "\n !$&',-.3:;?" + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ADAM = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "fused": True}
LOG_EVERY = 10


def make_model(size: dict[str, Any], vocab_size: int) -> GPT:
    torch.manual_seed(0)
    shape = {key: size[key] for key in ("n_layer", "n_head", "n_embd", "dropout")}
    return GPT(vocab_size, size["seq_len"], **shape)


def bare_step(
    model: torch.nn.Module,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    tokens: torch.Tensor,
    device: Device,
) -> Callable[[], None]:
    """Run a minimal training step: forward, backward, clip, update."""
    optimizer = torch.optim.AdamW(model.parameters(), **ADAM)  # type: ignore[arg-type]

    def step() -> None:
        with device.autocast():
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seqexp_step(
    size: dict[str, Any], data: TextData, device: Device, folder: Path, compiled: bool
) -> Callable[[], object]:
    """Return a step of the Trainer on real batches, with its logging."""
    config = TrainConfig(
        model=GPTConfig(
            n_layer=size["n_layer"], n_head=size["n_head"], n_embd=size["n_embd"], dropout=size["dropout"],
            max_len=size["seq_len"],
        ),
        task=LanguageModelingConfig(),
        tokenizer=TokenizerConfig("char"),
        optimizer=AdamConfig("adamw", lr=1e-3, weight_decay=0.1),
        scheduler=ConstantConfig("constant"),
        data=data.config,
        device=DeviceConfig(),
        trainer=TrainerConfig(max_steps=10**9, log_every=LOG_EVERY),
        name="bench",
    )  # fmt: skip
    model = make_model(size, data.tokenizer.vocab_size).to(device.torch)
    forward = torch.compile(model) if compiled else model
    run = RunFolder(folder)
    trainer = Trainer(config, model, forward, LanguageModeling(config.task), data, device, run)
    trainer.metrics = MetricsLog(folder / "metrics.jsonl", folder / "tensorboard")
    progress = Progress(0, 10**9, None)
    steps = trainer.steps(progress)
    return lambda: next(steps)


def hugging_face(size: dict[str, Any], vocab_size: int) -> torch.nn.Module | None:
    """Build GPT-2 with the same shape, vocabulary and dropout."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError:
        return None
    logging.set_verbosity_error()
    torch.manual_seed(0)
    drop = size["dropout"]
    shape = GPT2Config(
        vocab_size=vocab_size, n_positions=size["seq_len"], n_embd=size["n_embd"], n_layer=size["n_layer"],
        n_head=size["n_head"], resid_pdrop=drop, embd_pdrop=drop, attn_pdrop=drop, bos_token_id=0,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(shape)


def interleaved(steps: dict[str, Callable[[], object]], rounds: int, warmup: int) -> dict[str, float]:
    """Return the median seconds of each step; the steps alternate."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warmup + rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= warmup:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def bench_training(
    name: str, size: dict[str, Any], precision: str, compile_too: bool, rounds: int, data: TextData
) -> None:
    device = setup_device(DeviceConfig(precision=precision))
    tokens = torch.randint(0, data.tokenizer.vocab_size, (size["batch_size"], size["seq_len"] + 1)).to(
        device.torch
    )

    def loss_with(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda t: F.cross_entropy(forward(t[:, :-1]).flatten(0, 1).float(), t[:, 1:].flatten())

    with tempfile.TemporaryDirectory() as scratch:
        steps: dict[str, Callable[[], object]] = {}
        for mode in ("eager", "compiled") if compile_too else ("eager",):
            model = make_model(size, data.tokenizer.vocab_size).to(device.torch)
            forward = torch.compile(model) if mode == "compiled" else model
            steps[f"bare loop, {mode}"] = bare_step(model, loss_with(forward), tokens, device)
            folder = Path(scratch) / mode
            folder.mkdir()
            steps[f"seqexp, {mode}"] = seqexp_step(size, data, device, folder, mode == "compiled")
        other = hugging_face(size, data.tokenizer.vocab_size)
        if other is not None:
            other.to(device.torch).train()

            def logits_of(inputs: torch.Tensor) -> torch.Tensor:
                logits: torch.Tensor = other(inputs, use_cache=False).logits
                return logits

            loss_of = loss_with(logits_of)
            steps["Hugging Face GPT-2, eager"] = bare_step(other, loss_of, tokens, device)
        seconds = interleaved(steps, rounds, warmup=3)
    per_step = size["batch_size"] * size["seq_len"]
    print(f"\ntraining {name}, {device.name}, {precision}: tokens/s (median of {rounds} steps)")
    base = seconds["bare loop, eager"]
    for label, value in seconds.items():
        print(f"  {label:<28}{per_step / value:>10,.0f}   {base / value:.2f} of the bare eager loop")
    if other is None:
        print('  Hugging Face is not installed: pip install -c constraints.txt -e ".[bench]"')
    else:
        print(
            f"  seqexp / Hugging Face: {seconds['Hugging Face GPT-2, eager'] / seconds['seqexp, eager']:.2f}"
        )


def bench_generation(name: str, size: dict[str, Any], new_tokens: int, rounds: int) -> None:
    """Time cached greedy decoding of one sequence within the window, in fp32."""
    device = setup_device(DeviceConfig(precision="fp32"))
    vocab_size = len(CHARACTERS) + 2
    new_tokens = min(new_tokens, size["seq_len"] - 1)
    prompt = torch.zeros(1, 1, dtype=torch.int64, device=device.torch)
    model = make_model(size, vocab_size).to(device.torch).eval()

    def ours() -> None:
        drawn: Iterator[torch.Tensor] = sample(model, prompt, max_new_tokens=new_tokens, temperature=0)
        for _ in drawn:
            pass

    steps: dict[str, Callable[[], object]] = {"seqexp": ours}
    other: Any = hugging_face(size, vocab_size)
    if other is not None:
        other.to(device.torch).eval()

        def theirs() -> None:
            with torch.inference_mode():
                other.generate(
                    prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                    min_new_tokens=new_tokens, max_new_tokens=new_tokens,
                )  # fmt: skip

        steps["Hugging Face GPT-2"] = theirs
    seconds = interleaved(steps, rounds, warmup=1)
    print(f"\ngeneration {name}, {device.name}, fp32, one sequence of {new_tokens}: tokens/s")
    for label, value in seconds.items():
        print(f"  {label:<28}{new_tokens / value:>10,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=[*SIZES, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--compile", action="store_true", help="measure compiled steps too (minutes)")
    arguments = parser.parse_args()
    names = list(SIZES) if arguments.size == "all" else [arguments.size]
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.txt"
        letters = random.Random(0)
        text.write_text(CHARACTERS + "".join(letters.choices(CHARACTERS, k=300_000)))
        for name in names:
            size = SIZES[name]
            config = OwnTextConfig(
                "text", path=str(text), seq_len=size["seq_len"], batch_size=size["batch_size"]
            )
            data = TextData.build(config, TokenizerConfig("char"), seed=1)
            rounds = arguments.rounds * max(1, math.isqrt(10_000 // (size["batch_size"] * size["seq_len"])))
            for precision in ("fp32", "bf16"):
                bench_training(name, size, precision, arguments.compile, rounds, data)
            bench_generation(name, size, 200, max(3, arguments.rounds // 3))


if __name__ == "__main__":
    main()
