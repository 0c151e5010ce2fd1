"""PRO against a loop over thresholds with skimage's labels, and against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_references import (
    curve_by_loop,
    increasing,
    labelled_scores,
    masked_maps,
    pro_by_loop,
    rates,
)

from stpm_bench.metrics import auroc, pro, pro_curve

EXACT = {"rel": 0, "abs": 1e-9}
several = settings(deadline=None, max_examples=120)
limits = st.one_of(st.sampled_from([0.05, 0.3, 0.5, 1.0]), st.floats(0.01, 1.0))


@several
@given(masked_maps(), limits)
def test_pro_equals_a_loop_over_thresholds(data, limit):
    masks, maps = data
    assert pro(masks, maps, limit) == pytest.approx(pro_by_loop(masks, maps, limit), **EXACT)


@several
@given(masked_maps())
def test_every_point_of_the_curve_is_that_of_its_threshold(data):
    masks, maps = data
    fpr, overlap, thresholds = pro_curve(masks, maps)
    assert (fpr[0], overlap[0], thresholds[0]) == (0, 0, np.inf)
    for x, y, threshold in zip(fpr, overlap, thresholds, strict=True):
        assert (x, y) == pytest.approx(rates(masks, maps >= threshold), **EXACT)
    assert (np.diff(thresholds) < 0).all()
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(overlap) >= 0).all()


@several
@given(masked_maps())
def test_no_threshold_lies_off_the_curve(data):
    masks, maps = data
    fpr, overlap, _ = pro_curve(masks, maps)
    corners = np.column_stack([fpr, overlap])
    for x, y in curve_by_loop(masks, maps):
        on_corner = np.abs(corners - [x, y]).max(axis=1).min() < 1e-9
        # Off the corners only the false positives grow, so the overlap equals that to the left.
        level = overlap[np.searchsorted(fpr, x, side="right") - 1]
        assert on_corner or abs(level - y) < 1e-9


@several
@given(masked_maps(), limits)
def test_only_the_order_of_the_scores_counts(data, limit):
    masks, maps = data
    assert pro(masks, increasing(maps), limit) == pro(masks, maps, limit)


@several
@given(labelled_scores(shape=(1, 1, 12)))
def test_with_one_region_the_full_area_is_the_auroc(data):
    _, maps = data
    masks = np.zeros(maps.shape, dtype=bool)
    masks[..., 3:7] = True
    assert pro(masks, maps, 1.0) == pytest.approx(auroc(masks, maps), **EXACT)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_larger_maps_equal_the_loop(dtype):
    rng = np.random.default_rng(2)
    masks = rng.random((4, 24, 24)) < 0.2
    masks[1] = False
    maps = (rng.standard_normal(masks.shape) + masks).round(1).astype(dtype)
    for limit in (0.05, 0.3, 1.0):
        assert pro(masks, maps, limit) == pytest.approx(pro_by_loop(masks, maps, limit), **EXACT)


def test_closed_forms():
    masks = np.zeros((1, 2, 10), dtype=np.uint8)
    masks[0, 0] = 1
    perfect = masks.astype(np.float32)
    assert pro(masks, perfect) == 1
    assert pro(masks, -perfect) == 0
    # Constant maps: the chord from (0, 0) to (1, 1), whose mean height up to the limit is half it.
    assert pro(masks, np.ones(masks.shape)) == pytest.approx(0.15)
    assert pro(masks, np.ones(masks.shape), 1.0) == pytest.approx(0.5)
    # Half of the region on top, the other half below all background.
    half = perfect.copy()
    half[0, 0, 5:] = -1
    assert pro(masks, half) == pytest.approx(0.5)


def test_regions_count_equally_whatever_their_size():
    masks = np.zeros((1, 6, 6), dtype=bool)
    masks[0, 0, 0] = True
    masks[0, 2:6, 2:6] = True
    maps = np.zeros(masks.shape)
    maps[0, 0, 0] = 1
    maps[0, 2:6, 2:6] = -1
    assert pro(masks, maps) == pytest.approx(0.5)


def test_touching_corners_join_and_a_gap_parts():
    maps = np.zeros((1, 4, 4))
    corner = np.zeros((1, 4, 4), dtype=bool)
    corner[0, 0, 0] = corner[0, 1, 1] = corner[0, 1, 2] = True
    maps[0, 0, 0] = 1
    maps[0, 1, 1:3] = -1
    assert pro(corner, maps) == pytest.approx(1 / 3)
    gap = np.zeros((1, 4, 4), dtype=bool)
    gap[0, 0, 0] = gap[0, 2, 1] = gap[0, 2, 2] = True
    maps = np.where(gap, -1.0, 0.0)
    maps[0, 0, 0] = 1
    assert pro(gap, maps) == pytest.approx(1 / 2)


def test_regions_do_not_join_across_images():
    masks = np.zeros((2, 2, 2), dtype=bool)
    masks[0, 0, 0] = True
    masks[1, 0] = True
    maps = np.where(masks, -1.0, 0.0)
    maps[0, 0, 0] = 1
    assert pro(masks, maps) == pytest.approx(1 / 2)


def test_regions_at_opposite_borders_do_not_join():
    masks = np.zeros((1, 3, 3), dtype=bool)
    masks[0, 1, 0] = masks[0, 0, 2] = masks[0, 1, 2] = True
    maps = np.where(masks, -1.0, 0.0)
    maps[0, 1, 0] = 1
    assert pro(masks, maps) == pytest.approx(1 / 2)


def test_the_last_bit_counts():
    masks = np.array([[[1, 0]]])
    one = np.float32(1)
    maps = np.array([[[np.nextafter(one, np.float32(2)), one]]])
    assert pro(masks, maps) == 1
    assert pro(masks, maps[..., ::-1]) == 0


def test_inputs_are_left_as_they_were():
    masks, maps = np.array([[[0, 1, 0]]]), np.array([[[3.0, 1.0, 2.0]]])
    pro(masks, maps)
    assert masks.tolist() == [[[0, 1, 0]]]
    assert maps.tolist() == [[[3, 1, 2]]]


good = np.array([[[0, 1]]])
ramp = np.array([[[0.0, 1.0]]])


@pytest.mark.parametrize("function", [pro, pro_curve])
@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.zeros((0, 2, 2)), np.zeros((0, 2, 2)), "masks: expected at least one value"),
        (good[0], ramp[0], r"masks: expected the shape \(N, H, W\), found \(1, 2\)"),
        (good, ramp[0], r"anomaly_maps: expected the shape \(N, H, W\), found \(1, 2\)"),
        (good, ramp[..., :1], "masks and anomaly_maps: expected the same shape"),
        (good * 255, ramp, "masks: expected bool or only 0 and 1, found the value 255"),
        (good * 0, ramp, "masks: expected at least one defect"),
        (good * 0 + 1, ramp, "masks: expected at least one background"),
        (good, ramp * np.nan, "anomaly_maps: expected finite scores, found NaN or infinity"),
        (good, ramp + np.inf, "anomaly_maps: expected finite scores, found NaN or infinity"),
        (good, ramp - np.inf, "anomaly_maps: expected finite scores, found NaN or infinity"),
    ],
)
def test_errors_say_what_is_wrong(function, masks, maps, message):
    with pytest.raises(ValueError, match=message):
        function(masks, maps)


@pytest.mark.parametrize("limit", [0, -0.1, 1.5, float("nan")])
def test_a_limit_outside_its_range_is_refused(limit):
    with pytest.raises(ValueError, match=r"fpr_limit: expected a number in \(0, 1\], found"):
        pro(good, ramp, limit)
