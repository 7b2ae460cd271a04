"""`seqexp train init_from=…`: a new run that begins with the weights of another."""

import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.commands.resume import group_overrides
from seqexp.config.root import TrainConfig
from seqexp.errors import UserError
from seqexp.quoting import quote, unquote

if TYPE_CHECKING:
    from torch import nn

    from seqexp.data.preprocessor import Preprocessor
    from seqexp.tracking.run_folder import RunFolder

log = logging.getLogger(__name__)

# Groups whose settings come from the other run unless they are typed.
INHERITED = ("model", "tokenizer")
# Names of parameters that are shown; all are in the manifest.
MOST_SHOWN = 6


def find_source(value: str) -> "tuple[RunFolder, str]":
    """The run that `init_from` names, and which checkpoint: of a folder the best or, without one, the last.

    Raises:
        UserError: there is no such run, or the file is not a checkpoint of one.
    """
    from seqexp.tracking.run_folder import RunFolder, find_run

    file = Path(value)
    found = re.fullmatch(r"step_(\d+)(?:\.ema)?\.(?:safetensors|pt)", file.name)
    if found and file.parent.name == "checkpoints":
        return find_run(str(file.parent.parent), key="init_from"), str(int(found[1]))
    if file.is_file():
        raise UserError(
            f"init_from={value} is a file, but not a checkpoint of a run; give a run's folder, a "
            "checkpoints/step_<n>.safetensors in one, or latest."
        )
    run = find_run(value, key="init_from")
    assert isinstance(run, RunFolder)
    from seqexp.training.checkpoint import Checkpoints

    return run, "best" if "best" in Checkpoints(run).index else "last"


def type_source_configuration(value: str) -> None:
    """Put the overrides of the other run's model and tokenizer before those typed."""
    quoted = value.startswith("'") and value.endswith("'")
    run, checkpoint = find_source(unquote(value) if quoted else value)
    saved = run.read_config()
    typed = [word for word in sys.argv[1:] if not word.lstrip("+").startswith("init_from=")]
    chosen = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in typed if "=" in word}
    overrides: list[str] = []
    for group in INHERITED:
        settings = getattr(saved, group)
        if group in chosen and chosen[group] != settings.name:
            continue  # another model or tokenizer, with its own settings
        words = group_overrides(group, settings)
        overrides += words[1:] if group in chosen else words
    file = run.checkpoints / "index.json"
    source = str(run.path) if checkpoint in ("best", "last") else str(file.with_name(_step_file(checkpoint)))
    sys.argv = [sys.argv[0], *_flags(typed), *overrides, *_overrides(typed), f"init_from={quote(source)}"]


def _step_file(step: str) -> str:
    return f"step_{int(step):08d}.safetensors"


def _flags(words: list[str]) -> list[str]:
    return words[: _first_override(words)]


def _overrides(words: list[str]) -> list[str]:
    return words[_first_override(words) :]


def _first_override(words: list[str]) -> int:
    """Flags and what follows them come first (`cli.flags_first`)."""
    last = max((i for i, word in enumerate(words) if word.startswith("-")), default=-1)
    return next((i for i, word in enumerate(words) if i > last and "=" in word), len(words))


@dataclass
class Source:
    """Weights and preprocessor of another run, and where they are from."""

    run: str
    step: int
    weights: dict[str, Any]
    preprocessor: "Preprocessor"
    config: TrainConfig

    @classmethod
    def load(cls, value: str) -> "Source":
        """Read the checkpoint that `init_from` names.

        Raises:
            UserError: it cannot be read.
        """
        from seqexp.data.preprocessor import Preprocessor
        from seqexp.training.checkpoint import Checkpoints

        run, checkpoint = find_source(value)
        state = Checkpoints(run).load(checkpoint)
        preprocessor = Preprocessor.from_plain(state.get("preprocessor"))
        return cls(str(run.path), int(state["step"]), state["model"], preprocessor, run.read_config())

    def preprocessor_for(self, config: TrainConfig) -> "Preprocessor | None":
        """The preprocessor to take over; None if another tokenizer was typed."""
        return self.preprocessor if config.tokenizer == self.config.tokenizer else None

    def initialise(self, model: "nn.Module") -> dict[str, Any]:
        """Copy the weights of equal name and shape into the model; what was taken, left and newly made.

        Raises:
            UserError: none fits.
        """
        own = model.state_dict()
        fitting = {
            name for name in own if name in self.weights and own[name].shape == self.weights[name].shape
        }
        if not fitting:
            raise UserError(
                f"init_from={self.run}: none of its weights has the name and shape of one of the model's; "
                f"use model={self.config.model.name}, or leave model= out."
            )
        model.load_state_dict({**own, **{name: self.weights[name] for name in fitting}})
        other_shape = {
            name: f"{tuple(self.weights[name].shape)} there, {tuple(own[name].shape)} here"
            for name in own
            if name in self.weights and name not in fitting
        }
        report: dict[str, Any] = {
            "run": self.run,
            "step": self.step,
            "taken": sorted(fitting),
            "left": sorted(set(self.weights) - set(own)),
            "new": sorted(set(own) - fitting),
            "other_shape": other_shape,
        }
        log.info("weights %s, step %d: %d taken", self.run, self.step, len(fitting))
        for key, words in (("left", "left there"), ("new", "newly made")):
            if report[key]:
                log.info("        %d %s: %s", len(report[key]), words, _shown(report[key]))
        for name, shapes in list(other_shape.items())[:MOST_SHOWN]:
            log.warning("NOTE: %s has another shape (%s) and is newly made", name, shapes)
        return report


def _shown(names: list[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (", …" if len(names) > MOST_SHOWN else "")
