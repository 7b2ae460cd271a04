"""Low-rank updates: their formula, what trains, merging, and Hugging Face's `peft` on the same weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Ran
from run_folders import read, rows_of, said_shortly
from torch import nn

from seqexp.errors import UserError
from seqexp.models.gpt import GPT
from seqexp.models.lora_options import LoRAConfig
from seqexp.models.transformer import Transformer
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.lora import OWN, add_lora, freeze_given, merge_lora

Main = Callable[..., Ran]
NOT_MODEL = [word for word in TINY if not word.startswith("model.")]

pytestmark = pytest.mark.usefixtures("one_thread")


def gpt(config: LoRAConfig | None = None) -> GPT:
    torch.manual_seed(0)
    model = GPT(vocab_size=11, max_len=8, n_layer=2, n_head=2, n_embd=16)
    if config:
        add_lora(model, config)
    return model


def draw_updates(model: nn.Module) -> None:
    """Give the updates values other than zero."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(parameter)


TOKENS = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(2))


def test_a_new_update_changes_nothing() -> None:
    assert torch.equal(gpt(LoRAConfig(rank=4))(TOKENS), gpt()(TOKENS))


def test_rank_0_adds_nothing() -> None:
    assert gpt(LoRAConfig()).state_dict().keys() == gpt().state_dict().keys()


def test_a_layer_follows_the_formula() -> None:
    """h = W x + (alpha / r) B A x (Hu et al. 2022, eq. 3), in fp64."""
    layer = nn.Sequential(nn.Linear(6, 5).double())
    W, b = (one.detach().clone() for one in layer[0].parameters())
    add_lora(layer, LoRAConfig(rank=2, alpha=3.0))
    draw_updates(layer)
    parameters = dict(layer.named_parameters())
    A, B = (parameters[f"0.parametrizations.weight.0.{name}"] for name in "AB")
    assert (A.shape, B.shape) == ((2, 6), (5, 2))
    x = torch.randn(7, 6, dtype=torch.float64)
    assert torch.allclose(layer(x), x @ W.T + b + 3 / 2 * (x @ A.T) @ B.T, atol=1e-12)


def test_merged_weights_give_the_same_logits() -> None:
    config = LoRAConfig(rank=4, alpha=8)
    model, plain = gpt(config), gpt()
    draw_updates(model)
    assert not torch.allclose(model(TOKENS), plain(TOKENS), atol=1e-2)
    plain.load_state_dict(merge_lora(model.state_dict(), config))
    assert torch.allclose(model(TOKENS), plain(TOKENS), atol=1e-5)


def test_layers_whose_weights_are_used_in_parts_have_the_update() -> None:
    """The translator's attention to the source uses rows of one weight."""
    config = LoRAConfig(rank=2)
    sizes = {"source_vocab_size": 9, "target_vocab_size": 9, "n_layer": 1, "n_head": 2, "n_embd": 8}
    torch.manual_seed(0)
    model = Transformer(**sizes, ffn_size=16, max_len=8)  # type: ignore[arg-type]
    model.eval()
    source, target, lengths = torch.randint(1, 9, (2, 5)), torch.randint(1, 9, (2, 4)), torch.tensor([5, 5])
    before = model(source, lengths, target)
    add_lora(model, config)
    assert torch.equal(model(source, lengths, target), before)
    update = next(name for name, _ in model.named_parameters() if "decoder" in name and name.endswith(".B"))
    assert "qkv" in update
    nn.init.normal_(model.get_parameter(update))
    assert not torch.allclose(model(source, lengths, target), before, atol=1e-3)


def test_only_updates_and_new_parameters_train() -> None:
    model = gpt(LoRAConfig(rank=2))
    frozen = freeze_given(model, new=["head.weight"])
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    updates = [name for name in trained if "parametrizations.weight.0" in name]
    assert len(updates) == 2 * 2 * 4  # A and B of four layers in two blocks
    assert set(trained) - set(updates) <= {"head.weight"}
    assert "blocks.0.mlp.fc.parametrizations.weight.original" in frozen


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoRAConfig(rank=16), "model.lora.rank=16 is not below the rank of blocks.0.attention.qkv (16)"),
        (LoRAConfig(rank=2, layers=["nothing.*"]), "'nothing.*' matches no linear layer; there are blocks.0"),
    ],
)
def test_mistakes(config: LoRAConfig, message: str) -> None:
    with pytest.raises(UserError) as error:
        gpt(config)
    assert message in str(error.value)


def test_peft_gives_the_same_logits_and_gradients() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    config = LoRAConfig(rank=4, alpha=8, layers=["*.qkv", "*.fc"])
    ours = gpt(config)
    draw_updates(ours)
    other = peft.get_peft_model(
        gpt(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv", "fc"], lora_dropout=0.0)
    )
    theirs = dict(other.named_parameters())
    pairs = []
    for name, parameter in ours.named_parameters():
        if ".parametrizations.weight.0." in name:
            layer, _, matrix = name.partition(".parametrizations.weight.0.")
            copy = theirs[f"base_model.model.{layer}.lora_{matrix}.default.weight"]
            copy.data.copy_(parameter.data)
            pairs.append((parameter, copy))
    assert len(pairs) == 8
    assert torch.allclose(ours(TOKENS), other(TOKENS), atol=1e-5)
    for model in (ours, other):
        model(TOKENS).square().mean().backward()
    for own, copy in pairs:
        assert torch.allclose(own.grad, copy.grad, atol=1e-5)


# Runs


def tuned(main: Main, source: Path, book: Path, *words: str, name: str) -> tuple[Path, dict[str, Any]]:
    given = (f"init_from={source}", "data=text", f"data.path={book}", *NOT_MODEL, "trainer.sample_tokens=0")
    ran = main("train", *given, *words, f"name={name}")
    assert ran.code == 0, ran.err
    (folder,) = Path("outputs/train", name).iterdir()
    return folder, read(folder / "manifest.json")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(Checkpoints(RunFolder(run)).load("last")["model"])


def test_a_run_trains_updates_alone_resumes_exactly_and_is_merged(
    run_main: Main, tiny_run: Path, book: Path
) -> None:
    lora = ("model.lora.rank=4", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=1")
    run, manifest = tuned(run_main, tiny_run, book, *lora, name="lora")
    assert manifest["parameters"]["trained"] < manifest["parameters"]["total"]
    before, after = weights_of(tiny_run), weights_of(run)
    names = {name.replace(OWN, "weight"): name for name in after}
    for name, value in Checkpoints(RunFolder(tiny_run)).load("best")["model"].items():
        assert torch.equal(value, after[names[name]]), name

    # Stopped after two steps and continued: the same losses and weights.
    half, _ = tuned(run_main, tiny_run, book, *lora, "trainer.max_steps=2", name="half")
    ran = run_main("train", f"resume={half}", "trainer.max_steps=4")
    assert ran.code == 0, ran.err
    continued = weights_of(half)
    assert all(torch.equal(continued[name], after[name]) for name in after)
    assert [row.get("train/loss") for row in rows_of(half)] == [row.get("train/loss") for row in rows_of(run)]

    # A run that begins with these weights has them merged, and no updates of its own.
    ran = run_main("eval", f"run={run}", "checkpoint=last")
    assert ran.code == 0, ran.err
    merged, _ = tuned(run_main, run, book, "trainer.max_steps=0", name="merged")
    assert weights_of(merged).keys() == before.keys()
    best = read(run / "result.json")["metrics"]["val/loss"]
    assert read(merged / "result.json")["metrics"]["val/loss"] == pytest.approx(best, abs=1e-5)


def test_without_given_weights_it_is_refused(run_main: Main, book: Path) -> None:
    ran = run_main("train", "data=text", f"data.path={book}", *TINY, "model.lora.rank=4")
    assert "model.lora.rank= trains low-rank updates of given weights" in said_shortly(ran)


def test_settings_without_effect_are_said(run_main: Main, book: Path) -> None:
    ran = run_main(
        "train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=1", "model.lora.alpha=3"
    )
    assert "model.lora.alpha and model.lora.layers have no effect with model.lora.rank=0" in ran.err
