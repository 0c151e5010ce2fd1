"""How fast fits are on this machine: from recorded fits, else from its class of processors.

Nothing here imports torch: the rates are needed when the Snakefile is parsed.
"""

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stpm_bench import config as configs
from stpm_bench.grid import Cell
from stpm_bench.methods import DEFAULT
from stpm_bench.provenance import processor
from stpm_bench.results import STAGES, fit_folder

# Class of processors -> precision -> images per second in training a student of ResNet-18 at
# 256 x 256 with levels 1+2+3, on one core, as `benchmark training` measured it (docs: 'Cost'). On a
# GPU of a student that shares an H100 with another: 0.9 of its rate alone (`tests/gpu.py`).
GPU = "a GPU"
STUDENT = {
    GPU: {"bfloat16": 2300.0, "float32": 1100.0},
    "AVX-512 BF16": {"bfloat16": 27.0, "float32": 13.0},
    "AVX-512": {"float32": 13.0},
    "AVX2": {"float32": 4.1},
}
# Processor flags, the best class first. AMX multiplies bfloat16 at least as fast.
FLAGS = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AVX-512 BF16", "avx512f": "AVX-512"}
PRETRAINING = 670.0  # images of 32 x 32 per second, ResNet-18, a core of AVX-512 BF16
# Seconds for maps and metrics of a test image at 256 x 256 on one core, process start included.
EVALUATION_SECONDS = 0.2
# Fits that share a GPU: two at a time finish 1.8 times as many students as one at a time, four 2.5
# times (H100; docs: 'Cost'). A student takes 1.8 GB of it at 256 x 256 with 320 images.
FITS_PER_GPU = 2
MAX_RECORDS = 30  # records per teacher's backbone and method: enough for a median


class Rates(NamedTuple):
    """Images per second that fits process, counting every epoch, and where the rate comes from.

    Attributes:
        recorded: (teacher, method) -> rate of a fit with its threads, from fits on this machine.
        assumed: (teacher, method) -> rate on one core; has every teacher and method of the config.
        source: where `assumed` comes from, as part of a sentence.
    """

    recorded: Mapping[tuple[str, str], float]
    assumed: Mapping[tuple[str, str], float]
    source: str

    def source_text(self, cells: Iterable[Cell]) -> str:
        """Return where the rates for these cells' fits come from, as part of a sentence."""
        asked = {(cell.teacher, cell.method) for cell in cells}
        known = asked & set(self.recorded)
        parts = ["at the rates recorded by fits on this machine"] if known else []
        parts += [self.source] if asked - known or not asked else []
        return "; others: ".join(parts)


@functools.cache
def processor_class() -> str:
    """Return the class of this machine's processor, a key of `STUDENT`.

    If the system does not report the processor's features, this is the slowest class.
    """
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    flags = set(found[1].split()) if found else set()
    return next((name for flag, name in FLAGS.items() if flag in flags), "AVX2")


def gpus(config: Mapping) -> int:
    """Return how many NVIDIA GPUs fits use: none if the config says cpu, else those of the system
    of which CUDA_VISIBLE_DEVICES, as Slurm sets it, leaves PyTorch any."""
    if config["device"] == "cpu":
        return 0
    there = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    return min(there, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))


def fits_at_once(config: Mapping, cores: int) -> int:
    """Return how many fits run at once on this many cores, or on the GPUs."""
    by_cores = max(1, cores // config["threads"])
    return min(by_cores, FITS_PER_GPU * gpus(config) or by_cores)


def precision_of(config: Mapping, kind: str) -> str:
    """Return the precision in which a student trains on a class of processors."""
    if config["precision"] == "auto":
        return "bfloat16" if "bfloat16" in STUDENT[kind] else "float32"
    return config["precision"]


def rates(config: dict, fits: Mapping[Cell, str]) -> Rates:
    """Return the rates for a completed config.

    Args:
        fits: what `grid.fit_names` returns; rates come from those that were fitted on this
            machine's kind of processor, or on its GPU.
    """
    on_gpu = gpus(config) > 0
    kind = GPU if on_gpu else processor_class()
    precision = precision_of(config, kind)
    rate = STUDENT[kind].get(precision, STUDENT[kind]["float32"])
    known = configs.methods(config)
    base = rate / known[DEFAULT].images_per_second("resnet18") / (config["image_size"] / 256) ** 2
    assumed = {
        (name, method): base * settings.images_per_second(teacher["backbone"])
        for name, teacher in config["teachers"].items()
        for method, settings in known.items()
    }
    whose, per = ("", "per fit, of two on an H100") if on_gpu else ("processors with ", "per core")
    source = f"an estimate for {whose}{kind} ({rate:g} images/s {per} in {precision})"
    return Rates(recorded(config, fits), assumed, source)


def recorded(config: dict, fits: Mapping[Cell, str]) -> dict[tuple[str, str], float]:
    """Return the median rate that fits recorded, by (teacher, method).

    A rate applies to every teacher of the same backbone, but only if it was measured on the same
    processor with as many threads, and on a GPU if the config asks for one.
    """
    backbones = {name: teacher["backbone"] for name, teacher in config["teachers"].items()}
    found: dict[tuple[str, str], list[float]] = {}
    for cell, fit in fits.items():
        kind_rates = found.setdefault((backbones[cell.teacher], cell.method), [])
        path = fit_folder(config["results"], fit) / STAGES["fit"]
        if len(kind_rates) < MAX_RECORDS and path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("images_per_second") and is_of_this_machine(record, config):
                kind_rates.append(record["images_per_second"])
    return {
        (name, method): float(np.median(values))
        for (backbone, method), values in found.items()
        for name in backbones
        if values and backbones[name] == backbone
    }


def is_of_this_machine(record: Mapping, config: Mapping) -> bool:
    """Return whether a fit's record was measured on such a machine with the same settings."""
    on_gpu = record.get("device", "cpu") != "cpu"
    if on_gpu or config["device"] == "cuda":
        return on_gpu and gpus(config) > 0
    return record.get("processor") == processor() and record.get("threads") == config["threads"]


def fit_hours(config: Mapping, images: Mapping[Cell, int], cores: int, known: Rates) -> float:
    """Return the hours that fits take on this many cores, or on the GPUs.

    Args:
        images: how many images each processes, counting every epoch.
    """
    at_once = fits_at_once(config, cores)
    # A recorded rate is of a fit with all its threads; an estimate is of a core, or of such a fit.
    estimated = at_once if gpus(config) else cores
    together = {key: rate * estimated for key, rate in known.assumed.items()}
    together |= {key: rate * at_once for key, rate in known.recorded.items()}
    return sum(n / together[cell.teacher, cell.method] for cell, n in images.items()) / 3600


def place(config: Mapping, cores: int) -> str:
    """Return what the hours of `fit_hours` are on, for a message."""
    what, count = ("GPU", gpus(config)) if gpus(config) else ("core", cores)
    return f"{count} {what}s" if count > 1 else f"one {what}"


def pretraining_hours(teachers: Iterable[Mapping], images: Mapping[str, int], cores: int) -> float:
    """Return the hours that pretraining the teachers takes, at the rate of this machine's class.

    Args:
        teachers: entries of the config, completed; one that is not pretrained here takes no time.
        images: name of a pretraining set -> how many training images it has.
    """
    student = STUDENT[processor_class()]
    share = max(student.values()) / STUDENT["AVX-512 BF16"]["bfloat16"]
    relative = configs.registry.built_in()[DEFAULT].images_per_second
    seconds = 0.0
    for teacher in teachers:
        if "pretrain" in teacher:
            settings = teacher["pretraining"]
            rate = PRETRAINING * share * relative(teacher["backbone"]) / relative("resnet18")
            rate /= (settings["input_size"] / 32) ** 2
            seconds += settings["epochs"] * images.get(str(teacher["pretrain"]), 0) / rate
    return seconds / max(1, cores) / 3600


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
