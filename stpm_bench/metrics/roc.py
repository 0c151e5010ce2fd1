"""Ranking metrics: ROC, average precision and the best F1, each exact and with ties merged."""

import numpy as np

from stpm_bench.metrics.ordering import Ordering, order, split


def auroc(labels, scores) -> float:
    """Return the area under the ROC curve.

    Computed as the Mann-Whitney statistic: the share of (defect, background) pairs in which the
    defect scores higher, a tie counting one half (Hanley and McNeil 1982). The counts are
    integers, so the only rounding is that of the last division.

    Args:
        labels: bool or 0/1, any shape; 1 is a defect.
        scores: float32 or float64, the shape of `labels`, finite; higher is more anomalous.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: an array is empty, shapes differ, labels are not binary, there is no defect or
            no background, or a score is NaN or infinite.

    Example:
        Three of the four pairs are in order.

        >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    return area_under_roc(order(*split(labels, scores)))


def average_precision(labels, scores) -> float:
    """Return the average precision: the sum over thresholds of precision times gain in recall.

    The same definition as scikit-learn's `average_precision_score`: no interpolation, every
    distinct score is a threshold.

    Args:
        labels: bool or 0/1, any shape; 1 is a defect.
        scores: float32 or float64, the shape of `labels`, finite; higher is more anomalous.

    Returns:
        A float in (0, 1].

    Raises:
        ValueError: as in `auroc`.

    Example:
        Half of the recall comes at a precision of 1, half at 2/3.

        >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
        0.8333
    """
    return mean_precision(order(*split(labels, scores)))


def f1_max(labels, scores) -> float:
    """Return the largest F1 = 2 TP / (2 TP + FP + FN) over all thresholds.

    Args:
        labels: bool or 0/1, any shape; 1 is a defect.
        scores: float32 or float64, the shape of `labels`, finite; higher is more anomalous.

    Returns:
        A float in (0, 1].

    Raises:
        ValueError: as in `auroc`.

    Example:
        At 0.35 both defects are found, with one false positive.

        >>> f1_max([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.8
    """
    return best_f1(order(*split(labels, scores)))


def roc_curve(labels, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ROC curve in which every distinct score is a threshold.

    The same points as scikit-learn's `roc_curve` with `drop_intermediate=False`.

    Args:
        labels: bool or 0/1, any shape; 1 is a defect.
        scores: float32 or float64, the shape of `labels`, finite; higher is more anomalous.

    Returns:
        fpr, tpr, thresholds: one-dimensional, of equal length, from (0, 0) at the threshold
        infinity to (1, 1) at the lowest score; positive is a score at or above the threshold.

    Raises:
        ValueError: as in `auroc`.

    Example:
        >>> fpr, tpr, thresholds = roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> fpr.tolist(), tpr.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
        >>> thresholds.tolist()
        [inf, 0.8, 0.4, 0.35, 0.1]
    """
    ordering = order(*split(labels, scores))
    background, defect = ordering.background, ordering.defect
    thresholds = np.unique(np.concatenate([background, defect]))[::-1]
    fpr = 1 - background.searchsorted(thresholds) / background.size
    tpr = 1 - defect.searchsorted(thresholds) / defect.size
    return (
        np.concatenate([[0.0], fpr]),
        np.concatenate([[0.0], tpr]),
        np.concatenate([np.array([np.inf], dtype=thresholds.dtype), thresholds]),
    )


def area_under_roc(ordering: Ordering) -> float:
    """Return the area under the ROC curve of an ordering."""
    tied = np.diff(ordering.first, append=ordering.defect.size)
    twice_won = int((tied * (ordering.below + ordering.through)).sum())
    return twice_won / (2 * ordering.defect.size * ordering.background.size)


def mean_precision(ordering: Ordering) -> float:
    """Return the average precision of an ordering."""
    # Recall only grows at a defect's score, so no other threshold contributes.
    tied = np.diff(ordering.first, append=ordering.defect.size)
    true_positives = ordering.defect.size - ordering.first
    false_positives = ordering.background.size - ordering.below
    precision = true_positives / (true_positives + false_positives)
    return float((tied * precision).sum() / ordering.defect.size)


def best_f1(ordering: Ordering) -> float:
    """Return the largest F1 of an ordering."""
    # Lowering a threshold from one defect score to just above the next adds false positives only,
    # so the maximum lies at a defect's score. TP + FN is the number of defects.
    true_positives = ordering.defect.size - ordering.first
    false_positives = ordering.background.size - ordering.below
    f1 = 2 * true_positives / (true_positives + false_positives + ordering.defect.size)
    return float(f1.max())
