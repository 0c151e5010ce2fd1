"""The definitions that are all called PRO.

Each function takes masks and maps as `stpm_bench.metrics.pro` does and, to avoid sorting twice,
the result of `order_maps` on them; it raises the same errors as `stpm_bench.metrics.pro`. It
returns the same as the published code named in its docstring, up to that code's rounding: parts of
that code use float32, whereas here all rates, areas and thresholds are float64. Regions are
8-connected, and the limit of the false-positive rate is 0.3 throughout.

If the published code stops with an error or divides zero by zero, the result is NaN. That happens
when all scores are equal, and when too few thresholds are below the limit to span an area.
"""

from collections.abc import Callable

import numpy as np

from stpm_bench.metrics.ordering import Ordering, order, order_maps, split_maps
from stpm_bench.metrics.pro import area, vertices

LIMIT = 0.3


def mvtec(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """Every distinct score is a threshold, the last segment is interpolated at 0.3, area over 0.3.

    Source: the evaluation code MVTec publishes with MVTec AD (`pro_curve_util.py` and the
    `trapezoid` of `generic_util.py`); anomalib from 2.3 computes the same, except where a whole
    image is defective (a difference of 0.18 was found).
    """
    fpr, overlap, _ = vertices(ordering or order_maps(masks, anomaly_maps))
    return area(fpr, overlap, LIMIT) / LIMIT


def mvtec_3d(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """100 thresholds, evenly spaced among the sorted background scores.

    A threshold's false-positive rate is computed from its position, so that tied scores get
    different rates, and a score counts as positive only above the threshold. Area to 0.3, over 0.3.

    Source: the evaluation code MVTec publishes with MVTec 3D-AD (`compute_pro`, which
    `evaluate_experiment.py` calls with 100 thresholds).
    """
    ordering = ordering or order_maps(masks, anomaly_maps)
    background = ordering.background
    position = np.linspace(0, background.size - 1, 100, dtype=int)[::-1]
    _, overlap = rates(ordering, background[position])
    fpr = 1 - (position + 1) / background.size
    return area(np.append(fpr, 1.0), np.append(overlap, 1.0), LIMIT) / LIMIT


def linear_4000_both_rescaled(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """4000 thresholds linear in score, from the maximum down; both axes rescaled to [0, 1].

    Points with a false-positive rate up to 0.3 are kept, and both their rates and their overlaps
    are min-max rescaled: the overlap at the cut becomes 1 whatever it was.

    Source: `evaluate.py` of the authors of STPM, which names DFR's `anoseg_dfr.py` as its model;
    DFR rescales the false-positive rate alone.
    """
    ordering = ordering or order_maps(masks, anomaly_maps)
    low, high = extremes(ordering)
    thresholds = high - np.arange(4000) * ((high - low) / 4000)
    fpr, overlap = rates(ordering, thresholds)
    kept = fpr <= LIMIT
    return trapezoids(rescaled(fpr[kept]), rescaled(overlap[kept]))


def linear_200_fpr_rescaled(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """200 thresholds linear in score, from the minimum up; false-positive rate rescaled to [0, 1].

    Points with a false-positive rate below 0.3 are kept, and their rates are min-max rescaled: the
    part of the curve left of the first point kept is ignored, and the part up to 0.3 not filled in.

    Source: `cal_pro_score` of MuSc (`utils/metrics.py`), ADer (`util/metric.py`, 200 by default)
    and many others. They refer to CFLOW's `train.py`, which takes 1000 thresholds from the
    maximum down, keeps a rate equal to 0.3, and fills the holes of a region.
    """
    ordering = ordering or order_maps(masks, anomaly_maps)
    low, high = extremes(ordering)
    thresholds = low + np.arange(200) * ((high - low) / 200)
    fpr, overlap = rates(ordering, thresholds)
    kept = fpr < LIMIT
    return trapezoids(rescaled(fpr[kept][::-1]), overlap[kept][::-1])


def bins_1000(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """1000 bins linear in score from the minimum to the maximum, area to 0.3, over 0.3.

    The 1001 bin edges are the thresholds, at or above which a score is positive. The curve does
    not start at (0, 0) but at the maximum.

    Source: adeval (`mem_effic.py`, `nstrips=1000` by default).
    """
    return histogram_pro(ordering or order_maps(masks, anomaly_maps), 1000)


def bins_50(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """50 bins linear in score, otherwise the same as `bins_1000`.

    Source: ADer (`util/metric.py`), which calls adeval with `nstrips=50`.
    """
    return histogram_pro(ordering or order_maps(masks, anomaly_maps), 50)


def averaged_endpoint(masks, anomaly_maps, ordering: Ordering | None = None) -> float:
    """One ROC per region, resampled by index and averaged, over the averaged last rate.

    A region's ROC is that of its own pixels against the background, cut at 0.3 with the last
    point interpolated. Its points are numbered, the numbers are stretched to as many as the ROC of
    all pixels has up to 0.3, and rates and overlaps are read off at the integers; the average of
    both over regions is integrated and divided by the average's last rate.

    Stretching by number shifts the regions' curves relative to one another, and the last point may
    fall left of those before it: the points are sorted by rate before the integration, but the
    divisor remains the point with the last number, so that the result can exceed 1.

    NaN if the highest background score alone is shared by more than 0.3 of the background: there
    the published code reads off a curve whose numbers are not in order.

    Source: `AUPRO` of anomalib up to 2.2 (`src/anomalib/metrics/aupro.py`). The published code
    first passes scores outside [0, 1] through a sigmoid, in float32; that is left out here.
    """
    defect, background, region = split_maps(masks, anomaly_maps)
    by_region = np.split(defect[np.argsort(region, kind="stable")], np.bincount(region).cumsum())
    regions = by_region[:-1]
    ordering = ordering or order(defect, background, name="anomaly_maps")
    background = ordering.background
    size = background.size

    begins = np.flatnonzero(np.concatenate([[True], background[1:] != background[:-1]]))
    steps = background[begins]  # distinct background scores, ascending
    # The false-positive rate after 0, 1, 2, ... distinct background scores from the top.
    fpr = np.concatenate([[0.0], (size - begins[::-1]) / size])
    rise = np.diff(fpr, append=1.0)
    cut = int(np.searchsorted(fpr, LIMIT, side="right")) - 1
    if cut == 0:
        return float("nan")
    close = np.isclose(fpr[cut], LIMIT, rtol=1e-5, atol=1e-8)
    last_share = 0.0 if close else (LIMIT - fpr[cut]) / (fpr[cut + 1] - fpr[cut])

    untied = ordering.through == ordering.below
    grid_end = cut + int((untied & ((size - ordering.below) / size <= LIMIT)).sum())
    curves = [region_curve(scores, steps, cut, close) for scores in regions]
    numbers = marked_numbers(curves, grid_end, last_share)

    mean_fpr = np.zeros(numbers.size + 1)
    mean_overlap = np.zeros(numbers.size + 1)
    for index, taken, overlap, end in curves:
        at = np.append(numbers * (end / grid_end), end if close else end - 1 + last_share)
        step = np.interp(at, index, taken)
        whole = step.astype(np.int64)
        mean_fpr += fpr.take(whole) + (step - whole) * rise.take(whole)
        mean_overlap += np.interp(at, index, overlap)
    mean_fpr /= len(curves)
    mean_overlap /= len(curves)
    rank = np.argsort(mean_fpr, kind="stable")
    return trapezoids(mean_fpr[rank], mean_overlap[rank]) / float(mean_fpr[-1])


DEFINITIONS: dict[str, Callable] = {
    "mvtec": mvtec,
    "mvtec_3d": mvtec_3d,
    "linear_4000_both_rescaled": linear_4000_both_rescaled,
    "linear_200_fpr_rescaled": linear_200_fpr_rescaled,
    "bins_1000": bins_1000,
    "bins_50": bins_50,
    "averaged_endpoint": averaged_endpoint,
}


def every_definition(masks, anomaly_maps) -> dict[str, float]:
    """Return the PRO by each of `DEFINITIONS`; the scores are sorted once."""
    ordering = order_maps(masks, anomaly_maps)
    return {name: pro(masks, anomaly_maps, ordering) for name, pro in DEFINITIONS.items()}


def extremes(ordering: Ordering) -> tuple[float, float]:
    """Return the lowest and the highest score."""
    low = min(ordering.background[0], ordering.defect[0])
    high = max(ordering.background[-1], ordering.defect[-1])
    return float(low), float(high)


def rates(ordering: Ordering, thresholds, inclusive: bool = False):
    """Return the false-positive rate and the overlap of each threshold.

    A score is positive above a threshold; or, if `inclusive`, also where it equals it.
    """
    dtype = ordering.background.dtype
    # A float64 threshold between two float32 scores is moved to the score on the side that leaves
    # every comparison unchanged; otherwise the search would copy all scores to float64.
    moved = thresholds.astype(dtype)
    if inclusive:
        side, wrong, away = "left", moved < thresholds, np.inf
    else:
        side, wrong, away = "right", moved > thresholds, -np.inf
    np.nextafter(moved, dtype.type(away), out=moved, where=wrong)
    size = ordering.background.size
    fpr = (size - ordering.background.searchsorted(moved, side)) / size
    rank = ordering.defect[ordering.first].searchsorted(moved, side)
    return fpr, np.append(ordering.overlap, 0.0)[rank]


def rescaled(values: np.ndarray) -> np.ndarray:
    """Return ascending values shifted and scaled to [0, 1]; NaN if all are equal."""
    if values.size == 0 or values[0] == values[-1]:
        return np.full(values.shape, np.nan)
    return (values - values[0]) / (values[-1] - values[0])


def trapezoids(x: np.ndarray, y: np.ndarray) -> float:
    """Return the area under a curve; NaN if it has fewer than two points."""
    return float(np.trapezoid(y, x)) if x.size > 1 else float("nan")


def histogram_pro(ordering: Ordering, bins: int) -> float:
    """Return the PRO of `bins` bins linear in score, see `bins_1000`."""
    low, high = extremes(ordering)
    if low == high:
        return float("nan")
    fpr, overlap = rates(ordering, np.linspace(low, high, bins + 1)[::-1], inclusive=True)
    return area(fpr, overlap, LIMIT) / LIMIT if fpr[0] <= LIMIT else float("nan")


def region_curve(scores: np.ndarray, steps: np.ndarray, cut: int, close: bool):
    """Describe the ROC of one region against the background, by the number of its points.

    A point of the curve is a distinct score of the region or the background, from the top; the
    first, number 0, is the origin. Between the numbers returned everything is linear.

    Args:
        scores: (A,) the region's scores.
        steps: (D,) the distinct background scores, ascending.
        cut: how many of `steps`, from the top, have a false-positive rate within the limit.
        close: whether the curve ends there, rather than with the next point.

    Returns:
        index, taken, overlap: of equal length; at point number `index`, the number of distinct
            background scores and the share of the region that have been passed.
        end: the number of the curve's last point.
    """
    scores, tied = np.unique(scores, return_counts=True)
    scores, tied = scores[::-1], tied[::-1]
    above = steps.size - steps.searchsorted(scores, side="right")
    untied = steps[np.maximum(steps.size - above - 1, 0)] != scores
    untied_so_far = np.cumsum(untied)
    index = above + ~untied + untied_so_far
    overlap = np.cumsum(tied) / tied.sum()
    # Each score of the region adds the segment from the point before it to its own.
    pairs = np.empty((3, 2 * scores.size + 2))
    pairs[:, 0] = 0
    pairs[:, 1:-1:2] = index - 1, above, np.append(0.0, overlap[:-1])
    pairs[:, 2:-1:2] = index, above + ~untied, overlap
    pairs[:, -1] = steps.size + untied_so_far[-1], steps.size, 1
    end = cut + int((untied & (above <= cut)).sum()) + (0 if close else 1)
    return *pairs, end


def marked_numbers(curves, grid_end: int, last_share: float) -> np.ndarray:
    """Return the numbers at which the averaged curve has to be read off.

    If no region's overlap grows, the averaged overlap is constant and points in between do not
    change the area. Kept are the first number, every number at the end of a segment in which some
    region's overlap grows, and those that the last point may precede once sorted by rate.
    """
    change = np.zeros(grid_end + 1, dtype=np.int64)
    tail = grid_end
    for index, _, _, end in curves:
        ends = index[2:-1:2].astype(np.int64)
        ends = ends[ends <= end]
        start = (ends - 1) * grid_end // end
        stop = -(-ends * grid_end // end)
        np.add.at(change, start, 1)
        inside = stop + 1 <= grid_end
        np.add.at(change, stop[inside] + 1, -1)
        tail = min(tail, int((end - 1 + last_share) * grid_end / end) if last_share else tail)
    marked = np.cumsum(change) > 0
    marked[0] = True
    marked[max(tail - 1, 0) :] = True
    return np.flatnonzero(marked[:-1])
