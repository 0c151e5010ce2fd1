"""What the stages of a run cost: seconds, images per second, peak memory."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from stpm_bench import results as paths
from stpm_bench.files import read_hashes, read_json
from stpm_bench.grid import AXES, SETTING, Cell
from stpm_bench.report.typeset import NO_VALUE, Section

COLUMNS = ["stage", *AXES, "fit", "device", "threads", "fitted_on", "images", "seconds"]
COLUMNS += ["images_per_second", "host_bytes", "gpu_bytes", "code", "packages"]
COLUMNS += ["file", "precision", "steps"]


def collect(
    results: str | Path, fits: Mapping[Cell, str], teachers: Mapping[str, str]
) -> pd.DataFrame:
    """Read what each stage wrote about itself; a stage that has not run has no row.

    Args:
        fits: what `grid.fit_names` returns. teachers: what `grid.teacher_files` returns.

    Returns:
        `COLUMNS`, one row for each teacher and for each stage of each cell. Cells that share a fit
        each get the rows of its stages; `fit` is its name. `seconds` is the whole step including
        the imports that a worker had not made; `images_per_second` is the work alone; `images`
        counts the images of every epoch; `fitted_on` is the number of training images of a fit,
        without those for validation; `code` is the version of the stage's code, None for a teacher;
        `packages` is 'torch 2.15.0, numpy 2.4.6', None where the stage does not record them; `file`
        is the file of the method's code, `precision` the precision of a fit, and `steps` the number
        of optimiser steps.
    """
    rows = []
    for file, name in teachers.items():
        path = Path(results, "teachers", f"{file}.json")
        if path.exists():
            record = read_json(path)
            rows.append({"stage": "teacher", "teacher": name} | teacher_cost(record))
    of_fit = {}
    for cell, fit in fits.items():
        if fit not in of_fit:
            folder = paths.fit_folder(results, fit)
            of_fit[fit] = list(stages(folder, ("fit", "score")))
        of_cell = stages(paths.cell_folder(results, cell), ("evaluate",))
        for row in (*of_fit[fit], *of_cell):
            rows.append(row | cell._asdict() | {"fit": fit})
    return pd.DataFrame(rows, columns=COLUMNS)


def stages(folder: Path, names: Iterable[str]) -> Iterator[dict]:
    """Yield the cost of each stage that ran in a folder; a stage with nothing to do has no row."""
    records = read_hashes(folder)
    for name in names:
        path = folder / paths.STAGES[name]
        if path.exists():
            record = read_json(path, records)
            if "images" in record:  # else the fit had failed, and the stage had nothing to do
                yield {"stage": name} | stage_cost(record)


def teacher_cost(record: dict) -> dict:
    """Return a teacher's cost; one that was not trained here has no images."""
    cost = {key: record.get(key) for key in ("device", "threads", "seconds")}
    if "training_seconds" in record:
        images = record["train_images"] * record["epochs"]
        cost |= {"images": images, "images_per_second": images / record["training_seconds"]}
    return cost | record.get("peak_memory", {})


def stage_cost(record: dict) -> dict:
    """Return the cost of a stage of a cell."""
    keys = ("device", "threads", "images", "seconds", "images_per_second", "code")
    cost = {key: record.get(key) for key in keys}
    packages = [f"{name} {version}" for name, version in record.get("packages", {}).items()]
    cost |= {"fitted_on": record.get("split", {}).get("training")}
    cost |= {"file": record.get("settings", {}).get("file"), "precision": record.get("precision")}
    cost |= {"steps": record.get("steps")}
    return cost | {"packages": ", ".join(packages) or None} | record["peak_memory"]


def sections(table: pd.DataFrame, cells: int) -> list[Section]:
    """Format the costs by stage and setting, as medians over categories and seeds.

    A fit that several cells share is counted once, under the setting of the first of them.

    Args:
        table: what `collect` returns. cells: the number of cells of the config.
    """
    keys = ["stage", *SETTING, "device", "threads"]
    lines = []
    evaluated = table["stage"] == "evaluate"
    once = table[evaluated | ~table.duplicated(["stage", "fit", "teacher"])]
    for values, rows in once.groupby(keys, sort=False, dropna=False):
        memory = rows[["host_bytes", "gpu_bytes"]].max() / 1e9
        lines.append(
            [NO_VALUE if pd.isna(value) else shown(value) for value in values]
            + [str(len(rows)), span(rows["fitted_on"]), measured(rows["seconds"].sum(), 0)]
            + [measured(rows["seconds"].median(), 1), span(rows["seconds"], 1)]
            + [measured(rows["images_per_second"].median(), 1)]
            + [measured(value, 2) for value in memory]
        )
    names = ["runs", "fitted on", "seconds, all", "seconds, median", "seconds, range"]
    names += ["images/s, median"]
    body = pd.DataFrame(lines, columns=[*keys, *names, "memory, GB", "GPU memory, GB"])
    done = evaluated.sum()
    caption = (
        f"What each stage took, {done} of {cells} cells, by setting; medians and ranges are over "
        "categories and seeds. Fitted on: the number of training images, without those used for "
        "validation. Seconds: the whole step with the imports of its own process. Images/s: the "
        "work alone, counting the images of every epoch. Memory: the peak of one process. n/a: not "
        "recorded, or no such device. Steps that ran in parallel slowed each other down. "
        "`cost.csv` has every run."
    )
    return [Section("Cost", body, caption)]


def steps_by_setting(table: pd.DataFrame) -> dict[tuple, str]:
    """Return the optimiser steps of each setting's fits, as 'low to high' over its categories.

    A setting whose fits took no steps, or did not record them, is left out.

    Args:
        table: what `collect` returns.
    """
    fits = table[(table["stage"] == "fit") & table["steps"].notna()]
    return {setting: span(rows["steps"]) for setting, rows in fits.groupby(list(SETTING))}


def span(values: pd.Series, digits: int = 0) -> str:
    """Return the range of some numbers as 'low to high', or as one number if there is one value or
    if they are counts (`digits` 0) that are all equal."""
    low, high = measured(values.min(), digits), measured(values.max(), digits)
    return low if len(values) == 1 or (not digits and low == high) else f"{low} to {high}"


def shown(value: object) -> str:
    """Return a key as text; pandas turns `threads` into floats where some are missing."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def measured(value: float, digits: int) -> str:
    """Return a number, 'n/a' for NaN."""
    return NO_VALUE if pd.isna(value) else f"{value:,.{digits}f}"
