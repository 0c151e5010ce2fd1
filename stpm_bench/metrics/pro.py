"""PRO, the per-region overlap, exactly as MVTec's own evaluation code defines it.

At a threshold, the overlap is the mean over the ground-truth regions (8-connected, per image) of
the share of the region at or above it; the false-positive rate is taken over all defect-free
pixels of all images. The PRO score is the area under overlap against false-positive rate up to a
limit, divided by the limit. Source: Bergmann, Batzner, Fauser, Sattlegger, Steger, *The MVTec
Anomaly Detection Dataset*, IJCV 129 (2021), section 5, and the evaluation code published with it.
"""

import numpy as np

from stpm_bench.metrics.ordering import Ordering, order_maps


def pro(masks, anomaly_maps, fpr_limit: float = 0.3) -> float:
    """Return the area under the PRO curve up to `fpr_limit`, divided by `fpr_limit`.

    Every distinct score is a threshold, tied scores enter together, the curve starts at (0, 0),
    and its last segment is interpolated at the limit.

    Args:
        masks: (N, H, W) bool or 0/1; 1 is a defect.
        anomaly_maps: (N, H, W) float32 or float64, finite; higher is more anomalous.
        fpr_limit: false-positive rate in (0, 1] at which the integration ends.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: `fpr_limit` is not in (0, 1]; an array is empty or not (N, H, W); shapes
            differ; masks are not binary; there is no defect or no background; or a score is NaN
            or infinite.

    Example:
        Two regions, of three pixels and of one, and twelve pixels of background. The first region
        is found before any false positive, the second after two: up to a false-positive rate of
        1/6 the mean overlap is 1/2.

        >>> masks = [[[1, 1, 1, 0], [0, 0, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 0]]]
        >>> maps = [[[9.0, 9, 9, 1], [1, 1, 1, 1]], [[5.0, 7, 1, 1], [6, 1, 1, 1]]]
        >>> round(pro(masks, maps, fpr_limit=0.1), 4)
        0.5
    """
    check_limit(fpr_limit)
    fpr, overlap, _ = vertices(order_maps(masks, anomaly_maps))
    return area(fpr, overlap, fpr_limit) / fpr_limit


def pro_curve(masks, anomaly_maps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the corners of the PRO curve.

    Between two successive defect scores the overlap does not change, so the thresholds there are
    left out, except the last, where the curve turns up; the polyline is that of all thresholds.

    Args:
        masks: (N, H, W) bool or 0/1; 1 is a defect.
        anomaly_maps: (N, H, W) float32 or float64, finite; higher is more anomalous.

    Returns:
        fpr, overlap, thresholds: one-dimensional, of equal length, from (0, 0) at the threshold
        infinity to (1, 1); both rates are float64 and never decrease. Positive is a score at or
        above the threshold.

    Raises:
        ValueError: as in `pro`.

    Example:
        >>> fpr, overlap, _ = pro_curve([[[1, 1, 0, 0]]], [[[4.0, 2.0, 3.0, 1.0]]])
        >>> fpr.tolist(), overlap.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    return vertices(order_maps(masks, anomaly_maps))


def check_limit(fpr_limit: float) -> None:
    """Raise ValueError unless `fpr_limit` is in (0, 1]."""
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit: expected a number in (0, 1], found {fpr_limit}")


def vertices(ordering: Ordering) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the corners (fpr, overlap, threshold) of an ordering's curve, see `pro_curve`."""
    background, distinct = ordering.background, ordering.defect[ordering.first]
    size = background.size
    # Two corners per distinct defect score, in descending order of score: after the background
    # scores above it, and after the score itself and the background scores tied with it.
    fpr = np.empty(2 * distinct.size)
    fpr[0::2] = (size - ordering.through[::-1]) / size
    fpr[1::2] = (size - ordering.below[::-1]) / size
    overlap = np.zeros_like(fpr)
    overlap[1::2] = ordering.overlap[::-1]
    overlap[2::2] = overlap[1:-1:2]
    thresholds = np.empty(fpr.size, dtype=distinct.dtype)
    thresholds[0::2] = background[np.minimum(ordering.through[::-1], size - 1)]
    thresholds[1::2] = distinct[::-1]
    # The first corner of a pair repeats its predecessor if no background lies between.
    keep = np.ones(fpr.size, dtype=bool)
    keep[0] = fpr[0] > 0
    keep[2::2] = fpr[2::2] > fpr[1:-1:2]
    tail = [1.0] if fpr[-1] < 1 else []
    return (
        np.concatenate([[0.0], fpr[keep], tail]),
        np.concatenate([[0.0], overlap[keep], tail]),
        np.concatenate(
            [
                np.array([np.inf], dtype=thresholds.dtype),
                thresholds[keep],
                background[: len(tail)],
            ]
        ),
    )


def until(fpr: np.ndarray, overlap: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut a curve at the false-positive rate `limit`, its last segment interpolated there."""
    inside = int(np.searchsorted(fpr, limit, side="right"))
    if inside == fpr.size or fpr[inside - 1] == limit:
        return fpr[:inside], overlap[:inside]
    left, right = inside - 1, inside
    share = (limit - fpr[left]) / (fpr[right] - fpr[left])
    last = overlap[left] + share * (overlap[right] - overlap[left])
    return np.append(fpr[:inside], limit), np.append(overlap[:inside], last)


def area(fpr: np.ndarray, overlap: np.ndarray, limit: float) -> float:
    """Return the area under a curve up to the false-positive rate `limit`, by trapezoids."""
    fpr, overlap = until(fpr, overlap, limit)
    return float(np.trapezoid(overlap, fpr))
