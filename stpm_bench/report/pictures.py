"""Figures of images and their maps: the paper's Figure 1, and the method's worst errors."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from stpm_bench.report.style import PAGE_WIDTH, drawing


class Case(NamedTuple):
    """One test image, and how wrong its score is within its category."""

    category: str
    file: str
    defect: str
    # For a defect, the share of good images that score at least as high; for a good image, the
    # share of defects that score at most as high.
    share: float
    # The score divided by the median score of the other kind: orders cases with equal shares.
    ratio: float
    image: np.ndarray  # (S, S, 3) uint8
    mask: np.ndarray | None  # (S, S) bool; None for a set without masks
    anomaly_map: np.ndarray  # (S, S) float, divided by the maximum over its category's maps


def gap(title: str, text: str) -> Figure:
    """Draw an empty frame that says why there is nothing to draw."""
    with drawing():
        figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 1.2), layout="constrained")
        axis.set(xticks=[], yticks=[], title=title)
        axis.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def panel(
    images: np.ndarray,
    masks: np.ndarray,
    level_maps: dict[str, np.ndarray],
    anomaly_maps: np.ndarray,
    defects: Sequence[str],
    scores: np.ndarray,
    title: str,
) -> Figure:
    """Draw the paper's Figure 1 for one category: one row for each kind of defect.

    The row of a defect shows its image of median score, neither the best nor the worst case. The
    columns are the image with the mask's outline, the mask, each level's map and the fused map; a
    set without masks has no outline and no mask. The maps in a column share one colour scale, so
    that rows can be compared; the scale is a square root, because the product of levels has heavy
    tails.

    Args:
        images: (N, S, S, 3) uint8. anomaly_maps: (N, S, S) float.
        masks: (N, S, S) bool, or (0, S, S) for a set without masks.
        level_maps: level -> (N, H_l, W_l) float.
        defects: N names, 'good' where there is no defect.
        scores: (N,) image scores.
    """
    names = pd.Series(list(defects))
    kinds = sorted(set(names) - {"good"}) + ["good"] * ("good" in set(names))
    rows = []
    for kind in kinds:
        members = np.flatnonzero(names == kind)
        rows.append(members[np.argsort(scores[members], kind="stable")[len(members) // 2]])
    maps = {f"level {level}\n({m.shape[-1]}²)": m for level, m in level_maps.items()}
    maps[f"fused\n({anomaly_maps.shape[-1]}²)"] = anomaly_maps
    first = ["image", "ground truth"] if len(masks) else ["image"]
    n_columns = len(first) + len(maps)
    with drawing({"axes.grid": False}):
        cell = PAGE_WIDTH / n_columns
        figure, axes = plt.subplots(
            len(rows),
            n_columns,
            figsize=(PAGE_WIDTH, cell * len(rows) + 0.5),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        for axis, name in zip(axes[0], [*first, *maps], strict=True):
            axis.set_title(name)
        for line, (row, kind) in zip(axes, zip(rows, kinds, strict=True), strict=True):
            line[0].imshow(images[row])
            line[0].set_ylabel(f"{kind}\nscore {scores[row]:.2g}")
            if len(masks):
                outline(line[0], masks[row])
                line[1].imshow(masks[row], cmap="gray", vmin=0, vmax=1)
        for column, (_, values) in enumerate(maps.items(), start=len(first)):
            scale = PowerNorm(0.5, vmin=0, vmax=float(values[rows].max()) or 1.0)
            for axis, row in zip(axes[:, column], rows, strict=True):
                axis.imshow(values[row], cmap="viridis", norm=scale, interpolation="nearest")
        figure.suptitle(title, fontsize=8)
    return figure


def outline(axis: Axes, mask: np.ndarray | None) -> None:
    """Draw a mask's outline: a white line under a dashed black one is visible on any image."""
    if mask is not None and mask.any():
        axis.contour(mask, [0.5], colors="white", linewidths=1.0)
        axis.contour(mask, [0.5], colors="black", linewidths=0.6, linestyles="dashed")


def hardest(
    category: str,
    files: Sequence[str],
    defects: Sequence[str],
    scores: np.ndarray,
    images: np.ndarray,
    masks: np.ndarray,
    anomaly_maps: np.ndarray,
    count: int,
) -> tuple[list[Case], list[Case]]:
    """Return a category's worst misses and worst false alarms, at most `count` each.

    Args:
        files, defects: N names each; the defect is 'good' where there is none.
        scores: (N,). images, masks, anomaly_maps: as in `panel`.
    """
    scores, good = np.asarray(scores, float), np.asarray(list(defects)) == "good"
    highest = float(anomaly_maps.max()) or 1.0

    def case(row: int, share: float, other: np.ndarray) -> Case:
        return Case(
            category,
            files[row],
            defects[row],
            share,
            scores[row] / (np.median(scores[other]) or 1.0),
            images[row],
            masks[row] if len(masks) else None,
            anomaly_maps[row],
        )

    def kept(cases: list[Case]) -> list[Case]:
        """Return the worst as copies: a view would keep every category's arrays in memory."""
        return [
            case._replace(
                image=case.image.copy(),
                mask=None if case.mask is None else case.mask.copy(),
                anomaly_map=case.anomaly_map / highest,
            )
            for case in worst(cases, count)
        ]

    misses = [
        case(row, float((scores[good] >= scores[row]).mean()), good)
        for row in np.flatnonzero(~good)
    ]
    alarms = [
        case(row, float((scores[~good] <= scores[row]).mean()), ~good)
        for row in np.flatnonzero(good)
    ]
    return kept(misses), kept(alarms)


def worst(cases: Iterable[Case], count: int) -> list[Case]:
    """Return the `count` cases with the highest share; ties go to the more extreme score."""

    def order(case: Case) -> tuple:
        return -case.share, case.ratio if case.defect != "good" else -case.ratio, case.file

    return sorted(cases, key=order)[:count]


def failures(misses: Sequence[Case], alarms: Sequence[Case], title: str) -> Figure:
    """Draw misses and false alarms: the image with the mask's outline above, its map below.

    The colour scale of a map ends at the maximum over its category's maps and is a square root: a
    miss is dark where its defect is.
    """
    columns = max(len(misses), len(alarms), 1)
    size = PAGE_WIDTH / max(columns, 4)
    with drawing({"axes.grid": False}):
        figure, axes = plt.subplots(
            4,
            columns,
            figsize=(size * columns, 4 * size + 1.2),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        # The lowest of the defects need not be missed, nor the highest of the others be alarms.
        names = ("defect, low score", "its map", "good, high score", "its map")
        for axis, name in zip(axes[:, 0], names, strict=True):
            axis.set_ylabel(name)
        for cases, (above, below) in ((misses, axes[:2]), (alarms, axes[2:])):
            for case, top, bottom in zip(cases, above, below, strict=False):
                top.imshow(case.image)
                outline(top, case.mask)
                kind = "above" if case.defect == "good" else "below"
                other = "defects" if case.defect == "good" else "good"
                name = case.file.removeprefix("test/").rsplit(".", 1)[0]
                top.set_title(
                    f"{case.category}\n{name}\n{kind} {case.share:.0%} of {other}", fontsize=6
                )
                norm = PowerNorm(0.5, vmin=0, vmax=1)
                bottom.imshow(case.anomaly_map, cmap="viridis", norm=norm)
            for axis in [*above[len(cases) :], *below[len(cases) :]]:
                axis.set_visible(False)
        figure.suptitle(title)
    return figure
