"""Evaluates a cell on its category's test images: from level maps to metrics, curve and audit."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stpm_bench import anomaly_map
from stpm_bench.audit import COLUMNS, audit
from stpm_bench.methods.interface import Scores
from stpm_bench.metrics import evaluate_arrays


class Evaluation(NamedTuple):
    """The results of a cell.

    Attributes:
        metrics: name -> value in [0, 1]; for a variant of the scores the name is NAME_METRIC.
        image_scores: (N,) float32, as they were evaluated.
        curve: columns `fpr`, `overlap`; no rows for a set without regions.
        definitions: columns `audit.COLUMNS`; no rows for a set without regions.
    """

    metrics: dict[str, float]
    image_scores: np.ndarray
    curve: pd.DataFrame
    definitions: pd.DataFrame


def evaluate_cell(
    scores: Scores,
    defects: Sequence[str],
    masks: Mapping[str, np.ndarray],
    original_masks: Sequence[np.ndarray],
    settings: Mapping,
    annotation: str,
    size: int,
) -> Evaluation:
    """Evaluate one cell.

    Args:
        scores: the method's.
        defects: N names, 'good' where there is none.
        masks: treatment -> (N, S, S) bool.
        original_masks: N masks (H, W) bool at their images' own size.
        settings: what `Settings.evaluation_part` returns.
        annotation: which annotation the set has, see `datasets.interface.Layout`.
        size: S, the side of the images in pixels.

    Raises:
        ValueError: a metric is not defined, see `metrics.evaluate_arrays`.
    """
    fields = {key: value for key, value in settings.items() if key != "masks"}
    labels = np.asarray(defects) != "good"
    marked = masks[settings["masks"]]
    if not marked.any():  # no defect is visible at this size ('prepare' warned): image metrics only
        annotation = "image"

    def maps_of(level_maps: Mapping[str, np.ndarray]) -> np.ndarray:
        return anomaly_map.anomaly_maps(list(level_maps.values()), size, **fields)

    maps = maps_of(scores.level_maps)
    image_scores = anomaly_map.image_scores(maps, scores.image_scores)
    values = evaluate_arrays(labels, image_scores, marked, maps, annotation)
    curve = {name: values.pop(f"pro_curve_{name}", []) for name in ("fpr", "overlap")}
    definitions = pd.DataFrame(columns=COLUMNS)
    if annotation == "regions" and all(mask.any() for mask in masks.values()):
        definitions = audit(masks, original_masks, maps)
    others = {}
    for variant, level_maps in scores.variants.items():
        maps = maps_of(level_maps)
        found = evaluate_arrays(labels, maps.max(axis=(1, 2)), marked, maps, annotation)
        others |= {f"{variant}_{name}": found[name] for name in values}
    return Evaluation(values | others, image_scores, pd.DataFrame(curve), definitions)
