"""Differences between two settings: arrays in, numbers out.

The unit of every interval and test is the category: the seeds of a category are averaged first.
Seeds of one category share its images; counted as pairs of their own they would make an interval
too narrow and a p too small.
"""

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

RESAMPLES = 10_000
LEVEL = 0.95
# With five pairs the smallest two-sided p of the signed-rank test is 2 / 2**5 = 0.0625.
FEWEST_PAIRS = 6
FEWEST_SEEDS = 3


def paired_differences(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Pair two settings by category and seed.

    Args:
        one, other: columns `category`, `seed`, `value`; a cell that is missing has no row.

    Returns:
        Columns `category`, `seed`, `difference` (one - other), for the pairs that both have.
    """
    ours, theirs = (
        dict(zip(zip(rows["category"], rows["seed"], strict=True), rows["value"], strict=True))
        for rows in (one, other)
    )
    pairs = [(*key, value - theirs[key]) for key, value in ours.items() if key in theirs]
    return pd.DataFrame(pairs, columns=["category", "seed", "difference"])


def compare(pairs: pd.DataFrame, threshold: float = 0.0) -> dict:
    """Describe paired differences: mean, interval over categories, test and effect size.

    Args:
        pairs: what `paired_differences` returns.
        threshold: the difference that the test takes for none.

    Returns:
        `pairs`, `categories` (counts); `difference` (the mean over categories of their means over
        seeds); `low`, `high` (`bootstrap_interval`), `p` (`signed_rank`), `effect`
        (`rank_biserial`); `note`. With fewer than `FEWEST_PAIRS` categories the last four numbers
        are NaN and `note` says 'too few pairs'.
    """
    means = pairs.groupby("category", sort=False)["difference"].mean().to_numpy()
    found = {
        "pairs": len(pairs),
        "categories": len(means),
        "difference": float(means.mean()) if len(means) else np.nan,
        "low": np.nan,
        "high": np.nan,
        "p": np.nan,
        "effect": np.nan,
        "note": "",
    }
    if len(means) < FEWEST_PAIRS:
        note = f"too few pairs: {len(means)} of at least {FEWEST_PAIRS} categories"
        return found | {"note": note if len(means) else "no pairs"}
    low, high = bootstrap_interval(means)
    return found | {
        "low": low,
        "high": high,
        "p": signed_rank(means - threshold),
        "effect": rank_biserial(means - threshold),
    }


def bootstrap_interval(
    values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean.

    Args:
        values: (n,) one value a category.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    values = np.asarray(values, float)
    tail = (1 - level) / 2
    means = values[draws(len(values), resamples, seed)].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@functools.cache
def draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """Return the (resamples, n) indices of a bootstrap: those of every comparison of n values."""
    return np.random.default_rng(seed).integers(n, size=(resamples, n))


def seed_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return Student's t interval of the mean over seeds; NaN with fewer than `FEWEST_SEEDS`."""
    from scipy.stats import t

    values = np.asarray(values, float)
    if len(values) < FEWEST_SEEDS:
        return np.nan, np.nan
    half = t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def signed_rank(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 where every difference is 0.

    Exact up to 50 differences without ties, else by the normal approximation (scipy). Differences
    of 0 are dropped, as Wilcoxon did.
    """
    from scipy.stats import wilcoxon

    differences = np.asarray(differences, float)
    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def rank_biserial(differences: Sequence[float]) -> float:
    """Return the matched-pairs rank-biserial correlation, in [-1, 1].

    The share of the rank sum that speaks for a positive difference, less the share that speaks
    against it; 0 where every difference is 0. Source: Kerby, The simple difference formula,
    Comprehensive Psychology 3, 2014.
    """
    from scipy.stats import rankdata

    differences = np.asarray(differences, float)
    differences = differences[differences != 0]
    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum()) if len(ranks) else 0.0


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p values of one family by Holm's step-down method; a NaN is no test and stays NaN.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6, 1979.
    """
    p = np.asarray(p, float)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected
