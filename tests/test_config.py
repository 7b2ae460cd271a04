"""Configuration: every option composes, saved files are not trusted, packages import only downwards."""

import ast
import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY, Ran
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import seqexp
from seqexp import registry
from seqexp.config.paths import conf_dir, register_schemas
from seqexp.config.root import SCHEMA_VERSION, TrainConfig, from_plain, to_plain, to_typed
from seqexp.errors import UserError

Main = Callable[..., Ran]
PACKAGE = Path(seqexp.__file__).resolve().parent
CONF = conf_dir()

# Groups of Hydra's own, checked by every command that runs.
HYDRA_GROUPS = ("hydra",)
OPTIONS = sorted(
    str(file.relative_to(CONF).with_suffix(""))
    for file in CONF.glob("*/**/*.yaml")
    if file.relative_to(CONF).parts[0] not in (*HYDRA_GROUPS, "local")
)


def composed(*words: str, command: str = "train") -> Any:
    """The checked dataclass of a command line, by Hydra's public way."""
    register_schemas()
    OmegaConf.register_new_resolver("run_name", lambda *words: "of_a_run", replace=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_typed(compose(command, overrides=list(words)))


# Composition


def test_all_groups_of_the_design_are_there() -> None:
    groups = {option.partition("/")[0] for option in OPTIONS}
    assert groups >= {
        "model", "data", "task", "tokenizer", "optimizer", "scheduler", "device", "trainer",
        "generation", "experiment", "debug",
    }  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option: str) -> None:
    group, _, name = option.partition("/")
    words = [f"{group}={name}"]
    if option in ("data/text", "data/parallel", "data/table", "data/tagged"):
        words.append("data.path=somewhere")
    if option == "data/parity":
        words.append("model=rnn")  # a GPT is judged on fewer lengths
    if option in (
        "model/textcnn", "model/fasttext_bag", "model/birnn", "task/classification",
    ):  # fmt: skip
        words.append("data=opinions")
    if option in ("task/word_embeddings", "tokenizer/bare_word"):
        words.append("model=word2vec")
    if option == "task/cooccurrences":
        words.append("model=glove")
    if group == "recipe":
        words = [f"model={name}"]
    if option in ("task/tagging", "model/lstm_tagger", "tokenizer/whitespace"):
        words.append("data=ud_ewt")
    if option in ("task/masked_language_modeling", "task/replaced_tokens"):
        words.append("model=bert" if option.startswith("task/masked") else "model=electra")
    if option in ("model/nmt", "model/transformer", "task/translation"):
        words.append("data=tatoeba")
    if name in ("parity", "bits") and group != "data":
        words.append("data=parity")
    if group == "pair":
        data, _, model = name.partition("_")
        words = [f"data={data}", f"model={model}"]
    if option == "optimizer/sgd":
        words.append("scheduler.min_lr=0")
    typed = composed(*words)
    assert isinstance(typed, TrainConfig)
    plain = to_plain(typed)
    if group in registry.ENTRIES:
        # The file says what the dataclass then holds.
        written = yaml.safe_load((CONF / f"{option}.yaml").read_text())
        for key, value in written.items():
            given = key == "path" or "${" in str(value)
            if key != "defaults" and not given:
                expected = float(value) if isinstance(plain[group][key], float) else value
                assert plain[group][key] == expected, key


@pytest.mark.parametrize("command", ["eval", "generate"])
def test_the_other_commands_compose(command: str) -> None:
    typed = composed(command=command)
    assert (typed.run, typed.checkpoint, typed.name) == ("latest", "best", "of_a_run")


def test_every_registered_name_has_an_option() -> None:
    """What the registry knows can be typed (model names are classes, of which there may be several sizes)."""
    for group, entries in registry.ENTRIES.items():
        for name in entries:
            assert (CONF / group / f"{name}.yaml").is_file(), f"{group}={name}"


def test_the_recorded_recipes() -> None:
    """The numbers of the course's and nanoGPT's recipes, as the issue and nanoGPT's README give them."""
    course = composed("experiment=potter/course")
    model = course.model
    assert (model.n_layer, model.n_head, model.n_embd, model.max_len, model.dropout) == (6, 6, 384, 256, 0.2)
    assert (course.data.batch_size, course.data.seq_len, course.data.name) == (32, 256, "potter")
    assert (course.optimizer.name, course.optimizer.lr, course.scheduler.min_lr) == ("adamw", 1e-3, 1e-4)
    assert (course.scheduler.name, course.scheduler.warmup_steps) == ("cosine", 1000)
    assert (course.trainer.max_steps, course.trainer.max_grad_norm) == (10_000, 1.0)

    cpu = composed("experiment=shakespeare/nanogpt_cpu")
    model = cpu.model
    assert (model.n_layer, model.n_head, model.n_embd, model.max_len, model.dropout) == (4, 4, 128, 64, 0.0)
    assert (cpu.data.batch_size, cpu.data.name, cpu.trainer.max_steps) == (12, "shakespeare", 2000)

    gpu = composed("experiment=shakespeare/nanogpt_gpu")
    model = gpu.model
    assert (model.n_layer, model.n_head, model.n_embd, model.max_len, model.dropout) == (6, 6, 384, 256, 0.2)
    assert (gpu.data.batch_size, gpu.trainer.max_steps, gpu.scheduler.warmup_steps) == (64, 5000, 100)
    assert (gpu.optimizer.lr, gpu.scheduler.min_lr, gpu.optimizer.weight_decay) == (1e-3, 1e-4, 0.1)
    assert list(gpu.optimizer.betas) == [0.9, 0.99]


def test_the_command_line_wins() -> None:
    typed = composed("experiment=potter/course", "optimizer.lr=5e-4", "model.dropout=0.1", "debug=fast")
    assert (typed.optimizer.lr, typed.model.dropout) == (5e-4, 0.1)
    assert typed.trainer.max_steps == 10  # debug= comes after the experiment
    assert composed("debug=fast", "trainer.max_steps=3").trainer.max_steps == 3


# What goes with what

# Overrides that do not go together; how the message names both; and what it says would fit.
MISFITS: list[tuple[tuple[str, ...], str, str, tuple[str, ...]]] = [
    (("data=phrasebook", "task=language_modeling"), "task=language_modeling reads text, and data=phrasebook "
     "gives pairs", "task", ("translation",)),
    (("data=phrasebook", "task=language_modeling", "model=gpt"), "task=language_modeling reads text, and "
     "data=phrasebook gives pairs", "data", ("text", "potter", "shakespeare")),
    (("data=parity", "model=nmt"), "model=nmt is of kind encoder_decoder, and task=parity", "model",
     ("gpt", "rnn", "lstm", "gru")),
    (("data=phrasebook", "model=lstm"), "model=lstm is of kind causal, and task=translation", "model",
     ("nmt", "transformer")),
    (("data=shakespeare", "tokenizer=bits"), "tokenizer=bits cannot read data=shakespeare, which gives text",
     "tokenizer", ("char", "byte", "word", "sentencepiece", "wordpiece", "bpe")),
    (("data=parity", "tokenizer=char"), "tokenizer=char cannot read data=parity, which gives bits",
     "tokenizer", ("bits",)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "both", "group", "fitting"), MISFITS)
def test_what_does_not_go_together(
    words: tuple[str, ...], both: str, group: str, fitting: tuple[str, ...]
) -> None:
    """The message lists what fits, and each of it does."""
    with pytest.raises(UserError) as caught:
        composed(*words)
    message = str(caught.value)
    assert message.startswith(both)
    assert f"{group}={', '.join(fitting)}" in message
    rest = [word for word in words if not word.startswith(f"{group}=")]
    for name in fitting:
        more = ["data.path=somewhere"] if (group, name) == ("data", "text") else []
        more += ["task=language_modeling"] if group == "data" else []
        assert isinstance(composed(*dict.fromkeys([*rest, *more]), f"{group}={name}"), TrainConfig)


def test_exams_are_for_tasks_that_declare_them() -> None:
    with pytest.raises(UserError, match=r"exams=all is for task=language_modeling, .*; this is task=parity"):
        composed("data=parity", "model=rnn", "exams=all")


# Saved configurations


def saved(*words: str) -> dict[str, Any]:
    """What a run folder's config.yaml holds, read back as YAML."""
    plain = {"schema_version": SCHEMA_VERSION, **to_plain(composed(*words, "sweep.name=s"))}
    read: dict[str, Any] = yaml.safe_load(yaml.safe_dump(plain, sort_keys=False))
    return read


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("experiment=potter/course", "seed=9"),
        ("experiment=shakespeare/nanogpt_gpu", "model.positions=sinusoidal"),
        ("optimizer=muon", "scheduler=wsd", "tokenizer=byte"),
        ("optimizer=sgd", "scheduler=constant", "trainer.max_minutes=0.5", "device=cpu"),
    ],
)
def test_a_saved_configuration_is_read_back_the_same(words: tuple[str, ...]) -> None:
    typed = composed(*words, "sweep.name=s")
    again = from_plain(saved(*words), "config.yaml")
    assert again == typed
    assert type(again.model) is type(typed.model)
    assert type(again.optimizer) is type(typed.optimizer)
    assert again.fingerprint() == typed.fingerprint()


def _with(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(saved())
    *parents, leaf = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[leaf] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("hydra", {"callbacks": {"x": {"_target_": "os.system"}}}, "hydra"),
        ("surprise", 1, "surprise"),
        ("optimizer.lr", 10**400, "config.yaml cannot be read"),
        ("name", "../up", "cannot name a folder"),
        ("model.name", "lstm", "LSTMConfig"),
        ("model.surprise", 1, "surprise"),
        ("model._target_", "os.system", "_target_"),
        ("_target_", "os.system", "_target_"),
        ("trainer.surprise", 1, "surprise"),
        ("model.n_layer", "many", "many"),
        ("model.n_layer", -3, "model.n_layer=-3"),
        ("model.n_layer", "${oc.env:HOME}", "config.yaml"),
        ("model.name", "os", "'os'"),
        ("model", "gpt", "config.yaml"),
        ("model", None, ""),
        ("trainer.max_steps", [1], "config.yaml"),
        ("schema_version", SCHEMA_VERSION + 1, str(SCHEMA_VERSION + 1)),
        ("schema_version", None, "schema version"),
        ("schema_version", "1", "schema version"),
        ("optimizer.betas", [0.9, "x"], "x"),
    ],
)
def test_a_saved_configuration_is_not_trusted(path: str, value: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        from_plain(_with(path, value), "config.yaml")
    assert told in str(caught.value)


@pytest.mark.parametrize("values", [None, [], "text", 3, {}])
def test_what_is_no_configuration(values: Any) -> None:
    with pytest.raises(UserError):
        from_plain(values, "config.yaml")


def test_an_interpolation_in_a_saved_configuration_is_never_resolved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused, or taken as the text that it is."""
    monkeypatch.setenv("SECRET", "the secret itself")
    try:
        what_came = str(to_plain(from_plain(_with("data.path", "${oc.env:SECRET}"), "config.yaml")))
        assert "'${oc.env:SECRET}'" in what_came
    except UserError as error:
        what_came = str(error)
    assert "secret itself" not in what_came


# Fingerprints


@pytest.mark.parametrize(
    "word",
    ["name=other", "device=cpu", "device.threads=1", "generation.temperature=0.5", "trainer.log_every=7"],
)
def test_fingerprint_ignores_what_does_not_decide_the_result(word: str) -> None:
    assert composed(word).fingerprint() == composed().fingerprint()


@pytest.mark.parametrize(
    "word",
    [
        "optimizer.lr=0.01", "seed=2", "model.n_layer=3", "data.seq_len=64", "data.path=x", "tokenizer=byte",
        "trainer.max_steps=7", "trainer.accumulate=2", "scheduler.warmup_steps=7", "optimizer=adam",
        "task.label_smoothing=0.1",
    ],
)  # fmt: skip
def test_fingerprint_changes_with_what_decides_the_result(word: str) -> None:
    fingerprint = composed(word).fingerprint()
    assert fingerprint != composed().fingerprint()
    assert len(fingerprint) == 10
    assert set(fingerprint) <= set("0123456789abcdef")


def test_fingerprint_is_that_of_runs_that_did_not_have_the_setting_yet() -> None:
    """A setting that is newer than a run counts where it is set."""
    words = ("data=phrasebook", "model=nmt")
    config = composed(*words)
    older = to_plain(config)
    for group, key in (("task", "bleu_tokenize"), ("trainer", "freeze"), ("optimizer", "lr_scale")):
        del older[group][key]
    again = from_plain({"schema_version": SCHEMA_VERSION, **older, "sweep": {"name": "s"}}, "config.yaml")
    assert again.fingerprint() == config.fingerprint()
    for word in ("task.bleu_tokenize=char", "trainer.freeze=[head]", "+optimizer.lr_scale={head:0.5}"):
        assert composed(*words, word).fingerprint() != config.fingerprint()


# $SEQEXP_CONF


def test_a_users_conf_shadows_and_says_so(
    run_main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "mine/model/gpt.yaml": "defaults: [base_gpt]\nn_layer: 1\nn_head: 1\nn_embd: 8\n",
        "mine/local/train.yaml": "# @package _global_\nseed: 77\n",
        "conf/model/gpt.yaml": "defaults: [base_gpt]\nn_layer: 99\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    plain = run_main("train", "--cfg", "job")
    assert yaml.safe_load(plain.out)["model"]["n_layer"] == 4  # ./conf is not picked up
    monkeypatch.setenv("SEQEXP_CONF", str(tmp_path / "mine"))
    ran = run_main("train", "--cfg", "job")
    assert ran.code == 0, ran.err
    printed = yaml.safe_load(ran.out)
    assert (printed["model"]["n_embd"], printed["model"]["n_layer"]) == (8, 1)
    assert printed["seed"] == 77
    assert printed["optimizer"]["name"] == "adamw"  # the rest is the project's own
    assert "SEQEXP_CONF" in ran.err
    assert str(tmp_path / "mine") in ran.err
    monkeypatch.setenv("SEQEXP_CONF", str(tmp_path / "nowhere"))
    ran = run_main("train", "--cfg", "job")
    assert ran.code == 2
    assert "SEQEXP_CONF" in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("defaults: [base_gpt]\nn_layr: 1\n", "n_layr"),
        ("defaults: [base_gpt]\nn_layer: many\n", "many"),
        ("defaults: [base_gpt]\n_target_: os.system\n", "_target_"),
        ("defaults: [base_gpt]\nn_layer: 0\n", "model.n_layer=0"),
    ],
)
def test_a_mistake_inside_a_file_is_caught(
    run_main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/odd.yaml").write_text(text)
    monkeypatch.setenv("SEQEXP_CONF", str(tmp_path / "mine"))
    ran = run_main("train", "model=odd")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert told in ran.err.splitlines()[-1]


# Packages

# From the ground up; a package imports from itself and from those before it.
PACKAGES = (
    "errors", "files", "quoting", "scored_text", "streams", "registry", "config", "tokenizers", "data",
    "models", "metrics", "tracking", "decoding", "exams", "tasks", "sweeps", "reports", "training",
    "commands", "cli", "__main__",
)  # fmt: skip


def imported_packages(file: Path) -> set[str]:
    """The packages and modules of seqexp that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("seqexp.")}


FILES = sorted(str(file.relative_to(PACKAGE)) for file in PACKAGE.glob("**/*.py"))


@pytest.mark.parametrize("name", FILES)
def test_a_package_imports_only_from_packages_below(name: str) -> None:
    package = name.split("/")[0].removesuffix(".py")
    imported = imported_packages(PACKAGE / name)
    if package == "__init__":
        assert not imported
        return
    assert package in PACKAGES, f"{package} is a package that the plan does not know"
    assert not imported - set(PACKAGES[: PACKAGES.index(package) + 1])


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("models/")])
def test_a_model_file_stands_alone(name: str) -> None:
    """It can be copied into a notebook; options do not import torch, and models do not import options."""
    options = name.endswith("options.py")
    # The hash of n-grams is also what files of fastText are read with.
    allowed = (
        {"omegaconf", "seqexp.config.checks"} if options else {"torch", "numpy", "seqexp.tokenizers.ngrams"}
    )
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [str(node.module)]
        else:
            continue
        for module in modules:
            if module.startswith("seqexp.models."):
                assert module.endswith("options") == options, module
                continue
            assert {module, module.split(".")[0]} & (allowed | set(sys.stdlib_module_names)), module


def test_a_student_copies_gpt_and_layers(tmp_path: Path) -> None:
    """The two files alone train a step in a notebook's folder: nothing else of the package is needed."""
    (tmp_path / "seqexp/models").mkdir(parents=True)
    for name in ("gpt.py", "layers.py"):
        (tmp_path / "seqexp/models" / name).write_text((PACKAGE / "models" / name).read_text())
    program = (
        "import torch; from seqexp.models.gpt import GPT\n"
        "model = GPT(vocab_size=7, max_len=8, n_layer=1, n_head=2, n_embd=8, dropout=0.1)\n"
        "model(torch.zeros(2, 8, dtype=torch.long)).sum().backward()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_model_says_its_kind() -> None:
    kinds = {name: registry.load_schema("model", name).KIND for name in registry.ENTRIES["model"]}
    assert kinds == {
        "gpt": "causal", "rnn": "causal", "lstm": "causal", "gru": "causal",
        "nmt": "encoder_decoder", "transformer": "encoder_decoder",
        "birnn": "encoder", "bert": "masked", "electra": "replaced",
        "textcnn": "classifier", "fasttext_bag": "classifier",
        "word2vec": "word_vectors", "fasttext": "word_vectors", "glove": "cooccurrence_vectors",
    }  # fmt: skip


def test_a_saved_translator_without_impl_is_read_as_fused() -> None:
    """Runs from before the option existed."""
    values = saved("data=phrasebook", "model=nmt")
    del values["model"]["impl"]
    assert from_plain(values, "config.yaml").model.impl == "fused"


def test_the_command_modules_import_little_at_the_top() -> None:
    """Tab completion and --cfg import these files; torch in one of them would cost seconds."""
    for file in (PACKAGE / "commands").glob("*.py"):
        if file.name in ("build.py", "__init__.py"):
            continue
        top = {
            name.split(".")[0]
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)])
        }
        assert not top & {"torch", "numpy", "matplotlib", "tensorboard", "rich"}, file.name


# Plugins

PLUGIN = {
    "limericks/__init__.py": '''
from pathlib import Path

from seqexp.registry import register


def plug_in():
    conf = str(Path(__file__).parent / "conf")
    register("model", "bigram", "limericks.bigram:Bigram", "limericks.schema:BigramConfig", conf)
    register("data", "limericks", "seqexp.data.text:TextData", "limericks.schema:LimericksConfig", conf)
''',
    "limericks/schema.py": '''
from dataclasses import dataclass
from pathlib import Path

from seqexp.config.data import TextDataConfig


@dataclass
class BigramConfig:
    name: str = "bigram"
    scale: float = 0.01


@dataclass
class LimericksConfig(TextDataConfig):
    name: str = "limericks"
    path: str | None = str(Path(__file__).with_name("limericks.txt"))
''',
    "limericks/bigram.py": '''
import torch
from torch import nn


class Bigram(nn.Module):
    """The next token from the one before it."""

    def __init__(self, vocab_size, scale):
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.normal_(self.table.weight, std=scale)

    def forward(self, tokens):
        return self.table(tokens)

    def start(self, context=None):
        return ()

    def step(self, tokens, state):
        return self(tokens), state

    def select(self, state, rows):
        return state
''',
    "limericks/conf/model/bigram.yaml": "defaults: [base_bigram]\nscale: 0.02\n",
    "limericks/conf/data/limericks.yaml": "defaults: [base_limericks]\nseq_len: 32\n",
    "limericks/limericks.txt": "There was an old man with a beard, who said, it is just as I feared!\n" * 60,
    "limericks-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: limericks\nVersion: 1.0\n",
    "limericks-1.0.dist-info/entry_points.txt": "[seqexp.plugins]\nlimericks = limericks:plug_in\n",
}  # fmt: skip


def test_a_plugin_adds_a_model_and_data(
    seqexp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in PLUGIN.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path / "site"), before])))
    size_free = [word for word in TINY if not word.startswith("model.")]
    done = seqexp(
        "train", "model=bigram", "data=limericks", *size_free, "data.seq_len=32", "trainer.max_steps=60",
        "trainer.eval_every=30", "optimizer.lr=0.3", "model.scale=0.03",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = Path("outputs/train/bigram_limericks").iterdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"] == {"name": "bigram", "scale": 0.03}
    done = seqexp(
        "generate", "prompt=a beard", "generation.max_new_tokens=2", "generation.temperature=0",
        "device.threads=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # In the text, "d" is followed by "," twice and by " " and "!" once; "," by " " always.
    assert done.stdout == "a beard, \n"
    done = seqexp("train", "model=bigam")
    assert done.returncode == 2
    assert "Did you mean 'bigram'?" in done.stderr


def test_defaults_that_go_by_other_choices() -> None:
    """The window of labelled texts, the metric of the best checkpoint, and the embedding of words."""
    table = ("data=table", "data.path=some.csv")
    assert composed(*table).data.max_seq_len == 256
    assert composed(*table, "model=gpt").model.max_len == 256
    assert composed(*table, "model=gpt", "model.max_len=64").data.max_seq_len == 64
    assert composed(*table).trainer.monitor == "val/macro_f1"
    assert composed(*table, "trainer.monitor=val/loss").trainer.monitor == "val/loss"
    assert composed("data=parity", "model=gru").trainer.monitor == "val/loss"
    assert composed(*table, "model=lstm").model.n_embd == 128
    assert composed("data=shakespeare", "model=lstm").model.n_embd == 0
