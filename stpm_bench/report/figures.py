"""Figures of tables and curves: pandas in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from stpm_bench.grid import SETTING, varying
from stpm_bench.report import audit_table
from stpm_bench.report.style import BLUE, COLUMN_WIDTH, GREY, ORANGE, PAGE_WIDTH, drawing
from stpm_bench.report.tables import (
    CATEGORY,
    GROUP,
    MEAN,
    METRICS,
    counted_seeds,
    metrics_of,
    seeds,
    setting_names,
    split_by_pro,
)

MOST_SETTINGS = 30  # settings that one figure shows; tables have all
MARKERS = ("D", "o", "s", "^", "v", "P")
MOST_LINES = len(MARKERS)  # of a figure against the fraction
LEGEND_COLUMNS = 3
LIMIT, EDGE = 0.3, 0.345  # of the false-positive rate: the integration limit, the end of the axis
LONG_NAME = 10  # characters
LABELS = {"layers": "levels matched", "teacher": "teacher", "fraction": "training images"}


def study(table: pd.DataFrame, accuracies: Mapping[str, float | None]) -> Figure:
    """Draw a study's metrics: against the fraction with a line for each value of the other axes, or
    one row for each setting or category.

    If there are more than `MOST_SETTINGS` settings, only the best are drawn. Sets without PRO are
    left to the tables if there are other sets.

    Args:
        table: what `tables.study_table` returns.
        accuracies: teacher -> its test accuracy in [0, 1], None where it has none.
    """
    table = split_by_pro(table).get("", table)
    if "fraction" in varying(table):
        fractions = table.groupby(line_names(table))["fraction"].nunique()
        if len(fractions) <= MOST_LINES and fractions.min() > 1:
            return against_fraction(table)
    mean = parts(table)[1]
    if len(mean) <= MOST_SETTINGS:
        return rows(table, accuracies)
    best = mean.nlargest(MOST_SETTINGS, metrics_of(table)[-1])[list(SETTING)]
    figure = rows(table.merge(best), accuracies)
    figure.suptitle(f"{figure.get_suptitle()}\nthe best {MOST_SETTINGS} of {len(mean)} settings")
    return figure


def first_settings(cells: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the cells of the first `MOST_SETTINGS` settings, and the title's note of the cut."""
    number = cells.groupby(list(SETTING), sort=False).ngroup()
    count = number.max() + 1
    text = f", the first {MOST_SETTINGS} of {count} settings" if count > MOST_SETTINGS else ""
    return cells[number < MOST_SETTINGS], text


def rows(table: pd.DataFrame, accuracies: Mapping[str, float | None]) -> Figure:
    """Draw one row for each setting (its mean and each category), or one for each category."""
    single, mean = parts(table)
    axes_that_vary = varying(table)
    if axes_that_vary:
        names = setting_names(table)
        places = dict(zip(dict.fromkeys(names), range(len(table)), strict=False))
        names_shown = list(places)
        if axes_that_vary == ["teacher"]:
            names_shown = [with_accuracy(name, accuracies.get(name)) for name in places]
        position = names.map(places)
        # One line each: the label is turned, and rows may be few.
        axis_label = ",\n".join(LABELS.get(axis, axis) for axis in axes_that_vary)
        shown = mean
    else:  # one setting: the categories are compared
        names_shown = [*dict.fromkeys(single["category"]), "mean"]
        position = table["category"].map({name: i for i, name in enumerate(names_shown)})
        axis_label, shown = "category", pd.concat([single, mean])
    lines = sum(name.count("\n") + 1 for name in names_shown)
    fewest = 5 if "\n" in axis_label else 3  # rows beside which the label finds room
    # Long names leave the panels little width: fewer numbers below them, and labels of two lines.
    narrow = max(map(len, names_shown)) > LONG_NAME
    ticks = 2 if narrow else 3
    metrics = {name: METRICS[name] for name in metrics_of(table)}
    with drawing():
        figure, axes = plt.subplots(
            1,
            len(metrics),
            figsize=(COLUMN_WIDTH, 0.75 + 0.14 * max(lines, fewest)),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, (metric, label) in zip(axes[0], metrics.items(), strict=True):
            if axes_that_vary:
                circles(axis, single[metric], position[single.index])
            axis.errorbar(
                shown[metric],
                position[shown.index],
                xerr=shown[f"{metric}_sd"].fillna(0),
                **DIAMOND,
            )
            axis.set(yticks=range(len(names_shown)), yticklabels=names_shown)
            axis.set_xlabel(label.replace(" ", "\n") if narrow else label)
            axis.set_ylim(len(names_shown) - 0.4, -0.6)
            axis.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 4, 5, 10]))
            axis.margins(x=0.12)
            if not axes_that_vary:
                axis.axhline(len(names_shown) - 1.5, color="0.3", linewidth=0.4)
        axes[0, 0].set_ylabel(axis_label)
        figure.suptitle(legend(table, bool(axes_that_vary)))
    return figure


def line_names(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's line in `against_fraction`: its setting without the fraction,
    and without the levels where each method has its own; '' if there is one line."""
    without = table.assign(fraction=1.0)
    if table["method"].nunique() > 1 and table.groupby("method")["layers"].nunique().max() == 1:
        without["layers"] = ""
    return setting_names(without)


def against_fraction(table: pd.DataFrame) -> Figure:
    """Draw each metric against the share of the training images, on a logarithmic axis.

    One line of means for each value of the other axes; a single line is drawn over those of the
    categories.
    """
    names = line_names(table)
    shades = colours(list(dict.fromkeys(names)))
    single, mean = parts(table)
    fractions = sorted(table["fraction"].unique())
    metrics = {name: METRICS[name] for name in metrics_of(table)}
    below = 0.12 * -(-len(shades) // LEGEND_COLUMNS) if len(shades) > 1 else 0
    with drawing():
        figure, axes = plt.subplots(
            1,
            len(metrics),
            figsize=(COLUMN_WIDTH, 1.6 + below),
            squeeze=False,
            layout="constrained",
        )
        for axis, (metric, label) in zip(axes[0], metrics.items(), strict=True):
            if len(shades) == 1:
                for _, line in single.groupby("category", sort=False):
                    line = line.sort_values("fraction")
                    axis.plot(line["fraction"], line[metric], color=GREY, linewidth=0.5, zorder=1)
                circles(axis, single["fraction"], single[metric])
            for marker, (name, shade) in zip(MARKERS, shades.items(), strict=False):
                line = mean[names[mean.index] == name].sort_values("fraction")
                axis.errorbar(
                    line["fraction"],
                    line[metric],
                    yerr=line[f"{metric}_sd"].fillna(0),
                    label=name,
                    **DIAMOND | {"fmt": marker, "linestyle": "-", "color": shade, "ecolor": shade},
                )
            axis.set(xscale="log", title=label)
            axis.set_xticks(fractions, [f"{100 * fraction:g}" for fraction in fractions])
            axis.minorticks_off()
            axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axis.margins(x=0.15)
        axes[0, len(metrics) // 2].set_xlabel("training images, % (logarithmic)")
        if len(shades) > 1:
            handles, _ = axes[0, 0].get_legend_handles_labels()
            figure.legend(
                handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False
            )
        figure.suptitle(legend(table, by_setting=True, each_category=len(shades) == 1))
    return figure


DIAMOND = {
    "fmt": "D",
    "markersize": 3.5,
    "color": BLUE,
    "markeredgecolor": "black",
    "markeredgewidth": 0.4,
    "ecolor": BLUE,
    "capsize": 1.5,
    "elinewidth": 0.8,
    "linestyle": "none",
    "linewidth": 0.8,
    "zorder": 3,
}


def circles(axis: Axes, x: pd.Series, y: pd.Series) -> None:
    """Draw a small open circle for each category."""
    axis.scatter(x, y, s=5, facecolors="none", edgecolors=GREY, linewidths=0.5, zorder=2)


def parts(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a study's rows of single categories, and its rows of means."""
    return table[table["kind"] == CATEGORY], table[table["kind"] == MEAN]


def with_accuracy(teacher: str, accuracy: float | None) -> str:
    """Return a teacher's label: its name, and below it the accuracy on its own task."""
    return teacher if accuracy is None else f"{teacher}\n({accuracy:.1%} accuracy)"


def legend(table: pd.DataFrame, by_setting: bool, each_category: bool = True) -> str:
    """Return what the marks mean, and the numbers of categories and seeds behind them."""
    categories = parts(table)[0]["category"].nunique()
    n = f"n = {categories} {'category' if categories == 1 else 'categories'}"
    n += f" × {seeds(table)}"
    spread = " ± sd over seeds" if table["seeds"].max() > 1 else ""
    if by_setting:
        if not each_category:
            return f"mean over categories{spread}\n{n}"
        return f"diamond: mean over categories{spread}; circle: a category\n{n}"
    return f"mean{spread}; {n}"


def difference_to_paper(table: pd.DataFrame) -> Figure:
    """Draw by how much each category's value differs from the paper's, one dot per category.

    Where no category has both values, the figure says so.

    Args:
        table: what `tables.study_table` returns.
    """
    table = table[table["kind"] != GROUP]
    single = parts(table)[0]
    # The paper prints only the mean of image AUROC: there is nothing to draw by category.
    metrics = {
        metric: METRICS[metric]
        for metric in metrics_of(table)
        if single[f"{metric}_difference"].notna().any()
    }
    if not metrics:
        return empty("no category here has a value of the paper to compare with")
    known = [table[f"{metric}_difference"].notna() for metric in metrics]
    rows = table[np.any(known, axis=0)]
    means = rows["kind"] != CATEGORY
    with drawing():
        figure, axes = plt.subplots(
            1,
            len(metrics),
            figsize=(COLUMN_WIDTH, 0.75 + 0.14 * max(len(rows), 3)),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        place = np.arange(len(rows))
        for axis, (metric, label) in zip(axes[0], metrics.items(), strict=True):
            axis.axvline(0, color="0.3", linewidth=0.8)
            axis.errorbar(
                rows[f"{metric}_difference"], place, xerr=rows[f"{metric}_sd"].fillna(0), **DIAMOND
            )
            axis.set(title=label, yticks=place, yticklabels=rows["category"])
            axis.set_ylim(len(rows) - 0.4, -0.6)
            if means.any():
                axis.axhline((~means).sum() - 0.5, color="0.3", linewidth=0.4)
            axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            axis.margins(x=0.12)
        figure.supxlabel("ours less the paper's", fontsize=7)
        axes[0, 0].set_ylabel("category")
        figure.suptitle(legend(rows, by_setting=False))
    return figure


def empty(text: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    with drawing():
        figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, 0.5))
        axis.axis("off")
        axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
    return figure


def pro_curves(curves: pd.DataFrame, scores: Mapping[str, float]) -> Figure:
    """Draw the PRO curves of a setting up to the limit; what lies beyond is shaded.

    Args:
        curves: columns `category`, `seed`, `fpr`, `overlap`.
        scores: category -> PRO, the mean over seeds.
    """
    fpr = np.linspace(0, 1, 401) ** 2 * LIMIT  # dense where the curves rise
    lines = {
        category: np.mean(
            [np.interp(fpr, one["fpr"], one["overlap"]) for _, one in rows.groupby("seed")], axis=0
        )
        for category, rows in curves.groupby("category", sort=False)
    }
    over = counted_seeds(curves.groupby("category")["seed"].nunique())
    with drawing():
        figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, 2.8), layout="constrained")
        for line in lines.values():
            axis.plot(fpr, line, color=GREY, linewidth=0.5, zorder=1)
        if len(lines) > 1:
            axis.lines[0].set_label("each category")
            ranked = sorted(lines, key=lambda category: scores[category])
            for category, name, colour, dashes in (
                (ranked[-1], "highest", BLUE, (0, (4, 1.5))),
                (ranked[0], "lowest", ORANGE, (0, (1, 1))),
            ):
                label = f"{name}: {category}, PRO {scores[category]:.3f}"
                axis.plot(fpr, lines[category], color=colour, linestyle=dashes, label=label)
        if lines:
            label = f"mean of {len(lines)}" if len(lines) > 1 else next(iter(lines))
            label += f", PRO {np.mean([scores[category] for category in lines]):.3f}"
            mean = np.mean(list(lines.values()), axis=0)
            axis.plot(fpr, mean, color="black", linewidth=1.4, label=label)
            figure.legend(loc="outside lower right", frameon=False)
        axis.axvspan(LIMIT, EDGE, color="0.88", linewidth=0)
        where = {"x": (LIMIT + EDGE) / 2, "y": 0.5, "rotation": 90, "ha": "center", "va": "center"}
        axis.text(s=f"beyond the limit of {LIMIT}", **where)
        axis.set(
            xlabel="false-positive rate of pixels",
            ylabel="mean overlap with the regions",
            xlim=(0, EDGE),
            ylim=(0, 1.02),
        )
        n = f"n = {len(lines)} {'category' if len(lines) == 1 else 'categories'}"
        axis.set_title(f"{n}, mean over {over}")
    return figure


def training(histories: pd.DataFrame, name: str) -> Figure:
    """Draw the losses of a study's trainings by epoch: one panel per setting, two lines per cell.

    A colour stands for a category, or for a seed if there is only one category. A circle marks the
    epoch that was kept, a cross marks a failed training. Epoch 0 is the untrained student.

    Args:
        histories: the rows of each cell's history (see `student.Trained`), with the cell's axes.
    """
    settings = list(histories.groupby(list(SETTING), sort=False))
    columns = min(3, len(settings))
    rows = -(-len(settings) // columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    coloured = "category" if histories["category"].nunique() > 1 else "seed"
    shades = colours(list(dict.fromkeys(histories[coloured])))
    failed = ~histories.groupby([*SETTING, "category", "seed"])["kept"].any().all()
    with drawing():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, 0.9 + 1.7 * rows + 0.12 * len(shades) / (3 if columns == 1 else 6)),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(settings) :]:
            axis.remove()
        for axis, (_, rows_of) in zip(axes.flat, settings, strict=False):
            for _, history in rows_of.groupby(["category", "seed"], sort=False):
                line = {"linewidth": 0.7, "color": shades[history[coloured].iloc[0]]}
                axis.plot(history["epoch"], history["train_loss"], "--", **line)
                axis.plot(history["epoch"], history["validation_loss"], **line)
                marked, marker = history[history["kept"]], "o"
                if marked.empty:
                    finite = np.isfinite(history["validation_loss"])
                    marked, marker = history[finite].tail(1), "x"
                axis.plot(marked["epoch"], marked["validation_loss"], marker, **MARK)
            title = ", ".join(f"{axis} {rows_of[axis].iloc[0]}" for axis in varying(histories))
            axis.set(yscale="log", title=title, xlabel="epoch")
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for axis in axes[:, 0]:
            axis.set_ylabel("loss, mean of an image")
        handles = [
            Line2D([], [], color="black", linestyle="--", linewidth=0.7, label="training"),
            Line2D([], [], color="black", linewidth=0.7, label="validation"),
            Line2D([], [], linestyle="none", marker="o", label="epoch kept", **MARK),
        ]
        if failed:
            mark = {"linestyle": "none", "marker": "x", "label": "training failed"}
            handles.append(Line2D([], [], **mark, **MARK))
        handles += [
            Line2D([], [], color=shade, label=f"seed {value}" if coloured == "seed" else value)
            for value, shade in shades.items()
        ]
        ncols = 3 if columns == 1 else 6
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, frameon=False)
        count = histories["category"].nunique()
        n = f"n = {count} {'category' if count == 1 else 'categories'}"
        n += f" × {counted_seeds(pd.Series([histories['seed'].nunique()]))}"
        one = f"category {histories['category'].iloc[0]}, " if count == 1 else ""
        figure.suptitle(f"{name}: {one}{n}, two lines each", fontsize=7)
    return figure


MARK = {"color": "black", "markersize": 3, "markerfacecolor": "none", "markeredgewidth": 0.6}


def colours(values: Sequence) -> dict:
    """Return a colour for each value, from the palette that has enough of them."""
    palette = "colorblind" if len(values) <= 10 else "tab20" if len(values) <= 20 else "husl"
    return dict(zip(values, sns.color_palette(palette, len(values)), strict=True))


def definitions(table: pd.DataFrame) -> Figure:
    """Draw the difference of each definition of PRO from the exact one, one circle per category.

    Treatments of the masks that give equal values are drawn once.

    Args:
        table: what `audit_table.summary` returns.
    """
    treatments = audit_table.equal_treatments(table)
    table = table[table["masks"].isin(treatments)]
    rows = table[(table["definition"] != "mvtec") | (table["masks"] != "nearest")]
    names = rows["definition"].where(
        rows["masks"] == "nearest", rows["definition"] + ", masks " + rows["masks"]
    )
    rows = rows.assign(name=names)
    order = list(dict.fromkeys(rows["name"]))
    single, mean = parts(rows)
    with drawing():
        height = 0.9 + 0.12 * max(len(order), 6)
        figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, height), layout="constrained")
        axis.axvline(0, color="0.3", linewidth=0.8)
        sns.stripplot(
            single,
            x="difference",
            y="name",
            order=order,
            ax=axis,
            facecolors="none",
            edgecolor=GREY,
            linewidth=0.5,
            size=2.5,
            jitter=False,  # jitter is unseeded: the file would differ each time
            zorder=1,
        )
        axis.errorbar(mean["difference"], mean["name"].map(order.index), **DIAMOND)
        axis.set(xlabel="difference in PRO from the exact value", ylabel="definition")
        categories = single["category"].nunique()
        n = f"n = {categories} {'category' if categories == 1 else 'categories'}"
        n += f", {mean['cells'].max():.0f} cells"
        equal = [f"masks {', '.join(names)}: equal" for names in treatments.values() if names[1:]]
        lines = ["diamond: mean over categories; circle: a category", n, *equal]
        figure.suptitle("\n".join(lines))
    return figure
