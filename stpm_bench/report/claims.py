"""The paper's claims: the comparisons that test each one, in the order of the paper's questions.

`verdict.verdict` decides the verdicts. The margins below were chosen before any result on MVTec AD
was known; a comment gives the reason for each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stpm_bench import methods
from stpm_bench.datasets import demo, mvtec
from stpm_bench.grid import SETTING
from stpm_bench.report import statistics
from stpm_bench.report.literature import METHOD, PAPER
from stpm_bench.report.tables import METRICS
from stpm_bench.report.verdict import (
    Claim,
    Comparison,
    Evidence,
    Learned,
    evidence,
    gap,
    shortened,
    source_of,
    with_holm,
)

# `where` of a claim names the paper's version on arXiv. The paper's text could not be read where
# these rules were written: its numbers are those of literature.csv, each with its source, and
# '(unread)' marks a claim that is known from a review alone.

# The methods that the claims are about.
STPM = methods.DEFAULT
BASELINES = ("padim", "spade")  # the methods of the paper's tables that are run here
LATER = ("patchcore",)  # published after the paper: shown, but not counted

# With few images the method 'still works' if it loses less than this compared with all images. The
# paper's few-shot table could not be found, so the margins are ours. After such a loss the paper's
# printed mean would still be at or above that of a rival in its tables that was fitted on all
# images: Patch-SVDD's image AUROC (0.955 against 0.921), Cut-Paste's pixel AUROC (0.970, 0.960),
# PaDiM-R18's PRO (0.921, 0.901). The nearest rivals are only 0.002 to 0.004 away, no more than what
# separates the five sources below: a margin of that size would test the seeds.
FEW_SHOT_LOSS = {"image_auroc": 0.03, "pixel_auroc": 0.01, "pro": 0.02}
# A mean 'reaches' a printed one if it is at most this far below it. Five sources that follow the
# paper's recipe print means of image AUROC with a standard deviation of 0.010, and means of pixel
# AUROC down to 0.003 below the paper's. No source prints such a mean of PRO. The paper's own
# entries average 0.003 more than its printed mean; 0.01 is allowed, as for image AUROC.
HEADLINE_LOSS = {"image_auroc": 0.01, "pixel_auroc": 0.003, "pro": 0.01}
# Half a unit of the last printed digit: two means closer than this count as equal.
ROUNDING = 0.0005
FRAMES_PER_SECOND = 100
DOZENS = 24  # 'dozens of times faster': at least two dozen times
# The step `score` times the scoring of a cell's test images in batches: `methods.stpm.level_maps`.
SCORING_BATCH = 16

# The paper's setting, besides its method's settings: claims about its numbers are tested only here.
IMAGE_SIZE = 256
WEIGHTS = "IMAGENET1K_V1"
# What the claims are about, by the first character of a claim's number.
SUBJECTS = {
    "1": "levels",
    "2": "pretraining of the teacher",
    "3": "few training images",
    "4": "means over MVTec AD",
    "5": "speed",
    "6": "state of the art",
}
ABLATION = "its table could not be found"
RESAMPLED = "images resampled before the run:"
SPEED_COLUMNS = ["method", "device", "frames_per_second", "p50", "p95"]


def claims(
    metrics: pd.DataFrame,
    cells: pd.DataFrame,
    main: Sequence,
    config: dict,
    literature: pd.DataFrame,
    scoring: pd.DataFrame,
    learned: Mapping[str, Sequence[Learned]] | None = None,
    speed: pd.DataFrame | None = None,
    others: Sequence[str] = (),
) -> list[Claim]:
    """Make the comparisons that test each claim of the paper.

    Args:
        metrics: the long table. cells: every cell of the config, columns `AXES`.
        main: values of `SETTING` in the main study; each ablation changes one of them.
        config: completed. literature: what `literature.read` returns.
        scoring: columns `cell` (its folder's name), `device` and `images_per_second`, one row per
            cell of the main setting.
        learned: teacher -> what each draw of it learned.
        speed: columns `SPEED_COLUMNS`, one row per method and device: frames scored per second,
            one at a time, and the median and 95th percentile of the seconds per frame. None where
            speed was not measured.
        others: categories that share a name with one of MVTec AD's but hold other images.
    """
    data = evidence(metrics, cells, main, config, learned, others)
    found = [*layer_claims(data), *teacher_claims(data), *few_shot_claims(data)]
    found += [*headline_claims(data, literature), *speed_claims(data, scoring, speed)]
    found += other_claims(data, literature)
    return [with_holm(claim) for claim in found]


def layer_claims(data: Evidence) -> list[Claim]:
    """Claim 1, for each metric; includes level 4, which the method does not use, where planned."""
    fourth = len(data.planned(layers="4")) > 0
    where = f"ablation of layers ({ABLATION})"
    found = []

    def compare(metric: str, one: str, other: str) -> Comparison:
        name = f"layers {one} less {other}"
        return data.compare(metric, name, {"layers": one}, {"layers": other})

    for metric in METRICS:
        levels = ["1", "2", "3", *(["4"] if fourth else [])]
        found.append(
            Claim(
                "1a",
                "Matching levels 1, 2 and 3 together beats each single level",
                where,
                metric,
                [compare(metric, "1+2+3", level) for level in levels],
            )
        )
    for metric in METRICS:
        # Compared with level 1 alone, the 'middle' levels would only be the deeper two of three.
        pairs = [(middle, outer) for middle in "23" for outer in "14"] if fourth else []
        found.append(
            Claim(
                "1b",
                "The middle levels (2: conv3_x, 3: conv4_x) carry most: each beats the outer ones",
                where,
                metric,
                [compare(metric, *pair) for pair in pairs],
                "" if fourth else "level 4 is not planned: levels 2 and 3 have no outer level 4",
            )
        )
    return found


def teachers_of(data: Evidence, one: str, other: str) -> tuple[str, str] | None:
    """Return two teachers, trained on `one` and `other`, with the same backbone, or None.

    If there are several pairs, one that the config plans at the main setting is preferred.
    """
    teachers = data.config["teachers"]
    pairs = [
        (first, second)
        for first, a in teachers.items()
        for second, b in teachers.items()
        if (source_of(a), source_of(b)) == (one, other) and a["backbone"] == b["backbone"]
    ]
    planned = [pair for pair in pairs if all(len(data.planned(teacher=t)) for t in pair)]
    return next(iter(planned or pairs), None)


def teacher_claims(data: Evidence) -> list[Claim]:
    """Claim 2, for each metric."""
    orders = {
        "2a": (["imagenet"], ["cifar10", "cifar100"]),
        "2b": (["cifar10", "cifar100"], ["mnist", "svhn"]),
        "2c": (["imagenet"], ["mnist", "svhn"]),
    }
    found = []
    for claim, (better, worse) in orders.items():
        pairs = {(a, b): teachers_of(data, a, b) for a in better for b in worse}
        for metric in METRICS:
            comparisons = []
            for (one, other), pair in pairs.items():
                name = f"teacher {one} less {other}"
                settings = [{"teacher": teacher} for teacher in pair or ()]
                comparisons.append(
                    data.compare(metric, name, *settings, about_sources=True)
                    if pair
                    else Comparison(name, 0.0, note="not planned")
                )
            statement = f"A teacher of {' or '.join(better)} beats one of {' or '.join(worse)}"
            where = f"ablation of the pretraining ({ABLATION})"
            used = dict.fromkeys(teacher for pair in pairs.values() for teacher in pair or ())
            found.append(
                Claim(claim, statement, where, metric, comparisons, accuracies_text(data, used))
            )
    return found


def accuracies_text(data: Evidence, teachers: Sequence[str]) -> str:
    """Return the accuracy of each teacher's draws on its own task, as the text of a note."""
    texts = []
    for teacher in teachers:
        accuracies = [one.accuracy for one in data.learned.get(teacher, ())]
        if accuracies:
            low, high = min(accuracies), max(accuracies)
            texts.append(f"{teacher} {low:.3f}" + (f" to {high:.3f}" if high > low else ""))
        if file_declared(data.config, teacher):
            texts.append(f"{teacher} {file_declared(data.config, teacher)}")
    return f"accuracy on their own task: {', '.join(texts)}" if texts else ""


def few_shot_claims(data: Evidence) -> list[Claim]:
    """Claim 3, for each metric."""
    found = []
    margins = ", ".join(f"{FEW_SHOT_LOSS[metric]} of {label}" for metric, label in METRICS.items())
    for claim, fraction in (("3a", 0.1), ("3b", 0.05)):
        for metric in METRICS:
            name = f"fraction {fraction} less 1.0"
            pair = {"fraction": fraction}, {"fraction": 1.0}
            found.append(
                Claim(
                    claim,
                    f"With {fraction:.0%} of the training images the method still works: it loses "
                    f"less than {margins}",
                    f"few-shot experiment ({ABLATION}; the margin is ours)",
                    metric,
                    [data.compare(metric, name, *pair, threshold=-FEW_SHOT_LOSS[metric])],
                )
            )
    statement = "With 5% and 10% of the training images it is ahead of PaDiM and SPADE"
    for metric in METRICS:
        comparisons = [
            comparison
            for fraction in (0.05, 0.1)
            for comparison in against_methods(data, metric, fraction)
        ]
        where = "few-shot experiment (its numbers could not be found)"
        found.append(Claim("3c", statement, where, metric, comparisons))
    return found


def against_methods(data: Evidence, metric: str, fraction: float) -> list[Comparison]:
    """Compare STPM with each baseline that is run here, at a fraction of the training images.

    Each method uses the levels that the config plans for it: the main study's where planned.
    """
    stpm = {"method": STPM, "fraction": fraction}
    found = []
    for method in (*BASELINES, *LATER):
        other = {"method": method, "fraction": fraction}
        layers = {
            setting[SETTING.index("layers")]
            for setting in data.plans
            if setting == data.setting(**other, layers=setting[SETTING.index("layers")])
        }
        if layers and data.main["layers"] not in layers:
            other["layers"] = min(layers)
        name = f"{STPM} less {method}" + (f" at {fraction:.0%}" if fraction < 1 else "")
        comparison = data.compare(metric, name, stpm, other)
        if method in LATER:
            text = "; ".join(t for t in (comparison.note, "not counted: after the paper") if t)
            comparison = comparison._replace(decides=False, note=text)
        found.append(comparison)
    return found


def headline_claims(data: Evidence, literature: pd.DataFrame) -> list[Claim]:
    """Claim 4: the mean over MVTec AD's 15 categories, compared with the printed one."""
    rows = literature[(literature["source"] == PAPER) & (literature["category"] == "mean")]
    rows = rows[rows["method"] == METHOD].set_index("metric")
    return [
        against_constant(
            data,
            claim,
            f"The mean over MVTec AD's 15 categories reaches {rows.loc[metric, 'value']:.3f} (no "
            f"more than {HEADLINE_LOSS[metric]} below)",
            f"v3, {rows.loc[metric, 'table']}, mean",
            metric,
            rows.loc[metric, "value"],
            -HEADLINE_LOSS[metric],
        )
        for claim, metric in (("4a", "image_auroc"), ("4b", "pixel_auroc"), ("4c", "pro"))
    ]


def reasons_not_tested(data: Evidence) -> list[str]:
    """Return why the cells cannot test the paper's claims about its own data and setting."""
    reasons = []
    run = set(data.planned()["category"]) - set(data.others)
    if data.config["data"]["demo"] or run & set(demo.CATEGORIES):
        reasons.append("the demo set")
    elif not run & set(mvtec.CATEGORIES):
        reasons.append("no category of MVTec AD")
    if deviations(data.config, data.main):
        reasons.append("another setting (see the caption)")
    return reasons


def not_tested(reasons: Sequence[str]) -> str:
    """Return the note of a claim about the paper's data and setting that is not tested."""
    return f"claimed of the paper's data and setting; here: {', '.join(reasons)}"


def against_constant(
    data: Evidence,
    claim: str,
    statement: str,
    where: str,
    metric: str,
    constant: float,
    threshold: float = 0.0,
    tolerance: float = 0.0,
    of: str = "",
    note: str = "",
) -> Claim:
    """Compare the mean of the 15 categories with a printed one; the interval is over seeds.

    The printed number is about exactly these 15 categories, so only the seeds vary. The claim is
    tested only on these categories and only at the paper's setting.

    Args:
        of: the method that has the printed mean, '' for the paper's own.
    """
    reasons = reasons_not_tested(data)
    known = [category for category in mvtec.CATEGORIES if category not in data.others]
    rows, plan = data.found(metric), data.planned()
    rows, plan = (part[part["category"].isin(known)] for part in (rows, plan))
    values = rows.pivot(index="category", columns="seed", values="value")
    if len(values) < len(mvtec.CATEGORIES) and not reasons:
        reasons.append(f"{len(values)} of {len(mvtec.CATEGORIES)} categories have a value")
    if reasons:
        return Claim(claim, statement, where, metric, [], not_tested(reasons))
    means = values.mean(skipna=False).dropna()
    used = rows[rows["seed"].isin(means.index)]
    by_seed = means.to_numpy() - constant
    low, high = statistics.seed_interval(by_seed)
    few = f"too few seeds: {len(by_seed)}" if len(by_seed) < statistics.FEWEST_SEEDS else ""
    possessor = f"{of}'s " if of else ""
    comparison = Comparison(
        f"mean of 15 less {possessor}{constant:.3f}",
        threshold,
        float(by_seed.mean()) if len(by_seed) else np.nan,
        low,
        high,
        tolerance=tolerance,
        values=len(used),
        planned=len(plan),
        categories=len(mvtec.CATEGORIES),
        cells=data.folders(used, {}),
        missing=gap("the main setting", plan, rows),
        note=few,
    )
    return Claim(claim, statement, where, metric, [comparison], note)


def against_entries(
    data: Evidence,
    claim: str,
    statement: str,
    where: str,
    metric: str,
    method: str,
    entries: pd.Series,
    note: str,
) -> Claim:
    """Compare the main setting with the printed entries of a method, paired by category.

    Args:
        entries: category -> value.
    """
    reasons = reasons_not_tested(data)
    if reasons:
        return Claim(claim, statement, where, metric, [], not_tested(reasons))
    known = [category for category in entries.index if category not in data.others]
    rows, plan = data.found(metric), data.planned()
    rows, plan = (part[part["category"].isin(known)] for part in (rows, plan))
    printed = entries.rename_axis("category").rename("value").reset_index()
    found = statistics.compare(statistics.paired_differences(rows, printed))
    comparison = Comparison(
        f"{STPM} less {method}'s entries",
        0.0,
        found["difference"],
        **{key: found[key] for key in ("low", "high", "p", "categories", "note")},
        rank_biserial=found["rank_biserial"],
        tolerance=ROUNDING,
        values=len(rows),
        planned=len(plan),
        cells=data.folders(rows, {}),
        missing=gap("the main setting", plan, rows),
    )
    return Claim(claim, statement, where, metric, [comparison], note)


def deviations(config: dict, main: dict) -> list[str]:
    """Return how a main setting differs from the paper's, as text.

    The precision of training and images resampled before the run are named with the claims, but
    prevent no test: they are not listed here.
    """
    found, papers = [], methods.built_in()[methods.DEFAULT]
    teacher = config["teachers"][main["teacher"]]
    if teacher["backbone"] != "resnet18":
        found.append(f"backbone {teacher['backbone']}")
    if WEIGHTS not in (teacher.get("weights"), teacher.get("source")):
        found.append(f"teacher {main['teacher']}, not torchvision's ImageNet weights")
    if main["layers"] != "1+2+3":
        found.append(f"layers {main['layers']}")
    if main["fraction"] != 1:
        found.append(f"fraction {main['fraction']}")
    if main["method"] != STPM:
        found.append(f"method {main['method']}")
    if config["image_size"] != IMAGE_SIZE:
        found.append(f"image_size {config['image_size']}")
    found += [
        f"{key} {value}"
        for key, value in config["training"].items()
        # To score the last epoch too changes nothing of the epoch that is kept.
        if key != "last_epoch" and value != getattr(papers, key)
    ]
    return found


def resampled_images(sides: Mapping[str, int]) -> str:
    """Return which images of MVTec AD had been made smaller before they were prepared, '' if none.

    Args:
        sides: category -> the longest side of its images on disk, see `results.image_sides`;
            without categories that only share a name with one of MVTec AD's.
    """
    smaller = [
        f"{category} from {mvtec.SIDES[category]} to {side} pixels"
        for category, side in sides.items()
        if side < mvtec.SIDES.get(category, 0)
    ]
    return f"{RESAMPLED} {shortened(smaller)}" if smaller else ""


def file_declared(config: dict, teacher: str) -> str:
    """Return 'from a file declared as SOURCE' for a teacher read from a file, else ''."""
    entry = config["teachers"][teacher]
    return f"from a file declared as {entry['source']}" if entry.get("source") else ""


def speed_claims(data: Evidence, scoring: pd.DataFrame, speed: pd.DataFrame | None) -> list[Claim]:
    """Claim 5; the interval of 5a is over the cells that were scored.

    The paper does not say on which machine it measured, so a processor without a GPU does not test
    5a. Claim 5b, a ratio of two methods on the same machine, is tested on any machine.
    """
    rates, reasons = scoring["images_per_second"].to_numpy(float), []
    if data.config["teachers"][data.main["teacher"]]["backbone"] != "resnet18":
        reasons.append("another backbone than ResNet-18")
    if data.config["image_size"] != IMAGE_SIZE:
        reasons.append(f"images of {data.config['image_size']}²")
    statement = f"At least {DOZENS} times SPADE's frames per second ('dozens of times faster')"
    ratios, note = [], "there is no results/speed.csv: speed was not measured"
    if speed is not None and not reasons:
        ratios, note = frame_rate_ratios(speed), "one frame at a time"
        note = note if ratios else "STPM and SPADE were not timed on the same device"
    elif reasons:
        note = f"a claim of the paper's own setting; here: {', '.join(reasons)}"
    fifth = Claim("5b", statement, "v1; the factor is ours", "", ratios, note)

    if (scoring["device"] == "cpu").any():
        reasons.append("no GPU")
    comparisons = []
    how = (
        f"in batches of {SCORING_BATCH}, including the first (no warm-up), while other jobs may "
        "have run on the machine"
    )
    if not len(rates):
        note = "no cell of the main setting recorded its scoring rate"
    elif reasons:
        rate = f"{np.median(rates):.0f} images per second {how}"
        note = f"a claim of the paper's own setting; here, with {', '.join(reasons)}: {rate}"
    else:
        low, high = statistics.seed_interval(rates)
        few = "" if len(rates) >= statistics.FEWEST_SEEDS else f"too few cells: {len(rates)}"
        note = how
        comparisons = [
            Comparison(
                "images/s of scoring",
                FRAMES_PER_SECOND,
                float(rates.mean()),
                low,
                high,
                values=len(rates),
                planned=len(rates),
                cells=tuple(scoring["cell"]),
                note=few,
            )
        ]
    return [Claim("5a", "100 frames per second at 256²", "v1", "", comparisons, note), fifth]


def frame_rate_ratios(speed: pd.DataFrame) -> list[Comparison]:
    """Return STPM's frames per second divided by SPADE's, one comparison per device.

    The bounds compare the slow frames (95th percentile) of one method with the other's median.

    Args:
        speed: columns `SPEED_COLUMNS`.
    """
    found = []
    for device, rows in speed.groupby("device", sort=False):
        by_method = rows.set_index("method")
        if {STPM, "spade"} <= set(by_method.index):
            ours, theirs = by_method.loc[STPM], by_method.loc["spade"]
            found.append(
                Comparison(
                    f"frames/s, {STPM} over spade ({device})",
                    DOZENS,
                    float(ours["frames_per_second"] / theirs["frames_per_second"]),
                    float(theirs["p50"] / ours["p95"]),
                    float(theirs["p95"] / ours["p50"]),
                    values=2,
                    planned=2,
                    note="bounds: one method's 95th percentile against the other's median",
                )
            )
    return found


def other_claims(data: Evidence, literature: pd.DataFrame) -> list[Claim]:
    """Claim 6: on MVTec AD, compared with baselines run here, printed entries and printed means."""
    first = "State of the art on MVTec AD"
    found = [
        Claim(
            "6a.1",
            f"{first}: ahead of PaDiM and SPADE, run here",
            "v1; the runs are ours",
            metric,
            against_methods(data, metric, 1.0),
        )
        for metric in METRICS
    ]
    rows = literature[(literature["source"] == PAPER) & (literature["method"] != METHOD)]
    printed = rows[rows["category"] == "mean"].pivot(
        index="method", columns="metric", values="value"
    )
    entries = rows[rows["category"].isin(mvtec.CATEGORIES)]
    averaged = entries.pivot_table(index="method", columns="metric", values="value")
    means, lines = [], []
    for metric in METRICS:
        where = f"v1; the numbers are v3's, {rows.loc[rows['metric'] == metric, 'table'].iloc[0]}"
        if metric in averaged:
            best = averaged[metric].idxmax()
            both = both_means(best, averaged[metric][best], printed[metric][best])
            of_best = entries[(entries["method"] == best) & (entries["metric"] == metric)]
            lines.append(
                against_entries(
                    data,
                    "6a.2",
                    f"{first}: ahead of the best other method of its tables, by category",
                    where,
                    metric,
                    best,
                    of_best.set_index("category")["value"],
                    both,
                )
            )
        best = printed[metric].idxmax()
        value = printed[metric][best]
        both = both_means(best, averaged[metric][best], value) if metric in averaged else ""
        means.append(
            against_constant(
                data,
                "6a.3",
                f"{first}: ahead of the best other mean that it prints",
                where,
                metric,
                value,
                tolerance=ROUNDING,
                of=best,
                note=both,
            )
        )
    absent = "the paper's numbers are not available"
    return [
        *found,
        *lines,
        *means,
        Claim("6b", "State of the art on ShanghaiTech Campus", "v1 (unread)", "", [], absent),
        Claim("6c", "State of the art on one-class CIFAR-10", "v1 (unread)", "", [], absent),
    ]


def both_means(method: str, entries: float, printed: float) -> str:
    """Return a rival's two means; the paper's printed mean can differ from that of its entries."""
    return f"{method}: mean of its entries {entries:.4f}, printed mean {printed:.3f}"


def scope(found: pd.DataFrame, config: dict, others: Sequence[str] = ()) -> str:
    """Return which data the verdicts are about: the categories that have a value.

    Args:
        found: the long table, with a column `category`. others: as in `claims`.
    """
    if config["data"]["demo"]:
        return "the demo set: says nothing about the paper"
    run = list(dict.fromkeys(found["category"]))
    if not run:
        return "no category has a value yet"
    known = [
        category for category in run if category in mvtec.CATEGORIES and category not in others
    ]
    rest = [
        f"{category} (not MVTec AD's category of that name)" if category in others else category
        for category in run
        if category not in known
    ]
    if rest:
        some = f"MVTec AD, {len(known)} of 15 categories, and " if known else "not MVTec AD: "
        return some + ", ".join(rest)
    if len(known) == len(mvtec.CATEGORIES):
        return "MVTec AD, all 15 categories"
    return f"MVTec AD, {len(known)} of 15 categories: {', '.join(known)}"


def by_subject(claims: Sequence[str]) -> str:
    """Return the numbers of some claims, grouped by what they are about: 'levels (1a, 1b), ...'."""
    of_subject: dict[str, list[str]] = {}
    for claim in dict.fromkeys(claims):
        of_subject.setdefault(SUBJECTS[claim[0]], []).append(claim)
    return ", ".join(f"{subject} ({', '.join(names)})" for subject, names in of_subject.items())
