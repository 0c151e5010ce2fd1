"""Each function is compared with a loop, an enumeration or a value from a textbook."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

from stpm_bench.benchmarks import intervals
from stpm_bench.report import statistics

RNG = np.random.default_rng(0)


def frame(values):
    rows = [(category, seed, value) for (category, seed), value in values.items()]
    return pd.DataFrame(rows, columns=["category", "seed", "value"])


def test_seeds_are_averaged_before_categories_are_paired():
    one = frame({("a", 0): 0.9, ("a", 1): 0.7, ("b", 0): 0.5, ("c", 0): np.nan, ("d", 1): 0.5})
    other = frame({("b", 3): 0.25, ("a", 5): 0.5, ("c", 0): 0.1, ("e", 0): 0.5})
    pairs = statistics.paired_differences(one, other)
    assert pairs["category"].tolist() == ["a", "b"]
    assert pairs["difference"].tolist() == pytest.approx([0.3, 0.25])
    assert pairs["values"].tolist() == [3, 2]


def test_each_category_counts_once_however_many_seeds_it_has():
    names = "abcdef"
    one = frame(
        {(name, seed): 1.0 for name in names for seed in range(3) if name != "a" or not seed}
    )
    other = frame({(name, seed): i / 10 for i, name in enumerate(names) for seed in range(3)})
    found = statistics.compare(statistics.paired_differences(one, other))
    assert (found["values"], found["categories"]) == (34, 6)
    assert found["difference"] == pytest.approx(0.75)
    assert found["p"] == pytest.approx(2 / 2**6)
    assert found["rank_biserial"] == 1
    assert 0.5 < found["low"] < 0.75 < found["high"] < 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_pairs_have_a_note(count):
    one = frame({(f"c{i}", seed): i / 9 for i in range(count) for seed in range(3)})
    found = statistics.compare(
        statistics.paired_differences(one, one.assign(value=one["value"] / 2))
    )
    assert found["note"] == f"too few pairs: {count} of at least 6 categories"
    assert np.isnan([found["low"], found["high"], found["p"], found["rank_biserial"]]).all()
    assert found["difference"] == pytest.approx(np.arange(count).mean() / 18)


def test_no_pairs_have_a_note():
    found = statistics.compare(
        statistics.paired_differences(frame({("a", 0): 1.0}), frame({("b", 0): 1.0}))
    )
    assert found["note"] == "no pairs"
    assert np.isnan(found["difference"])


@pytest.mark.parametrize("count", [6, 15])
def test_the_interval_solves_halls_equation(count):
    """Each bound against a root of the cubic, found by bisection."""
    for values in (RNG.normal(0.01, 0.03, count), RNG.exponential(0.03, count)):
        skewness = scipy.stats.skew(values, bias=False)
        sd, mean = values.std(ddof=1), values.mean()

        def transformed(bound, skewness=skewness, sd=sd, mean=mean):
            u = (mean - bound) / sd
            cubic = u + skewness * u**2 / 3 + skewness**2 * u**3 / 27 + skewness / (6 * count)
            return np.sqrt(count) * cubic

        quantile = scipy.stats.t.ppf(0.975, count - 1)
        expected = [
            scipy.optimize.brentq(lambda b, q=q: transformed(b) - q, mean - 99 * sd, mean + 99 * sd)
            for q in (quantile, -quantile)
        ]
        np.testing.assert_allclose(statistics.mean_interval(values), expected, rtol=1e-6)


def test_the_interval_of_a_symmetric_sample_is_students():
    values = np.array([-3, -2, -1, 1, 2, 3]) / 100
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(statistics.mean_interval(values), expected, atol=1e-6)


def test_the_interval_of_equal_values_is_their_value():
    for value in (0.0, 0.1, -0.01):
        np.testing.assert_allclose(statistics.mean_interval(np.full(6, value)), [value, value])


@pytest.mark.parametrize("count", [6, 15])
@pytest.mark.parametrize("name", intervals.DISTRIBUTIONS)
@pytest.mark.parametrize("sign", [1, -1])
def test_95_percent_intervals_cover_93_to_97_percent(name, count, sign):
    rng = np.random.default_rng(0)
    low, high = statistics.mean_interval(sign * intervals.sample(name, (20_000, count), rng))
    assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_the_percentile_bootstrap_that_was_used_before_covers_less():
    table = intervals.run(runs=1).set_index(["interval", "differences", "n"])
    assert table.loc[("percentile bootstrap", "normal", 6), "coverage"] < 0.9
    assert 0.92 < table.loc[("used here", "normal", 6), "coverage"] < 0.98
    tails = table["low above the mean"] + table["high below the mean"]
    np.testing.assert_allclose(tails, 1 - table["coverage"])


def test_the_seed_interval_agrees_with_scipys():
    values = RNG.normal(0.95, 0.01, 4)
    reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(statistics.seed_interval(values), reference)
    assert np.isnan(statistics.seed_interval(values[:2])).all()


@pytest.mark.parametrize("count", [6, 9, 12])
def test_the_signed_rank_test_is_the_enumeration_of_signs(count):
    values = RNG.normal(0.02, 0.05, count)
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    signs = np.array(list(itertools.product([0, 1], repeat=count)))
    sums, centre = signs @ ranks, ranks.sum() / 2
    seen = ranks[values > 0].sum()
    expected = np.mean(np.abs(sums - centre) >= abs(seen - centre))
    assert statistics.signed_rank(values) == pytest.approx(expected)
    with_zeros = np.append(values, [0, 0])
    assert statistics.signed_rank(with_zeros) == pytest.approx(expected)


def test_no_difference_at_all():
    assert statistics.signed_rank([0, 0, 0, 0, 0, 0, 0]) == 1
    assert statistics.rank_biserial([0, 0, 0, 0, 0, 0, 0]) == 0


def test_rank_biserial():
    # |d| has the ranks 1, 2.5, 2.5, 4; those of the positive ones sum to 7.5.
    assert statistics.rank_biserial([0.1, 0.2, -0.2, 0.3]) == pytest.approx((7.5 - 2.5) / 10)
    assert statistics.rank_biserial([-1, -2, -3]) == -1


def test_holm_on_a_known_family():
    # By hand: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 raised to the one before it.
    found = statistics.holm([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.6, 0.5]), [1, 1])
    assert statistics.holm([]).size == 0


def test_holm_rejects_what_the_definition_rejects():
    for _ in range(50):
        p = RNG.random(6) ** 3
        rejected, order = np.zeros(6, bool), np.argsort(p)
        for step, place in enumerate(order):
            if p[place] > 0.05 / (6 - step):
                break
            rejected[place] = True
        assert np.array_equal(statistics.holm(p) <= 0.05, rejected)


def test_hochberg_by_hand():
    assert statistics.hochberg([0.01, 0.04, np.nan, 0.03]) == pytest.approx(
        [0.03, 0.04, np.nan, 0.04], nan_ok=True
    )
    assert statistics.hochberg([0.05, 0.05, 0.05]) == pytest.approx([0.05] * 3)
    assert statistics.hochberg([0.02, 0.9]) == pytest.approx([0.04, 0.9])
