"""Two runs of the same cells: what they have in common, and whether they say the same.

The rule of the verdicts is `compare`: arrays in, verdicts out. It was written before any two real
results were compared with it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

VERDICTS = ("reproduced", "within noise", "beyond noise", "cannot tell")
REPRODUCED, WITHIN, BEYOND, UNTOLD = VERDICTS
# Of a study without any real difference, how often one of its metrics may be called beyond noise.
ALPHA = 0.05
# Half a unit of the last digit that tables print: values this near are the same there.
TOLERANCE = 0.0005


class Comparison(NamedTuple):
    """One metric of a study in two runs.

    difference, low, high: the mean over groups of the other run less the one, and its 95% interval
        (of this metric alone, not widened for the others); NaN where nothing can be said.
    spread: the standard deviation over seeds of a single group, root mean square over groups.
    p: of 'no difference', corrected for all tests of the study; NaN without a test.
    group, largest: the index of the group whose difference is the largest against its noise, or,
        without a test, the largest; and that difference. -1 and NaN where no group is in both.
    groups: how many groups both have. untold: of how many of these nothing can be told, since each
        run has a single seed of it and the two differ.
    """

    verdict: str
    difference: float
    low: float
    high: float
    spread: float
    p: float
    group: int
    largest: float
    groups: int
    untold: int


def compare(one: np.ndarray, other: np.ndarray) -> list[Comparison]:
    """Return the verdict on each metric of a study that was run twice.

    A group is a category at a setting; its values vary by seed alone. The question is whether the
    values of the other run are draws from the same distributions as those of the one.

    *reproduced*: every value that both have of the same group and seed is the same to within
    `TOLERANCE`, whatever its noise. *beyond noise*: the tests below reject. *cannot tell*: they do
    not, and there is a group in which the runs differ with a single seed each, which has no spread
    to compare with (or no group is in both). *within noise*: neither; the interval says how large a
    difference may have escaped.

    The tests are Student's for two samples, with the variance pooled over the two runs: under the
    hypothesis both draw from one distribution. Two questions are asked of a metric:

    1. Has its mean over the groups moved? The unit is the seed: each seed's values are averaged
       over the groups first, since seeds share what is drawn with them (a teacher that is drawn for
       each seed moves all categories together), and groups of unequal noise need no assumption.
       With three seeds a run this leaves 4 degrees of freedom, however many groups there are. It is
       asked of the groups that have all seeds of a common pattern: the pattern that keeps most.
    2. Has any group moved? Each is tested by itself. A spread of three values may be small by
       chance, or zero where a metric moves in steps (20 good and 63 defective images: 0.0008), so
       that no group's variance counts as smaller than the median of the study's groups, nor than
       `TOLERANCE` squared: both make the test more careful, never less. The smallest p is
       multiplied by the number of groups (Bonferroni).

    A metric's p is twice the smaller of the two (Bonferroni); of a single group they are one test.
    The family is a study: its metrics are corrected by Hochberg's method, which needs them
    independent or positively dependent, as metrics of the same maps are. A study in which nothing
    has changed has a verdict 'beyond noise' with a probability of at most `ALPHA`.

    Seeds are not paired. Where the same seed gives related values on two machines (in part the
    same initial weights and batches), differences vary less than is assumed: the verdict is then
    the more careful. Where it does not, pairing would assume what is not there, and would leave 2
    degrees of freedom instead of 4.

    What it can see, with three seeds a run: a shift of four standard deviations of a seed in all of
    a study (0.02 where seeds spread 0.005) in at least 95 % of cases where the study has several
    metrics or several groups. A single metric of a single group: in 94.8 %, which is the most that
    a test of this level can have when it must learn the spread from six values (the power of
    Student's test with 4 degrees of freedom). It assumes that seeds vary normally. Where one
    training in five collapses, six values of a group cannot tell a change from chance, and the
    level is not kept with few groups (of three: 8 % instead of 5 %); with 15 it is.

    Args:
        one, other: (metrics, groups, seeds) float, NaN where a run has no value; the same place is
            the same metric, group and seed in both.

    Returns:
        one `Comparison` a metric, in their order.

    Sources: Student's test for two samples, with few seeds of neural networks: Colas, Sigaud,
    Oudeyer, A hitchhiker's guide to statistical comparisons of reinforcement learning algorithms,
    2019. Hochberg, A sharper Bonferroni procedure for multiple tests of significance, Biometrika
    75, 1988.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    found = [compare_metric(*values) for values in zip(one, other, strict=True)]
    corrected = hochberg([c.p for c in found])
    return [
        c._replace(p=float(p), verdict=verdict(c, same, p))
        for c, same, p in zip(found, map(are_same, one, other), corrected, strict=True)
    ]


def verdict(found: Comparison, same: bool, p: float) -> str:
    """Return a metric's verdict from what its tests found, see `compare`."""
    if same:
        return REPRODUCED
    if p <= ALPHA:
        return BEYOND
    return UNTOLD if found.untold or np.isnan(p) else WITHIN


def are_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two runs share values, and all that they share are the same."""
    difference = np.abs(other - one)
    shared = np.isfinite(difference)
    return bool(shared.any() and (difference[shared] <= TOLERANCE).all())


def compare_metric(one: np.ndarray, other: np.ndarray) -> Comparison:
    """Test one metric, see `compare`; its p is not yet corrected for the other metrics.

    Args:
        one, other: (groups, seeds) float, NaN for a gap.
    """
    one, other = seeds_of(one), seeds_of(other)
    both = np.flatnonzero((one.count > 0) & (other.count > 0))
    nothing = Comparison(UNTOLD, *[np.nan] * 5, -1, np.nan, 0, 0)
    if not len(both):
        return nothing
    one, other = (Seeds(*(part[both] for part in seeds)) for seeds in (one, other))
    shift, freedom = other.mean - one.mean, one.count + other.count - 2
    can = freedom > 0
    # A single seed on each side that says the same leaves nothing to be told.
    untold = int((~can & (np.abs(shift) > TOLERANCE)).sum())
    found = nothing._replace(groups=len(both), untold=untold)
    if not can.any():
        at = int(np.abs(shift).argmax())
        return found._replace(difference=shift.mean(), group=int(both[at]), largest=shift[at])
    variance = ((one.squares + other.squares)[can]) / freedom[can]
    least = max(np.median(variance), TOLERANCE**2)
    error = np.sqrt(np.maximum(variance, least) * (1 / one.count + 1 / other.count)[can])
    t = shift[can] / error
    at = int(np.abs(t).argmax())
    p, mean, half = test_of_mean(one, other)
    if can.sum() > 1:
        p = min(1.0, 2 * min(p, can.sum() * two_sided(t, freedom[can]).min()))
    return found._replace(
        difference=mean,
        low=mean - half,
        high=mean + half,
        spread=float(np.sqrt(variance.mean())),
        p=p,
        group=int(both[can][at]),
        largest=float(shift[can][at]),
    )


class Seeds(NamedTuple):
    """A run's values (groups, seeds), 0 in a gap, and where they are.

    Of each group, (groups,): how many there are, their mean, the sum of squares about it.
    """

    values: np.ndarray
    here: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray


def seeds_of(values: np.ndarray) -> Seeds:
    """Return what the tests need of a run's values, (groups, seeds) float, NaN for a gap."""
    here = np.isfinite(values)
    values, count = np.where(here, values, 0), here.sum(axis=1)
    mean = values.sum(axis=1) / np.maximum(count, 1)
    squares = (((values - mean[:, None]) * here) ** 2).sum(axis=1)
    return Seeds(values, here, count, mean, squares)


def test_of_mean(one: Seeds, other: Seeds) -> tuple[float, float, float]:
    """Test the mean over groups, the seed as unit, on the groups that share a pattern of seeds.

    Returns:
        p, the difference of the means (other less one), half the width of its 95% interval.
    """
    from scipy.special import stdtrit

    here = np.hstack([one.here, other.here])
    patterns = list({row.tobytes(): row for row in here}.values())
    having = [(here >= pattern).all(axis=1) for pattern in patterns]
    best = max(range(len(patterns)), key=lambda i: having[i].sum() * (patterns[i].sum() - 2))
    groups, (first, second) = having[best], np.split(patterns[best], 2)
    pairs = ((one, first), (other, second))
    means = [run.values[groups][:, seeds].mean(axis=0) for run, seeds in pairs]
    counts = [len(values) for values in means]
    shift, freedom = float(means[1].mean() - means[0].mean()), sum(counts) - 2
    squares = sum(((values - values.mean()) ** 2).sum() for values in means)
    variance = max(squares / freedom, TOLERANCE**2 / groups.sum())
    error = float(np.sqrt(variance * (1 / counts[0] + 1 / counts[1])))
    return float(two_sided(shift / error, freedom)), shift, error * float(stdtrit(freedom, 0.975))


def two_sided(t: np.ndarray, freedom: np.ndarray | int) -> np.ndarray:
    """Return the two-sided p of Student's t."""
    from scipy.special import stdtr

    return 2 * stdtr(freedom, -np.abs(t))


def hochberg(p: Sequence[float]) -> np.ndarray:
    """Correct p values of one family by Hochberg's step-up method; a NaN is no test and stays NaN.

    Source: Hochberg, A sharper Bonferroni procedure for multiple tests of significance, Biometrika
    75, 1988.
    """
    p = np.asarray(p, float)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(-p[tested], kind="stable")]  # the largest first
    corrected[order] = np.minimum.accumulate(p[order] * np.arange(1, len(order) + 1))
    return corrected
