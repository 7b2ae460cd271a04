"""Training speed of a masked language model, beside Hugging Face's BertForMaskedLM of the same size.

    python scripts/bench_masked.py                    # fp32 and bf16, one thread
    python scripts/bench_masked.py --rounds 20

Batches of 16 windows of 128 tokens, a vocabulary of 8,000, 4 layers of 256, AdamW, clipping. The variants
take their steps in turn, and each figure is from the median CPU-seconds of a step. seqexp's are the steps of
its trainer on real batches, with masking and logging; those of Hugging Face have a batch ready, with labels
at the same share of positions. Needs the extra `bench`.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seqexp.commands.build import build_model
from seqexp.config.data import OwnTextConfig
from seqexp.config.masked import MaskedLanguageModelingConfig
from seqexp.config.optimizer import AdamConfig, ConstantConfig
from seqexp.config.root import TrainConfig
from seqexp.config.run import DeviceConfig, TrainerConfig
from seqexp.config.tokenizer import WordPieceConfig
from seqexp.data.text import TextData
from seqexp.models.bert_options import BertConfig
from seqexp.tasks.masked_language_modeling import MaskedLanguageModeling
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.device import Device, setup_device
from seqexp.training.loop import Trainer

ROWS, LENGTH, VOCABULARY, SHARE = 16, 128, 8000, 0.15
SIZE: dict[str, Any] = {"n_layer": 4, "n_head": 4, "n_embd": 256}


def seqexp_step(data: TextData, device: Device, folder: Path) -> Callable[[], object]:
    """Return a step of the Trainer on real batches, with its logging."""
    config = TrainConfig(
        model=BertConfig(**SIZE, max_len=LENGTH),
        task=MaskedLanguageModelingConfig(),
        tokenizer=WordPieceConfig(vocab_size=VOCABULARY),
        optimizer=AdamConfig("adamw", lr=1e-4, weight_decay=0.1),
        scheduler=ConstantConfig("constant"),
        data=data.config,
        device=DeviceConfig(),
        trainer=TrainerConfig(max_steps=10**9),
        name="bench",
    )
    task = MaskedLanguageModeling(config.task)
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY}  # that of the other model, whatever the text yields
    model = build_model(config.model, sizes).to(device.torch)
    folder.mkdir()
    trainer = Trainer(config, model, model, task, task.prepare(data, config.model), device, RunFolder(folder))
    trainer.metrics = MetricsLog(folder / "metrics.jsonl", folder / "tensorboard")
    steps = trainer.steps(Progress(0, 10**9, None))
    model.train()
    return lambda: next(steps)


def hugging_face_step(device: Device, attention: str) -> Callable[[], object]:
    """Return a step with the loop that a user writes: forward, backward, clip, AdamW."""
    from transformers import BertConfig as TheirConfig
    from transformers import BertForMaskedLM, logging

    logging.set_verbosity_error()
    torch.manual_seed(0)
    model = BertForMaskedLM(
        TheirConfig(
            vocab_size=VOCABULARY, hidden_size=SIZE["n_embd"], num_hidden_layers=SIZE["n_layer"],
            num_attention_heads=SIZE["n_head"], intermediate_size=4 * SIZE["n_embd"],
            max_position_embeddings=LENGTH, attn_implementation=attention,
        )
    )  # fmt: skip
    model.to(device.torch).train()
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=draw)
    labels = tokens.masked_fill(torch.rand(tokens.shape, generator=draw) > SHARE, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def step() -> None:
        with device.autocast():
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def interleaved(steps: dict[str, Callable[[], object]], rounds: int, warmup: int) -> dict[str, float]:
    """Return the median CPU-seconds of each step; the steps alternate."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warmup + rounds):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if number >= warmup:
                times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def make_text(file: Path) -> None:
    """Write words of random letters, as many different ones as the vocabulary has entries."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(3, 8))) for _ in range(VOCABULARY)]
    file.write_text(" ".join(draw.choices(words, k=300_000)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.txt"
        make_text(text)
        config = OwnTextConfig("text", path=str(text), seq_len=LENGTH, batch_size=ROWS)
        data = TextData.build(config, WordPieceConfig(vocab_size=VOCABULARY), seed=1)
        for precision in ("fp32", "bf16"):
            device = setup_device(DeviceConfig(name="cpu", precision=precision, threads=1))
            steps = {
                "seqexp": seqexp_step(data, device, Path(scratch) / precision),
                "Hugging Face, sdpa": hugging_face_step(device, "sdpa"),
                "Hugging Face, eager": hugging_face_step(device, "eager"),
            }
            seconds = interleaved(steps, rounds, warmup=2)
            results[precision] = seconds
            print(f"\n{precision}: training tokens per CPU-second of one thread (median of {rounds} steps)")
            for name, value in seconds.items():
                ratio = value / seconds["seqexp"]
                print(f"  {name:<22}{ROWS * LENGTH / value:>8,.0f}   seqexp / this {ratio:.2f}")


if __name__ == "__main__":
    main()
