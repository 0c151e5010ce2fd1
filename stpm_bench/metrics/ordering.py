"""One ordering of the scores, from which every metric is computed.

Background and defect scores are sorted separately, which needs no common argsort: NumPy sorts plain
floats several times faster than it sorts indices, and most pixels are background. The position of
each distinct defect score among the background scores is then all that a ROC, a precision-recall or
a PRO curve can depend on: between two defect scores only the false positives change.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class Ordering(NamedTuple):
    """Sorted scores and, for every distinct defect score in ascending order, four counts.

    Attributes:
        background: (B,) scores without defect, ascending.
        defect: (P,) scores with defect, ascending.
        first: (K,) index into `defect` where each distinct score begins.
        below: (K,) number of background scores smaller than the distinct score.
        through: (K,) number of background scores smaller than or equal to it.
        overlap: (K,) float64 in (0, 1], weighted share of defect scores at or above it.
    """

    background: np.ndarray
    defect: np.ndarray
    first: np.ndarray
    below: np.ndarray
    through: np.ndarray
    overlap: np.ndarray


def binary(array: np.ndarray, name: str) -> np.ndarray:
    """Return `array` as bool.

    Raises:
        ValueError: `array` is empty, or contains values other than 0 and 1.
    """
    array = np.asarray(array)
    if array.size == 0:
        raise ValueError(
            f"{name}: expected at least one value, found an empty array of shape {array.shape}"
        )
    if array.dtype == bool:
        return array
    as_bool = array.astype(bool)
    if not np.array_equal(as_bool, array):
        other = array[as_bool != array].flat[0]
        raise ValueError(f"{name}: expected bool or only 0 and 1, found the value {other}")
    return as_bool


def real(array: np.ndarray, name: str) -> np.ndarray:
    """Return `array` as float32 or float64; integers and half floats become float64.

    Raises:
        ValueError: `array` is empty, or its dtype does not cast safely to float64.
    """
    array = np.asarray(array)
    if array.size == 0:
        raise ValueError(
            f"{name}: expected at least one value, found an empty array of shape {array.shape}"
        )
    if array.dtype in (np.float32, np.float64):
        return array
    if not np.can_cast(array.dtype, np.float64):
        raise ValueError(f"{name}: expected float32 or float64, found {array.dtype}")
    return array.astype(np.float64)


def split(labels, scores, labels_name="labels", scores_name="scores"):
    """Check `labels` and `scores` and return the scores with a defect and those without.

    Args:
        labels: bool or 0/1, any shape; 1 is a defect.
        scores: float32 or float64, the shape of `labels`.
        labels_name: the name of `labels` in an error message.
        scores_name: the name of `scores` in an error message.

    Returns:
        Two one-dimensional copies, in the order of the values in `scores`.

    Raises:
        ValueError: empty, different shapes, labels that are not binary, no defect, no background.
    """
    labels = binary(labels, labels_name)
    scores = real(scores, scores_name)
    if labels.shape != scores.shape:
        raise ValueError(
            f"{labels_name} and {scores_name}: expected the same shape, "
            f"found {labels.shape} and {scores.shape}"
        )
    labels = labels.ravel()
    scores = scores.ravel()
    defect = scores[labels]
    if defect.size == 0:
        raise ValueError(f"{labels_name}: expected at least one defect (1), found only 0")
    if defect.size == scores.size:
        raise ValueError(f"{labels_name}: expected at least one background (0), found only 1")
    return defect, scores[~labels]


def order(defect, background, weights=None, name="scores") -> Ordering:
    """Sort the scores and locate every distinct defect score among the background.

    Args:
        defect: (P,) scores with a defect.
        background: (B,) scores without; sorted in place.
        weights: (P,) positive weights of the defect scores; None means equal weights.
        name: the name of the scores in an error message.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    background.sort()
    if weights is None:
        defect = np.sort(defect)
    else:
        rank = np.argsort(defect)
        defect = defect[rank]
    # Sorting puts -inf first, +inf and then NaN last.
    if not np.isfinite([background[0], background[-1], defect[0], defect[-1]]).all():
        count = sum(int((~np.isfinite(scores)).sum()) for scores in (background, defect))
        raise ValueError(
            f"{name}: expected finite scores, found NaN or infinity "
            f"({count} of {background.size + defect.size} values)"
        )
    first = np.flatnonzero(np.concatenate([[True], defect[1:] != defect[:-1]]))
    distinct = defect[first]
    below = background.searchsorted(distinct, side="left")
    through = below.copy()
    tied = np.flatnonzero(background[np.minimum(below, background.size - 1)] == distinct)
    through[tied] = background.searchsorted(distinct[tied], side="right")
    if weights is None:
        overlap = (defect.size - first) / defect.size
    else:
        from_top = np.cumsum(weights[rank[::-1]])[::-1]
        overlap = from_top[first] / from_top[0]
    return Ordering(background, defect, first, below, through, overlap)


def region_numbers(masks: np.ndarray) -> np.ndarray:
    """Number the 8-connected defect regions of every image.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (P,) integers from 0 up, the region of every defect pixel in the order of `masks[masks]`.
    """
    numbers = []
    count = 0
    for mask in masks:
        rows = np.flatnonzero(mask.any(axis=1))
        if rows.size == 0:
            continue
        mask = mask[rows[0] : rows[-1] + 1]
        columns = np.flatnonzero(mask.any(axis=0))
        mask = mask[:, columns[0] : columns[-1] + 1]
        labelled, found = ndimage.label(mask, EIGHT_NEIGHBOURS)
        numbers.append(labelled[mask] + (count - 1))
        count += found
    return np.concatenate(numbers)


def split_maps(masks, anomaly_maps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check masks and maps; return the defect scores, the background's, and each pixel's region.

    Raises:
        ValueError: as in `split`; or the arrays are not (N, H, W).
    """
    for array, name in ((masks, "masks"), (anomaly_maps, "anomaly_maps")):
        shape = np.shape(array)
        if len(shape) != 3:
            raise ValueError(f"{name}: expected the shape (N, H, W), found {shape}")
    masks = binary(masks, "masks")
    defect, background = split(masks, anomaly_maps, "masks", "anomaly_maps")
    return defect, background, region_numbers(masks)


def order_maps(masks, anomaly_maps) -> Ordering:
    """Order the pixels of `anomaly_maps`, every region of `masks` with the same total weight.

    `overlap` is then the per-region overlap: the weight of a pixel is one over its region's area.

    Args:
        masks: (N, H, W) bool or 0/1; 1 is a defect.
        anomaly_maps: (N, H, W) float32 or float64, finite.

    Raises:
        ValueError: as in `split_maps` and `order`.
    """
    defect, background, region = split_maps(masks, anomaly_maps)
    weights = 1 / np.bincount(region)[region]
    return order(defect, background, weights, "anomaly_maps")
