"""The device and precision in which a step computes, and how its results are made repeatable."""

import contextlib
import ctypes
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from stpm_bench.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device for the config's `device`: auto (a GPU where there is one), cpu or cuda.

    Raises:
        InputError: cuda was requested and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise InputError(
            "config key 'device' is 'cuda', but PyTorch sees no CUDA device; "
            "use 'auto' or 'cpu', or install a CUDA build of PyTorch"
        )
    if not has_cuda or name == "cpu":
        return torch.device("cpu")
    index = choose_card()
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@functools.cache
def choose_card() -> int:
    """Return the index of the GPU that this process computes on, the same at every call.

    Snakemake limits how many jobs use a GPU at once, but does not choose the GPU: each process
    takes, of those that PyTorch sees, the one with the fewest processes of this project.
    """
    cards = range(torch.cuda.device_count())
    names = [str(torch.cuda.get_device_properties(card).uuid) for card in cards]
    return reserve(names, Path(tempfile.gettempdir(), f"stpm_bench-cards-{os.getuid()}"))


HELD_LOCKS: list[FileLock] = []  # held by this process


def reserve(names: Sequence[str], folder: Path) -> int:
    """Return the index of the name held by the fewest running processes, and hold it too.

    A name is held by a lock on a file NAME.NUMBER, which is released when the process ends, however
    it ends.

    Args:
        names: what is shared between processes, at least one.
        folder: folder of the lock files, the same for all processes; made if missing.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in itertools.count():
        for index, name in enumerate(names):
            lock = FileLock(folder / f"{name}.{number}", blocking=False, fallback_to_soft=False)
            with contextlib.suppress(Timeout):
                lock.acquire()
                HELD_LOCKS.append(
                    lock
                )  # otherwise the lock would be released with its last reference
                return index


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a PyTorch error means that memory, on the GPU or the host, ran out."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype for the config's `precision`: auto, float32 or bfloat16.

    `auto` is bfloat16 where the hardware multiplies it natively (AMX or AVX-512 BF16 on a CPU,
    compute capability 8.0 and later on a GPU), float32 elsewhere, where bfloat16 is only emulated.
    """
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            capabilities = cpu_capabilities()
            native = capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)
        name = "bfloat16" if native else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def cpu_capabilities() -> dict:
    """Return what PyTorch knows about this processor; empty if it cannot tell.

    Also empty if the environment holds PyTorch to AVX2, as `ATEN_CPU_CAPABILITY=avx2` does: results
    and timings are then those of a processor with no more than that.
    """
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT"):
        return {}
    get = getattr(torch.cpu, "get_capabilities", None)  # PyTorch 2.10 and later
    if get is not None:
        return get()
    return {
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)(),
    }


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Return the context in which convolutions run in `precision`; weights stay float32."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16, cache_enabled=False
    )


def set_up(threads: int | None = None) -> None:
    """Prepare this process for computing: repeatable results, and freed memory is reused."""
    set_deterministic(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep the memory that tensors free, for later tensors.

    glibc returns each large block to the kernel at once, so every layer's output is mapped and
    cleared page by page again: a fifth of a student's time in batches of 32 images of 256 x 256.
    On systems without glibc nothing happens.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: how much memory is kept, 2 GiB


def set_deterministic(threads: int | None = None) -> None:
    """Make the same seed give the same bits on the same machine with the same thread count."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    # The same as use_deterministic_algorithms(True), which also loads torch._inductor: 1.3 s.
    torch.set_deterministic_debug_mode("error")
    # No memory here is read before it is written; filling it first costs 6% of a training step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False  # its choice of kernel depends on the clock
    # True float32: TF32 keeps 10 bits of the mantissa, too few for a product of small distances.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if threads:
        torch.set_num_threads(threads)
