"""The results of a benchmark as JSON: the numbers, and the machine and versions."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stpm_bench import provenance


def record(name: str, table: pd.DataFrame, device, runs: int, settings: Mapping) -> dict:
    """Return the record of a benchmark, for `files.write_json`.

    Args:
        name: the benchmark's name.
        table: its results; a gap becomes null.
        device: torch.device that was used, or None for a benchmark without torch.
        runs: how often each row was measured.
        settings: what else the numbers depend on: sizes, numbers of images.

    Returns:
        `benchmark`, `machine` (`processor`, `capability`: the class of its arithmetic, `cores` that
        this process may use, `load`: the average number of running processes in the last minute,
        `platform`, `device`), `versions` (of
        stpm_bench, its `git_commit`, Python, packages), `threads` of PyTorch, `runs`, `settings`,
        and `results`, one object per row of the table.
    """
    import torch

    made_with = provenance.environment(device or torch.device("cpu"))
    machine = {
        "processor": made_with["processor"],
        "capability": made_with["capability"],
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": made_with["platform"],
        "device": made_with["device"],
    }
    versions = {key: made_with[key] for key in ("stpm_bench", "git_commit", "python")}
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return {
        "benchmark": name,
        "machine": machine,
        "versions": versions | made_with["packages"],
        "threads": made_with["threads"],
        "runs": runs,
        "settings": dict(settings),
        "results": [{key: plain(value) for key, value in row.items()} for row in rows],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the `median`, the `lowest` and the `highest` of the values of several runs."""
    return {
        "median": float(np.median(values)),
        "lowest": float(np.min(values)),
        "highest": float(np.max(values)),
    }


def cores() -> int:
    """Return how many processor cores this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def plain(value: object) -> object:
    """Return a NumPy number as a Python number, for JSON; anything else unchanged."""
    return value.item() if isinstance(value, np.generic) else value
