"""What a config plans: its cells, what they share, and the remaining hours and gigabytes."""

import functools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from stpm_bench import config as configs
from stpm_bench import grid
from stpm_bench.code_version import version_of
from stpm_bench.config import Source
from stpm_bench.datasets import layouts
from stpm_bench.grid import Cell
from stpm_bench.levels import parse_layers
from stpm_bench.report import cost
from stpm_bench.report.typeset import Section
from stpm_bench.results import STAGES, cell_folder, fit_folder
from stpm_bench.run import rates


def count_images(source: Source, split: str) -> int:
    """Return how many images a split of a category has, or will have once its set is made."""
    every = source.every[split]
    if source.counts:
        return math.ceil(source.counts[split] / every)
    rows, _ = layouts.scan(source.root, source.category, split, source.layout)
    return len(layouts.subsample(rows, source.layout, every))


def is_done(results: str | Path, cell: Cell) -> bool:
    """Return whether a cell has its metrics."""
    return cell_folder(results, cell).joinpath("metrics.json").exists()


def sections(config: dict) -> list[Section]:
    """Format what a completed config plans: studies, then the remaining hours and gigabytes.

    The rates are the medians recorded by this config's finished cells, if there are any.
    """
    table = grid.studies(config)
    cells, results = grid.cells(table), config["results"]
    done = {cell for cell in cells if is_done(results, cell)}
    return [studies_section(table, done), remaining_section(config, grid.fit_names(table), done)]


def studies_section(table: pd.DataFrame, done: set[Cell]) -> Section:
    """Format the studies: their cells, how many an earlier study has, how many are done."""
    seen, lines = set(), []
    for name, rows in table.groupby("study", sort=False):
        study_cells = set(grid.cells(rows))
        lines.append([name, len(study_cells), len(study_cells & seen), len(study_cells & done)])
        seen |= study_cells
    lines.append(["total", len(seen), "", len(done)])
    shown = [[f"{v:,}" if isinstance(v, int) else v for v in line] for line in lines]
    body = pd.DataFrame(shown, columns=["study", "cells", "shared with a study above", "done"])
    shared = [f"{name} ({table[column].nunique():,})" for column, name in SHARED.items()]
    caption = (
        "A cell is one method's run on one category, evaluated. The cells share "
        f"{', '.join(shared)}, each of which is made once."
    )
    return Section("Cells", body, caption)


SHARED = {"category": "prepared categories", "teacher_file": "teachers", "fit": "fits"}


def remaining_section(config: dict, fits: Mapping[Cell, str], done: set[Cell]) -> Section:
    """Format what is left: images, hours on this machine, gigabytes of results."""
    category_sources = configs.sources(config)
    size, results = config["image_size"], config["results"]
    count = functools.cache(lambda category, split: count_images(category_sources[category], split))
    left = [cell for cell in fits if cell not in done]
    train = {name: count(name, "train") for name in {cell.category for cell in left}}
    todo = images_to_do(config, fits, train)
    test = sum(count(cell.category, "test") for cell in left)
    finished = {cell: fit for cell, fit in fits.items() if cell in done}
    known_rates, cores = rates.rates(config, fits), rates.available_cores()
    seconds = evaluation_seconds(cost.collect(results, finished, {}))
    at_once = max(1, cores // config["threads"])
    each = seconds / at_once if seconds else rates.EVALUATION_SECONDS * (size / 256) ** 2 / cores
    fitting, evaluation = rates.fit_hours(config, todo, cores, known_rates), test * each / 3600
    known = configs.methods(config)
    extra = sum(count(c.category, "test") * known[c.method].extra_seconds for c in todo)
    evaluation += extra * (size / 256) ** 4 / cores / 3600  # compares all pairs of positions
    teachers = teachers_to_do(config, left)
    pretraining = rates.pretraining_hours(
        teachers.values(), pretraining_images(teachers.values()), cores
    )
    hours = fitting + evaluation + pretraining
    unfitted = {fits[cell]: cell for cell in left if not is_scored(results, fits[cell])}
    fit_bytes = bytes_of(config, count)
    stored = sum(fit_bytes(cell) for cell in unfitted.values())
    stored += sum(
        prepared_bytes(size, train[name], count(name, "test"))
        for name in train
        if not Path(results, "prepared", name, "test", "images.npy").exists()
    )
    lines = [
        ["teachers", f"{len(teachers):,}", f"{pretraining:,.1f}", ""],
        ["fits", f"{sum(todo.values()):,} images", f"{fitting:,.1f}", ""],
        ["maps and metrics", f"{test:,} images", f"{evaluation:,.1f}", ""],
        ["total", f"{len(left):,} cells", f"{hours:,.1f}", f"{stored / 1e9:,.1f}"],
    ]
    caption = (
        f"Hours: {rates.fits_at_once(config, cores)} fits at a time on "
        f"{rates.place(config, cores)}; "
        f"{known_rates.source_text(left)}. "
        f"Gigabytes (10^9 bytes): models, level maps and prepared images in {results}, without "
        "downloads."
    )
    return Section("Remaining", pd.DataFrame(lines, columns=["", "number", "hours", "GB"]), caption)


def teachers_to_do(config: dict, left: Iterable[Cell]) -> dict[str, dict]:
    """Return the teachers that cells still need: name of the file -> entry in the config."""
    files = {
        grid.teacher_file(cell.teacher, config["teachers"][cell.teacher], cell.seed): cell.teacher
        for cell in left
    }
    return {
        file: config["teachers"][name]
        for file, name in files.items()
        if not Path(config["results"], "teachers", f"{file}.pt").exists()
    }


def is_scored(results: str | Path, fit: str) -> bool:
    """Return whether a fit has the level maps of the test images."""
    return fit_folder(results, fit).joinpath("level_maps.npz").exists()


def evaluation_seconds(costs: pd.DataFrame) -> float | None:
    """Return the median of the seconds per test image for maps and metrics that finished cells
    recorded; None if there are none.

    Args:
        costs: what `cost.collect` returns.
    """
    scored = costs[costs["stage"].isin(["score", "evaluate"])]
    each = (scored["seconds"] / scored["images"]).astype(float).groupby(scored["stage"]).median()
    return None if len(each) < 2 else each.sum()


def pretraining_images(teachers: Iterable[Mapping]) -> dict[str, int]:
    """Return the number of training images of the teachers' pretraining sets, counting the files of
    an image folder; the keys are the config's 'pretrain' as text."""
    found = dict(PRETRAINING_IMAGES)
    for teacher in teachers:
        if isinstance(source := teacher.get("pretrain"), dict):
            files = Path(source["folder"], "train").glob("*/*")
            found.setdefault(str(source), sum(1 for _ in files))
    return found


PRETRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}


def bytes_of(config: dict, count):
    """Return a function that gives the bytes of a cell's fit: its model and level maps."""
    from stpm_bench import backbone

    side, teachers = config["image_size"], config["teachers"]
    known = configs.methods(config)

    @functools.cache
    def weights(name: str, deepest: int) -> int:
        network = backbone.create(name, [deepest], seed=0)
        return sum(value.nbytes for value in backbone.state(network).values())

    def fit_bytes(cell: Cell) -> int:
        levels, settings = parse_layers(cell.layers), known[cell.method]
        pixels = sum((side // 2 ** (level + 1)) ** 2 for level in settings.map_levels(levels))
        bytes_of_maps = 4 * pixels * count(cell.category, "test")  # float32
        networks = settings.networks() if configs.keeps_model(config, settings) else 0
        if not networks:
            return bytes_of_maps
        return bytes_of_maps + networks * weights(teachers[cell.teacher]["backbone"], max(levels))

    return fit_bytes


def prepared_bytes(image_size: int, train: int, test: int) -> int:
    """Return the bytes of a category's arrays: the images, and two sets of masks per test image."""
    return image_size**2 * (3 * train + 5 * test)


def images_to_do(
    config: dict, fits: Mapping[Cell, str], images: Mapping[str, int]
) -> dict[Cell, int]:
    """Return how many images each fit that is not yet scored processes, counting every epoch.

    Args:
        fits: what `grid.fit_names` returns; the first cell of each fit represents it.
        images: category -> how many training images it has.
    """
    known = configs.methods(config)
    first = {fit: cell for cell, fit in reversed(fits.items())}
    return {
        cell: known[cell.method].fit_images(images[cell.category], cell.fraction)
        for fit, cell in reversed(first.items())
        if not is_scored(config["results"], fit)
    }


def fits_without_models(config: dict, fits: Mapping[Cell, str]) -> list[str]:
    """Return the fits whose scores come from different code and whose model was not kept: they must
    be fitted again before they can be scored again."""
    known, found = configs.methods(config), []
    temporary = {n: s for n, s in known.items() if not configs.keeps_model(config, s)}
    versions = {s.module: version_of("score", s.module) for s in temporary.values()}
    for fit, cell in {fit: cell for cell, fit in fits.items()}.items():
        folder = fit_folder(config["results"], fit)
        record, model = folder / STAGES["score"], folder / "model.pt"
        if cell.method in temporary and record.exists() and not model.exists():
            code = json.loads(record.read_text()).get("code")
            found += [fit] if code != versions[known[cell.method].module] else []
    return found


def stale(config: dict) -> dict[Path, int]:
    """Return what is in the results but not part of a completed config, with its bytes: folders of
    cells, fits and prepared categories, files of teachers."""
    results = Path(config["results"])
    table = grid.studies(config)
    wanted = {
        "cells": {cell.folder for cell in grid.cells(table)},
        "fits": set(table["fit"]),
        "prepared": set(table["category"]),
    }
    found = [
        path
        for kind, names in wanted.items()
        for path in sorted((results / kind).glob("*"))
        if path.is_dir() and path.name not in names
    ]
    teachers = {f"{name}{suffix}" for name in table["teacher_file"] for suffix in TEACHER_FILES}
    files = sorted((results / "teachers").glob("*"))
    found += [path for path in files if path.is_file() and path.name not in teachers]
    return {path: bytes_below(path) for path in found}


TEACHER_FILES = (".pt", ".json", ".sha256", ".unfinished", ".unfinished.sha256")


def bytes_below(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
