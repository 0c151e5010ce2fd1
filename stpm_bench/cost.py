"""What the stages of a run cost: seconds, images a second, peak memory."""

import re
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from stpm_bench.files import read_json, recorded
from stpm_bench.grid import AXES, Cell
from stpm_bench.typeset import NO_VALUE, Section

# The stages of a cell, and the file in which each says what it cost.
STAGES = {
    "student": "provenance.json",
    "anomaly_maps": "cost_anomaly_maps.json",
    "metrics": "cost_metrics.json",
}
COLUMNS = ["stage", *AXES, "device", "threads", "images", "seconds", "images_per_second"]
COLUMNS += ["host_bytes", "gpu_bytes", "code", "packages"]


def host_bytes() -> int:
    """Return this process's peak memory on the host in bytes.

    Linux's VmHWM where it is there: ru_maxrss counts the memory of the process that started this
    one as its own, and Snakemake, which starts the steps, may hold more than they do.
    """
    status = Path("/proc/self/status")
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    if peak:
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def collect(results: str | Path, cells: Iterable[Cell], teachers: Iterable[str]) -> pd.DataFrame:
    """Read what each stage wrote about itself; a stage that has not run has no row.

    Returns:
        `COLUMNS`, a row for each teacher and for each stage of each cell. `seconds` is the whole
        step, its imports included; `images_per_second` the work itself; `images` counts every
        epoch's; `code` is what `code_version` returned of the stage, None of a teacher; `packages`
        is 'torch 2.15.0, numpy 2.4.6', None where the stage does not record them.
    """
    rows = []
    for name in teachers:
        path = Path(results, "teachers", f"{name}.json")
        if path.exists():
            record = read_json(path)
            rows.append({"stage": "teacher", "teacher": name} | of_teacher(record))
    for cell in cells:
        folder = Path(results, "cells", cell.folder)
        records = recorded(folder)
        for stage, file in STAGES.items():
            path = folder / file
            if path.exists():
                record = read_json(path, records)
                if record:  # empty: the training had failed, and the stage had nothing to do
                    rows.append({"stage": stage} | cell._asdict() | of_stage(record))
    return pd.DataFrame(rows, columns=COLUMNS)


def of_teacher(record: dict) -> dict:
    """Return a teacher's cost; one that was not trained here has no images."""
    cost = {key: record.get(key) for key in ("device", "threads", "seconds")}
    if "training_seconds" in record:
        images = record["train_images"] * record["epochs"]
        cost |= {"images": images, "images_per_second": images / record["training_seconds"]}
    return cost | record.get("peak_memory", {})


def of_stage(record: dict) -> dict:
    """Return the cost of a stage of a cell."""
    images, rate = record["images"], record.get("images_per_second")
    if isinstance(images, dict):  # a student's: by role
        images = record["epochs"] * images["training"]
        rate = record["training_images_per_second"]
    cost = {key: record.get(key) for key in ("device", "threads", "seconds", "code")}
    packages = [f"{name} {version}" for name, version in record.get("packages", {}).items()]
    cost |= {"images": images, "images_per_second": rate, "packages": ", ".join(packages) or None}
    return cost | record["peak_memory"]


def sections(table: pd.DataFrame, cells: int) -> list[Section]:
    """Set the costs by stage, teacher and layers: medians, and the highest memory.

    Args:
        table: what `collect` returns. cells: how many the config has.
    """
    keys = ["stage", "teacher", "layers", "device", "threads"]
    lines = []
    for values, rows in table.groupby(keys, sort=False, dropna=False):
        memory = rows[["host_bytes", "gpu_bytes"]].max() / 1e9
        lines.append(
            [NO_VALUE if pd.isna(value) else shown(value) for value in values]
            + [str(len(rows)), measured(rows["seconds"].sum(), 0)]
            + [measured(rows[c].median(), 1) for c in ("seconds", "images_per_second")]
            + [measured(value, 2) for value in memory]
        )
    names = ["runs", "seconds, all", "seconds, median", "images/s, median"]
    body = pd.DataFrame(lines, columns=[*keys, *names, "memory, GB", "GPU memory, GB"])
    done = (table["stage"] == "metrics").sum()
    caption = (
        f"What each stage took, {done} of {cells} cells. Seconds: the whole step, its imports "
        "included; images a second: the work itself, every epoch's images counted. Memory: the "
        "highest of a process. n/a: not recorded, or no such device. Steps that ran side by side "
        "slowed each other. `cost.csv` has every run."
    )
    return [Section("Cost", body, caption)]


def shown(value: object) -> str:
    """Return a key as text; a gap among the threads made them floats."""
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def measured(value: float, digits: int) -> str:
    """Return a number, 'n/a' for NaN."""
    return NO_VALUE if pd.isna(value) else f"{value:,.{digits}f}"
