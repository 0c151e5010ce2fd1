"""Records how a result was made: versions, commit, machine, time and memory."""

import importlib.metadata
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import stpm_bench

if TYPE_CHECKING:  # slow to import, and not needed by every step that records its cost
    import torch

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-image", "scikit-learn")


def environment(device: "torch.device") -> dict:
    """Return versions, git commit, device, processor and threads of this process."""
    import torch

    return {
        "stpm_bench": stpm_bench.__version__,
        **git_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "capability": capability(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def git_commit(root: Path = Path(stpm_bench.__file__).parents[1]) -> dict[str, str | None]:
    """Return the `git_commit` of a checkout, followed by '+changes' if it is dirty.

    If there is none, it is None, and `git_commit_missing` says why.
    """

    def git(*arguments: str) -> str:
        # Without this, 'status' locks the index, and leaves the lock if it is killed.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        if top.resolve() == root.resolve():
            changes = "+changes" if git("status", "--porcelain") else ""
            return {"git_commit": git("rev-parse", "HEAD") + changes}
        reason = f"{root} lies in another repository, {top}"
    except OSError as error:
        reason = f"git cannot be run ({error.strerror})"
    except subprocess.CalledProcessError as error:
        # Such as a repository of another owner, an unpacked archive, or one without a commit.
        said = error.stderr.strip() or f"status {error.returncode}"
        reason = f"git says of {root}: {said.splitlines()[0]}"
    return {"git_commit": None, "git_commit_missing": reason}


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def capability(device: "torch.device") -> str:
    """Return the class of a device's arithmetic, as PyTorch reports it.

    Processors with the same name, as clouds report it, may differ in it, and so in their bits.
    """
    import torch

    from stpm_bench.device import cpu_capabilities

    if device.type == "cuda":
        return "compute capability {}.{}".format(*torch.cuda.get_device_capability(device))
    known = cpu_capabilities()
    for key, name in (("amx_bf16", "AMX BF16"), ("avx512_bf16", "AVX-512 BF16")):
        if known.get(key):
            return name
    return torch.backends.cpu.get_cpu_capability()


def host_bytes() -> int:
    """Return this process's peak memory on the host in bytes.

    Linux's VmHWM where available: ru_maxrss includes the memory of the process that started this
    one, and Snakemake, which starts the steps, may use more than they do.
    """
    status = Path("/proc/self/status")
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    if peak:
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory(device: "torch.device") -> dict:
    """Return this process's peak memory in bytes: of the host, and of the GPU where one is used."""
    peak = {"host_bytes": host_bytes()}
    if device.type == "cuda":
        import torch

        peak["gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak
