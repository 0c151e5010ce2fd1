"""How often a "95 %" interval of a mean over categories contains the true mean."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from stpm_bench.report.statistics import LEVEL, mean_interval

# Differences between settings: about the same everywhere, or skewed, since a few categories change
# a lot. Each distribution has a mean of 0; its skewness is given with it.
DISTRIBUTIONS: dict[str, tuple[float, Callable]] = {
    "normal": (0.0, lambda rng, shape: rng.normal(size=shape)),
    "gamma, shape 4": (1.0, lambda rng, shape: rng.gamma(4, size=shape) - 4),
    "lognormal, sigma 0.5": (
        1.75,
        lambda rng, shape: rng.lognormal(0, 0.5, shape) - np.exp(0.125),
    ),
    "exponential": (2.0, lambda rng, shape: rng.exponential(size=shape) - 1),
}
CATEGORIES = (6, 15)  # the smallest number that is compared, and that of MVTec AD
SAMPLES = 1000  # per distribution, size and run
RESAMPLES = 1000
# The command's description of the table.
SUMMARY = f"shares of {SAMPLES} samples a run, {{runs}} runs"


def sample(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw from one of `DISTRIBUTIONS`, an array of this shape."""
    return DISTRIBUTIONS[name][1](rng, shape)


def run(runs: int = 5, seed: int = 0) -> pd.DataFrame:
    """Simulate the coverage of each interval; all get the same samples.

    Args:
        runs: `SAMPLES` samples each.
        seed: of samples and resamples.

    Returns:
        One row per interval, distribution and number of categories: `interval`, `differences`,
        `skewness`, `n`, `coverage` (the share of intervals that contain the true mean), `low above
        the mean` and `high below the mean` (the shares that miss on either side, 0.025 each if the
        two are equal), `width` (the median, in standard deviations of the distribution).
    """
    rng = np.random.default_rng(seed)
    rows = []
    for name, (skewness, _) in DISTRIBUTIONS.items():
        scale = sample(name, (200_000,), rng).std()
        for n in CATEGORIES:
            samples = sample(name, (runs * SAMPLES, n), rng)
            for label, (low, high) in intervals(samples, rng).items():
                above, below = np.mean(low > 0), np.mean(high < 0)
                width = np.median(high - low) / scale
                rows.append((label, name, skewness, n, 1 - above - below, above, below, width))
    columns = ["interval", "differences", "skewness", "n", "coverage"]
    columns += ["low above the mean", "high below the mean", "width"]
    return pd.DataFrame(rows, columns=columns)


def intervals(samples: np.ndarray, rng: np.random.Generator) -> dict[str, tuple]:
    """Return label -> (low, high), each (samples,), for samples (samples, n).

    Source of the bootstrap intervals: Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapters 12 to 14.
    """
    n, tail = samples.shape[1], (1 - LEVEL) / 2
    mean, sd = samples.mean(axis=1), samples.std(axis=1, ddof=1)
    half = stats.t.ppf(1 - tail, n - 1) * sd / np.sqrt(n)
    found = {"used here": mean_interval(samples), "Student's t": (mean - half, mean + half)}
    indices = rng.integers(n, size=(RESAMPLES, n))
    bootstrap = [resampled(values, indices, tail) for values in samples]
    for place, label in enumerate(("percentile bootstrap", "BCa bootstrap", "bootstrap-t")):
        found[label] = tuple(np.array([bounds[place] for bounds in bootstrap]).T)
    return found


def resampled(values: np.ndarray, indices: np.ndarray, tail: float) -> tuple:
    """Return the percentile, BCa and bootstrap-t intervals of the mean of one sample (n,)."""
    mean, sd = values.mean(), values.std(ddof=1)
    resamples = values[indices]
    means, sds = resamples.mean(axis=1), resamples.std(axis=1, ddof=1)
    percentile = np.quantile(means, [tail, 1 - tail])
    error = values.mean() - values
    acceleration = (error**3).sum() / (6 * (error**2).sum() ** 1.5)
    shift = stats.norm.ppf(np.clip((means < mean).mean(), 1 / len(means), 1 - 1 / len(means)))
    z = shift + stats.norm.ppf([tail, 1 - tail])
    bca = np.quantile(means, stats.norm.cdf(shift + z / (1 - acceleration * z)))
    varies = sds > 0
    ratios = (means[varies] - mean) / sds[varies]
    return percentile, bca, mean - sd * np.quantile(ratios, [1 - tail, tail])


def note() -> str:
    """Return how the table was computed, besides the number of runs."""
    return f"{RESAMPLES} resamples of each bootstrap; nominal coverage {LEVEL}"
