"""Each function against a loop, an enumeration or a value from a textbook."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from stpm_bench import statistics

RNG = np.random.default_rng(0)


def frame(values):
    rows = [(category, seed, value) for (category, seed), value in values.items()]
    return pd.DataFrame(rows, columns=["category", "seed", "value"])


def test_pairs_are_those_that_both_settings_have():
    one = frame({("a", 0): 0.9, ("a", 1): 0.8, ("b", 0): 0.5, ("c", 0): 0.4})
    other = frame({("b", 0): 0.25, ("a", 1): 0.5, ("a", 0): 0.5, ("c", 1): 0.1})
    pairs = statistics.paired_differences(one, other)
    assert pairs[["category", "seed"]].to_numpy().tolist() == [["a", 0], ["a", 1], ["b", 0]]
    assert pairs["difference"].tolist() == pytest.approx([0.4, 0.3, 0.25])


def test_each_category_counts_once_however_many_seeds_it_has():
    names = "abcdef"
    one = frame(
        {(name, seed): 1.0 for name in names for seed in range(3) if name != "a" or not seed}
    )
    other = frame({(name, seed): i / 10 for i, name in enumerate(names) for seed in range(3)})
    found = statistics.compare(statistics.paired_differences(one, other))
    assert (found["pairs"], found["categories"]) == (16, 6)
    assert found["difference"] == pytest.approx(0.75)
    assert found["p"] == pytest.approx(2 / 2**6)
    assert found["effect"] == 1
    assert 0.5 < found["low"] < 0.75 < found["high"] < 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_pairs_say_so(count):
    one = frame({(f"c{i}", seed): i / 9 for i in range(count) for seed in range(3)})
    found = statistics.compare(
        statistics.paired_differences(one, one.assign(value=one["value"] / 2))
    )
    assert found["note"] == f"too few pairs: {count} of at least 6 categories"
    assert np.isnan([found["low"], found["high"], found["p"], found["effect"]]).all()
    assert found["difference"] == pytest.approx(np.arange(count).mean() / 18)


def test_no_pairs_say_so():
    found = statistics.compare(
        statistics.paired_differences(frame({("a", 0): 1.0}), frame({("b", 0): 1.0}))
    )
    assert found["note"] == "no pairs"
    assert np.isnan(found["difference"])


def test_the_bootstrap_interval_is_that_of_every_resample():
    values = RNG.normal(0.01, 0.03, 6)
    every = [np.mean(draw) for draw in itertools.product(values, repeat=6)]
    expected = np.quantile(every, [0.025, 0.975])
    found = statistics.bootstrap_interval(values, resamples=200_000)
    np.testing.assert_allclose(found, expected, atol=4e-4)


def test_the_bootstrap_interval_agrees_with_scipys():
    values = RNG.normal(0.01, 0.03, 15)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = statistics.bootstrap_interval(values)
    np.testing.assert_allclose(found, reference, atol=1e-3)
    assert found == statistics.bootstrap_interval(values)


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
