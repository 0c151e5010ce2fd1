"""The time of a category's metrics, compared with one sort of its pixels and with other code."""

import importlib
import importlib.metadata
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage import measure
from sklearn.metrics import roc_auc_score

from stpm_bench.metrics import evaluate_arrays

LOOP_THRESHOLDS = 4000
LOOP_TIMED = 2
SORT = "one np.sort of the pixels"


def run(images: int = 167, size: int = 256, runs: int = 5, seed: int = 0) -> pd.DataFrame:
    """Time the metrics on a synthetic category and return one table.

    The methods take turns, so that a slow phase of the machine affects all of them.

    Args:
        images: number of test images; MVTec AD's largest category has 167.
        size: height and width of a map.
        runs: how often each is timed; the table gives medians.
        seed: of the synthetic maps.

    Returns:
        One row per method with the columns `method`, `computes`, `seconds`, `ratio to np.sort`,
        `runs` and `note`.
    """
    masks, maps = synthetic(images, size, seed)
    image_labels = masks.any(axis=(1, 2))
    image_scores = maps.max(axis=(1, 2))
    flat_masks, flat_maps = masks.ravel(), maps.ravel()
    scaled = f"{LOOP_TIMED} of {LOOP_THRESHOLDS} thresholds timed, the rest scaled"
    methods = [
        (
            "stpm_bench evaluate",
            "image AUROC; pixel AUROC, AP, F1-max; PRO at 0.3 and 0.05 with its curve",
            lambda: evaluate_arrays(image_labels, image_scores, masks, maps),
            1.0,
            "exact",
        ),
        (SORT, "nothing", lambda: np.sort(flat_maps), 1.0, "float32"),
        (
            "scikit-learn roc_auc_score",
            "pixel AUROC",
            lambda: roc_auc_score(flat_masks, flat_maps),
            1.0,
            "exact",
        ),
        (
            "threshold loop in the manner of the STPM authors",
            "PRO at 0.3",
            lambda: threshold_loop(masks, maps),
            LOOP_THRESHOLDS / LOOP_TIMED,
            scaled,
        ),
    ]
    anomalib = anomalib_aupro()
    if anomalib is not None:
        version, aupro = anomalib
        methods.append(
            (f"anomalib {version} AUPRO", "PRO at 0.3", lambda: aupro(masks, maps), 1.0, "CPU")
        )

    seconds: dict[str, list[float]] = {name: [] for name, *_ in methods}
    for _ in range(runs):
        for name, _, call, factor, _ in methods:
            seconds[name].append(timed(call) * factor)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    return pd.DataFrame(
        {
            "method": name,
            "computes": computes,
            "seconds": median[name],
            "ratio to np.sort": median[name] / median[SORT],
            "runs": runs,
            "note": note,
        }
        for name, computes, _, _, note in methods
    )


def note() -> str:
    """Return how the table was measured, besides the processor."""
    return "one process"


def synthetic(images: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return masks and maps of a synthetic category with the heavy tails of STPM.

    A map is the product of three positive smooth fields of 1/4, 1/8 and 1/16 of its resolution,
    upsampled bilinearly, each raised at the defect. Defects are blobs: a smooth field above a
    quantile. Five images in six have one, as in MVTec AD's largest category.

    Returns:
        masks: (images, size, size) bool.
        maps: (images, size, size) float32, positive.
    """
    rng = np.random.default_rng(seed)
    smooth = rng.standard_normal((images, size // 4, size // 4))
    smooth = upsample(ndimage.gaussian_filter(smooth, (0, size / 40, size / 40)), size)
    share = np.where(np.arange(images) % 6 == 0, 0, rng.uniform(0.005, 0.06, images))
    limit = np.sort(smooth.reshape(images, -1), axis=1)[
        np.arange(images), ((1 - share) * (size**2 - 1)).astype(int)
    ]
    masks = smooth > limit[:, None, None]
    maps = np.ones((images, size, size), dtype=np.float32)
    for factor in (4, 8, 16):
        side = size // factor
        noise = ndimage.gaussian_filter(rng.standard_normal((images, side, side)), (0, 1, 1))
        raised = masks[:, ::factor, ::factor] * rng.uniform(0.5, 2.5, (images, 1, 1))
        maps *= upsample(np.exp(0.6 * noise / noise.std() + raised), size)
    return masks, maps


def upsample(fields: np.ndarray, size: int) -> np.ndarray:
    """Upsample (N, h, h) fields bilinearly to (N, size, size) float32."""
    factor = size / fields.shape[1]
    return ndimage.zoom(fields.astype(np.float32), (1, factor, factor), order=1, grid_mode=False)


def threshold_loop(masks: np.ndarray, maps: np.ndarray) -> list[tuple[float, float]]:
    """Return (fpr, overlap) of a few thresholds, each from scratch.

    Nothing is kept from one threshold to the next, not even the regions: this is what makes the
    published loops slow, and what is timed.
    """
    points = []
    for threshold in np.quantile(maps[0], np.linspace(0.7, 0.99, LOOP_TIMED)):
        positive = maps > threshold
        overlaps = [
            region.image_intensity.sum() / region.area
            for mask, predicted in zip(masks, positive, strict=True)
            for region in measure.regionprops(measure.label(mask, connectivity=2), predicted)
        ]
        false_positives = np.logical_and(~masks, positive).sum()
        points.append((float(false_positives / (~masks).sum()), float(np.mean(overlaps))))
    return points


def anomalib_aupro() -> tuple[str, Callable] | None:
    """Return anomalib's version and its AUPRO as a function of masks and maps, if importable."""
    try:
        module = importlib.import_module("anomalib.metrics.aupro")
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    # From 2.0 on, AUPRO reads named fields of a batch; the metric itself is in _AUPRO.
    metric = getattr(module, "_AUPRO", None) or module.AUPRO

    def aupro(masks: np.ndarray, maps: np.ndarray) -> float:
        state = metric()
        state.update(torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64)))
        return float(state.compute())

    return importlib.metadata.version("anomalib"), aupro


def timed(call: Callable) -> float:
    """Return how many seconds `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
