"""The audit: what each definition of PRO and each treatment of the masks says of the same maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from stpm_bench.metrics import evaluate
from stpm_bench.metrics.definitions import DEFINITIONS
from stpm_bench.typeset import Section, number

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
        Columns `definition`, `masks`, `pro`, `pixel_auroc` (NaN where it is that of a row above):
        each of `DEFINITIONS` with masks 'nearest', then the exact one ('mvtec') with masks
        'bilinear_any' (see `images.TREATMENTS`) and with masks 'own' (see `enlarged`); NaN in 'own'
        where the images have several sizes.
    """
    labels = np.array([mask.any() for mask in own_masks])
    scores = anomaly_maps.max(axis=(1, 2))

    def exact(treatment: str, masks: np.ndarray, maps: np.ndarray) -> tuple:
        values = evaluate(labels, scores, masks, maps)
        return ("mvtec", treatment, values["pro"], values["pixel_auroc"])

    rows = [exact("nearest", masks["nearest"], anomaly_maps)]
    rows += [
        (name, "nearest", definition(masks["nearest"], anomaly_maps), np.nan)
        for name, definition in DEFINITIONS.items()
        if name != "mvtec"
    ]
    rows.append(exact("bilinear_any", masks["bilinear_any"], anomaly_maps))
    if len({mask.shape for mask in own_masks}) == 1:
        own = np.stack(own_masks)
        rows.append(exact("own", own, enlarged(anomaly_maps, own.shape[1:])))
    else:
        rows.append(("mvtec", "own", np.nan, np.nan))
    return pd.DataFrame(rows, columns=COLUMNS)


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
    """Set the summary: a row a category, a column a definition."""
    shown = table.assign(
        name=[
            f"{definition}, masks {masks}" if masks != "nearest" else definition
            for definition, masks in zip(table["definition"], table["masks"], strict=True)
        ],
        text=[
            number(pro)
            if np.isnan(pro) or difference == 0
            else f"{number(pro)} ({number(difference, signed=True)})"
            for pro, difference in zip(table["pro"], table["difference"], strict=True)
        ],
    )
    order = list(dict.fromkeys(shown["name"]))
    wide = shown.pivot(index="category", columns="name", values="text")[order]
    wide = wide.loc[list(dict.fromkeys(shown["category"]))].reset_index()
    cells = table["cells"].max() if len(table) else 0
    caption = (
        f"In brackets the difference to the exact value (mvtec); {cells:.0f} cells "
        "of the main study. The definitions are those of `stpm_bench/metrics/definitions.py`, each "
        "with its source. 'masks bilinear_any': resized bilinearly, any non-zero pixel a defect; "
        "'masks own': maps enlarged to the images' own size. n/a: the definition has no value for "
        "one of the cells, or the images have several sizes."
    )
    return [Section(f"One set of maps, {len(order)} values of PRO", wide, caption)]
