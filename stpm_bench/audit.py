"""The audit: what each definition of PRO and each treatment of the masks says of the same maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from stpm_bench.metrics import auroc
from stpm_bench.metrics.definitions import DEFINITIONS, every_definition
from stpm_bench.typeset import Section, number

TREATMENTS = {
    "nearest": "Masks resized by nearest neighbour.",
    "bilinear_any": "Masks resized bilinearly, any non-zero pixel a defect: the STPM authors' way.",
    "own": "Masks at the images' own size, to which the maps are enlarged.",
}
COLUMNS = ["definition", "masks", "pro", "pixel_auroc"]


def audit(
    masks: Mapping[str, np.ndarray], own_masks: Sequence[np.ndarray], anomaly_maps: np.ndarray
) -> pd.DataFrame:
    """Evaluate one cell's maps by every definition of PRO and by every treatment of the masks.

    Args:
        masks: for each of `images.TREATMENTS` (N, S, S) bool, brought to the maps' size by it.
        own_masks: N masks (H, W) bool at their images' own size.
        anomaly_maps: (N, S, S) float.

    Returns:
        Columns `definition`, `masks`, `pro`, `pixel_auroc`: each of `DEFINITIONS` with each
        treatment: 'nearest' and 'bilinear_any' (see `images.TREATMENTS`), and 'own', the images'
        own size, to which the maps are enlarged (see `enlarged`); NaN in 'own' where the images
        have several sizes. `pixel_auroc` does not depend on the definition: it stands beside
        'mvtec', and is NaN beside the others.
    """
    rows = of_treatment("nearest", masks["nearest"], anomaly_maps)
    rows += of_treatment("bilinear_any", masks["bilinear_any"], anomaly_maps)
    if len({mask.shape for mask in own_masks}) == 1:
        own = np.stack(own_masks)
        rows += of_treatment("own", own, enlarged(anomaly_maps, own.shape[1:]))
    else:
        rows += [(name, "own", np.nan, np.nan) for name in DEFINITIONS]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_treatment(treatment: str, masks: np.ndarray, maps: np.ndarray) -> list[tuple]:
    """Return the rows of one treatment of the masks: (N, H, W) bool, with maps (N, H, W)."""
    values = every_definition(masks, maps)
    pixels = {"mvtec": auroc(masks, maps)}
    return [(name, treatment, pro, pixels.get(name, np.nan)) for name, pro in values.items()]


def enlarged(anomaly_maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarge maps (N, S, S) bilinearly to the images' own shape: (N, H, W) float32."""
    height, width = shape
    result = np.empty((len(anomaly_maps), height, width), np.float32)
    for target, source in zip(result, anomaly_maps, strict=True):
        image = Image.fromarray(source.astype(np.float32))
        target[:] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return result


def summary(audited: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Average audited cells over all but category and definition.

    Args:
        audited: the axes and `COLUMNS`, a row for each cell and definition.
        cells: the cells to take, columns the axes.

    Returns:
        A row for each category and (definition, masks), and for category 'mean': columns
        `category`, `definition`, `masks`, `cells`, `pro`, `difference` (to the exact value with
        masks 'nearest', of the same cells), `pixel_auroc`.
    """
    axes = list(cells.columns)
    rows = cells.merge(audited, on=axes)
    exact = rows[(rows["definition"] == "mvtec") & (rows["masks"] == "nearest")]
    rows = rows.merge(exact[[*axes, "pro"]].rename(columns={"pro": "exact"}), on=axes)
    rows["difference"] = rows["pro"] - rows["exact"]
    values = ["pro", "difference", "pixel_auroc"]

    def mean(group: pd.Series) -> float:
        """Return the mean, NaN where a value is missing: all columns rest on the same cells."""
        return group.mean(skipna=False)

    by_category = rows.groupby(["category", "definition", "masks"], sort=False)[values].agg(mean)
    by_category["cells"] = rows.groupby(["category", "definition", "masks"]).size()
    over_all = by_category.groupby(["definition", "masks"], sort=False).agg(
        dict.fromkeys(values, mean) | {"cells": "sum"}
    )
    return pd.concat([by_category.reset_index(), over_all.reset_index().assign(category="mean")])


def sections(table: pd.DataFrame) -> list[Section]:
    """Format the summary: a section per treatment of the masks, a column per definition."""
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
