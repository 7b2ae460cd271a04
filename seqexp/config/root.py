"""The configuration of each command, and its conversion from YAML to checked dataclasses."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqexp import registry
from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.config.data import OtherDataConfig
from seqexp.config.exams import ExamsConfig
from seqexp.config.run import DeviceConfig, GenerationConfig, TrainerConfig
from seqexp.config.sweep import SweepConfig, is_folder_name
from seqexp.config.word_lists import WordListsConfig
from seqexp.errors import UserError
from seqexp.quoting import escape_interpolation

# Saved in every configuration and checkpoint; incremented when their layout changes.
SCHEMA_VERSION = 2

SEED_LIMIT = 2**63


def _check_common(seed: int, name: str) -> None:
    check_rule(0 <= seed < SEED_LIMIT, f"seed={seed} must be from 0 to 2^63-1.")
    check_rule(
        is_folder_name(name),
        f"name={name!r} cannot name a folder; use letters, digits, '.', '_' and '-', "
        "at most 100, not starting with '.'.",
    )


def check_exams(exams: ExamsConfig, task: Any) -> None:
    """Check that the task has exams, if any are requested; `task` is its configuration.

    Raises:
        UserError: naming the task, and the tasks with exams.
    """
    check_rule(
        not exams.wanted or getattr(task, "EXAMS", False),
        f"exams={exams.name} is for task={_named('task', lambda schema: getattr(schema, 'EXAMS', False))}; "
        f"this is task={task.name}. Leave exams= out.",
    )
    check_rule(
        not exams.within_word or "masked" in getattr(task, "ACCEPTS", ()),
        f"exams.within_word=true is for masked language models, and this is task={task.name}; leave it out.",
    )


def _named(group: str, fits: Callable[[type], bool]) -> str:
    """Return the registered names of a group whose dataclass fits, for a message."""
    names = [name for name in registry.ENTRIES[group] if fits(registry.load_schema(group, name))]
    return ", ".join(names) or "none that is installed"


def check_compatible(model: Any, task: Any, data: Any, tokenizer: Any) -> None:
    """Check that model, task, data and tokenizer fit each other, by their declarations (`config/task.py`).

    Raises:
        UserError: naming two that do not fit, and the alternatives that would.
    """
    examples, kind = getattr(data, "EXAMPLES", None), getattr(model, "KIND", None)
    reads, accepts = getattr(task, "READS", None), getattr(task, "ACCEPTS", None)
    if examples is not None and reads is not None and examples not in reads:
        tasks = _named("task", lambda schema: examples in getattr(schema, "READS", (examples,)))
        sets = _named("data", lambda schema: getattr(schema, "EXAMPLES", None) in reads)
        raise UserError(
            f"task={task.name} reads {' or '.join(reads)}, and data={data.name} gives {examples}; use "
            f"task={tasks}, or data={sets}."
        )
    if kind is not None and accepts is not None and kind not in accepts:
        raise UserError(
            f"model={model.name} is of kind {kind}, and task={task.name}, which data={data.name} is for, "
            f"accepts {' or '.join(accepts)}; use "
            f"model={_named('model', lambda schema: getattr(schema, 'KIND', None) in accepts)}."
        )
    tokenizes, readable = getattr(data, "TOKENIZES", "text"), getattr(tokenizer, "READS", None)
    if readable is not None and tokenizes not in readable:
        fitting = _named("tokenizer", lambda schema: tokenizes in getattr(schema, "READS", ()))
        raise UserError(
            f"tokenizer={tokenizer.name} cannot read data={data.name}, which gives {tokenizes}; use "
            f"tokenizer={fitting}, or leave tokenizer= out."
        )


def longest_input(model: Any) -> int | None:
    """Return the most positions that a model with these options can read; None if there is no limit."""
    # A model that computes its position encodings can read beyond `max_len`; it sets `limited` to False.
    if not getattr(model, "limited", True):
        return None
    return getattr(model, "max_len", None)


@dataclass
class TrainConfig:
    """The configuration of a training run. The `name` of an `Any` group selects its dataclass."""

    model: Any = MISSING
    task: Any = MISSING
    tokenizer: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    data: Any = MISSING
    device: DeviceConfig = field(default_factory=DeviceConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    exams: ExamsConfig = field(default_factory=ExamsConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = 1
    name: str = MISSING
    resume: str | None = None
    init_from: str | None = None

    def __post_init__(self) -> None:
        _check_common(self.seed, self.name)
        check_rule(
            self.resume in (None, "auto") or self.init_from is None,
            "resume= continues a run and init_from= starts a new one; give one of them.",
        )
        for group in registry.ENTRIES:
            settings = getattr(self, group)
            check_rule(
                type(settings) is registry.load_schema(group, settings.name),
                f"{group}.name={settings.name} does not go with the settings of another {group}; write "
                f"{group}={settings.name}.",
            )
        check_rule(
            self.scheduler.min_lr <= self.optimizer.lr,
            f"scheduler.min_lr={self.scheduler.min_lr} is above optimizer.lr={self.optimizer.lr}; the rate "
            "falls from one to the other: lower scheduler.min_lr or raise optimizer.lr.",
        )
        check_compatible(self.model, self.task, self.data, self.tokenizer)
        # A group's dataclass may have a method `check_together` for rules that cross groups.
        for spec in fields(self):
            check = getattr(getattr(self, spec.name), "check_together", None)
            if check:
                check(self)
        check_exams(self.exams, self.task)
        limit = longest_input(self.model)
        for key in () if limit is None else ("seq_len", "max_seq_len"):
            longest = getattr(self.data, key, None)
            check_rule(
                longest is None or limit >= longest,
                f"model.max_len={limit} is shorter than data.{key}={longest}; the model must hold a whole "
                f"window: raise model.max_len or lower data.{key}.",
            )
        lora = getattr(self.model, "lora", None)
        check_rule(
            not lora or not lora.rank or self.init_from is not None or self.resume is not None,
            "model.lora.rank= trains low-rank updates of given weights, and none are given; add init_from=, "
            "or leave it out to train all weights.",
        )
        check_rule(
            not getattr(self.data, "carry_state", False) or self.trainer.accumulate == 1,
            "data.carry_state=true needs trainer.accumulate=1: micro-batches do not share a state.",
        )

    def fingerprint(self) -> str:
        """Return ten hex digits of all settings that decide the result: not device, name, sweep or resume.

        `ADDED` of a dataclass maps settings newer than schema 1 to their defaults.
        """
        values = to_plain(self)
        for key in ("device", "name", "sweep", "resume", "generation"):
            del values[key]
        # Ignore newer settings with their default value, so that fingerprints of older runs stay valid.
        if values["init_from"] is None:
            del values["init_from"]
        for spec in fields(self):
            for key, default in getattr(getattr(self, spec.name), "ADDED", {}).items():
                if spec.name in values and values[spec.name][key] == default:
                    del values[spec.name][key]
        if not self.exams.wanted:
            del values["exams"]  # without exams, their options have no effect
        for key in (
            "log_every",
            "checkpoint_every",
            "checkpoint_minutes",
            "keep_last",
            "keep_best",
            "sample_tokens",
        ):
            del values["trainer"][key]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


@dataclass
class EvalConfig:
    """The configuration of `eval`. `split` null means val, for translation test.

    Translations are generated with `generation` by the ensemble of `run` and `ensemble`; with `score` the
    log-probability of each given translation is printed instead. `exams` are for language models. `seed`
    draws the test split of random data, such as parity, and the questions of exams. `lists` are for word
    vectors. With `vectors` (and, of a ``.npy`` file, `vector_words`) those of a file are evaluated instead.
    """

    run: str = "latest"
    checkpoint: str = "best"
    split: str | None = None
    ensemble: list[str] = field(default_factory=list)
    score: bool = False
    lists: WordListsConfig = field(default_factory=WordListsConfig)
    vectors: str | None = None
    vector_words: str | None = None
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    exams: ExamsConfig = field(default_factory=ExamsConfig)
    data: OtherDataConfig = field(default_factory=OtherDataConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = 1
    name: str = MISSING

    def __post_init__(self) -> None:
        _check_common(self.seed, self.name)
        unused: dict[str, Any] = {"run": "latest", "split": None, "ensemble": [], "score": False}
        unused["data"] = OtherDataConfig()
        for key, default in unused.items() if self.vectors is not None else ():
            check_rule(
                getattr(self, key) == default,
                f"{key}= is for the evaluation of a run, and vectors={self.vectors} is a file; leave one "
                "out.",
            )
        check_rule(
            self.vectors is None or not self.exams.wanted,
            f"exams={self.exams.name} is for runs, and vectors={self.vectors} is a file; leave one out.",
        )
        check_rule(
            self.vector_words is None or self.vectors is not None,
            f"vector_words={self.vector_words} goes with vectors=<file>.npy; add it.",
        )


@dataclass
class GenerateConfig:
    """The configuration of `generate`: continue `prompt`, or translate `text`, or read the file `input`.

    `explain` is the method by which each prediction is explained, and `picture` the file of its picture;
    `attention` is short for both: a picture of the attention. For translation the models of `run` and
    `ensemble` form an ensemble.
    """

    run: str = "latest"
    checkpoint: str = "best"
    ensemble: list[str] = field(default_factory=list)
    prompt: str | None = None
    text: str | None = None
    input: str | None = None
    output: str | None = None
    explain: str | None = None
    picture: str | None = None
    attention: str | None = None
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = 1
    name: str = MISSING

    def __post_init__(self) -> None:
        _check_common(self.seed, self.name)
        given = [key for key in ("prompt", "text", "input") if getattr(self, key) is not None]
        check_rule(len(given) < 2, f"{'= and '.join(given)}= were given together; give one of them.")
        check_rule(
            self.attention is None or (self.picture is None and self.explain in (None, "attention")),
            "attention=<file> is short for explain=attention picture=<file>; leave it out.",
        )
        check_rule(
            self.picture is None or self.explain is not None,
            f"picture={self.picture} draws what explain= says; add explain=attention or another method.",
        )
        if self.attention is not None:
            self.explain = "attention"


@dataclass
class ExportConfig:
    """The configuration of `export`: write the model of `run` for other programs to `output`.

    `format` null: the ending of `output` decides. Maps of words (pictures, a page, a projector) show `words`,
    or the `count` most frequent; `projection` is how they get two dimensions: ``tsne`` or ``pca``.
    """

    output: str = MISSING
    format: str | None = None
    words: list[str] = field(default_factory=list)
    count: int = 500
    projection: str = "tsne"
    run: str = "latest"
    checkpoint: str = "best"
    device: DeviceConfig = field(default_factory=DeviceConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = 1
    name: str = MISSING

    def __post_init__(self) -> None:
        _check_common(self.seed, self.name)
        check_range("count", self.count, 3, 1_000_000)
        check_choice("projection", self.projection, ("tsne", "pca"))


def to_typed(cfg: DictConfig) -> Any:
    """Convert a composed configuration to its checked dataclass.

    Raises:
        UserError: a value is missing, out of range, or incompatible with another.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} was not given; write {missing[0]}=<value>.")
    typed = OmegaConf.to_object(cfg)
    _refuse_extra_keys(cfg, typed)
    return typed


def _refuse_extra_keys(cfg: DictConfig, typed: Any, parent: str = "") -> None:
    """Raise UserError for unknown keys, such as ``+model.foo=1``, which OmegaConf accepts."""
    known = [spec.name for spec in fields(typed)]
    for key in cfg:
        if key not in known:
            raise UserError(f"{parent}{key!s} is not a setting; there are {', '.join(known)}.")
        if is_dataclass(getattr(typed, str(key))):
            _refuse_extra_keys(cfg[key], getattr(typed, str(key)), f"{parent}{key!s}.")


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a configuration to dicts, lists, strings and numbers."""
    return asdict(config)


def _as_text(value: Any) -> Any:
    """Escape every ``${...}`` in the strings of a value, which is text in a saved file."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return escape_interpolation(value) if isinstance(value, str) else value


def _from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    """Keep the limit that schema 1 used: minutes, else epochs, else steps; now the first reached counts."""
    trainer = values.get("trainer")
    if not isinstance(trainer, dict):
        return values
    trainer = dict(trainer)
    if trainer.get("max_minutes") is not None:
        trainer |= {"max_epochs": None, "max_steps": None}
    elif trainer.get("max_epochs") is not None:
        trainer |= {"max_steps": None}
    return {**values, "trainer": trainer}


def from_plain(values: Any, where: str) -> TrainConfig:
    """Return the training configuration in a saved file, which is untrusted.

    Unknown keys are rejected, and interpolations are read as text.

    Raises:
        UserError: a key is unknown, a type is wrong, or the file is from a newer version.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is not a configuration of a run.")
    values = dict(values)
    version = values.pop("schema_version", None)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema version {version}; this seqexp reads up to {SCHEMA_VERSION}. "
            "A newer seqexp is needed to read it."
        )
    if version == 1:
        values = _from_schema_1(values)
    try:
        base = OmegaConf.structured(TrainConfig)
        for spec in fields(TrainConfig):
            group = values.get(spec.name)
            if spec.name in registry.ENTRIES:
                if not isinstance(group, dict):
                    raise UserError(f"{where} cannot be read: {spec.name} is missing or not a group.")
                schema = registry.load_schema(spec.name, str(group.get("name")))
                base[spec.name] = OmegaConf.structured(schema)
        merged = OmegaConf.merge(base, OmegaConf.create(_as_text(values)))
        assert isinstance(merged, DictConfig)
        typed = to_typed(merged)
    except (OmegaConfBaseException, OverflowError) as error:
        raise UserError(f"{where} cannot be read: {str(error).splitlines()[0]}") from error
    assert isinstance(typed, TrainConfig)
    return typed
