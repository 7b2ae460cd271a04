"""The parity task: is the number of ones so far odd? The loss is taken at every step, or at the last one."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqexp.config.task import ParityConfig
from seqexp.data.base import Data
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.parity import ParityData, running_parity
from seqexp.data.preprocessor import Preprocessor
from seqexp.decoding.sampling import evaluation_mode
from seqexp.errors import UserError
from seqexp.metrics.intervals import clustered_wilson, wilson
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.tasks.base import (
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Row,
    Sample,
    Sums,
    Task,
    device_of,
)
from seqexp.tasks.recurrence import hidden_states, hidden_states_figures, is_recurrent
from seqexp.tokenizers.base import Tokenizer
from seqexp.tracking.plots import accuracy_by_length_figure, hidden_states_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Length of the sequences that are drawn if no input is given.
DRAWN_BITS = 40


class Parity(Task):
    """The task of every model that maps bits (B, T) to the logit of "odd" at each step (B, T, 1).

    Three accuracies are measured, for any loss: `accuracy` of single steps, `last_accuracy` (the parity of
    the whole sequence), `sequence_accuracy` (every step right).
    """

    # Parity must stay exact over hundreds of steps.
    auto_precision = "fp32"
    input_key = "prompt"

    def __init__(self, config: ParityConfig) -> None:
        self.full_supervision, self.kind = config.full_supervision, config.loss
        self.loss_unit = "nats" if config.loss == "bce" else "squared error"
        accuracy = MetricSpec("share", higher_is_better=True)
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "accuracy": accuracy,
            "last_accuracy": accuracy,
            "sequence_accuracy": accuracy,
        }

    def count(self, batch: Batch) -> int:
        return batch.count if self.full_supervision else len(batch)

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return the loss summed over the supervised steps, and in evaluation the sums of `hits`."""
        logits, targets = model(batch.inputs).squeeze(2).float(), batch.targets
        if self.full_supervision and batch.padded:
            # Masked, not indexed: indexing would wait for the GPU to count the real steps.
            each = self._loss(logits, targets.clamp(min=0), "none")
            loss = torch.where(targets != IGNORE, each, 0.0).sum()
        elif self.full_supervision:
            loss = self._loss(logits, targets)
        else:
            loss = self._loss(at_last(batch, logits), at_last(batch, targets))
        return LossOutput(loss, loss.detach(), {} if training else hits(logits, batch))

    def _loss(self, logits: Tensor, targets: Tensor, reduction: str = "sum") -> Tensor:
        if self.kind == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction=reduction)
        return F.mse_loss(logits.sigmoid(), targets.float(), reduction=reduction)

    def averages(self, sums: Sums, data: Data, split: str) -> dict[str, Metric]:
        """Return `loss` per supervised step, and the accuracies with their counts and 95 % intervals."""
        del data, split
        found, spec = sums.metrics, self.metrics["accuracy"]
        steps, sequences = int(found["steps"]), int(found["sequences"])
        last, whole = int(found["last"]), int(found["whole"])
        # Steps of one sequence are correlated, so the interval is clustered by sequence.
        interval = clustered_wilson(found["share"], found["share_squared"], sequences, steps)
        return {
            "loss": self.metrics["loss"].of(sums.nll / sums.count, sums.count),
            "accuracy": spec.of(found["right"] / steps, steps, interval),
            "last_accuracy": spec.of(last / sequences, sequences, wilson(last, sequences)),
            "sequence_accuracy": spec.of(whole / sequences, sequences, wilson(whole, sequences)),
        }

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return the predictions for each sequence of bits, beside the truth.

        Raises:
            UserError: no input has bits, or an input has other characters or is longer than the window.
        """
        max_len = getattr(model, "max_len", None)
        sequences = [
            read_bits(preprocessor["text"], text, max_len, number)
            for number, text in enumerate(inputs, start=1)
        ]
        if not any(map(len, sequences)):
            raise UserError(
                "there are no bits to read; write them as in prompt=0110100, or leave prompt= out."
            )
        return (
            self._answer(model, bits, index, options) for index, bits in enumerate(sequences) if len(bits)
        )

    def _answer(self, model: Any, bits: Tensor, index: int, options: PredictOptions) -> Prediction:
        figures: dict[str, Callable[[], Figure]] = {}
        if "hidden_states" in options.figures:
            figures["hidden_states"] = partial(_hidden_states_figure, model, bits, index)
        text, values = answer(model, bits)
        return Prediction(index, (text,), values, figures=figures)

    def default_inputs(self, model: Any, options: PredictOptions) -> list[str]:
        """Return `generation.num_samples` sequences of random bits."""
        length = min(DRAWN_BITS, getattr(model, "max_len", None) or DRAWN_BITS)
        draw = np.random.default_rng(options.seed)
        rows = draw.integers(0, 2, (options.generation.num_samples, length))
        return ["".join(map(str, row)) for row in rows.tolist()]

    def figure_names(self, model: Any) -> tuple[str, ...]:
        return ("hidden_states",) if is_recurrent(model) else ()

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample:
        """Return the prediction for the first held-out sequence, beside the truth."""
        del options
        assert isinstance(data, ParityData)
        bits = torch.from_numpy(data.held_out("val", min(data.eval_length, 60), 1)[0])
        return Sample(answer(model, bits)[0])

    def figures(self, model: Any, data: Data, rows: Sequence[Row]) -> "dict[str, Figure]":
        """Return accuracy by length if there are several lengths, and hidden states of recurrent models."""
        assert isinstance(data, ParityData)
        batch = next(data.eval_batches("val"))
        shown = {"bit": batch.inputs[0].tolist(), "parity": batch.targets[0].tolist()}
        found = hidden_states_figures(model, batch.inputs[0], shown, "hidden states")
        if len(rows) > 1:
            lengths = [int(row.label["length"]) for row in rows]
            found["accuracy_by_length"] = accuracy_by_length_figure(
                lengths, [row.evaluation for row in rows], data.eval_length, "accuracy by length"
            )
        return found

    def example_input(self, data: Data) -> str:
        del data
        return "0110100"


def read_bits(tokenizer: Tokenizer, text: str, max_len: int | None, line: int) -> Tensor:
    """Return the bits (T,) of a line of input.

    Raises:
        UserError: the line has other characters, or more than `max_len` bits.
    """
    try:
        bits = tokenizer.encode(text)
    except UserError as error:
        raise UserError(f"line {line}: {error}") from error
    if max_len is not None and len(bits) > max_len:
        raise UserError(f"line {line} has {len(bits)} bits, and the model's window is {max_len}.")
    return torch.from_numpy(bits.astype(np.int64))


def _hidden_states_figure(model: Any, bits: Tensor, index: int) -> "Figure":
    rows = {"bit": bits.tolist(), "parity": running_parity(bits.numpy()).tolist()}
    return hidden_states_figure(
        hidden_states(model, bits.to(device_of(model))), rows, f"sequence {index + 1}"
    )


def at_last(batch: Batch, x: Tensor) -> Tensor:
    """Return the entry of x (B, T) at the last real step of each row, (B,)."""
    if not batch.padded:
        return x[:, -1]
    last = (batch.targets != IGNORE).sum(1) - 1
    return x.gather(1, last[:, None]).squeeze(1)


def hits(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return sums over the batch: steps, sequences, and the right ones among them.

    `logits` are (B, T). `share` and `share_squared` are for `clustered_wilson`.
    """
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


def answer(model: torch.nn.Module, bits: Tensor) -> tuple[str, dict[str, Any]]:
    """Bits (T,), truth, prediction and mistakes, one under the other, and the same as values."""
    with evaluation_mode(model), torch.inference_mode():
        device = next(model.parameters()).device
        logits = model(bits[None].to(device))[0, :, 0].float().cpu()
    truth = torch.from_numpy(running_parity(bits.numpy()))
    predicted = (logits > 0).long()
    wrong = predicted != truth
    rows: dict[str, Any] = {"bits": bits, "truth": truth, "predicted": predicted}
    lines = [f"{name:<10}{''.join(map(str, row.tolist()))}" for name, row in rows.items()]
    if wrong.any():
        marks = "".join("^" if w else " " for w in wrong.tolist()).rstrip()
        lines.append(f"{'wrong':<10}{marks}")
    parity = "odd" if predicted[-1] else "even"
    lines.append(
        f"{'parity':<10}{parity} (p(odd) = {logits[-1].sigmoid():.4f}), "
        f"{'wrong' if wrong[-1] else 'right'}; {int((~wrong).sum())} of {len(bits)} steps right"
    )
    values: dict[str, Any] = {name: "".join(map(str, row.tolist())) for name, row in rows.items()}
    values |= {"parity": parity, "p_odd": float(logits[-1].sigmoid()), "right": not bool(wrong[-1])}
    return "\n".join(lines), values
