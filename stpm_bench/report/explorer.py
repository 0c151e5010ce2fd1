"""A category's test images and level maps as one HTML page that fuses and thresholds them itself.

The page is `explorer.html` with the data inserted: it needs no server and no network. It computes
the same as `anomaly_map.anomaly_maps` and `metrics.pro`, reimplemented in JavaScript.
"""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stpm_bench.grid import AXES, Cell

TEMPLATE = Path(__file__).with_suffix(".html")
# The template's placeholder for its data.
PLACEHOLDER = "{}"
# Limits of a page: cells, and bytes of level maps (in base64 these become 6.7 MB).
CELLS = 6
MAP_BYTES = 5_000_000
# Level maps: 16 bits per value. Pictures: the maximum side length, and the quality of WebP.
STEPS = 65535
PICTURE_SIZE = 256
PICTURE_QUALITY = 80
# The axes in which a page's cells differ from its first one, used in turn.
COMPARED = ("method", "teacher", "layers")


class Setting(NamedTuple):
    """One cell of the page.

    Attributes:
        cell: the cell.
        fit: the name of its fit's folder: cells of one fit have the same level maps.
        level_maps: name of a level -> (N, H_l, W_l) float32.
        scores: (N,) image scores, as evaluated.
        own: whether the scores are the method's own rather than the maxima of the anomaly maps.
        evaluation: what `Settings.evaluation_part` returns.
        metrics: name -> value, for the category.
    """

    cell: Cell
    fit: str
    level_maps: Mapping[str, np.ndarray]
    scores: np.ndarray
    own: bool
    evaluation: Mapping
    metrics: Mapping[str, float]


def chosen(cells: Iterable[Cell], firsts: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each category's page, chosen by `choose`.

    Args:
        cells: those of every study. firsts: each category's first cell in the main study.
    """
    of_category: dict[str, list[Cell]] = {}
    for cell in cells:
        of_category.setdefault(cell.category, []).append(cell)
    return {first.category: choose(of_category[first.category], first) for first in firsts}


def choose(cells: Sequence[Cell], first: Cell) -> list[Cell]:
    """Return the cells of a category's page, at most `CELLS`.

    The page is named after the first one; the others differ from it in one axis of `COMPARED`: in
    turn the next method, the next teacher, the next levels, in the order of `cells`. A method that
    was not run at these levels may have others, such as PatchCore's defaults.

    Args:
        cells: the category's, from every study. first: its first cell in the main study.
    """

    def differs(cell: Cell) -> set[str]:
        return {axis for axis in AXES if getattr(cell, axis) != getattr(first, axis)}

    found: dict[str, dict[str, Cell]] = {axis: {} for axis in COMPARED}
    # Those at the same levels come first.
    for cell in sorted(cells, key=lambda cell: cell.layers != first.layers):
        axes = differs(cell)
        for axis in COMPARED:
            if axes == {axis} or axes == {axis, "layers"} == {"method", "layers"}:
                found[axis].setdefault(getattr(cell, axis), cell)
    rows = [list(of_axis.values()) for of_axis in found.values()]
    in_turn = [row[i] for i in range(max(map(len, rows))) for row in rows if i < len(row)]
    return [first, *in_turn][:CELLS]


def fitting(settings: Sequence[Setting]) -> tuple[int, int]:
    """Return how many of a page's settings and images fit into `MAP_BYTES`.

    Settings are dropped from the end until two are left; only then are images dropped.
    """
    count = len(next(iter(settings[0].level_maps.values())))
    sizes, known = [], set()
    for setting in settings:
        arrays = () if setting.fit in known else setting.level_maps.values()
        sizes.append(sum(2 * array[0].size for array in arrays))
        known.add(setting.fit)
    kept = len(settings)
    while kept > 2 and count * sum(sizes[:kept]) > MAP_BYTES:
        kept -= 1
    return kept, max(1, min(count, MAP_BYTES // sum(sizes[:kept])))


def spread(scores: np.ndarray, count: int) -> np.ndarray:
    """Return `count` indices of scores (N,), evenly spread over their ranks, in ascending order.

    The lowest and the highest score are included.
    """
    ranks = np.linspace(0, len(scores) - 1, count).round().astype(int)
    return np.sort(np.argsort(scores, kind="stable")[ranks])


def packed(maps: np.ndarray) -> dict:
    """Return maps (N, H, W) with 16 bits per value: low + span * (value / 65535)^2.

    The square gives low values finer steps: maps have heavy tails, and a product of levels
    multiplies the rounding errors. The error is at most 1.6e-5 of the range.

    Returns:
        `height`, `width`, `low`, `span`, and `values`: little-endian uint16, in base64.
    """
    low = float(maps.min())
    span = float(maps.max()) - low
    shares = (maps.astype(float) - low) / (span or 1.0)
    values = np.round(np.sqrt(shares) * STEPS).astype("<u2")
    return {
        "height": maps.shape[1],
        "width": maps.shape[2],
        "low": low,
        "span": span,
        "values": base64.b64encode(values.tobytes()).decode("ascii"),
    }


def unpacked(record: Mapping) -> np.ndarray:
    """Return the maps (N, H, W) float32 from what `packed` returns."""
    values = np.frombuffer(base64.b64decode(record["values"]), "<u2").astype(float)
    maps = record["low"] + record["span"] * (values / STEPS) ** 2
    return maps.reshape(-1, record["height"], record["width"]).astype(np.float32)


def picture(image: np.ndarray) -> str:
    """Return an image (S, S, 3) uint8 as a data: URL."""
    from PIL import Image

    small = Image.fromarray(image)
    if max(small.size) > PICTURE_SIZE:
        small = small.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=PICTURE_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def regions(mask: np.ndarray, apart: bool) -> list[list[int]]:
    """Return the regions of a mask (S, S) bool, each as the lengths of its runs in reading order.

    Args:
        apart: whether to return 8-connected regions, as PRO counts them; else the whole mask is
            one region.

    Returns:
        For each region the lengths of runs: pixels outside, inside, outside, inside, and so on.
    """
    from scipy import ndimage

    from stpm_bench.metrics.ordering import EIGHT_NEIGHBOURS

    labels = ndimage.label(mask, EIGHT_NEIGHBOURS)[0] if apart else mask.astype(int)
    found = []
    for label in range(1, labels.max(initial=0) + 1):
        inside = np.concatenate([[False], (labels == label).ravel(), [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        found.append(np.diff(edges, prepend=0).tolist())
    return found


def labels_of(cells: Sequence[Cell]) -> list[str]:
    """Return the label of each cell of a page: its method and the axes in which they differ."""
    axes = ["method"]
    axes += [a for a in AXES if a != "method" and len({getattr(cell, a) for cell in cells}) > 1]
    words = {"layers": "levels {}", "teacher": "teacher {}"}
    return [
        ", ".join(words.get(axis, "{}").format(getattr(cell, axis)) for axis in axes)
        for cell in cells
    ]


def page(
    category: str,
    files: Sequence[str],
    defects: Sequence[str],
    images: np.ndarray,
    masks: Mapping[str, np.ndarray],
    settings: Sequence[Setting],
    apart: bool = True,
    absent: Sequence[str] = (),
) -> str:
    """Return the page of a category.

    Args:
        files, defects: N names each; the defect is 'good' where there is none.
        images: (N, S, S, 3) uint8.
        masks: treatment -> (N, S, S) bool, or (0, S, S) for a set without masks.
        settings: the page's cells, see `choose`; if empty, the page says why.
        apart: whether the regions of a mask count separately, as in PRO; else a mask is one region.
        absent: sentences about cells that are not in the page.
    """
    kept, count = fitting(settings) if settings else (0, 0)
    rows = spread(settings[0].scores, count) if settings else []
    absent = list(absent)
    if names := labels_of([setting.cell for setting in settings])[kept:]:
        absent.append(f"Left out, to keep this page small: {'; '.join(names)}.")
    if settings and count < len(files):
        absent.append(
            f"The page has {count} of {len(files)} test images, evenly spread over the ranks of "
            "their scores; its rates are those of these images."
        )
    settings = settings[:kept]
    marked = any(array.any() for array in masks.values())
    content = {
        "category": category,
        "size": images.shape[1],
        "steps": STEPS,
        "apart": apart,
        "images": [
            {"file": files[row], "defect": defects[row], "picture": picture(images[row])}
            for row in rows
        ],
        "masks": {
            name: [regions(masks[name][row], apart) for row in rows]
            for name in sorted({setting.evaluation["masks"] for setting in settings})
        }
        if marked
        else {},
        "fits": {
            setting.fit: [
                {"level": level, **packed(maps[rows])} for level, maps in setting.level_maps.items()
            ]
            for setting in settings
        },
        "cells": [
            {
                "label": label,
                "folder": setting.cell.folder,
                "fit": setting.fit,
                "fusion": setting.evaluation.get("fusion", "product"),
                "map_resolution": setting.evaluation.get("map_resolution", "image"),
                "smoothing": setting.evaluation.get("smoothing", 0.0),
                "masks": setting.evaluation["masks"],
                "scores": [float(f"{score:.7g}") for score in setting.scores[rows]]
                if setting.own
                else None,
                "metrics": dict(setting.metrics),
            }
            for label, setting in zip(
                labels_of([setting.cell for setting in settings]), settings, strict=True
            )
        ],
        "absent": absent,
    }
    # A file name may contain the text that would end the script element.
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return with_data(data)


def with_data(data: str) -> str:
    """Return the template with its data inserted."""
    before, mark, after = TEMPLATE.read_text(encoding="utf-8").partition(
        f'<script id="data" type="application/json">{PLACEHOLDER}</script>'
    )
    return before + mark.replace(PLACEHOLDER, data) + after
