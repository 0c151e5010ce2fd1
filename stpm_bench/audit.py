"""The audit: PRO of the same maps by each definition and each treatment of the masks."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from stpm_bench.metrics import auroc
from stpm_bench.metrics.definitions import DEFINITIONS, every_definition

COLUMNS = ["definition", "masks", "pro", "pixel_auroc"]


def audit(
    masks: Mapping[str, np.ndarray], original_masks: Sequence[np.ndarray], anomaly_maps: np.ndarray
) -> pd.DataFrame:
    """Evaluate one cell's maps by every definition of PRO and by every treatment of the masks.

    Args:
        masks: for each of `masks.TREATMENTS` (N, S, S) bool, resized to the maps' size by it.
        original_masks: N masks (H, W) bool at their images' own size.
        anomaly_maps: (N, S, S) float.

    Returns:
        Columns `definition`, `masks`, `pro`, `pixel_auroc`: each of `DEFINITIONS` with each
        treatment: 'nearest' and 'bilinear_any' (see `masks.TREATMENTS`), and 'own', the images'
        own size, to which the maps are enlarged (see `resized`); NaN in 'own' if the images have
        several sizes. `pixel_auroc` does not depend on the definition: it is given in the rows of
        'mvtec', and is NaN in the others.
    """
    rows = rows_of_treatment("nearest", masks["nearest"], anomaly_maps)
    rows += rows_of_treatment("bilinear_any", masks["bilinear_any"], anomaly_maps)
    if len({mask.shape for mask in original_masks}) == 1:
        stacked = np.stack(original_masks)
        rows += rows_of_treatment("own", stacked, resized(anomaly_maps, stacked.shape[1:]))
    else:
        rows += [(name, "own", np.nan, np.nan) for name in DEFINITIONS]
    return pd.DataFrame(rows, columns=COLUMNS)


def rows_of_treatment(treatment: str, masks: np.ndarray, maps: np.ndarray) -> list[tuple]:
    """Return the rows of one treatment of the masks: (N, H, W) bool, with maps (N, H, W)."""
    values = every_definition(masks, maps)
    pixels = {"mvtec": auroc(masks, maps)}
    return [(name, treatment, pro, pixels.get(name, np.nan)) for name, pro in values.items()]


def resized(anomaly_maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return maps (N, S, S) resized bilinearly to the images' own shape: (N, H, W) float32."""
    height, width = shape
    result = np.empty((len(anomaly_maps), height, width), np.float32)
    for target, source in zip(result, anomaly_maps, strict=True):
        image = Image.fromarray(source.astype(np.float32))
        target[:] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return result
