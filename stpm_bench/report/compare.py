"""Two runs of the same cells: what they have in common, and whether they say the same.

The rule of the verdicts is `compare`: arrays in, verdicts out. It was written before any two real
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
from stpm_bench.report import publish
from stpm_bench.report.tables import METRICS
from stpm_bench.report.typeset import Section, interval, number, p_value
from stpm_bench.results import fit_folder

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


# Two folders


class Folder(NamedTuple):
    """A results folder or a published one: its completed config, the cells of its studies, its long
    table, and on what kind of processor it was made."""

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

    groups: the axes of its groups (category and setting). comparisons: metric -> what was found.
    cells: cell -> whether the one and the other have its values. same: the common cells of which
    every value is equal. bits: those of which the level maps are the same bytes, and of how many
    that is known.
    """

    name: str
    groups: pd.DataFrame
    comparisons: dict[str, Comparison]
    cells: dict[grid.Cell, tuple[bool, bool]]
    same: int
    bits: tuple[int, int]


GROUP = [axis for axis in grid.AXES if axis != "seed"]


def studies_of(one: Folder, other: Folder) -> list[Study]:
    """Compare every study of the one run with what the other has of its groups."""
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
        rows: its cells. hashes: of each run what `level_maps` returns.
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
    """Return the recorded SHA-256 of each cell's level maps; a published folder has none."""
    records = {
        cell: read_hashes(fit_folder(folder.path, fit)).get("level_maps.npz")
        for cell, fit in grid.fits(folder.studies).items()
    }
    return {cell: record[0] for cell, record in records.items() if record}


IGNORED = ("results", "data", "studies", "device", "threads", "keep_models", "precision")


def config_differences(one: Mapping, other: Mapping) -> list[str]:
    """Return in which keys two completed configs differ that decide what a cell's numbers are.

    Where data lie, which studies are asked for, and what the hardware decides are left out.
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
    """Return 1 where a metric is beyond noise, else 2 where one cannot be told, else 0."""
    verdicts = {c.verdict for study in found for c in study.comparisons.values()}
    if BEYOND in verdicts:
        return 1
    return 2 if UNTOLD in verdicts or not verdicts else 0


def sections(one: Folder, other: Folder, found: Sequence[Study]) -> list[Section]:
    """Format two runs beside each other: the verdicts, then the cells that each has."""
    return [verdicts_section(one, other, found), cells_section(one, other, found)]


def verdicts_section(one: Folder, other: Folder, found: Sequence[Study]) -> Section:
    """Format a row for each study and metric."""
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
        + "A group is a category at a setting. Reproduced: every value of the same cell is the "
        f"same to within {TOLERANCE}. Beyond noise: the mean over groups, or one group, differs by "
        "more than seeds do: Student's test with the seed as unit, corrected for the groups and "
        f"metrics of the study, at {ALPHA}. Within noise: it does not; a difference inside the "
        "interval may have escaped. Cannot tell: a group differs of which each run has one seed, "
        "or no group is in both. Spread: the standard deviation over seeds of a group. Largest "
        "difference: against its noise. The rule is `compare` in `stpm_bench/report/compare.py`."
    )
    return Section("Two runs", pd.DataFrame(lines, columns=columns), caption)


def group_name(study: Study, group: int) -> str:
    """Return a group as text: its category and the axes that vary in its study."""
    axes = ["category", *grid.varying(study.groups)]
    return ", ".join(str(study.groups.loc[group, axis]) for axis in axes)


ONLY = ((True, False), (False, True))  # of the values of `Study.cells`: in a single run


def cells_section(one: Folder, other: Folder, found: Sequence[Study]) -> Section:
    """Format how many cells each run has of each study, and how many say exactly the same."""
    lines, alone = [], ([], [])
    for study in found:
        common = sum(all(has) for has in study.cells.values())
        for names, only in zip(alone, ONLY, strict=True):
            names += [cell.folder for cell, has in study.cells.items() if has == only]
        bits = f"{study.bits[0]} of {study.bits[1]}" if study.bits[1] else number(np.nan)
        single = [sum(has == only for has in study.cells.values()) for only in ONLY]
        counts = map(str, (common, *single))
        lines.append([study.name, *counts, f"{study.same} of {common}", bits])
    columns = ["study", "cells in both", "in the first alone", "in the second alone"]
    columns += ["every metric equal", "level maps the same bytes"]
    names = "".join(
        f" In the {which} alone: {publish.named(cells)}."
        for which, cells in zip(("first", "second"), alone, strict=True)
        if cells
    )
    others = [s for s in other.studies["study"].unique() if s not in {f.name for f in found}]
    if others:
        names += f" Studies of the second alone, not compared: {', '.join(others)}."
    caption = (
        f"The first run is `{one.path}`, the second `{other.path}`. Cells that have values, of "
        "every seed that a run has of the study's groups; a cell without has failed or not run."
        + names
        + " The bytes of level maps are known of results folders, not of published ones (n/a)."
    )
    return Section("Cells", pd.DataFrame(lines, columns=columns), caption)
