"""From the long table of metrics to a study's table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stpm_bench.datasets import demo, mvtec
from stpm_bench.grid import AXES, set_of

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}
SETTING = ["layers", "teacher", "fraction", "protocol"]
# The setting that the paper's Tables 1 and 2 are of, as far as a cell spells it; the caption says
# the rest.
PAPER_SETTING = {"layers": "1+2+3", "fraction": 1.0}
GROUPS = {"textures": mvtec.TEXTURES + demo.CATEGORIES, "objects": mvtec.OBJECTS}


def study_table(
    metrics: pd.DataFrame, cells: pd.DataFrame, paper: dict[tuple[str, str], float]
) -> pd.DataFrame:
    """Summarise a study: a row for each setting and category, then textures, objects, each set
    where there are several, and mean.

    Mean and standard deviation (n - 1) are over seeds; a group's are those of its seeds' means
    over categories. A seed of which a category is missing does not enter a group.

    Args:
        metrics: the long table, columns `grid.AXES`, `metric`, `value`.
        cells: the study's cells, columns `grid.AXES`.
        paper: (category or 'mean', metric) -> the paper's value, set beside `PAPER_SETTING` alone.

    Returns:
        Columns `layers, teacher, fraction, protocol, category, seeds`, and for each metric
        `METRIC` (the mean), `METRIC_sd`, `METRIC_paper` and `METRIC_difference`; NaN where there
        is none. The paper's value of a group is the mean of its entries; where it prints no
        entries (image AUROC), and the group is its 15 categories, its printed mean.
    """
    values = cells.merge(metrics, on=list(AXES), how="left")
    wide = values.pivot_table(
        index=[*SETTING, "category", "seed"], columns="metric", values="value", dropna=False
    ).reindex(columns=list(METRICS))
    rows = []
    for setting, group in cells.groupby(SETTING, sort=False):
        at_papers_setting = group[list(PAPER_SETTING)].iloc[0].to_dict() == PAPER_SETTING
        categories = list(dict.fromkeys(group["category"]))
        seeds = list(dict.fromkeys(group["seed"]))
        # (categories, seeds, metrics): a gap is NaN, and stays one in every mean over it.
        index = pd.MultiIndex.from_product([[v] for v in setting] + [categories, seeds])
        cube = wide.reindex(index).to_numpy().reshape(len(categories), len(seeds), len(METRICS))
        parts = {category: [category] for category in categories}
        for name, members in GROUPS.items():
            members = [category for category in categories if category in members]
            if members:
                parts[name] = members
        if len(sets := dict.fromkeys(map(set_of, categories))) > 1:
            parts |= {name: [c for c in categories if set_of(c) == name] for name in sets}
        parts["mean"] = categories
        for name, members in parts.items():
            by_seed = cube[[categories.index(c) for c in members]].mean(axis=0)
            rows.append(
                dict(zip(SETTING, setting, strict=True))
                | {"category": name, "seeds": int(np.isfinite(by_seed).all(axis=1).sum())}
                | summary(by_seed, members, paper if at_papers_setting else {})
            )
    return pd.DataFrame(rows)


def summary(
    by_seed: np.ndarray, categories: Sequence[str], paper: dict[tuple[str, str], float]
) -> dict[str, float]:
    """Return mean, sd, the paper's value and the difference to it, for each metric.

    Args:
        by_seed: (seeds, metrics) float, NaN for a gap.
        categories: over which `by_seed` is the mean.
    """
    row = {}
    for values, metric in zip(by_seed.T, METRICS, strict=True):
        values = values[np.isfinite(values)]
        mean = values.mean() if len(values) else np.nan
        entries = [paper.get((category, metric), np.nan) for category in categories]
        published = float(np.mean(entries))
        if np.isnan(published) and set(categories) == set(mvtec.CATEGORIES):
            published = paper.get(("mean", metric), np.nan)
        row |= {
            metric: mean,
            f"{metric}_sd": values.std(ddof=1) if len(values) > 1 else np.nan,
            f"{metric}_paper": published,
            f"{metric}_difference": mean - published,
        }
    return row


def markdown(table: pd.DataFrame, title: str, cells: int, missing: int) -> str:
    """Return a study's table as Markdown, with a caption that says what it rests on."""
    varying = [axis for axis in SETTING if table[axis].nunique() > 1]
    fixed = ", ".join(f"{axis} {table[axis].iloc[0]}" for axis in SETTING if axis not in varying)
    shown = table[[*varying, "category"]].astype(str)
    for metric, name in METRICS.items():
        shown[name] = [spread(*v) for v in zip(table[metric], table[f"{metric}_sd"], strict=True)]
        if table[f"{metric}_paper"].notna().any():
            shown[f"{name}, paper"] = [number(v) for v in table[f"{metric}_paper"]]
            shown[f"{name}, difference"] = [
                number(v, signed=True) for v in table[f"{metric}_difference"]
            ]
    gaps = f"; {missing} of them are missing and leave gaps" if missing else ""
    caption = (
        f"Mean ± standard deviation over {table['seeds'].max()} seed(s); {cells} cells{gaps}. "
        f"{fixed[:1].upper()}{fixed[1:]}. PRO: MVTec's definition, to a false-positive rate of 0.3."
    )
    if table[[f"{metric}_paper" for metric in METRICS]].notna().any(axis=None):
        caption += (
            " Paper: the entries of its Tables 1 and 2 (v3); a group's is the mean of its entries, "
            "or the printed mean where it prints no entries (image AUROC). The paper's setting: "
            "ResNet-18 pretrained on ImageNet, 256 x 256, 100 epochs; config.yaml has this one's."
        )
    body = shown.to_markdown(index=False, disable_numparse=True)
    return f"## {title}\n\n{body}\n\n{caption}\n"


def number(value: float, signed: bool = False) -> str:
    """Return a value to three decimals, 'n/a' for NaN."""
    if np.isnan(value):
        return "n/a"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def spread(mean: float, sd: float) -> str:
    """Return 'mean ± sd', the mean alone where a single seed has no spread, or 'n/a'."""
    return number(mean) if np.isnan(sd) else f"{number(mean)} ± {number(sd)}"
