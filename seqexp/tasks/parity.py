"""The parity task: at each step, are the ones so far odd? Loss at every step or at the last alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqexp.config.run import GenerationConfig
from seqexp.config.task import ParityConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.parity import ParityData, running_parity
from seqexp.errors import UserError
from seqexp.intervals import clustered_wilson, wilson
from seqexp.tasks.base import Forward, LossOutput, Metric, Task
from seqexp.tokenizers.base import Tokenizer


class Parity(Task):
    """The task of every model that maps bits (B, T) to the logit of "odd" at each step (B, T, 1).

    Whatever the loss is taken on, three accuracies are measured: `accuracy` of single steps,
    `last_accuracy` (the parity of the whole sequence), `sequence_accuracy` (every step right).
    """

    metric_names = ("loss", "accuracy", "last_accuracy", "sequence_accuracy")
    # A counter that must be exact for hundreds of steps: with precision=auto in full precision.
    auto_precision = "fp32"

    def __init__(self, config: ParityConfig) -> None:
        self.full_supervision, self.kind = config.full_supervision, config.loss
        self.loss_unit = "nats" if config.loss == "bce" else "squared error"

    def count(self, batch: Batch) -> int:
        return batch.count if self.full_supervision else len(batch.inputs)

    def loss(self, model: Forward, batch: Batch) -> LossOutput:
        """The loss summed over the supervised steps; outside training the hits are counted too."""
        logits, targets = model(batch.inputs).squeeze(2).float(), batch.targets
        if self.full_supervision and batch.padded_targets:
            # Chosen without counting how many there are, which a GPU would have to be waited for.
            each = self._loss(logits, targets.clamp(min=0), "none")
            loss = torch.where(targets != IGNORE, each, 0.0).sum()
        elif self.full_supervision:
            loss = self._loss(logits, targets)
        else:
            loss = self._loss(at_last(batch, logits), at_last(batch, targets))
        return LossOutput(loss, loss.detach(), {} if torch.is_grad_enabled() else hits(logits, batch))

    def _loss(self, logits: Tensor, targets: Tensor, reduction: str = "sum") -> Tensor:
        if self.kind == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction=reduction)
        return F.mse_loss(logits.sigmoid(), targets.float(), reduction=reduction)

    def metrics(
        self, nll_sum: float, count: int, metric_sums: Mapping[str, float], characters: int
    ) -> dict[str, Metric]:
        """`loss` per supervised step, and the accuracies, each with its count and 95 % interval."""
        del characters
        steps, sequences = int(metric_sums["steps"]), int(metric_sums["sequences"])
        shares, squares = metric_sums["share"], metric_sums["share_squared"]
        last, whole = int(metric_sums["last"]), int(metric_sums["whole"])
        return {
            "loss": Metric(nll_sum / count, count),
            # Steps of one sequence are right or wrong together, so the interval is that of sequences.
            "accuracy": Metric(
                metric_sums["right"] / steps, steps, clustered_wilson(shares, squares, sequences, steps)
            ),
            "last_accuracy": Metric(last / sequences, sequences, wilson(last, sequences)),
            "sequence_accuracy": Metric(whole / sequences, sequences, wilson(whole, sequences)),
        }

    def sample(self, model: torch.nn.Module, data: ParityData, config: GenerationConfig, seed: int) -> str:
        """The first held-out sequence, with what the model says beside the truth."""
        del config, seed
        bits = torch.from_numpy(data.held_out("val", min(data.eval_length, 60), 1)[0])
        return answer(model, bits)

    def generate(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        prompt: str | None,
        config: GenerationConfig,
        seed: int,
        device: torch.device,
    ) -> Iterator[list[str]]:
        """What the model says of each line of bits in `prompt`, or of random bits where there is none.

        Raises:
            UserError: the prompt holds no bits, something else too, or more than the model's window.
        """
        del device
        max_len = getattr(model, "max_len", None)
        sequences = sequences_of(tokenizer, prompt, max_len, config.num_samples, seed)
        yield ["\n\n".join(answer(model, bits) for bits in sequences)]


def sequences_of(
    tokenizer: Tokenizer, prompt: str | None, max_len: int | None, drawn: int, seed: int
) -> list[Tensor]:
    """The lines of bits in a prompt; without a prompt, `drawn` sequences of 40 random bits.

    Raises:
        UserError: the prompt holds no bits, something else too, or more than `max_len` in a line.
    """
    if prompt is None:
        length = min(40, max_len or 40)
        return list(torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (drawn, length))))
    sequences = []
    for number, line in enumerate(prompt.splitlines(), start=1):
        try:
            bits = tokenizer.encode(line)
        except UserError as error:
            raise UserError(f"line {number}: {error}") from error
        if max_len is not None and len(bits) > max_len:
            raise UserError(f"line {number} has {len(bits)} bits, and the model's window is {max_len}.")
        if len(bits):
            sequences.append(torch.from_numpy(bits.astype(np.int64)))
    if not sequences:
        raise UserError("there are no bits to read; write them as in prompt=0110100, or leave prompt= out.")
    return sequences


def at_last(batch: Batch, x: Tensor) -> Tensor:
    """The entry of x (B, T) at the last real step of each row, (B,)."""
    if not batch.padded_targets:
        return x[:, -1]
    last = (batch.targets != IGNORE).sum(1) - 1
    return x.gather(1, last[:, None]).squeeze(1)


def hits(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Sums over the batch of steps, sequences, and what of them is right."""
    real = batch.targets != IGNORE
    right = ((logits > 0) == (batch.targets == 1)) & real
    lengths, rights = real.sum(1), right.sum(1)
    share = rights.double() / lengths
    return {
        "steps": lengths.sum(),
        "sequences": torch.tensor(len(lengths)),
        "right": rights.sum(),
        "last": at_last(batch, right).sum(),
        "whole": (rights == lengths).sum(),
        "share": share.sum(),
        "share_squared": (share**2).sum(),
    }


def answer(model: torch.nn.Module, bits: Tensor) -> str:
    """Bits, truth, what the model says, and where it is wrong, one under the other."""
    with torch.inference_mode():
        device = next(model.parameters()).device
        logits = model(bits[None].to(device))[0, :, 0].float().cpu()
    truth = torch.from_numpy(running_parity(bits.numpy()))
    said = (logits > 0).long()
    wrong = said != truth
    rows: dict[str, Any] = {"bits": bits, "truth": truth, "predicted": said}
    lines = [f"{name:<10}{''.join(map(str, row.tolist()))}" for name, row in rows.items()]
    if wrong.any():
        marks = "".join("^" if w else " " for w in wrong.tolist()).rstrip()
        lines.append(f"{'wrong':<10}{marks}")
    parity = "odd" if said[-1] else "even"
    lines.append(
        f"{'parity':<10}{parity} (p(odd) = {logits[-1].sigmoid():.4f}), "
        f"{'wrong' if wrong[-1] else 'right'}; {int((~wrong).sum())} of {len(bits)} steps right"
    )
    return "\n".join(lines)
