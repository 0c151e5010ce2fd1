"""Slow, literal versions of the metrics, and inputs that are hard for the fast ones."""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage import measure


def regions_of(masks):
    """Return a list of (image, coordinates) of the 8-connected regions."""
    return [
        (image, tuple(region.coords.T))
        for image, mask in enumerate(masks)
        for region in measure.regionprops(measure.label(mask.astype(int), connectivity=2))
    ]


def rates(masks, predicted):
    """Return the false-positive rate and the per-region overlap of binary predictions."""
    masks = masks.astype(bool)
    fpr = predicted[~masks].sum() / (~masks).sum()
    overlaps = [predicted[image][where].mean() for image, where in regions_of(masks)]
    return fpr, np.mean(overlaps)


def curve_by_loop(masks, maps):
    """Return (fpr, overlap) of every distinct score as a threshold, after a point at (0, 0)."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        points.append(rates(masks, maps >= threshold))
    return points


def area_by_loop(points, limit):
    """Integrate a polyline of points in ascending order up to `limit`, interpolating there."""
    total = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        total += (x1 - x0) * (y0 + y1) / 2
    return total


def pro_by_loop(masks, maps, limit=0.3):
    return area_by_loop(curve_by_loop(masks, maps), limit) / limit


def elements(dtype):
    """Scores of one kind: tied, last-bit neighbours, denormals, or any finite float."""
    info = np.finfo(dtype)
    few = st.integers(-3, 3)
    return st.sampled_from(
        [
            few.map(lambda k: dtype(k)),
            few.map(lambda k: dtype(1) + dtype(k) * info.eps),
            few.map(lambda k: dtype(k) * info.smallest_subnormal),
            st.sampled_from([dtype(0.0), dtype(-0.0)]),
            st.floats(width=info.bits, allow_nan=False, allow_infinity=False).map(dtype),
        ]
    )


@st.composite
def labelled_scores(draw, shape=None):
    """Return labels with both classes and finite scores of the same shape."""
    if shape is None:
        shape = (draw(st.integers(2, 24)),)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(npst.arrays(dtype, shape, elements=draw(elements(dtype))))
    labels = draw(npst.arrays(bool, shape))
    if labels.all() or not labels.any():
        labels.flat[draw(st.integers(0, labels.size - 1))] ^= True
    return labels, scores


@st.composite
def masked_maps(draw):
    """Return masks with defect and background and finite maps, (N, H, W)."""
    shape = draw(
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)).filter(
            lambda shape: np.prod(shape) > 1
        )
    )
    masks, maps = draw(labelled_scores(shape))
    # An image may be all defect, as long as another has background.
    if len(masks) > 1 and not masks[1:].all() and draw(st.booleans()):
        masks[0] = True
    return masks, maps


def increasing(scores):
    """Return another array in which every pair of scores compares as before."""
    _, rank = np.unique(scores, return_inverse=True)
    return (rank.reshape(scores.shape) ** 3 * 0.125 - 7).astype(np.float64)
