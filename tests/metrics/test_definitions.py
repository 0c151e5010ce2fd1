"""Every definition of PRO against a literal slow version of it."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from metric_references import area_by_loop, increasing, masked_maps, pro_by_loop, regions_of
from sklearn.metrics import auc

from stpm_bench.metrics import definitions
from stpm_bench.metrics.definitions import DEFINITIONS

EXACT = {"rel": 0, "abs": 1e-9, "nan_ok": True}


def slow_rates(masks, maps, thresholds, inclusive=False):
    """Return (fpr, overlap) of each threshold by comparing all scores with it."""
    masks = masks.astype(bool)
    background = maps[~masks].astype(np.float64)
    regions = [maps[image][where].astype(np.float64) for image, where in regions_of(masks)]
    points = []
    for threshold in thresholds:
        positive = np.greater_equal if inclusive else np.greater
        overlaps = [positive(scores, threshold).mean() for scores in regions]
        points.append((positive(background, threshold).mean(), np.mean(overlaps)))
    return points


def slow_mvtec_3d(masks, maps):
    background = sorted(maps[~masks.astype(bool)].tolist())
    points = [(1.0, 1.0)]
    for position in np.linspace(0, len(background) - 1, 100).astype(int):
        _, overlap = slow_rates(masks, maps, [background[position]])[0]
        points.append((1 - (position + 1) / len(background), overlap))
    return area_by_loop(points[::-1], 0.3) / 0.3


def min_max(values):
    return (values - values.min()) / (values.max() - values.min())


def slow_linear(masks, maps, steps, downwards, both):
    low, high = float(maps.min()), float(maps.max())
    delta = (high - low) / steps
    thresholds = [high - k * delta if downwards else low + k * delta for k in range(steps)]
    fpr, overlap = np.array(slow_rates(masks, maps, thresholds)).T
    kept = fpr <= 0.3 if downwards else fpr < 0.3
    fpr, overlap = fpr[kept], overlap[kept]
    if len(fpr) == 0 or fpr.min() == fpr.max() or (both and overlap.min() == overlap.max()):
        return float("nan")
    return auc(min_max(fpr), min_max(overlap) if both else overlap)


def slow_bins(masks, maps, bins):
    low, high = float(maps.min()), float(maps.max())
    if low == high:
        return float("nan")
    points = slow_rates(masks, maps, np.linspace(low, high, bins + 1)[::-1], inclusive=True)
    return area_by_loop(points, 0.3) / 0.3 if points[0][0] <= 0.3 else float("nan")


def roc_by_loop(background, scores):
    """Return fpr and tpr with every distinct score of either a threshold, from (0, 0)."""
    thresholds = sorted({*background.tolist(), *scores.tolist()}, reverse=True)
    fpr = [0.0] + [float((background >= threshold).mean()) for threshold in thresholds]
    tpr = [0.0] + [float((scores >= threshold).mean()) for threshold in thresholds]
    return np.array(fpr), np.array(tpr)


def slow_averaged_endpoint(masks, maps):
    masks = masks.astype(bool)
    background = maps[~masks]
    if (background == background.max()).mean() > 0.3:
        return float("nan")
    all_fpr, _ = roc_by_loop(background, maps[masks])
    size = int((all_fpr <= 0.3).sum())
    regions = [maps[image][where] for image, where in regions_of(masks)]
    mean_fpr = np.zeros(size)
    mean_tpr = np.zeros(size)
    for scores in regions:
        fpr, tpr = roc_by_loop(background, scores)
        wanted = np.arange(size, dtype=float)
        last = int(np.flatnonzero(fpr <= 0.3)[-1])
        if abs(fpr[last] - 0.3) <= 1e-8 + 1e-5 * 0.3:
            number = np.arange(last + 1) / last * (size - 1)
        else:
            last += 1
            number = np.arange(last + 1) / last * (size - 1)
            share = (0.3 - fpr[last - 1]) / (fpr[last] - fpr[last - 1])
            wanted[-1] = number[-2] + (number[-1] - number[-2]) * share
        mean_fpr += np.interp(wanted, number, fpr[: last + 1])
        mean_tpr += np.interp(wanted, number, tpr[: last + 1])
    mean_fpr /= len(regions)
    mean_tpr /= len(regions)
    rank = np.argsort(mean_fpr, kind="stable")
    return np.trapezoid(mean_tpr[rank], mean_fpr[rank]) / mean_fpr[-1]


SLOW = {
    "mvtec": pro_by_loop,
    "mvtec_3d": slow_mvtec_3d,
    "linear_4000_both_rescaled": lambda masks, maps: slow_linear(masks, maps, 4000, True, True),
    "linear_200_fpr_rescaled": lambda masks, maps: slow_linear(masks, maps, 200, False, False),
    "bins_1000": lambda masks, maps: slow_bins(masks, maps, 1000),
    "bins_50": lambda masks, maps: slow_bins(masks, maps, 50),
    "averaged_endpoint": slow_averaged_endpoint,
}
EXAMPLES = {"linear_4000_both_rescaled": 8, "bins_1000": 25, "averaged_endpoint": 200}


def typical(seed, dtype=np.float32, decimals=None):
    """Return masks of several sizes and heavy-tailed maps."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, 20, 20), dtype=bool)
    masks[0, 2:8, 3:9] = masks[0, 15, 15] = masks[1, 10:, :5] = masks[1, 0, 19] = True
    maps = np.exp(rng.standard_normal(masks.shape) + 1.5 * masks)
    return masks, (maps if decimals is None else maps.round(decimals)).astype(dtype)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_hard_inputs_equal_the_slow_version(name):
    @settings(deadline=None, max_examples=EXAMPLES.get(name, 50))
    @given(masked_maps())
    def check(data):
        masks, maps = data
        assume(np.isfinite(float(maps.max()) - float(maps.min())))
        assert DEFINITIONS[name](masks, maps) == pytest.approx(SLOW[name](masks, maps), **EXACT)

    check()


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [None, 1])
def test_typical_inputs_equal_the_slow_version(name, dtype, decimals):
    masks, maps = typical(4, dtype, decimals)
    result = DEFINITIONS[name](masks, maps)
    assert type(result) is float
    assert np.isfinite(result)
    assert result == pytest.approx(SLOW[name](masks, maps), **EXACT)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("levels", [20, 333])
def test_float32_scores_that_differ_in_the_last_bits(name, levels):
    masks, maps = typical(11)
    rank = np.minimum((maps * levels / 10).astype(int), levels)
    close = (1 + rank * np.finfo(np.float32).eps).astype(np.float32)
    result = DEFINITIONS[name](masks, close)
    assert np.isfinite(result)
    assert result == pytest.approx(SLOW[name](masks, close), **EXACT)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_rate_that_equals_the_limit(name):
    masks = np.zeros((1, 4, 10), dtype=bool)
    masks[0, :2, :5] = masks[0, :, 9] = masks[0, 3, :6] = True
    assert (~masks).sum() == 20
    for seed in range(5):
        maps = np.random.default_rng(seed).permutation(40).reshape(masks.shape) + 1.0 * masks
        expected = SLOW[name](masks, maps)
        assert DEFINITIONS[name](masks, maps) == pytest.approx(expected, **EXACT)


def test_the_old_endpoint_equals_the_slow_version_on_many_seeds():
    for seed in range(30):
        masks, maps = typical(seed, decimals=seed % 3)
        expected = slow_averaged_endpoint(masks, maps)
        assert definitions.averaged_endpoint(masks, maps) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(("low", "high", "exceeds"), [(-1, 3, False), (1, 8, True)])
def test_the_old_endpoint_where_its_last_point_falls_back(low, high, exceeds):
    # Regions of very different size and little background stretch the curves most.
    rng = np.random.default_rng(0)
    results = []
    for draw in range(200):
        width = rng.integers(6, 40)
        masks = np.zeros((3, 1, width), dtype=bool)
        masks[0, 0, : rng.integers(1, width)] = True
        masks[1, 0, rng.integers(0, width)] = True
        masks[2, 0, : rng.integers(0, 3)] = True
        maps = rng.standard_normal(masks.shape) + masks * rng.uniform(low, high, (3, 1, 1))
        if draw % 3 == 0:
            maps = maps.round(1)
        results.append(definitions.averaged_endpoint(masks, maps))
        assert results[-1] == pytest.approx(slow_averaged_endpoint(masks, maps), **EXACT)
    assert (np.nanmax(results) > 1) == exceeds


@pytest.mark.parametrize("name", ["mvtec", "mvtec_3d", "averaged_endpoint"])
def test_thresholds_taken_from_the_scores_see_only_their_order(name):
    masks, maps = typical(5)
    assert DEFINITIONS[name](masks, increasing(maps)) == DEFINITIONS[name](masks, maps)


def test_linear_thresholds_lose_most_on_heavy_tails():
    masks, maps = typical(6)
    heavy = maps.astype(np.float64) ** 4
    exact = definitions.mvtec(masks, heavy)
    assert definitions.mvtec(masks, maps) == exact
    assert definitions.bins_50(masks, heavy) < definitions.bins_50(masks, maps) < exact
    assert definitions.bins_1000(masks, heavy) < definitions.bins_1000(masks, maps)


def test_rescaling_the_overlap_lifts_a_weak_result():
    masks, maps = typical(7)
    weak = np.random.default_rng(7).standard_normal(maps.shape)
    assert definitions.linear_4000_both_rescaled(masks, weak) > definitions.mvtec(masks, weak) + 0.2


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_perfect_map_is_one_or_undefined(name):
    masks, maps = typical(8)
    perfect = np.where(masks, 100, np.argsort(maps, axis=None).reshape(maps.shape) / 2000)
    assert DEFINITIONS[name](masks, perfect) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_constant_map_is_undefined_where_the_source_divides_by_zero(name):
    masks, maps = typical(9)
    expected = {"mvtec": 0.15, "mvtec_3d": 0.0}.get(name, float("nan"))
    assert DEFINITIONS[name](masks, np.ones_like(maps)) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_errors_are_those_of_pro(name):
    masks, maps = typical(10)
    with pytest.raises(ValueError, match="masks: expected at least one defect"):
        DEFINITIONS[name](masks & False, maps)
    with pytest.raises(ValueError, match="anomaly_maps: expected finite scores"):
        DEFINITIONS[name](masks, maps * np.nan)
