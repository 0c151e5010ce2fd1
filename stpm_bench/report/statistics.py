"""Differences between two settings: arrays in, numbers out.

The unit of every paired comparison is the category: the seeds of a category are averaged first.
Seeds of one category share its images; counting them as separate pairs would make the interval too
narrow and p too small. Only `seed_interval`, of what is compared with a constant, is over seeds or
cells.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

LEVEL = 0.95
# With five pairs the smallest two-sided p of the signed-rank test is 2 / 2**5 = 0.0625.
FEWEST_PAIRS = 6
FEWEST_SEEDS = 3


def paired_differences(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Average each setting's seeds within a category, then pair the two by category.

    The two may have different numbers of seeds (a method without randomness has one).

    Args:
        one, other: columns `category`, `value`, one row per seed; a missing value is NaN or has no
            row.

    Returns:
        Columns `category`, `difference` (one - other), `values` (how many values of the two
        settings it was computed from), for the categories that both have.
    """
    ours, theirs = by_category(one), by_category(other)
    rows = [
        (category, np.mean(values) - np.mean(theirs[category]), len(values) + len(theirs[category]))
        for category, values in ours.items()
        if category in theirs
    ]
    return pd.DataFrame(rows, columns=["category", "difference", "values"])


def by_category(rows: pd.DataFrame) -> dict[str, list[float]]:
    """Return category -> its values that are not NaN; a category without any has no key."""
    found: dict[str, list[float]] = {}
    for category, value in zip(rows["category"], rows["value"], strict=True):
        if value == value:  # not NaN
            found.setdefault(category, []).append(value)
    return found


def compare(pairs: pd.DataFrame, threshold: float = 0.0) -> dict:
    """Describe paired differences: mean, interval over categories, test and effect size.

    Args:
        pairs: what `paired_differences` returns.
        threshold: the difference under the test's null hypothesis.

    Returns:
        `values`, `categories` (counts); `difference` (the mean over categories); `low`, `high`
        (`mean_interval`), `p` (`signed_rank`), `rank_biserial`; `note`. With fewer than
        `FEWEST_PAIRS` categories `low`, `high`, `p` and `rank_biserial` are NaN and `note` says
        'too few pairs'.
    """
    means = pairs["difference"].to_numpy(float)
    found = {
        "values": int(pairs["values"].sum()),
        "categories": len(means),
        "difference": float(means.mean()) if len(means) else np.nan,
        "low": np.nan,
        "high": np.nan,
        "p": np.nan,
        "rank_biserial": np.nan,
        "note": "",
    }
    if len(means) < FEWEST_PAIRS:
        note = f"too few pairs: {len(means)} of at least {FEWEST_PAIRS} categories"
        return found | {"note": note if len(means) else "no pairs"}
    low, high = mean_interval(means)
    return found | {
        "low": float(low),
        "high": float(high),
        "p": signed_rank(means - threshold),
        "rank_biserial": rank_biserial(means - threshold),
    }


def mean_interval(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return an interval of the mean that is corrected for skewness.

    Student's t of a skewed sample is skewed itself. Hall's cubic transformation makes it nearly
    symmetric and is monotone; quantiles are taken from Student's t distribution and transformed
    back. Differences between settings are often skewed: most categories hardly change and a few
    change a lot. `python -m stpm_bench benchmark intervals` compares the coverage with that of
    Student's t and of bootstrap intervals.

    Args:
        values: (..., n) one value per category along the last axis, n of at least 3.

    Returns:
        low, high: (...); both are the mean where all n values are equal.

    Source: Hall, On the removal of skewness by transformation, Journal of the Royal Statistical
    Society B 54, 1992, the transformation g3; the skewness is the adjusted Fisher-Pearson
    coefficient, which is less biased in samples of 6 to 15.
    """
    from scipy.stats import t

    values = np.asarray(values, float)
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    error = values - mean[..., None]
    sd = values.std(axis=-1, ddof=1)
    variance = (error**2).mean(axis=-1)
    varies = sd > 1e-12 * np.abs(mean)
    skewness = np.zeros_like(mean)
    np.divide((error**3).mean(axis=-1), variance**1.5, out=skewness, where=varies)
    skewness *= np.sqrt(n * (n - 1)) / (n - 2)
    # The transformation divides by the skewness; below this it equals the identity up to rounding.
    skewness = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    quantile = t.ppf((1 + level) / 2, n - 1)

    def inverse(transformed: float) -> np.ndarray:
        """Return (mean - true mean) / sd for a value of the transformation."""
        scaled = transformed / np.sqrt(n) - skewness / (6 * n)
        return 3 / skewness * (np.cbrt(1 + skewness * scaled) - 1)

    sd = np.where(varies, sd, 0)
    return mean - sd * inverse(quantile), mean - sd * inverse(-quantile)


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

    Exact up to 50 differences without ties, and up to 13 with ties; else by the normal
    approximation (SciPy 1.15; earlier versions use it wherever there are ties). Differences of 0
    are dropped, as Wilcoxon did.
    """
    from scipy.stats import wilcoxon

    differences = np.asarray(differences, float)
    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def rank_biserial(differences: Sequence[float]) -> float:
    """Return the matched-pairs rank-biserial correlation, in [-1, 1].

    The share of the rank sum of the positive differences, less that of the negative ones; 0 where
    every difference is 0. Source: Kerby, The simple difference formula,
    Comprehensive Psychology 3, 2014.
    """
    from scipy.stats import rankdata

    differences = np.asarray(differences, float)
    differences = differences[differences != 0]
    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum()) if len(ranks) else 0.0


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct the p values of one family by Holm's step-down method; NaN (no test) stays NaN.

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


def hochberg(p: Sequence[float]) -> np.ndarray:
    """Correct the p values of one family by Hochberg's step-up method; NaN (no test) stays NaN.

    Source: Hochberg, A sharper Bonferroni procedure for multiple tests of significance, Biometrika
    75, 1988.
    """
    p = np.asarray(p, float)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(-p[tested], kind="stable")]  # the largest first
    corrected[order] = np.minimum.accumulate(p[order] * np.arange(1, len(order) + 1))
    return corrected
