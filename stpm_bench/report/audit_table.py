"""The table of the audit: PRO of the same maps by each definition and treatment of the masks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stpm_bench.report.literature import AUTHORS_PRO
from stpm_bench.report.tables import CATEGORY, MEAN
from stpm_bench.report.typeset import Section, number

TREATMENTS = {
    "nearest": "resized by nearest neighbour",
    "bilinear_any": "resized bilinearly, any non-zero pixel a defect (as the STPM authors do)",
    "own": "at the images' own size, to which the maps are enlarged",
}

VALUES = ("pro", "difference", "pixel_auroc")


def summary(audited: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Average audited cells over all but category and definition.

    Args:
        audited: the axes and `COLUMNS`, one row for each cell and definition.
        cells: the cells to summarise, with the axes as columns.

    Returns:
        One row for each category and (definition, masks), and the same for category 'mean':
        columns `category`, `kind`, `definition`, `masks`, `cells`, `pro`, `difference` (from the
        exact value of the same cells with masks 'nearest'), `pixel_auroc`.
    """
    axes = list(cells.columns)
    rows = cells.merge(audited, on=axes)
    exact = rows[(rows["definition"] == "mvtec") & (rows["masks"] == "nearest")]
    rows = rows.merge(exact[[*axes, "pro"]].rename(columns={"pro": "exact"}), on=axes)
    rows["difference"] = rows["pro"] - rows["exact"]
    values = list(VALUES)

    def mean(group: pd.Series) -> float:
        """Return the mean, NaN where a value is missing, so that all columns use the same cells."""
        return group.mean(skipna=False)

    by_category = rows.groupby(["category", "definition", "masks"], sort=False)[values].agg(mean)
    by_category["cells"] = rows.groupby(["category", "definition", "masks"]).size()
    over_all = by_category.groupby(["definition", "masks"], sort=False).agg(
        dict.fromkeys(values, mean) | {"cells": "sum"}
    )
    by_category, over_all = by_category.reset_index(), over_all.reset_index()
    by_category.insert(1, "kind", CATEGORY)
    return pd.concat([by_category, over_all.assign(category="mean", kind=MEAN)])


def equal_treatments(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the treatments of the masks that give different values, each with those equal to it.

    Where the images on disk have the size of the maps no mask is resized, and all treatments give
    equal values.

    Args:
        table: what `summary` returns, or the audit's long table.

    Returns:
        Treatment -> the treatments with its values in every row, itself first.
    """
    keys = [column for column in table if column not in ("masks", *VALUES)]
    found: dict[str, list[str]] = {}
    values: dict[str, pd.Series] = {}
    for treatment, rows in table.groupby("masks", sort=False):
        values[treatment] = rows.set_index(keys)["pro"].sort_index()
        equal = (name for name in found if values[name].equals(values[treatment]))
        found.setdefault(next(equal, treatment), []).append(treatment)
    return found


def sections(table: pd.DataFrame) -> list[Section]:
    """Format the summary: one section per treatment of the masks, one column per definition.

    Treatments that give equal values share a section.
    """
    if table.empty:
        return [section(["nearest"], table.assign(cells=0), 0)]
    return [
        section(treatments, table[table["masks"] == first], table["cells"].max())
        for first, treatments in equal_treatments(table).items()
    ]


def section(treatments: Sequence[str], rows: pd.DataFrame, cells: float) -> Section:
    """Format the rows of one treatment of the masks, with the names of those equal to it."""
    shown = rows.assign(
        text=[
            number(pro)
            if np.isnan(pro) or difference == 0
            else f"{number(pro)} ({number(difference, signed=True)})"
            for pro, difference in zip(rows["pro"], rows["difference"], strict=True)
        ],
    )
    order = list(dict.fromkeys(shown["definition"]))
    wide = shown.pivot(index="category", columns="definition", values="text")[order]
    wide = wide.loc[list(dict.fromkeys(shown["category"]))].reset_index()
    each = "; ".join(f"{treatment}: {TREATMENTS[treatment]}" for treatment in treatments)
    caption = f"Masks {each}."
    if len(treatments) > 1:
        caption += (
            " These treatments give equal values, which are shown once: where the images on disk "
            "have the size of the maps, no mask is resized."
        )
    caption += (
        " In brackets the difference from the exact value (mvtec, masks by nearest neighbour); "
        f"{cells:.0f} cells of the main study. `stpm_bench/metrics/definitions.py` has each "
        f"definition with its source; `{AUTHORS_PRO}` is that of STPM's authors. n/a: the "
        "definition has no value for one of the cells, or the images have several sizes."
    )
    title = f"PRO of the same maps by {len(order)} definitions, masks {', '.join(treatments)}"
    return Section(title, wide, caption)
