"""The device, precision and compilation of a run."""

import contextlib
import ctypes
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from seqexp.config.run import DeviceConfig
from seqexp.errors import UserError

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# compile=auto compiles on a GPU if training takes at least this many floating-point operations
# (6 * parameters * tokens, Kaplan et al. 2020), about a minute of work. It does not compile on CPUs: the
# compiled bf16 step of both sizes measured in docs/speed.md was slower than the eager one.
COMPILE_FROM_FLOPS = {"cuda": 1e16}

# oneDNN keeps a primitive for every shape that it has met, 1,024 of them by default; one of a matrix
# product in bf16 takes about 0.3 MB. The default Transformer uses 49 shapes in a step of translation; with
# 512 primitives most shapes that come again are found (docs/speed.md).
ONEDNN_PRIMITIVES = 512


@dataclass(frozen=True)
class Device:
    """A device with the precision of its arithmetic; weights are always fp32."""

    torch: torch.device
    precision: str
    threads: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.torch.type, dtype=DTYPES[self.precision])

    @property
    def name(self) -> str:
        if self.torch.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.torch)})"
        if self.torch.type == "cpu":
            return f"cpu ({self.threads} threads)"
        return self.torch.type

    def synchronize(self) -> None:
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)

    def peak_memory_mb(self) -> float:
        """Return the peak memory so far in MiB: of the GPU, or of this process."""
        if self.torch.type == "cuda":
            return torch.cuda.max_memory_allocated(self.torch) / 2**20
        try:
            import resource
        except ImportError:  # Windows
            return 0.0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def setup_device(config: DeviceConfig) -> Device:
    """Resolve `auto`, set the number of threads, and return the device.

    Raises:
        UserError: the device is not available, or does not support this precision.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    kind = available[0] if config.name == "auto" else config.name
    if kind not in available:
        raise UserError(
            f"device={kind} is not available here; PyTorch {torch.__version__} sees "
            f"{', '.join(available)}. Use device=auto or device={available[0]}."
        )
    threads = config.threads or _cores()
    torch.set_num_threads(threads)
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _native_bf16(kind) else "fp32"
    if precision == "fp16" and kind == "cpu":
        raise UserError("device.precision=fp16 is for GPUs; on a CPU use device.precision=bf16 or fp32.")
    if kind == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    if kind == "cpu":
        keep_freed_memory()
        limit_primitive_cache()
    return Device(torch.device(kind), precision, threads)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(len(os.sched_getaffinity(0)), torch.get_num_threads()))
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Make glibc's allocator keep freed memory for the next step; return whether that succeeded.

    By default it returns large tensors to the system, which must clear the pages of the next ones again
    (docs/speed.md has the cost).
    """
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, ValueError, OSError):  # Windows, macOS, another C library
        return False
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
    return bool(mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_MAX, 0))


def release_freed_memory() -> None:
    """Give freed memory that glibc keeps back to the system."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int | None:
    """The memory that this process holds now; None where Linux does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def limit_primitive_cache() -> None:
    """Have oneDNN keep at most `ONEDNN_PRIMITIVES` primitives, unless the user's environment sets a limit.

    oneDNN reads the variable when it makes its first primitive, so this comes before the first step.
    """
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # the older name, which oneDNN still reads
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_PRIMITIVES))


def _native_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if kind == "cpu":
        cpu = torch.cpu
        return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
    return False


def wants_compile(config: DeviceConfig, device: Device, flops: float | None) -> tuple[bool, str]:
    """Return whether to compile, and the reason. `flops` is the estimate for the training; None: unknown."""
    if config.compile != "auto":
        return config.compile == "true", f"device.compile={config.compile}"
    limit = COMPILE_FROM_FLOPS.get(device.torch.type)
    if limit is None:
        return False, f"auto: compiling does not pay off on {device.torch.type}"
    if flops is None:
        return False, "auto: the length is given in minutes, so the number of steps is not known"
    comparison = "at least" if flops >= limit else "under"
    return flops >= limit, f"auto: {flops:.1e} operations planned, {comparison} {limit:.0e}"


def compile_or_not(
    model: torch.nn.Module, trial: Callable[[Callable[[torch.Tensor], torch.Tensor]], None]
) -> tuple[Callable[[torch.Tensor], torch.Tensor], str | None]:
    """Compile the model and test it with `trial` (one forward and backward pass).

    Returns the compiled model and None, or the model itself and the reason of the failure. The random state
    is restored.
    """
    import torch._dynamo

    with torch.random.fork_rng():
        try:
            compiled = torch.compile(model)
            trial(compiled)
        except Exception as error:
            torch._dynamo.reset()
            model.zero_grad(set_to_none=True)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return model, f"{type(error).__name__}: {lines[0][:150]}"
    model.zero_grad(set_to_none=True)
    return compiled, None
