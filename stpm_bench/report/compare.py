"""Compares two runs of the same cells: which cells both have, and whether their results agree.

`compare` decides the verdicts: arrays in, verdicts out. The rule was written before any two real
results were compared with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from stpm_bench import grid
from stpm_bench.errors import InputError
from stpm_bench.files import read_hashes, read_json, read_verified
from stpm_bench.report import publish, statistics
from stpm_bench.report.tables import METRICS
from stpm_bench.report.typeset import Section, interval, number, p_value
from stpm_bench.report.verdict import shortened
from stpm_bench.results import fit_folder

VERDICTS = ("reproduced", "within noise", "beyond noise", "cannot tell")
REPRODUCED, WITHIN, BEYOND, UNTOLD = VERDICTS
# How often a study without any real difference may get a verdict 'beyond noise' in some metric.
ALPHA = 0.05
# Half a unit of the last printed digit: the tables print the same number for values this close.
TOLERANCE = 0.0005


class Comparison(NamedTuple):
    """One metric of a study in two runs.

    difference, low, high: the mean over groups of the second run less that of the first, and its
        95% interval (for this metric alone, not widened for the others); NaN where unknown.
    spread: the standard deviation over seeds of a single group, root mean square over groups.
    p: of 'no difference', corrected for all tests of the study; NaN without a test.
    group, largest: the index of the group with the largest difference relative to its noise (or,
        without a test, simply the largest), and that difference. -1 and NaN where no group is in
        both.
    groups: how many groups both runs have. untold: in how many of these nothing can be decided,
        because each run has a single seed and the two values differ.
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

    A group is a category at a setting; its values vary only by seed. The question is whether the
    values of the second run come from the same distributions as those of the first.

    *reproduced*: the two runs agree to within `TOLERANCE` in every group and seed that both have,
    whatever the noise. *beyond noise*: the tests below reject. *cannot tell*: they do not, and the
    runs differ in a group for which each has a single seed, so that there is no spread to compare
    with (or no group is in both). *within noise*: none of these; the interval says how large a
    difference may have been missed.

    The tests are Student's t-tests for two samples, with the variance pooled over the two runs:
    under the null hypothesis both draw from one distribution. Each metric is tested in two ways:

    1. Has its mean over the groups moved? The unit is the seed: each seed's values are averaged
       over the groups first. The groups of a seed are not independent (a teacher that is drawn for
       each seed moves all categories together), and after averaging, groups of unequal noise need
       no further assumption. With three seeds per run this leaves 4 degrees of freedom, however
       many groups there are. The test uses the groups that have all seeds of a common pattern; the
       pattern that keeps the most values is chosen.
    2. Has any single group moved? Each group is tested separately. The spread of three values may
       be small by chance, or zero where a metric changes in steps (20 good and 63 defective images:
       0.0008). A group's variance is therefore never taken as smaller than the median over the
       study's groups, nor than `TOLERANCE` squared; both only make the test more conservative. The
       smallest p is multiplied by the number of groups (Bonferroni).

    A metric's p is twice the smaller of the two (Bonferroni); with a single group they are one
    test. The family is a study: its metrics are corrected by Hochberg's method, which requires
    independent or positively dependent tests, as metrics of the same maps are. If nothing has
    changed in a study, the probability of a verdict 'beyond noise' is at most `ALPHA`.

    Seeds are not paired. Where the same seed gives related values on two machines (some of the
    initial weights and batches are the same), differences vary less than assumed, which makes the
    verdict more conservative. Where it does not, pairing would assume a relation that does not
    exist, and would leave 2 degrees of freedom instead of 4.

    Power, with three seeds per run: a shift of four standard deviations of a seed throughout a
    study (0.02 where seeds spread 0.005) is detected in at least 95 % of cases if the study has
    several metrics or several groups. For a single metric of a single group it is 94.8 %, the most
    that a test of this level can reach when it has to estimate the spread from six values (the
    power of Student's test with 4 degrees of freedom). Seeds are assumed to vary normally. Where
    one training in five collapses, six values of a group cannot distinguish a change from chance:
    with few groups the level is then exceeded (with three: 8 % instead of 5 %); with 15 it is kept.

    Args:
        one, other: (metrics, groups, seeds) float, NaN where a run has no value; both have the same
            order of metrics, groups and seeds.

    Returns:
        One `Comparison` per metric, in the same order.

    Sources: Student's test for two samples, with few seeds of neural networks: Colas, Sigaud,
    Oudeyer, A hitchhiker's guide to statistical comparisons of reinforcement learning algorithms,
    2019. Hochberg, A sharper Bonferroni procedure for multiple tests of significance, Biometrika
    75, 1988.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    found = [compare_metric(*values) for values in zip(one, other, strict=True)]
    corrected = statistics.hochberg([c.p for c in found])
    return [
        c._replace(p=float(p), verdict=verdict(c, same, p))
        for c, same, p in zip(found, map(are_same, one, other), corrected, strict=True)
    ]


def verdict(found: Comparison, same: bool, p: float) -> str:
    """Return a metric's verdict from the results of its tests, see `compare`."""
    if same:
        return REPRODUCED
    if p <= ALPHA:
        return BEYOND
    return UNTOLD if found.untold or np.isnan(p) else WITHIN


def are_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two runs have common values and all of these are the same."""
    difference = np.abs(other - one)
    shared = np.isfinite(difference)
    return bool(shared.any() and (difference[shared] <= TOLERANCE).all())


def compare_metric(one: np.ndarray, other: np.ndarray) -> Comparison:
    """Test one metric, see `compare`; its p is not yet corrected for the study's other metrics.

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
    # Where each run has a single seed and both values agree, there is nothing to decide.
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
    """A run's values (groups, seeds), 0 in a gap, and a mask of where there are values.

    For each group, (groups,): the number of values, their mean, the sum of squares about the mean.
    """

    values: np.ndarray
    here: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray


def seeds_of(values: np.ndarray) -> Seeds:
    """Return the quantities the tests need, from values (groups, seeds) float, NaN for a gap."""
    here = np.isfinite(values)
    values, count = np.where(here, values, 0), here.sum(axis=1)
    mean = values.sum(axis=1) / np.maximum(count, 1)
    squares = (((values - mean[:, None]) * here) ** 2).sum(axis=1)
    return Seeds(values, here, count, mean, squares)


def test_of_mean(one: Seeds, other: Seeds) -> tuple[float, float, float]:
    """Test the mean over groups with the seed as unit; uses groups that have the same seeds.

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


# Two folders


class Folder(NamedTuple):
    """A results folder or a published one: its completed config, the cells of its studies, its long
    table, and the kind of processor that computed it."""

    path: Path
    config: Mapping
    studies: pd.DataFrame
    metrics: pd.DataFrame
    kind: str


def read(path: Path) -> Folder:
    """Read a results folder or a published one.

    Raises:
        InputError: it has no config.yaml or no metrics.csv.
    """
    for name in ("config.yaml", "metrics.csv"):
        if not (path / name).exists():
            raise InputError(
                f"{path / name}: no such file; expected the folder of a run's results or a "
                "published one. Of a run that is not finished make its files with: python -m "
                f"stpm_bench interim --results {path} --main main"
            )
    config = yaml.safe_load(read_verified(path / "config.yaml"))
    studies = grid.studies(config)
    metrics = grid.read(path / "metrics.csv").astype({"seed": int, "fraction": float})
    if (path / "record.json").exists():
        kind = read_json(path / "record.json")["kind"]
    else:
        kind = " and ".join(publish.kinds(publish.runs(path, studies))) or publish.NOT_RECORDED
    return Folder(path, config, studies, metrics, kind)


class Study(NamedTuple):
    """A study in two runs.

    groups: the axes of its groups (category and setting). comparisons: metric -> its comparison.
    cells: cell -> whether the first and the second run have its values. same: the number of common
    cells in which every value is equal. bits: the number of cells whose level maps have the same
    bytes, and the number for which this is known.
    """

    name: str
    groups: pd.DataFrame
    comparisons: dict[str, Comparison]
    cells: dict[grid.Cell, tuple[bool, bool]]
    same: int
    bits: tuple[int, int]


GROUP = [axis for axis in grid.AXES if axis != "seed"]


def studies_of(one: Folder, other: Folder) -> list[Study]:
    """Compare every study of the first run with the same groups in the second."""
    hashes = [level_maps(folder) for folder in (one, other)]
    return [
        study_of(name, rows, one, other, hashes)
        for name, rows in one.studies.groupby("study", sort=False)
    ]


def study_of(
    name: str, rows: pd.DataFrame, one: Folder, other: Folder, hashes: Sequence[Mapping]
) -> Study:
    """Compare one study.

    Args:
        rows: its cells. hashes: for each run, what `level_maps` returns.
    """
    groups = rows[GROUP].drop_duplicates().reset_index(drop=True)
    own = [folder.metrics.merge(groups, on=GROUP) for folder in (one, other)]
    seeds = sorted({*own[0]["seed"], *own[1]["seed"]})
    metrics = [metric for metric in METRICS if any((v["metric"] == metric).any() for v in own)]
    arrays = [as_array(values, groups, seeds, metrics) for values in own]
    comparisons = dict(zip(metrics, compare(*arrays), strict=True)) if metrics else {}
    by_cell = [values_by_cell(values) for values in own]
    cells = {
        cell: (cell in by_cell[0], cell in by_cell[1])
        for cell in dict.fromkeys([*by_cell[0], *by_cell[1]])
    }
    common = [cell for cell, has in cells.items() if all(has)]
    known = [cell for cell in common if cell in hashes[0] and cell in hashes[1]]
    return Study(
        name,
        groups,
        comparisons,
        cells,
        sum(by_cell[0][cell] == by_cell[1][cell] for cell in common),
        (sum(hashes[0][cell] == hashes[1][cell] for cell in known), len(known)),
    )


def as_array(
    values: pd.DataFrame, groups: pd.DataFrame, seeds: Sequence[int], metrics: Sequence[str]
) -> np.ndarray:
    """Return a long table as (metrics, groups, seeds) float, NaN for a gap."""
    index = pd.MultiIndex.from_tuples(
        (metric, *group, seed)
        for metric in metrics
        for group in groups.itertuples(index=False)
        for seed in seeds
    )
    found = values.set_index(["metric", *GROUP, "seed"])["value"]
    return found.reindex(index).to_numpy(float).reshape(len(metrics), len(groups), len(seeds))


def values_by_cell(values: pd.DataFrame) -> dict[grid.Cell, dict[str, float]]:
    """Return cell -> metric -> value, all metrics of the long table."""
    found: dict[grid.Cell, dict[str, float]] = {}
    columns = [*grid.AXES, "metric", "value"]
    for *axes, metric, value in values[columns].itertuples(index=False):
        found.setdefault(grid.Cell(*axes), {})[metric] = value
    return found


def level_maps(folder: Folder) -> dict[grid.Cell, str]:
    """Return the recorded SHA-256 of each cell's level maps; empty for a published folder."""
    records = {
        cell: read_hashes(fit_folder(folder.path, fit)).get("level_maps.npz")
        for cell, fit in grid.fit_names(folder.studies).items()
    }
    return {cell: record[0] for cell, record in records.items() if record}


IGNORED = ("results", "data", "studies", "device", "threads", "keep_models", "precision")


def config_differences(one: Mapping, other: Mapping) -> list[str]:
    """Return the keys in which two completed configs differ and that affect a cell's numbers.

    The data's location, the requested studies and what the hardware decides are ignored.
    """

    def flat(part: object, key: str = "") -> dict[str, object]:
        if not isinstance(part, Mapping):
            return {key: part}
        inner = (flat(value, f"{key}.{name}".strip(".")) for name, value in part.items())
        return {k: v for values in inner for k, v in values.items()}

    first, second = (flat({k: c[k] for k in c if k not in IGNORED}) for c in (one, other))
    return [
        f"{key} {first.get(key, 'not set')} and {second.get(key, 'not set')}"
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def exit_status(found: Sequence[Study]) -> int:
    """Return 1 if a metric is beyond noise, else 2 if one is 'cannot tell', else 0."""
    verdicts = {c.verdict for study in found for c in study.comparisons.values()}
    if BEYOND in verdicts:
        return 1
    return 2 if UNTOLD in verdicts or not verdicts else 0


def sections(one: Folder, other: Folder, found: Sequence[Study]) -> list[Section]:
    """Format the comparison of two runs: the verdicts, then the cells that each run has."""
    return [verdicts_section(one, other, found), cells_section(one, other, found)]


def verdicts_section(one: Folder, other: Folder, found: Sequence[Study]) -> Section:
    """Format one row for each study and metric."""
    lines = []
    for study in found:
        for metric, c in study.comparisons.items():
            largest = number(c.largest, signed=True)
            if c.group >= 0:
                largest += f" ({group_name(study, c.group)})"
            lines.append(
                [
                    study.name,
                    METRICS[metric],
                    f"**{c.verdict}**",
                    number(c.difference, signed=True),
                    interval(c.low, c.high),
                    number(c.spread),
                    p_value(c.p),
                    largest,
                    f"{c.groups} of {len(study.groups)}",
                    str(c.untold or ""),
                ]
            )
    columns = ["study", "metric", "verdict", "difference", "95% interval", "spread of seeds"]
    columns += ["p, corrected", "largest difference", "groups", "cannot tell"]
    differing = config_differences(one.config, other.config)
    caption = (
        f"The second run, `{other.path}` (on {other.kind}), less the first, `{one.path}` (on "
        f"{one.kind}). "
        + (f"THE CONFIGS DIFFER: {'; '.join(differing)}. " if differing else "")
        + "A group is a category at a setting. Reproduced: every value of the same cell agrees to "
        f"within {TOLERANCE}. Beyond noise: the mean over groups, or one group, differs by more "
        "than seeds do: Student's test with the seed as unit, corrected for the groups and metrics "
        f"of the study, at {ALPHA}. Within noise: no such difference was found; one that is inside "
        "the interval may have been missed. Cannot tell: a group differs and each run has only one "
        "seed of it, or no group is in both runs. Spread of seeds: the standard deviation over the "
        "seeds of a group. Largest difference: relative to its noise. The rule is `compare` in "
        "`stpm_bench/report/compare.py`."
    )
    return Section("Two runs", pd.DataFrame(lines, columns=columns), caption)


def group_name(study: Study, group: int) -> str:
    """Return a group as text: its category and the axes that vary in its study."""
    axes = ["category", *grid.varying(study.groups)]
    return ", ".join(str(study.groups.loc[group, axis]) for axis in axes)


ONLY = ((True, False), (False, True))  # values of `Study.cells` for a cell in one run only


def cells_section(one: Folder, other: Folder, found: Sequence[Study]) -> Section:
    """Format how many cells of each study each run has, and how many agree exactly."""
    lines, alone = [], ([], [])
    for study in found:
        common = sum(all(has) for has in study.cells.values())
        for names, only in zip(alone, ONLY, strict=True):
            names += [cell.folder for cell, has in study.cells.items() if has == only]
        bits = f"{study.bits[0]} of {study.bits[1]}" if study.bits[1] else number(np.nan)
        single = [sum(has == only for has in study.cells.values()) for only in ONLY]
        counts = map(str, (common, *single))
        lines.append([study.name, *counts, f"{study.same} of {common}", bits])
    columns = ["study", "cells in both", "only in the first", "only in the second"]
    columns += ["every metric equal", "level maps the same bytes"]
    names = "".join(
        f" Only in the {which}: {shortened(cells, publish.FEW)}."
        for which, cells in zip(("first", "second"), alone, strict=True)
        if cells
    )
    others = [s for s in other.studies["study"].unique() if s not in {f.name for f in found}]
    if others:
        names += f" Studies only in the second, not compared: {', '.join(others)}."
    caption = (
        f"The first run is `{one.path}`, the second `{other.path}`. Counted are cells that have "
        "values, for every seed that a run has of the study's groups; a cell without values failed "
        "or has not run."
        + names
        + " The bytes of level maps can be compared in results folders, not in published ones "
        "(n/a)."
    )
    return Section("Cells", pd.DataFrame(lines, columns=columns), caption)
