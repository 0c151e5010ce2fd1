"""Builders of the tests' inputs: small data sets, configs, long tables of made-up metrics."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stpm_bench import grid
from stpm_bench.report.tables import METRICS

SIZE = 32  # of the images of `write_nut`


def write_category(
    root: Path, category: str, train: int = 8, test: int = 3, size: int = 64
) -> None:
    """Write a small category in MVTec's layout: noise, with a bright square as its defect."""
    rng = np.random.default_rng(len(category))

    def save(name: str, array: np.ndarray) -> None:
        path = root / category / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    def noise() -> np.ndarray:
        return rng.integers(80, 160, (size, size, 3), dtype=np.uint8)

    for i in range(train):
        save(f"train/good/{i:03}.png", noise())
    for i in range(test):
        save(f"test/good/{i:03}.png", noise())
        image, mask = noise(), np.zeros((size, size), np.uint8)
        mask[10 + 5 * i : 26 + 5 * i, 20:40] = 255
        image[mask > 0] = 250
        save(f"test/square/{i:03}.png", image)
        save(f"ground_truth/square/{i:03}_mask.png", mask)


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    """A (size, size, 3) uint8 image that is different for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> None:
    """Write an image, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def defect_mask(size: int = SIZE) -> np.ndarray:
    """A (size, size) uint8 mask, 0 or 255: one defect of 8 x 12 pixels."""
    mask = np.zeros((size, size), np.uint8)
    mask[4:12, 8:20] = 255
    return mask


def write_nut(root: Path, category: str = "nut", train: int = 3, test: int = 2) -> Path:
    """Write a small category: `train` images, `test` good ones, `test` of each of two defects."""
    folder = root / category
    for i in range(train):
        save(folder / "train" / "good" / f"{i:03}.png", picture(i))
    for i in range(test):
        save(folder / "test" / "good" / f"{i:03}.png", picture(100 + i))
        for k, defect in enumerate(("bent", "scratch")):
            save(folder / "test" / defect / f"{i:03}.png", picture(200 + 10 * k + i))
            save(folder / "ground_truth" / defect / f"{i:03}_mask.png", defect_mask())
    return folder


def small_config(folder: Path, **changes) -> dict:
    """Return a config of two cells that are trained in seconds, with data in `folder`/data."""
    return {
        "results": str(folder / "results"),
        "data": {"mvtec_ad": str(folder / "data")},
        "image_size": 64,
        "teachers": {"random": {"backbone": "resnet18", "draws": 1}},
        "training": {"epochs": 2, "batch_size": 4},
        "precision": "float32",
        "studies": {
            "main": {
                "category": "all",
                "layers": [[1, 2]],
                "teacher": ["random"],
                "fraction": [1.0],
                "seed": [0],
            }
        },
    } | changes


def long_table(
    settings: Iterable[tuple],
    categories: Sequence[str],
    value: Callable[[tuple, str, int, str], float | None],
    seeds: Sequence[int] = (0, 1, 2),
    metrics: Sequence[str] = tuple(METRICS),
) -> pd.DataFrame:
    """Return a long table of metrics, one row per setting, category, seed and metric.

    Args:
        settings: values of `grid.SETTING`.
        value: of a setting, category, seed and metric; None: there is none, and no row.
    """
    rows = [
        dict(zip(grid.SETTING, setting, strict=True))
        | {"category": category, "seed": seed, "metric": metric, "value": found}
        for setting, category, seed, metric in itertools.product(
            settings, categories, seeds, metrics
        )
        if (found := value(setting, category, seed, metric)) is not None
    ]
    return pd.DataFrame(rows, columns=[*grid.AXES, "metric", "value"])


def random_table(
    categories: Sequence[str],
    layers: Sequence[str] = ("1+2+3",),
    metrics: Sequence[str] = tuple(METRICS),
) -> pd.DataFrame:
    """Return a long table of random values, of one teacher, fraction and method."""
    rng = np.random.default_rng(0)
    settings = [(subset, "t", 1.0, "stpm") for subset in layers]
    return long_table(settings, categories, lambda *_: rng.random(), metrics=metrics)


def cells_of(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of a long table, columns `grid.AXES`."""
    return metrics[list(grid.AXES)].drop_duplicates()
