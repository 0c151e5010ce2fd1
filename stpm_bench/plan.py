"""What a config asks for: its cells and what they share, and the hours and gigabytes left."""

import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from stpm_bench import config as config_of
from stpm_bench import cost, grid, protocols
from stpm_bench.config import Source
from stpm_bench.datasets import layouts
from stpm_bench.grid import Cell
from stpm_bench.protocols import Protocol
from stpm_bench.typeset import Section

# Measured on one core, ResNet-18 at 256 x 256 (README, 'Cost'): what a student trains on a second,
# by the config key 'precision', and what a test image costs in maps and metrics, starts included.
IMAGES_PER_SECOND = {"auto": 27, "bfloat16": 27, "float32": 13}
EVALUATION_SECONDS = 0.2


class StudentCost(NamedTuple):
    """A student's cost on one core, at 256 x 256 in float32, measured on a busy machine."""

    batch_mb: int  # memory while a batch of 32 is trained on
    image_mb: float  # and of an image, whose features are kept
    images_per_second: int


NO_RATES: Mapping[str, float] = MappingProxyType({})
STUDENT_COST = {
    "resnet18": StudentCost(1900, 2.5, 10),
    "resnet34": StudentCost(2500, 2.5, 5),
    "resnet50": StudentCost(6400, 8, 2),
    "wide_resnet50_2": StudentCost(8600, 8, 1),
    "mobilenet_v2": StudentCost(4100, 1.1, 5),
}


def count_images(source: Source, split: str) -> int:
    """Return how many images a split of a category has, or will have once its set is made."""
    every = source.every[split]
    if source.counts:
        return math.ceil(source.counts[split] / every)
    rows, _ = layouts.scan(source.root, source.category, split, source.layout)
    return len(layouts.thinned(rows, source.layout, every))


def training_images(protocol: Protocol, fraction: float, images: int) -> int:
    """Return how many images a student trains on, each epoch's counted.

    Args:
        images: how many training images its category has.
    """
    whole = images * (1 - protocol.validation_fraction)
    used = max(1, round(whole * fraction))
    steps = protocols.optimiser_steps(protocol, used, round(whole))
    return round(used * steps / math.ceil(used / protocol.batch_size))


def is_done(results: str | Path, cell: Cell) -> bool:
    """Return whether a cell has its metrics."""
    return Path(results, "cells", cell.folder, "metrics.json").exists()


def sections(config: dict) -> list[Section]:
    """Set what a completed config asks for: studies, then what is left of hours and gigabytes.

    The rates are the medians of what this config's finished cells recorded, where there are any.
    """
    table = grid.studies(config)
    cells, results = grid.cells(table), config["results"]
    done = {cell for cell in cells if is_done(results, cell)}
    return [studies_section(table, done), left_section(config, cells, done)]


def studies_section(table: pd.DataFrame, done: set[Cell]) -> Section:
    """Set the studies: their cells, how many an earlier study has, how many are done."""
    seen, lines = set(), []
    for name, rows in table.groupby("study", sort=False):
        of_study = set(grid.cells(rows))
        lines.append([name, len(of_study), len(of_study & seen), len(of_study & done)])
        seen |= of_study
    lines.append(["together", len(seen), "", len(done)])
    shown = [[f"{v:,}" if isinstance(v, int) else v for v in line] for line in lines]
    body = pd.DataFrame(shown, columns=["study", "cells", "shared with a study above", "done"])
    shared = [f"{table[axis].nunique()} {name}" for axis, name in SHARED.items()]
    caption = f"A cell is one student. They share {', '.join(shared)}: each is made once."
    return Section("Cells", body, caption)


SHARED = {"category": "prepared categories", "teacher": "teachers"}


def left_section(config: dict, cells: list[Cell], done: set[Cell]) -> Section:
    """Set what is left: images, hours on this machine, gigabytes of results."""
    where, size = config_of.sources(config), config["image_size"]
    count = functools.cache(lambda category, split: count_images(where[category], split))
    left = [cell for cell in cells if cell not in done]
    train = {name: count(name, "train") for name in {cell.category for cell in left}}
    images = images_to_do(config, left, train)
    test = sum(count(cell.category, "test") for cell in left)
    rates, seconds = measured(config, cost.collect(config["results"], sorted(done), []))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    at_once = max(1, cores // config["threads"])
    each = seconds / at_once if seconds else EVALUATION_SECONDS * (size / 256) ** 2 / cores
    training, evaluation = training_hours(config, images, cores, rates), test * each / 3600
    hours = training + evaluation
    stored = sum(map(bytes_of(config, count), left))
    stored += sum(
        prepared_bytes(size, train[name], count(name, "test"))
        for name in train
        if not Path(config["results"], "prepared", name, "test", "images.npy").exists()
    )
    lines = [
        ["training", f"{sum(images.values()):,} images", f"{training:,.1f}", ""],
        ["maps and metrics", f"{test:,} images", f"{evaluation:,.1f}", ""],
        ["together", f"{len(left):,} cells", f"{hours:,.1f}", f"{stored / 1e9:,.1f}"],
    ]
    sources = [f"that the {len(done):,} finished cells recorded"] if rates else []
    if not rates or not {cell.teacher for cell in left} <= set(rates):
        sources.append("of README.md ('Cost')")
    caption = (
        f"Hours: {at_once} at once on {cores} cores, at the rates {' or '.join(sources)}; a GPU is "
        "faster, teachers that are trained here come on top. Gigabytes (10^9 bytes): in "
        f"{config['results']}, without downloads."
    )
    return Section("Left", pd.DataFrame(lines, columns=["", "of", "hours", "GB"]), caption)


def assumed_rates(config: dict) -> dict[str, float]:
    """Return the images a second that a student of each teacher trains on, on one core.

    README's rate of ResNet-18, and of other backbones in proportion to `STUDENT_COST`.
    """
    base = IMAGES_PER_SECOND[config["precision"]] / STUDENT_COST["resnet18"].images_per_second
    base /= (config["image_size"] / 256) ** 2
    return {
        name: base * STUDENT_COST[teacher["backbone"]].images_per_second
        for name, teacher in config["teachers"].items()
    }


def training_hours(
    config: dict, images: Mapping[Cell, int], cores: int, recorded: Mapping[str, float] = NO_RATES
) -> float:
    """Return the hours in which cells are trained on so many cores.

    Args:
        images: how many images each trains on, each epoch's counted.
        recorded: teacher -> images a second of a student on its `threads`, where one was trained;
            `assumed_rates` has the others.
    """
    at_once, assumed = max(1, cores // config["threads"]), assumed_rates(config)
    together = {name: rate * cores for name, rate in assumed.items()}
    together |= {name: rate * at_once for name, rate in recorded.items()}
    return sum(number / together[cell.teacher] for cell, number in images.items()) / 3600


def measured(config: dict, costs: pd.DataFrame) -> tuple[dict[str, float], float | None]:
    """Return what finished cells recorded, medians: by teacher the images a second that a student
    of its backbone trains on, and the seconds of maps and metrics of a test image; {} and None
    without a cell that was evaluated."""
    backbones = {name: teacher["backbone"] for name, teacher in config["teachers"].items()}
    students = costs[costs["stage"] == "student"]
    rates = students["images_per_second"].groupby(students["teacher"].map(backbones)).median()
    scored = costs[costs["stage"].isin(["anomaly_maps", "metrics"])]
    each = (scored["seconds"] / scored["images"]).groupby(scored["stage"]).median()
    if len(each) < 2:
        return {}, None
    known = rates.dropna()
    return {name: known[of] for name, of in backbones.items() if of in known}, each.sum()


def bytes_of(config: dict, count):
    """Return a function: the bytes of a cell's student and maps."""
    from stpm_bench import backbone

    side, teachers = config["image_size"], config["teachers"]

    @functools.cache
    def weights(name: str, deepest: int) -> int:
        network = backbone.create(name, [deepest], seed=0)
        return sum(value.nbytes for value in backbone.state(network).values())

    def of_cell(cell: Cell) -> int:
        levels = grid.parse_layers(cell.layers)
        pixels = side**2 + sum((side // 2 ** (level + 1)) ** 2 for level in levels)
        # The kept and the last epoch's weights; maps of float32.
        student = 2 * weights(teachers[cell.teacher]["backbone"], max(levels))
        return student + 4 * pixels * count(cell.category, "test")

    return of_cell


def prepared_bytes(image_size: int, train: int, test: int) -> int:
    """Return the bytes of a category's arrays: images, and of test images two sets of masks."""
    return image_size**2 * (3 * train + 5 * test)


def images_to_do(config: dict, cells: list[Cell], images: Mapping[str, int]) -> dict[Cell, int]:
    """Return how many images each cell trains on that is not done, each epoch's counted.

    Args:
        images: category -> how many training images it has.
    """
    known = config_of.protocols(config)
    return {
        cell: training_images(known[cell.protocol], cell.fraction, images[cell.category])
        for cell in cells
        if not is_done(config["results"], cell)
    }
