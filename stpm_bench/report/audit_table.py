"""The table of the audit: PRO of the same maps by each definition and treatment of the masks."""

import numpy as np
import pandas as pd

from stpm_bench.report.tables import CATEGORY, MEAN
from stpm_bench.report.typeset import Section, number

TREATMENTS = {
    "nearest": "Masks resized by nearest neighbour.",
    "bilinear_any": "Masks resized bilinearly, any non-zero pixel a defect: the STPM authors' way.",
    "own": "Masks at the images' own size, to which the maps are enlarged.",
}


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
    values = ["pro", "difference", "pixel_auroc"]

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


def sections(table: pd.DataFrame) -> list[Section]:
    """Format the summary: one section per treatment of the masks, one column per definition."""
    if table.empty:
        return [section("nearest", table.assign(cells=0), 0)]
    return [
        section(treatment, rows, table["cells"].max())
        for treatment, rows in table.groupby("masks", sort=False)
    ]


def section(treatment: str, rows: pd.DataFrame, cells: float) -> Section:
    """Format the rows of one treatment of the masks."""
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
    caption = (
        f"{TREATMENTS[treatment]} In brackets the difference to the exact value (mvtec, masks by "
        f"nearest neighbour); {cells:.0f} cells of the main study. The definitions are those of "
        "`stpm_bench/metrics/definitions.py`, each with its source. n/a: the definition has no "
        "value for one of the cells, or the images have several sizes."
    )
    return Section(f"One set of maps, {len(order)} values of PRO: masks {treatment}", wide, caption)
