"""The paper's claims, and what the cells at hand say of each.

The rule of the verdicts is `verdict` and the constants beside it; it was written before any result
of MVTec AD was seen. What each claim compares is `claims`, in the order of the paper's questions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stpm_bench import methods, statistics
from stpm_bench.datasets import demo, mvtec
from stpm_bench.grid import SETTING, Cell
from stpm_bench.levels import PUBLISHED
from stpm_bench.published import METHOD, PAPER
from stpm_bench.tables import METRICS
from stpm_bench.typeset import NO_VALUE, Section, interval, number, p_value

ALPHA = 0.05
# 'Still works' with few images: no more than this is lost against all images. The paper's own
# few-shot table could not be found; the margin is ours.
FEW_SHOT_LOSS = 0.05
# 'Reaches' a printed mean: no more than this below it. The means that others report for the same
# method differ by more (the table of reproductions).
HEADLINE_LOSS = 0.01
FRAMES_PER_SECOND = 100

# The paper's, besides its method. A number that it claims is tested at its setting alone.
IMAGE_SIZE = 256
WEIGHTS = "IMAGENET1K_V1"
ABLATION = "its table could not be found"
VERDICTS = ("supported", "contradicted", "undecided", "not tested")


class Comparison(NamedTuple):
    """One measured effect, claimed to lie above `threshold`; `cells` are their folders' names."""

    name: str
    threshold: float
    effect: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    p_holm: float = np.nan
    rank_biserial: float = np.nan
    pairs: int = 0
    categories: int = 0
    cells: tuple[str, ...] = ()
    note: str = ""


class Claim(NamedTuple):
    """A statement and the comparisons that test it; none where it is not tested here."""

    claim: str
    statement: str
    where: str
    metric: str
    comparisons: Sequence[Comparison]
    note: str = ""


def verdict(comparisons: Sequence[Comparison]) -> str:
    """Return what the comparisons say of a claim that each effect lies above its threshold.

    An effect lies above (below) if its 95% interval does as a whole and, where there is a p, its
    Holm-corrected p is at most `ALPHA`.

    - supported: every effect lies above.
    - contradicted: at least one lies below.
    - not tested: no effect was measured.
    - undecided: all else; so too where one of several effects was not measured, or too few pairs
      or seeds give no interval.
    """
    if not any(np.isfinite(c.effect) for c in comparisons):
        return "not tested"
    certain = [np.isnan(c.p_holm) or c.p_holm <= ALPHA for c in comparisons]
    pairs = list(zip(comparisons, certain, strict=True))
    if any(c.high < c.threshold and sure for c, sure in pairs):
        return "contradicted"
    if all(c.low > c.threshold and sure for c, sure in pairs):
        return "supported"
    return "undecided"


def claims(
    metrics: pd.DataFrame,
    cells: pd.DataFrame,
    main: Sequence,
    config: dict,
    published: pd.DataFrame,
    scoring: pd.DataFrame,
) -> list[Claim]:
    """Compare what the paper's claims compare.

    Args:
        metrics: the long table. cells: every cell of the config, columns `AXES`.
        main: values of `SETTING`: the main study's, from which each ablation changes one.
        config: completed. published: what `published.read` returns.
        scoring: columns `cell` (its folder's name), `device` and `images_per_second`, a row for
            each cell of the main setting.
    """
    data = Data(metrics, cells, dict(zip(SETTING, main, strict=True)), config)
    found = [*layer_claims(data), *teacher_claims(data), *few_shot_claims(data)]
    found += [*headline_claims(data, published)]
    found += [*speed_claims(data, scoring), *other_claims(data, published)]
    return found


class Data(NamedTuple):
    """What the claims are computed from."""

    metrics: pd.DataFrame
    cells: pd.DataFrame
    main: dict
    config: dict

    def values(self, metric: str, **changes) -> pd.DataFrame:
        """Return category, seed, value of the main setting with some axes changed."""
        wanted = self.main | changes | {"metric": metric}
        rows = np.all([self.metrics[axis] == value for axis, value in wanted.items()], axis=0)
        return self.metrics.loc[rows, ["category", "seed", "value"]]

    def planned(self, **changes) -> bool:
        """Return whether the config has cells of such a setting."""
        wanted = self.main | changes
        rows = np.all([self.cells[axis] == value for axis, value in wanted.items()], axis=0)
        return bool(rows.any())

    def compare(self, metric: str, name: str, one: dict, other: dict, threshold: float = 0.0):
        """Return the comparison of two settings, paired by category and seed."""
        parts = self.values(metric, **one), self.values(metric, **other)
        pairs = statistics.paired_differences(*parts)
        found = statistics.compare(pairs, threshold)
        keys = ("low", "high", "p", "pairs", "categories", "note")
        return Comparison(
            name,
            threshold,
            found["difference"],
            rank_biserial=found["effect"],
            cells=self.folders(pairs, one) + self.folders(pairs, other),
            **{key: found[key] for key in keys},
        )

    def folders(self, rows: pd.DataFrame, changes: dict) -> tuple[str, ...]:
        """Return the names of the cells of a setting at each row's category and seed."""
        at = zip(rows["category"], rows["seed"], strict=True)
        setting = self.main | changes
        return tuple(Cell(**setting, category=c, seed=s).folder for c, s in at)


def with_holm(found: Sequence[Claim]) -> list[Claim]:
    """Correct the p of all comparisons of one study's claims, as one family."""
    corrected = iter(statistics.holm([c.p for claim in found for c in claim.comparisons]))
    return [
        claim._replace(comparisons=[c._replace(p_holm=next(corrected)) for c in claim.comparisons])
        for claim in found
    ]


def layer_claims(data: Data) -> list[Claim]:
    """Claim 1, for each metric; level 4, which the method does not use, where it was run."""
    found = []
    levels = [level for level in ("1", "2", "3", "4") if level != "4" or data.planned(layers="4")]
    outer = [level for level in levels if level in ("1", "4")]

    def compare(metric: str, one: str, other: str) -> Comparison:
        name = f"layers {one} less {other}"
        return data.compare(metric, name, {"layers": one}, {"layers": other})

    for metric in METRICS:
        found.append(
            Claim(
                "1a",
                "Matching levels 1, 2 and 3 together beats each single level",
                f"ablation of layers ({ABLATION})",
                metric,
                [compare(metric, "1+2+3", level) for level in levels],
            )
        )
    for metric in METRICS:
        found.append(
            Claim(
                "1b",
                "The middle levels (2: conv3_x, 3: conv4_x) carry most: each beats the outer ones",
                f"ablation of layers ({ABLATION})",
                metric,
                [compare(metric, middle, other) for middle in ("2", "3") for other in outer],
            )
        )
    return with_holm(found)


def teachers_of(config: dict, one: str, other: str) -> tuple[str, str] | None:
    """Return two teachers that have seen `one` and `other` and share a backbone, None without.

    A teacher from a file or folder is taken for what its name says.
    """
    found = {}
    for name, teacher in config["teachers"].items():
        source = teacher.get("pretrain")
        published = PUBLISHED[teacher["backbone"]]
        if teacher.get("weights") in published or teacher.get("source") in published:
            source = "imagenet"
        source = source if isinstance(source, str) else name
        found.setdefault(teacher["backbone"], {}).setdefault(source, name)
    pairs = ((names.get(one), names.get(other)) for names in found.values())
    return next((pair for pair in pairs if all(pair)), None)


def teacher_claims(data: Data) -> list[Claim]:
    """Claim 2, for each metric."""
    orders = {
        "2a": (["imagenet"], ["cifar10", "cifar100"]),
        "2b": (["cifar10", "cifar100"], ["mnist", "svhn"]),
        "2c": (["imagenet"], ["mnist", "svhn"]),
    }
    found = []
    for claim, (better, worse) in orders.items():
        for metric in METRICS:
            comparisons = []
            for one in better:
                for other in worse:
                    name = f"teacher {one} less {other}"
                    pair = teachers_of(data.config, one, other)
                    comparisons.append(
                        data.compare(metric, name, *({"teacher": teacher} for teacher in pair))
                        if pair
                        else Comparison(name, 0.0, note="no pairs")
                    )
            statement = f"A teacher of {' or '.join(better)} beats one of {' or '.join(worse)}"
            where = f"ablation of the pretraining ({ABLATION})"
            found.append(Claim(claim, statement, where, metric, comparisons))
    return with_holm(found)


def few_shot_claims(data: Data) -> list[Claim]:
    """Claim 3, for each metric."""
    found = []
    for claim, fraction in (("3a", 0.1), ("3b", 0.05)):
        for metric in METRICS:
            name = f"fraction {fraction} less 1.0"
            pair = {"fraction": fraction}, {"fraction": 1.0}
            found.append(
                Claim(
                    claim,
                    f"With {fraction:.0%} of the training images the method still works: it loses "
                    f"less than {FEW_SHOT_LOSS}",
                    f"few-shot experiment ({ABLATION}; the margin is ours)",
                    metric,
                    [data.compare(metric, name, *pair, threshold=-FEW_SHOT_LOSS)],
                )
            )
    found = with_holm(found)
    note = "the baselines' few-shot numbers are not at hand"
    statement = "With 5% and 10% of the training images it is ahead of its baselines"
    return [*found, Claim("3c", statement, "few-shot experiment", "", [], note)]


def headline_claims(data: Data, published: pd.DataFrame) -> list[Claim]:
    """Claim 4: the mean of MVTec AD's 15 categories, against the printed one."""
    rows = published[(published["source"] == PAPER) & (published["category"] == "mean")]
    rows = rows[rows["method"] == METHOD].set_index("metric")
    return [
        against_constant(
            data,
            claim,
            f"The mean over MVTec AD's 15 categories reaches {rows.loc[metric, 'value']:.3f} (no "
            f"more than {HEADLINE_LOSS} below)",
            f"v3, {rows.loc[metric, 'table']}, mean",
            metric,
            rows.loc[metric, "value"],
            f"mean of 15 less {rows.loc[metric, 'value']:.3f}",
            -HEADLINE_LOSS,
        )
        for claim, metric in (("4a", "image_auroc"), ("4b", "pixel_auroc"), ("4c", "pro"))
    ]


def against_constant(
    data: Data,
    claim: str,
    statement: str,
    where: str,
    metric: str,
    constant: float,
    name: str,
    threshold: float,
) -> Claim:
    """Compare the mean of the 15 categories with a printed one; the interval is over seeds.

    The 15 categories are all that the number is about, so that only the seeds vary. It is not
    tested elsewhere, nor at another setting than the paper's.
    """
    reasons = []
    rows = data.values(metric)
    values = rows.pivot(index="category", columns="seed", values="value")
    if set(data.cells["category"]) & set(demo.CATEGORIES) or data.config["data"]["demo"]:
        reasons.append("the demo set")
    elif set(mvtec.CATEGORIES) - set(values.index):
        run = len(set(mvtec.CATEGORIES) & set(values.index))
        reasons.append(f"{run} of 15 categories have a value")
    if deviations(data.config, data.main):
        reasons.append("another setting (see the caption)")
    if reasons:
        note = f"claimed of the paper's data and setting; here: {', '.join(reasons)}"
        return Claim(claim, statement, where, metric, [], note)
    means = values.loc[list(mvtec.CATEGORIES)].mean(skipna=False).dropna()
    by_seed = means.to_numpy() - constant
    low, high = statistics.seed_interval(by_seed)
    note = "" if len(by_seed) >= statistics.FEWEST_SEEDS else f"too few seeds: {len(by_seed)}"
    comparison = Comparison(
        name,
        threshold,
        float(by_seed.mean()) if len(by_seed) else np.nan,
        low,
        high,
        pairs=len(by_seed),
        categories=len(mvtec.CATEGORIES),
        cells=data.folders(rows[rows["seed"].isin(means.index)], {}),
        note=note,
    )
    return Claim(claim, statement, where, metric, [comparison])


def deviations(config: dict, main: dict) -> list[str]:
    """Return in what a main setting differs from the paper's, as text."""
    found, papers = [], methods.built_in()[methods.DEFAULT]
    teacher = config["teachers"][main["teacher"]]
    if teacher["backbone"] != "resnet18":
        found.append(f"backbone {teacher['backbone']}")
    if teacher.get("source") == WEIGHTS:
        found.append(f"teacher {main['teacher']} from a file declared as {WEIGHTS}")
    elif teacher.get("weights") != WEIGHTS:
        found.append(f"teacher {main['teacher']}, not torchvision's ImageNet weights")
    if main["layers"] != "1+2+3":
        found.append(f"layers {main['layers']}")
    if main["fraction"] != 1:
        found.append(f"fraction {main['fraction']}")
    if main["method"] != methods.DEFAULT:
        found.append(f"method {main['method']}")
    if config["image_size"] != IMAGE_SIZE:
        found.append(f"image_size {config['image_size']}")
    found += [
        f"{key} {value}"
        for key, value in config["training"].items()
        if value != getattr(papers, key)
    ]
    return found


def speed_claims(data: Data, scoring: pd.DataFrame) -> list[Claim]:
    """Claim 5; the interval is over the cells that were scored.

    On what machine the paper measured is not known: a processor without a GPU tests nothing.
    """
    rates, reasons = scoring["images_per_second"].to_numpy(float), []
    if data.config["teachers"][data.main["teacher"]]["backbone"] != "resnet18":
        reasons.append("another backbone than ResNet-18")
    if data.config["image_size"] != IMAGE_SIZE:
        reasons.append(f"images of {data.config['image_size']}²")
    if (scoring["device"] == "cpu").any():
        reasons.append("no GPU")
    comparisons = []
    if not len(rates):
        note = "no cell of the main setting says its rate of scoring"
    elif reasons:
        rate = f"{np.median(rates):.0f} images a second"
        note = f"a claim of the paper's own setting; here, with {', '.join(reasons)}: {rate}"
    else:
        low, high = statistics.seed_interval(rates)
        few = "" if len(rates) >= statistics.FEWEST_SEEDS else f"too few cells: {len(rates)}"
        note = "in batches, beside whatever else ran on the machine"
        comparisons = [
            Comparison(
                "images/s of scoring",
                FRAMES_PER_SECOND,
                float(rates.mean()),
                low,
                high,
                cells=tuple(scoring["cell"]),
                note=few,
            )
        ]
    times = "It is dozens of times faster than the methods of its time"
    return [
        Claim("5a", "100 frames a second at 256²", "v1", "", comparisons, note),
        Claim("5b", times, "v1", "", [], "no other method is run here"),
    ]


def other_claims(data: Data, published: pd.DataFrame) -> list[Claim]:
    """Claim 6; on MVTec AD against the best mean that the paper's tables print for another."""
    rows = published[(published["source"] == PAPER) & (published["category"] == "mean")]
    rows = rows[rows["method"] != METHOD]
    found = []
    for metric, label in METRICS.items():
        best = rows[rows["metric"] == metric].nlargest(1, "value").iloc[0]
        found.append(
            against_constant(
                data,
                "6a",
                f"State of the art on MVTec AD: ahead of {best['method']}, the best other {label} "
                f"of its tables ({best['value']:.3f})",
                f"v1; the numbers are v3's, {best['table']}",
                metric,
                best["value"],
                f"mean of 15 less {best['value']:.3f}",
                0.0,
            )
        )
    absent = "the paper's numbers are not at hand"
    return [
        *found,
        Claim("6b", "State of the art on ShanghaiTech Campus", "v1 (unread)", "", [], absent),
        Claim("6c", "State of the art on one-class CIFAR-10", "v1 (unread)", "", [], absent),
    ]


def scope(cells: pd.DataFrame, config: dict) -> str:
    """Return what data the verdicts are about."""
    run = list(dict.fromkeys(cells["category"]))
    if config["data"]["demo"]:
        return "the demo set: says nothing about the paper"
    known = [category for category in run if category in mvtec.CATEGORIES]
    others = [category for category in run if category not in known]
    if others:
        some = f"MVTec AD, {len(known)} of 15 categories, and " if known else "not MVTec AD: "
        return some + ", ".join(others)
    if len(known) == len(mvtec.CATEGORIES):
        return "MVTec AD, all 15 categories"
    return f"MVTec AD, {len(known)} of 15 categories: {', '.join(known)}"


def table(found: Sequence[Claim]) -> pd.DataFrame:
    """Return a row a claim and metric; of several comparisons, the one that speaks least for it.

    Columns `claim, statement, where, metric, comparison, effect, low, high, p_holm, pairs,
    categories, cells, comparisons, verdict, note`.
    """
    rows = []
    for claim in found:
        measured = [c for c in claim.comparisons if np.isfinite(c.effect)]
        missing = [c.name for c in claim.comparisons if not np.isfinite(c.effect)]
        shown = min(measured, key=lambda c: c.effect - c.threshold, default=None)
        shown = shown or Comparison("", np.nan)
        notes = [claim.note, shown.note]
        if measured and missing:
            notes.append(f"not run: {', '.join(missing)}")
        elif missing:
            notes.append("no cells of these settings")
        rows.append(
            {
                "claim": claim.claim,
                "statement": claim.statement,
                "where": claim.where,
                "metric": claim.metric,
                "comparison": shown.name,
                "effect": shown.effect,
                "low": shown.low,
                "high": shown.high,
                "p_holm": shown.p_holm,
                "pairs": shown.pairs,
                "categories": shown.categories,
                "cells": len({cell for c in claim.comparisons for cell in c.cells}),
                "comparisons": len(claim.comparisons),
                "verdict": verdict(claim.comparisons),
                "note": "; ".join(note for note in notes if note),
            }
        )
    return pd.DataFrame(rows)


def sections(found: Sequence[Claim], scope: str, deviates: Sequence[str]) -> list[Section]:
    """Set the claims: one line each, then every comparison.

    Args:
        scope: what `scope` returns. deviates: what `deviations` returns.
    """
    rows = table(found)
    body = pd.DataFrame(
        {
            "claim": rows["claim"],
            "statement": rows["statement"],
            "where": rows["where"],
            "metric": rows["metric"].map(METRICS).fillna(""),
            "verdict": [f"**{v}**" if v != "not tested" else v for v in rows["verdict"]],
            "comparison": [
                f"{name} (weakest of {n})" if n > 1 and name else name
                for name, n in zip(rows["comparison"], rows["comparisons"], strict=True)
            ],
            "effect": [number(effect, signed=True) for effect in rows["effect"]],
            "95% interval": [interval(*v) for v in zip(rows["low"], rows["high"], strict=True)],
            "cells": [
                f"{n} ({categories} {'category' if categories == 1 else 'categories'})"
                if categories
                else str(n or "")
                for n, categories in zip(rows["cells"], rows["categories"], strict=True)
            ],
            "note": rows["note"],
        }
    )
    counts = ", ".join(f"{(rows['verdict'] == v).sum()} {v}" for v in VERDICTS)
    setting = f"Other than the paper's setting: {'; '.join(deviates)}. " if deviates else ""
    caption = (
        f"Data: {scope}. {setting}{len(rows)} rows: {counts}. Supported: the whole 95% interval of "
        "every comparison lies on the claimed side, and its p, Holm-corrected within the study, "
        f"is at most {ALPHA}; contradicted: one lies wholly on the other side; undecided: neither, "
        "too few pairs or seeds, or a setting that was not run; not tested: nothing to compare. "
        "Ablations: paired by category and seed, the interval a bootstrap over categories; printed "
        "means: over seeds. Of several comparisons the one that speaks least for the claim is "
        "shown."
    )
    lines = [
        [
            claim.claim,
            METRICS.get(claim.metric, ""),
            c.name,
            number(c.effect, signed=True),
            interval(c.low, c.high),
            p_value(c.p_holm),
            number(c.rank_biserial, signed=True),
            str(c.pairs),
            str(c.categories),
            c.note,
        ]
        for claim in found
        for c in claim.comparisons
    ]
    names = ["claim", "metric", "comparison", "effect", "95% interval", "p, Holm"]
    names += ["rank-biserial", "pairs", "categories", "note"]
    details = pd.DataFrame(lines, columns=names)
    thresholds = (
        f"The effect is compared with 0; of 3a and 3b with -{FEW_SHOT_LOSS}, of 4 with "
        f"-{HEADLINE_LOSS}, of 5a with {FRAMES_PER_SECOND}. {NO_VALUE}: not run, or too few pairs."
    )
    return [
        Section(f"The paper's claims ({scope})", body, caption),
        Section("Every comparison", details, thresholds),
    ]


def record(found: Sequence[Claim], scope: str, deviates: Sequence[str]) -> dict:
    """Return the claims as JSON takes them: NaN is None."""

    def plain(value):
        return None if isinstance(value, float) and np.isnan(value) else value

    rows = table(found).to_dict("records")
    return {
        "data": scope,
        "deviations_from_the_papers_setting": list(deviates),
        "claims": [
            {key: plain(value) for key, value in row.items()}
            | {
                "cells": sorted({cell for c in claim.comparisons for cell in c.cells}),
                "comparisons": [
                    {key: plain(value) for key, value in c._asdict().items() if key != "cells"}
                    for c in claim.comparisons
                ],
            }
            for claim, row in zip(found, rows, strict=True)
        ],
    }
