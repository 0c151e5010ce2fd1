"""All metrics of one cell: those of its pixels come from one ordering."""

from typing import Literal

import numpy as np

from stpm_bench.metrics.ordering import order, order_maps, split
from stpm_bench.metrics.pro import area, until, vertices
from stpm_bench.metrics.roc import area_under_roc, best_f1, mean_precision

PRO_LIMIT = 0.3  # the false-positive rate at which `pro` and the curve end
CURVE_POINTS = 200


def evaluate_arrays(
    image_labels,
    image_scores,
    masks,
    anomaly_maps,
    annotation: Literal["regions", "pixels", "image"] = "regions",
) -> dict:
    """Return every metric of one cell and the PRO curve for a plot.

    Args:
        image_labels: (N,) bool or 0/1; 1 is an image with a defect.
        image_scores: (N,) float32 or float64, finite; higher is more anomalous.
        masks: (N, H, W) bool or 0/1; 1 is a defect pixel.
        anomaly_maps: (N, H, W) float32 or float64, finite; higher is more anomalous.
        annotation: what is known about an image, as in `datasets.interface.Layout`. With 'image'
            masks and maps are not used and may be None; with 'pixels' regions are not told apart,
            and there is no PRO. The pixel metrics weigh all pixels equally in either case.

    Returns:
        A dict with the floats `image_auroc`; `pixel_auroc`, `pixel_ap`, `pixel_f1_max`, except with
        'image'; and, only with 'regions', `pro` (up to a false-positive rate of 0.3) and
        `pro_0.05`, and the float64 arrays `pro_curve_fpr` and `pro_curve_overlap`: at most 200
        points of the PRO curve from (0, 0), the last interpolated at a false-positive rate of 0.3.

    Raises:
        ValueError: an array is empty; shapes do not match, or with 'regions' are not (N, H, W);
            labels or masks are not binary; there is no defect or no background among the images or
            among the pixels; or a score is NaN or infinite.

    Example:
        Two images of two pixels; the defect of the second is found.

        >>> masks, maps = [[[0, 0]], [[0, 1]]], [[[0.1, 0.2]], [[0.1, 0.9]]]
        >>> found = evaluate_arrays([0, 1], [0.2, 0.9], masks, maps)
        >>> found["image_auroc"], found["pixel_auroc"], found["pro"]
        (1.0, 1.0, 1.0)
        >>> evaluate_arrays([0, 1], [0.2, 0.9], None, None, annotation="image")
        {'image_auroc': 1.0}
    """
    defect, background = split(image_labels, image_scores, "image_labels", "image_scores")
    images = order(defect, background, name="image_scores")
    values = {"image_auroc": area_under_roc(images)}
    if annotation == "image":
        return values
    if np.shape(image_labels) != np.shape(masks)[:1]:
        raise ValueError(
            f"image_labels and masks: expected shapes (N,) and (N, H, W), "
            f"found {np.shape(image_labels)} and {np.shape(masks)}"
        )
    if annotation == "pixels":
        parts = split(masks, anomaly_maps, "masks", "anomaly_maps")
        pixels = order(*parts, name="anomaly_maps")
    else:
        pixels = order_maps(masks, anomaly_maps)
    values |= {
        "pixel_auroc": area_under_roc(pixels),
        "pixel_ap": mean_precision(pixels),
        "pixel_f1_max": best_f1(pixels),
    }
    if annotation == "pixels":
        return values
    fpr, overlap, _ = vertices(pixels)
    curve_fpr, curve_overlap = shorten_curve(*until(fpr, overlap, PRO_LIMIT))
    return values | {
        "pro": area(fpr, overlap, PRO_LIMIT) / PRO_LIMIT,
        "pro_0.05": area(fpr, overlap, 0.05) / 0.05,
        "pro_curve_fpr": curve_fpr,
        "pro_curve_overlap": curve_overlap,
    }


def shorten_curve(fpr: np.ndarray, overlap: np.ndarray, points: int = CURVE_POINTS):
    """Keep at most `points` points of a curve, including the first and the last.

    They are spaced evenly in the sum of both axes, with the false-positive rate scaled to [0, 1],
    so that the steep rise near zero keeps as many points as the flat remainder.
    """
    if fpr.size <= points:
        return fpr, overlap
    length = fpr / fpr[-1] + overlap
    wanted = np.linspace(length[0], length[-1], points)
    kept = np.unique(np.searchsorted(length, wanted[:-1]))
    kept = np.append(kept[kept < fpr.size - 1], fpr.size - 1)
    return fpr[kept], overlap[kept]
