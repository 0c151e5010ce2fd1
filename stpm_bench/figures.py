"""Figures: arrays and tables in, a matplotlib figure out."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")  # figures are written, never shown: works without a screen
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from stpm_bench.files import whole
from stpm_bench.grid import set_of
from stpm_bench.tables import METRICS, SETTING

COLUMN_WIDTH = 3.3  # inches: a column of a two-column paper
PAGE_WIDTH = 6.9
STYLE = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "axes.linewidth": 0.6,
    "figure.dpi": 200,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: text stays text
    "axes.grid": True,
    "grid.linewidth": 0.3,
    "grid.alpha": 0.5,
}


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure to each path, in the format of its suffix, without the date in the file."""
    for path in paths:
        with whole(path) as temporary:
            dated = {"CreationDate": None} if Path(path).suffix == ".pdf" else None
            figure.savefig(temporary, metadata=dated, bbox_inches="tight")
    plt.close(figure)


def panel(
    images: np.ndarray,
    masks: np.ndarray,
    level_maps: dict[str, np.ndarray],
    anomaly_maps: np.ndarray,
    defects: Sequence[str],
    scores: np.ndarray,
    title: str,
) -> Figure:
    """Draw the paper's Figure 1 for one category: a row for each kind of defect.

    The row of a defect is its image of median score, neither the best nor the worst case. Columns:
    the image with the mask's outline, the mask, each level's map, the fused map. A column's maps
    share one colour scale, so that rows can be compared; the scale is a square root, because the
    product of levels has heavy tails.

    Args:
        images: (N, S, S, 3) uint8. masks: (N, S, S) bool. anomaly_maps: (N, S, S) float.
        level_maps: level -> (N, H_l, W_l) float.
        defects: N names, 'good' where there is none.
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
    n_columns = 2 + len(maps)
    with plt.rc_context(STYLE | {"axes.grid": False}):
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
        for axis, name in zip(axes[0], ["image", "ground truth", *maps], strict=True):
            axis.set_title(name)
        for line, (row, kind) in zip(axes, zip(rows, kinds, strict=True), strict=True):
            line[0].imshow(images[row])
            if masks[row].any():
                # A white line under a dashed black one shows on any photograph.
                line[0].contour(masks[row], [0.5], colors="white", linewidths=1.0)
                line[0].contour(
                    masks[row], [0.5], colors="black", linewidths=0.6, linestyles="dashed"
                )
            line[0].set_ylabel(f"{kind}\nscore {scores[row]:.2g}")
            line[1].imshow(masks[row], cmap="gray", vmin=0, vmax=1)
        for column, (_, values) in enumerate(maps.items(), start=2):
            scale = PowerNorm(0.5, vmin=0, vmax=float(values[rows].max()) or 1.0)
            for axis, row in zip(axes[:, column], rows, strict=True):
                axis.imshow(values[row], cmap="viridis", norm=scale, interpolation="nearest")
        figure.suptitle(title, fontsize=8)
    return figure


def gap(title: str, text: str) -> Figure:
    """Draw a frame that says why there is nothing to draw."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 1.2), layout="constrained")
        axis.set(xticks=[], yticks=[], title=title)
        axis.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def study(table: pd.DataFrame, name: str) -> Figure:
    """Draw a study's three metrics: mean over categories, and each category, for each setting.

    Args:
        table: what `tables.study_table` returns.
    """
    varying = [axis for axis in SETTING if table[axis].nunique() > 1]
    groups = {"textures", "objects", "mean", *map(set_of, table["category"])}
    shown = table.copy()
    axis_name = ", ".join(varying) if varying else "category"
    by_category = not varying  # one setting: its categories are what there is to compare
    shown["setting"] = (
        shown["category"] if by_category else shown[varying].astype(str).agg(", ".join, axis=1)
    )
    order = list(dict.fromkeys(shown["setting"]))
    if by_category:
        order = [c for c in order if c not in groups] + ["mean"]
    place = {setting: i for i, setting in enumerate(order)}
    single, mean = shown[~shown["category"].isin(groups)], shown[shown["category"] == "mean"]
    colours = sns.color_palette("colorblind")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(METRICS), figsize=(PAGE_WIDTH, 2.4), sharex=True, layout="constrained"
        )
        for axis, (metric, label) in zip(axes, METRICS.items(), strict=True):
            if by_category:
                shown_mean = pd.concat([single, mean])
            else:
                shown_mean = mean
                sns.stripplot(
                    single,
                    x="setting",
                    y=metric,
                    order=order,
                    ax=axis,
                    color="0.6",
                    size=2.5,
                    jitter=False,  # a jitter is drawn unseeded: the file would differ each time
                    zorder=1,
                )
            axis.errorbar(
                [place[setting] for setting in shown_mean["setting"]],
                shown_mean[metric],
                yerr=shown_mean[f"{metric}_sd"].fillna(0),
                fmt="o",
                markersize=4,
                color=colours[0],
                capsize=2,
                linewidth=1,
                zorder=2,
            )
            axis.set(
                xticks=range(len(order)),
                xticklabels=order,
                xlabel=axis_name,
                ylabel="",
                title=label,
                xlim=(-0.5, len(order) - 0.5),
            )
            axis.tick_params(axis="x", labelrotation=90 if len(order) > 4 else 0)
        what = "mean ± sd over seeds"
        if not by_category:
            what = "blue: mean over categories, ± sd over seeds; grey: each category"
        n = f"categories: {single['category'].nunique()}, seeds: {table['seeds'].max()}"
        figure.suptitle(f"{name} — {what} ({n})", fontsize=7)
    return figure


def training(histories: pd.DataFrame, name: str) -> Figure:
    """Draw the losses of a study's trainings by epoch: a panel a setting, two lines a cell.

    A circle marks the epoch that was kept, a cross where a training failed. Epoch 0 is the
    untrained student.

    Args:
        histories: the rows of each cell's history (see `student.Trained`) beside its axes.
    """
    varying = [axis for axis in SETTING if histories[axis].nunique() > 1]
    settings = list(histories.groupby(SETTING, sort=False))
    columns = min(3, len(settings))
    rows = -(-len(settings) // columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    blue, orange = sns.color_palette("colorblind")[:2]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, 0.5 + 1.7 * rows),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(settings) :]:
            axis.remove()
        for axis, (_, rows_of) in zip(axes.flat, settings, strict=False):
            for _, history in rows_of.groupby(["category", "seed"], sort=False):
                line = {"linewidth": 0.6, "alpha": 0.7}
                axis.plot(history["epoch"], history["train_loss"], color=orange, **line)
                axis.plot(history["epoch"], history["validation_loss"], color=blue, **line)
                marked, marker = history[history["kept"]], "o"
                if marked.empty:
                    finite = np.isfinite(history["validation_loss"])
                    marked, marker = history[finite].tail(1), "x"
                axis.plot(
                    marked["epoch"],
                    marked["validation_loss"],
                    marker,
                    color="black",
                    markersize=3,
                    markerfacecolor="none",
                    markeredgewidth=0.6,
                )
            title = ", ".join(f"{axis} {rows_of[axis].iloc[0]}" for axis in varying)
            axis.set(yscale="log", title=title, xlabel="epoch")
        for axis in axes[:, 0]:
            axis.set_ylabel("loss, mean of an image")
        n = f"categories: {histories['category'].nunique()}, seeds: {histories['seed'].nunique()}"
        figure.suptitle(
            f"{name} — orange: training, blue: validation; circle: the epoch kept, "
            f"cross: failed\n({n})",
            fontsize=7,
        )
    return figure


def definitions(table: pd.DataFrame) -> Figure:
    """Draw by how much each definition of PRO differs from the exact one, a dot a category.

    Args:
        table: what `audit.summary` returns.
    """
    rows = table[(table["definition"] != "mvtec") | (table["masks"] != "nearest")]
    names = rows["definition"].where(
        rows["masks"] == "nearest", rows["definition"] + ", masks " + rows["masks"]
    )
    rows = rows.assign(name=names)
    order = list(dict.fromkeys(rows["name"]))
    single, mean = rows[rows["category"] != "mean"], rows[rows["category"] == "mean"]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, 2.4), layout="constrained")
        axis.axvline(0, color="0.3", linewidth=0.8)
        sns.stripplot(
            single,
            x="difference",
            y="name",
            order=order,
            ax=axis,
            color="0.6",
            size=2.5,
            jitter=False,  # a jitter is drawn unseeded: the file would differ each time
            zorder=1,
        )
        axis.scatter(
            mean["difference"],
            [order.index(name) for name in mean["name"]],
            color=sns.color_palette("colorblind")[0],
            s=16,
            zorder=2,
        )
        axis.set(xlabel="difference in PRO to the exact value", ylabel="")
        n = f"{single['category'].nunique()} categories, {mean['cells'].max():.0f} cells"
        axis.set_title(f"blue: mean, grey: each category ({n})", loc="right")
    return figure
