"""The rule of the verdicts, and the paired comparisons that it is applied to.

The rule and its constants are older than any result of MVTec AD in this repository: they are of
commit 83de461, 'The rule of the verdicts, decided before any result is looked at'. What has changed
since then is shown by `git log -p --follow` of this file.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stpm_bench import grid
from stpm_bench.grid import SETTING, Cell, set_of
from stpm_bench.levels import EMBEDDED, PUBLISHED
from stpm_bench.report import statistics

ALPHA = 0.05
NOT_TESTED = "not tested"
VERDICTS = ("supported", "contradicted", "undecided", NOT_TESTED)
# A teacher trained here or untrained is one draw of many; two draws do not show their spread.
FEWEST_DRAWS = 3
# A teacher has learned its own task if its accuracy is at least this share of the way from chance
# to 1: 0.19 for 10 classes, 0.11 for 100, 0.55 for two.
NEAR_CHANCE = 0.1


class Comparison(NamedTuple):
    """One measured effect, claimed to be above `threshold` by more than `tolerance`.

    Attributes:
        name, threshold: what is compared, and what the effect is claimed to exceed.
        effect, low, high: the effect and its 95 % interval; NaN where it was not measured.
        p, p_holm, rank_biserial: from the test against the threshold; `p_holm` is corrected within
            the claim, by `with_holm`. NaN where there is no test.
        values, planned: how many values it uses, and how many the config plans; `planned` is 0 if
            the config has no such cells.
        categories: how many have a pair.
        draws, draws_above, draws_below: if a teacher is drawn, the number of draws planned for
            both settings, and the numbers of draws in which the effect is above or below the
            threshold, by however little (`tolerance` does not apply); a draw without a pair is
            neither. 0 if no teacher is drawn, and if the settings share no draw: see `doubt`. For a
            claim about the data sets of teachers, one that is not drawn is 1 draw: `by_draw`.
        cells: names of the folders of the cells that have a value, paired or not, in the categories
            that are planned for both settings.
        missing: which planned values are missing, '' if none is.
        doubt: why nothing can be concluded, '' if something can.
        note: what else a reader must know.
        tolerance: how far above (below) the threshold an effect must be to count as above (below).
        decides: False if it is only shown with the claim and does not affect the verdict.
    """

    name: str
    threshold: float
    effect: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    p_holm: float = np.nan
    rank_biserial: float = np.nan
    values: int = 0
    planned: int = 0
    categories: int = 0
    draws: int = 0
    draws_above: int = 0
    draws_below: int = 0
    cells: tuple[str, ...] = ()
    missing: str = ""
    doubt: str = ""
    note: str = ""
    tolerance: float = 0.0
    decides: bool = True


class Claim(NamedTuple):
    """A statement and the comparisons that test it; none if it is not tested here.

    Attributes:
        claim: its number, such as '3b'.
        where: where the paper makes it.
        metric: a key of `tables.METRICS`, '' if none.
        note: what else a reader must know.
    """

    claim: str
    statement: str
    where: str
    metric: str
    comparisons: Sequence[Comparison]
    note: str = ""


class Learned(NamedTuple):
    """What one draw of a teacher learned: the accuracy on its own task, and its class count."""

    accuracy: float
    classes: int

    @property
    def near_chance(self) -> bool:
        chance = 1 / self.classes
        return (self.accuracy - chance) / (1 - chance) < NEAR_CHANCE


def learned_of(records: Mapping[str, Sequence[Mapping]]) -> dict[str, list[Learned]]:
    """Return what the draws of each teacher learned; no key for a teacher not trained here.

    Args:
        records: what `results.read_teachers` returns.
    """
    found = {
        name: [
            Learned(record["test_accuracy"], len(record["classes"]))
            for record in draws
            if record.get("test_accuracy") is not None and record.get("classes")
        ]
        for name, draws in records.items()
    }
    return {name: draws for name, draws in found.items() if draws}


def deciding(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons that decide a claim: those that the config plans and that
    are not merely shown."""
    return [c for c in comparisons if c.planned and c.decides]


def verdict(comparisons: Sequence[Comparison]) -> str:
    """Return the verdict on the claim that each effect is above its threshold.

    Only the comparisons that `deciding` returns are used; their `p_holm` must be set: `with_holm`.

    - supported: every effect is above: its whole 95 % interval is, by more than `tolerance`, its p,
      where there is a test, is at most `ALPHA`, no planned value is missing, its `doubt` is empty,
      and if a teacher is drawn the effect is above in every draw.
      That all effects are above is an intersection-union test: each is tested at `ALPHA` without
      correction, since all must pass (Berger, Technometrics 24, 1982).
    - contradicted: at least one effect is below: its whole interval is, by more than `tolerance`,
      its p, Holm-corrected within the claim, is at most `ALPHA`, its `doubt` is empty, and if a
      teacher is drawn the effect is below in every draw. Missing values do not prevent this
      verdict, although they could change the effect: a missing value, such as that of a failed fit,
      counts against a claim, never for it. But a planned draw without a pair is not below.
    - not tested: no effect was measured.
    - undecided: everything else, including too few pairs, seeds or draws.
    """
    comparisons = deciding(comparisons)
    if not any(np.isfinite(c.effect) for c in comparisons):
        return NOT_TESTED
    if any(lies_below(c) for c in comparisons):
        return "contradicted"
    if all(lies_above(c) for c in comparisons):
        return "supported"
    return "undecided"


def lies_above(c: Comparison) -> bool:
    """Return whether an effect is above its threshold, see `verdict`."""
    # not >: a p that is NaN, where there is no test, does not prevent it.
    certain = c.low > c.threshold + c.tolerance and not c.p > ALPHA and c.draws_above == c.draws
    return certain and not c.missing and not c.doubt


def lies_below(c: Comparison) -> bool:
    """Return whether an effect is below its threshold, see `verdict`."""
    certain = (
        c.high < c.threshold - c.tolerance and not c.p_holm > ALPHA and c.draws_below == c.draws
    )
    return certain and not c.doubt


def with_holm(claim: Claim) -> Claim:
    """Correct the p of the comparisons that decide a claim, as one family."""
    family = deciding(claim.comparisons)
    corrected = iter(statistics.holm([c.p for c in family]))
    return claim._replace(
        comparisons=[
            c._replace(p_holm=float(next(corrected))) if c in family else c
            for c in claim.comparisons
        ]
    )


def drawn(config: dict, teacher: str) -> bool:
    """Return whether each seed of a teacher's cells has a separate draw: `grid.drawn_per_seed`."""
    return grid.drawn_per_seed(config["teachers"][teacher])


def source_of(teacher: Mapping) -> str | None:
    """Return what an entry of the config's `teachers` was trained on, None if it does not say.

    'imagenet' stands for torchvision's published weights, those that are part of this package, or a
    file whose `source` begins with 'imagenet', in upper or lower case. The name of the entry is not
    used.
    """
    if teacher.get("weights") in (EMBEDDED, *PUBLISHED[teacher["backbone"]]):
        return "imagenet"
    if isinstance(teacher.get("pretrain"), str):
        return teacher["pretrain"]
    source = str(teacher.get("source") or "").lower()
    return "imagenet" if source.startswith("imagenet") else source or None


class Evidence(NamedTuple):
    """The data from which the claims are computed; made by `evidence`.

    Attributes:
        main: the setting from which each comparison changes some axes: axis -> value.
        config: completed.
        values: (*values of `SETTING`, metric) -> rows `category`, `seed`, `value`.
        plans: values of `SETTING` -> rows `category`, `seed` of the cells of the config.
        lacking: pairs of set and metric without any value, although the set has values of another
            metric: PRO of a set without masks.
        learned: teacher -> what each draw of it learned; no key for one that was not trained here.
        others: categories that share a name with one of MVTec AD's but hold other images.
    """

    main: dict
    config: dict
    values: Mapping[tuple, pd.DataFrame]
    plans: Mapping[tuple, pd.DataFrame]
    lacking: set[tuple[str, str]]
    learned: Mapping[str, Sequence[Learned]]
    others: Sequence[str] = ()

    def setting(self, **changes) -> tuple:
        """Return the values of `SETTING` of the main setting with some axes changed."""
        return tuple((self.main | changes)[axis] for axis in SETTING)

    def planned(self, metric: str = "", **changes) -> pd.DataFrame:
        """Return category and seed of the config's cells at such a setting.

        Args:
            metric: if given, the categories of sets without it are left out.
        """
        rows = self.plans.get(self.setting(**changes), NO_ROWS)
        lacks = [(set_of(category), metric) in self.lacking for category in rows["category"]]
        return rows[~np.array(lacks, bool)]

    def found(self, metric: str, **changes) -> pd.DataFrame:
        """Return category, seed and value of the cells at such a setting that have a value."""
        return self.values.get((*self.setting(**changes), metric), NO_ROWS)

    def compare(
        self,
        metric: str,
        name: str,
        one: dict,
        other: dict,
        threshold: float = 0.0,
        about_sources: bool = False,
    ) -> Comparison:
        """Return the comparison of two settings, paired by category.

        Only categories that the config plans for both settings are used and counted.

        Args:
            metric: one of `tables.METRICS`. name: of the comparison.
            one, other: the axes in which each differs from the main setting.
            threshold: what the difference, one less other, is claimed to exceed.
            about_sources: whether the claim is about the data sets that teachers learn. A single
                teacher says nothing about the set that it learned: one that is not drawn counts as
                one draw, so the claim stays undecided. Teachers of ImageNet (`source_of`) are
                exempt: the paper used its published weights.
        """
        plans = [self.planned(metric, **changes) for changes in (one, other)]
        shared = set(plans[0]["category"]) & set(plans[1]["category"])
        plans = [rows[rows["category"].isin(shared)] for rows in plans]
        if not shared:
            return Comparison(name, threshold, note="not planned")
        rows = [self.found(metric, **changes) for changes in (one, other)]
        rows = [part[part["category"].isin(shared)] for part in rows]
        found = statistics.compare(statistics.paired_differences(*rows), threshold)
        teachers = [(self.main | changes)["teacher"] for changes in (one, other)]
        effects = self.by_draw(rows, plans, teachers, found["difference"], about_sources)
        gaps = [
            gap(label({k: v for k, v in changes.items() if v != self.main[k]}), plan, part)
            for changes, plan, part in zip((one, other), plans, rows, strict=True)
        ]
        doubts = [self.doubt_of(teacher) for teacher in dict.fromkeys(teachers)]
        are_drawn = bool(effects) or any(drawn(self.config, teacher) for teacher in teachers)
        if are_drawn and len(effects) < FEWEST_DRAWS:
            doubts.append(
                f"{plural(len(effects), 'draw')} of a teacher, at least {FEWEST_DRAWS} say how "
                "much draws differ"
            )
        return Comparison(
            name,
            threshold,
            found["difference"],
            **{key: found[key] for key in ("low", "high", "p", "values", "categories", "note")},
            rank_biserial=found["rank_biserial"],
            planned=sum(map(len, plans)),
            draws=len(effects),
            draws_above=sum(effect > threshold for effect in effects),
            draws_below=sum(effect < threshold for effect in effects),
            cells=self.folders(rows[0], one) + self.folders(rows[1], other),
            missing="; ".join(text for text in gaps if text),
            doubt="; ".join(text for text in doubts if text),
        )

    def by_draw(
        self,
        rows: Sequence[pd.DataFrame],
        plans: Sequence[pd.DataFrame],
        teachers: Sequence[str],
        overall: float,
        about_sources: bool,
    ) -> list[float]:
        """Return the effect in each draw of the teachers; empty if no teacher is drawn, or if the
        settings share no draw.

        With `about_sources` a teacher that is neither of ImageNet nor drawn is the only draw: the
        effect over all seeds.

        A draw is a seed; a setting whose teacher is not drawn contributes the mean of its seeds.

        Args:
            rows, plans, teachers: one entry per setting. overall: the effect over all seeds.
            about_sources: as in `compare`.
        """
        fixed = [not drawn(self.config, teacher) for teacher in teachers]
        entries = [self.config["teachers"][teacher] for teacher in teachers]
        single = [f and source_of(e) != "imagenet" for f, e in zip(fixed, entries, strict=True)]
        if about_sources and any(single):
            return [overall]
        if all(fixed):
            return []
        seeds = [set(plan["seed"]) for plan, f in zip(plans, fixed, strict=True) if not f]
        effects = []
        for seed in sorted(set.intersection(*seeds)):
            of_seed = [
                part if f else part[part["seed"] == seed]
                for part, f in zip(rows, fixed, strict=True)
            ]
            effects.append(float(statistics.paired_differences(*of_seed)["difference"].mean()))
        return effects

    def doubt_of(self, teacher: str) -> str:
        """Return why a teacher does not represent its source: a draw did not learn its task."""
        weak = [one for one in self.learned.get(teacher, ()) if one.near_chance]
        if not weak:
            return ""
        worst = min(weak, key=lambda one: one.accuracy)
        return (
            f"teacher {teacher} is near chance on its own task: accuracy {worst.accuracy:.3f} of "
            f"{worst.classes} classes"
        )

    def folders(self, rows: pd.DataFrame, changes: dict) -> tuple[str, ...]:
        """Return the names of the cells of a setting at each row's category and seed."""
        setting = self.main | changes
        at = zip(rows["category"], rows["seed"], strict=True)
        return tuple(Cell(**setting, category=c, seed=s).folder for c, s in at)


NO_ROWS = pd.DataFrame({"category": [], "seed": [], "value": []})


def evidence(
    metrics: pd.DataFrame,
    cells: pd.DataFrame,
    main: Sequence,
    config: dict,
    learned: Mapping[str, Sequence[Learned]] | None = None,
    others: Sequence[str] = (),
) -> Evidence:
    """Return the data from which the claims are computed.

    Args:
        metrics: the long table. cells: every cell of the config, columns `AXES`.
        main: values of `SETTING` in the main study; each ablation changes one of them.
        config: completed. learned, others: as in `Evidence`.
    """
    metrics = metrics[metrics["value"].notna()]
    cells = cells.drop_duplicates([*SETTING, "category", "seed"])
    keys = [*SETTING, "metric"]
    columns = ["category", "seed", "value"]
    values = {key: rows[columns] for key, rows in metrics.groupby(keys, sort=False)}
    plans = {key: rows[columns[:2]] for key, rows in cells.groupby(list(SETTING), sort=False)}
    sets = metrics["category"].map(set_of)
    there = set(zip(sets, metrics["metric"], strict=True))
    named = set(metrics["metric"])
    lacking = {(name, metric) for name in set(sets) for metric in named} - there
    main = dict(zip(SETTING, main, strict=True))
    return Evidence(main, config, values, plans, lacking, learned or {}, others)


def gap(name: str, planned: pd.DataFrame, found: pd.DataFrame) -> str:
    """Return which planned values a setting lacks, '' if none.

    Args:
        name: the setting's name. planned, found: columns `category`, `seed`.
    """
    there = set(zip(found["category"], found["seed"], strict=True))
    at = zip(planned["category"], planned["seed"], strict=True)
    gone = [category for category, seed in at if (category, seed) not in there]
    if not gone:
        return ""
    return f"{name} lacks {len(gone)} of {plural(len(planned), 'value')} ({shortened(gone)})"


def label(changes: Mapping) -> str:
    """Return what a setting changes, as text: 'layers 1', or 'the main setting'."""
    return ", ".join(f"{axis} {value}" for axis, value in changes.items()) or "the main setting"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """Return distinct names, only the first few if there are many: 'a, b, c and 2 more'."""
    names = list(dict.fromkeys(names))
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def plural(count: int, noun: str) -> str:
    """Return '1 value' or '2 values'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
