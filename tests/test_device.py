"""Devices: which are there, how precisely they compute, compilers that fail, threads, memory that is kept."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Ran
from small_trainer import fit, make_config, make_trainer

from seqexp.config.run import DeviceConfig
from seqexp.errors import UserError
from seqexp.training.device import (
    Device,
    compile_or_not,
    keep_freed_memory,
    setup_device,
    wants_compile,
)

Main = Callable[..., Ran]


def explode(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("no compiler here\nand a long story after it")


@pytest.mark.parametrize("when", ["at once", "at the first call"])
def test_a_failing_compiler_means_eager_mode(
    run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(torch, "compile", explode if when == "at once" else lambda model: explode)
    words = [word for word in TINY if word != "device.compile=false"]
    ran = run_main(
        "train", "data=text", f"data.path={book}", *words, "device.compile=true", "trainer.max_steps=2",
        "trainer.sample_tokens=0", "name=eager",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.err.splitlines() if "compiling failed" in line]
    assert "RuntimeError: no compiler here" in line
    assert "a long story" not in ran.err
    assert "Traceback" not in ran.err
    (run,) = Path("outputs/train/eager").iterdir()
    compiled = json.loads((run / "manifest.json").read_text())["compiled"]
    assert compiled["compiled"] is False
    assert "no compiler here" in compiled["reason"]


def test_trying_the_compiler_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients and random state are as before, whether it worked or not."""
    model = torch.nn.Linear(2, 2)
    for compiler in (lambda model: model, lambda model: explode):
        monkeypatch.setattr(torch, "compile", compiler)
        before = torch.get_rng_state()

        def trial(forward: Any) -> None:
            model(torch.rand(1, 2)).sum().backward()
            forward(torch.rand(1, 2)).sum().backward()

        _, failure = compile_or_not(model, trial)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(p.grad is None for p in model.parameters())
        assert (failure is None) == (compiler(model) is model)


@pytest.mark.parametrize(
    ("kind", "switch", "flops", "wanted"),
    [
        ("cpu", "auto", 1e30, False),
        ("cpu", "auto", None, False),
        ("cpu", "true", 1.0, True),
        ("mps", "auto", 1e30, False),
        ("cuda", "auto", 1e18, True),
        ("cuda", "auto", 1e12, False),
        ("cuda", "auto", None, False),
        ("cuda", "true", None, True),
        ("cuda", "false", 1e30, False),
    ],
)
def test_when_to_compile(kind: str, switch: str, flops: float | None, wanted: bool) -> None:
    device = Device(torch.device(kind), "fp32", 1)
    got, reason = wants_compile(DeviceConfig(compile=switch), device, flops)
    assert got is wanted
    assert reason.startswith("auto: " if switch == "auto" else f"device.compile={switch}")


def device_of(**options: Any) -> Device:
    return setup_device(DeviceConfig(threads=1, **options))


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device=cuda is not available here.*sees cpu\. Use device=auto"):
        device_of(name="cuda")
    with pytest.raises(UserError, match="device=mps is not available here"):
        device_of(name="mps")
    assert device_of(name="auto").torch.type == "cpu"


@pytest.mark.parametrize(
    ("avx512", "amx", "precision"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_automatic_precision_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert device_of(name="cpu").precision == precision
    assert device_of(name="cpu", precision="bf16").precision == "bf16"
    assert device_of(name="cpu", precision="fp32").precision == "fp32"


def test_half_precision_is_for_gpus() -> None:
    with pytest.raises(UserError, match=r"device\.precision=fp16 is for GPUs"):
        device_of(name="cpu", precision="fp16")


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        assert setup_device(DeviceConfig(name="cpu", threads=1)).threads == torch.get_num_threads() == 1
        torch.set_num_threads(2)
        device = setup_device(DeviceConfig(name="cpu"))
        assert device.threads == torch.get_num_threads() >= 1
    finally:
        torch.set_num_threads(before)


def test_weights_stay_in_fp32(book: Path) -> None:
    config = make_config(book)
    config.device.precision = "bf16"
    trainer = make_trainer(config)
    fit(trainer)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    (state, *_) = trainer.optimizers.parts[0].state.values()
    assert state["exp_avg"].dtype == torch.float32


FREED = """
import resource
import torch
from seqexp.training.device import keep_freed_memory

def pages_cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(64 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages_cleared()
before, agreed, _, after = pages_cleared(), keep_freed_memory(), pages_cleared(), pages_cleared()
print(int(agreed), before, after)
"""


def test_freed_memory_is_used_again() -> None:
    """In a process of its own, since what the allocator was told stays."""
    ran = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    agreed, before, after = (int(word) for word in ran.stdout.split())
    if not agreed:
        pytest.skip("this C library is not glibc")
    assert before >= 10 * 32  # pages of 2 MB, or of less
    assert after < before / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown)
    assert not keep_freed_memory()
    monkeypatch.delattr(os, "confstr")  # as on Windows
    assert not keep_freed_memory()


PRIMITIVES = """
import torch
from seqexp.config.run import DeviceConfig
from seqexp.training import device

device.ONEDNN_PRIMITIVES = 20
device.setup_device(DeviceConfig(name="cpu", threads=1))
layer = torch.nn.LSTM(4, 4, batch_first=True)
with torch.no_grad():
    for _ in range(2):
        for length in range(1, 61):
            layer(torch.zeros(1, length, 4))
"""


@pytest.mark.parametrize("name", [None, "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_few_shapes_are_remembered(name: str | None) -> None:
    """oneDNN keeps as many primitives as we say, or as the user says; its own log counts those made."""
    clean = {key: value for key, value in os.environ.items() if not key.endswith("PRIMITIVE_CACHE_CAPACITY")}
    environment = {**clean, "ONEDNN_VERBOSE": "2", **({name: "1000"} if name else {})}
    ran = subprocess.run(
        [sys.executable, "-c", PRIMITIVES], env=environment, capture_output=True, text=True, check=True
    )
    made = sum("create:cache_miss" in line and ",rnn," in line for line in ran.stdout.splitlines())
    if not made:
        pytest.skip("torch's LSTM does not use oneDNN here, or oneDNN's log is off")
    assert made == (60 if name else 120)
