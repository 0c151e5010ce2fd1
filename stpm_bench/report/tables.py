"""From the long table of metrics to the tables of a study."""

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from stpm_bench.datasets import demo, mvtec
from stpm_bench.grid import AXES, SETTING, at_setting, set_of, varying
from stpm_bench.report import statistics
from stpm_bench.report.typeset import (
    NO_VALUE,
    Section,
    bold_best,
    interval,
    number,
    p_value,
    spread,
)

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}
# The setting of the paper's Tables 1 and 2, as far as a cell's axes describe it; the caption adds
# the rest. If a study has several teachers or methods, its first ones are compared with the paper.
PAPER_SETTING = {"layers": "1+2+3", "fraction": 1.0}
FIRST_AXES = ["teacher", "method"]
GROUPS = {"textures": mvtec.TEXTURES + demo.CATEGORIES, "objects": mvtec.OBJECTS}
# The column `kind` says what a row of a summary covers: one category, MVTec AD's textures or
# objects, a whole set, or everything (the mean).
CATEGORY, GROUP, SET, MEAN = "category", "group", "set", "mean"
# The module of the methods whose fits train a student, in the config's precision.
STUDENT_MODULE = "stpm"
# Sentences of captions.
MVTEC_PRO = "PRO: MVTec's definition, up to a false-positive rate of 0.3."
ANOMALIB = (
    " anomalib itself uses another teacher (timm's resnet18.a1_in1k); here all methods share the "
    "study's teacher, which is one reason why anomalib's own numbers differ."
)
NO_PRO = "A frame is anomalous if one of its pixels is; pixel AUROC is over all frames' pixels."
NO_MASKS = "An image is normal or anomalous as a whole: no pixels are marked."
MOST_IN_PAIRS = 16  # up to this many settings, all pairs are compared, see `differences`
MOST_NAMED = 3  # settings that a caption names


def metrics_of(values: pd.DataFrame, names: Sequence[str] = tuple(METRICS)) -> list[str]:
    """Return the `names` that have a value, or all of them if there is no value at all.

    One-class CIFAR-10 has no masks, and PRO is not reported for ShanghaiTech's videos.

    Args:
        values: the long table, or what `study_table` returns.
    """
    if "metric" in values:
        found = set(values.loc[values["value"].notna(), "metric"])
    else:
        found = {name for name in names if name in values and values[name].notna().any()}
    return [name for name in names if name in found] or list(names)


def at_papers_setting(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to compare with the paper: those at `PAPER_SETTING`, with the first teacher
    and the first method of the table.

    Args:
        table: cells of one study, or what `study_table` returns.
    """
    rows = (table[FIRST_AXES] == table[FIRST_AXES].iloc[0]).all(axis=1)
    rows &= (table[list(PAPER_SETTING)] == list(PAPER_SETTING.values())).all(axis=1)
    return table[rows]


def sets_without_pro(values: pd.DataFrame) -> list[str]:
    """Return the sets without PRO: each has a separate table.

    Args:
        values: as in `metrics_of`.
    """
    single = values[values["kind"] == CATEGORY] if "kind" in values else values
    by_set = single.groupby(single["category"].map(set_of), sort=False)
    return [name for name, rows in by_set if "pro" not in metrics_of(rows)]


def split_by_pro(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a study into the parts that have separate tables: '' for the sets with PRO, and each
    set of `sets_without_pro`.

    Args:
        table: what `study_table` returns.
    """
    names = sets_without_pro(table)
    sets = table["category"].where(table["kind"].isin([SET, MEAN]), table["category"].map(set_of))
    rest = table[~sets.isin(names)]
    found = {} if names and set(rest["kind"]) <= {MEAN} else {"": rest}
    only = not found and len(names) == 1  # then the mean is the set's mean
    for name in names:
        found[name] = table[(sets == name) | (only & (table["kind"] == MEAN))]
    return found


def study_table(
    metrics: pd.DataFrame,
    cells: pd.DataFrame,
    paper: Mapping[tuple[str, str], float],
    names: Sequence[str] = tuple(METRICS),
    others: Collection[str] = (),
) -> pd.DataFrame:
    """Summarise a study: one row for each setting and category, then rows for groups (textures,
    objects, and each set if there are several) and for the mean.

    Mean and standard deviation (n - 1) are over seeds; those of a group are over its seeds' means
    over categories. A seed in which a category is missing is left out of the group. A group that
    would equal the mean has no row. If there are other sets, the sets of `sets_without_pro` are
    not part of the mean.

    Args:
        metrics: the long table, columns `grid.AXES`, `metric`, `value`.
        cells: the study's cells, columns `grid.AXES`.
        paper: (category or 'mean', metric) -> the paper's value, compared only with the rows at
            `PAPER_SETTING` with the first teacher and method of the study.
        names: the metrics to summarise.
        others: categories that share a name with one of MVTec AD's but hold other images: they are
            in no group.

    Returns:
        Columns `SETTING`, `category`, `kind`, `seeds`, and for each metric `METRIC` (the mean),
        `METRIC_sd`, `METRIC_between` (for a group: the standard deviation over its categories),
        `METRIC_paper` and `METRIC_difference`; NaN where there is no value. The paper's value of a
        group is the mean of its entries; if it prints no entries (image AUROC) and the group is
        its 15 categories, it is the printed mean.
    """
    values = cells.merge(metrics, on=list(AXES), how="left")
    wide = values.pivot_table(
        index=[*SETTING, "category", "seed"], columns="metric", values="value", dropna=False
    ).reindex(columns=list(names))
    alone, rows = sets_without_pro(values), []
    # set -> for each metric, whether the set can have it: pixel metrics and PRO need masks.
    expected = {
        name: [metric in metrics_of(of_set, names) for metric in names]
        for name, of_set in values.groupby(values["category"].map(set_of), sort=False)
    }
    papers = set(at_papers_setting(cells)[list(SETTING)].itertuples(index=False, name=None))
    for setting, group in cells.groupby(list(SETTING), sort=False):
        categories = list(dict.fromkeys(group["category"]))
        seeds = list(dict.fromkeys(group["seed"]))
        # (categories, seeds, metrics): a gap is NaN, and so is every mean that includes it.
        index = pd.MultiIndex.from_product([[v] for v in setting] + [categories, seeds])
        cube = wide.reindex(index).to_numpy(float).reshape(len(categories), len(seeds), len(names))
        averaged = [c for c in categories if set_of(c) not in alone] or categories
        groups = [
            (name, GROUP, [c for c in categories if c in members and c not in others])
            for name, members in GROUPS.items()
        ]
        groups += [(name, SET, [c for c in categories if set_of(c) == name]) for name in expected]
        parts = [(category, CATEGORY, [category]) for category in categories]
        parts += [group for group in groups if group[2] not in ([], averaged)]
        parts.append(("mean", MEAN, averaged))
        for name, kind, members in parts:
            of_members = cube[[categories.index(c) for c in members]]
            not_expected = ~np.array([expected[set_of(c)] for c in members])
            rows.append(
                dict(zip(SETTING, setting, strict=True))
                | {
                    "category": name,
                    "kind": kind,
                    "seeds": complete_seeds(of_members, not_expected),
                }
                | summary(of_members, members, names, paper if setting in papers else {})
            )
    return pd.DataFrame(rows)


def complete_seeds(cube: np.ndarray, not_expected: np.ndarray) -> int:
    """Return how many seeds of (categories, seeds, metrics) have every value.

    Args:
        not_expected: (categories, metrics) bool, True where a set cannot have a metric.
    """
    return int((np.isfinite(cube) | not_expected[:, None]).all(axis=(0, 2)).sum())


def summary(
    cube: np.ndarray,
    categories: Sequence[str],
    names: Sequence[str],
    paper: Mapping[tuple[str, str], float],
) -> dict[str, float]:
    """Return mean, deviations, the paper's value and the difference from it, for each metric.

    Args:
        cube: (categories, seeds, metrics) float, NaN for a gap.
    """
    row = {}
    for values, metric in zip(np.moveaxis(cube, 2, 0), names, strict=True):
        values = values[:, np.isfinite(values).all(axis=0)]
        by_seed, by_category = values.mean(axis=0), values.mean(axis=1) if values.size else []
        mean = by_seed.mean() if len(by_seed) else np.nan
        published = mean_of_entries(paper, categories, metric)
        row |= {
            metric: mean,
            f"{metric}_sd": deviation(by_seed),
            f"{metric}_between": deviation(by_category),
            f"{metric}_paper": published,
            f"{metric}_difference": mean - published,
        }
    return row


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation (n - 1), NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def mean_of_entries(
    values: Mapping[tuple[str, str], float], categories: Sequence[str], metric: str
) -> float:
    """Return the mean of published entries; if all 15 categories lack some, the printed mean."""
    mean = float(np.mean([values.get((category, metric), np.nan) for category in categories]))
    if np.isnan(mean) and set(categories) == set(mvtec.CATEGORIES):
        mean = values.get(("mean", metric), np.nan)
    return mean


def setting_names(table: pd.DataFrame) -> pd.Series:
    """Return each row's setting as text: the values of the axes that vary, '' if none does."""
    axes = varying(table)
    if not axes:
        return pd.Series("", index=table.index)
    texts = table[axes].astype(str)
    return texts[axes[0]].str.cat(texts[axes[1:]], sep=", ")


def coverage(
    cells: pd.DataFrame,
    metrics: pd.DataFrame,
    costs: pd.DataFrame,
    others: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> str:
    """Return how many cells of a study have their metrics, as part of a caption.

    The text lists categories that only share a name with one of MVTec AD's (`others`: category ->
    its numbers of training and of test images).

    It also gives the precision in which students were trained, and says if the cells were computed
    in different precisions, by different versions of the code or of the packages (`costs`, what
    `cost.collect` returns), so that no table mixes versions without saying so.
    """
    done = cells.merge(metrics[list(AXES)].drop_duplicates())
    text = f"{len(done)} of {len(cells)} cells"
    if len(done) < len(cells):
        text += "; the others failed or have not run: gaps"
    # Without the rows of teachers, which have no category.
    made = costs.dropna(subset="category").astype(done.dtypes[list(AXES)]).merge(done[list(AXES)])
    for (stage, _), rows in made.groupby(["stage", "file"], sort=False, dropna=False):
        for what, counts in versions(rows).items():
            if len(counts) > 1:
                each = ", ".join(f"{runs} by {version}" for version, runs in counts.items())
                text += f"; MIXED: their step {stage} ran with {len(counts)} versions of {what}"
                text += f" ({each})"
    # The methods without a student always compute in float32.
    trained = made.loc[made["file"] == STUDENT_MODULE, "precision"].value_counts()
    if len(trained) == 1:
        text += f"; students trained in {trained.index[0]}"
    elif len(trained):
        each = ", ".join(f"{count} in {precision}" for precision, count in trained.items())
        text += f"; MIXED: students trained in {len(trained)} precisions ({each})"
    return text + "".join(
        f"; {category}, of {train} training and {test} test images, is not MVTec AD's category of "
        f"that name ({' and '.join(map(str, mvtec.COUNTS[category]))}) and is not compared with it"
        for category, (train, test) in others.items()
        if (cells["category"] == category).any()
    )


def averaged_elsewhere(cells: pd.DataFrame, studies: pd.DataFrame) -> str:
    """Return why a study's means can differ from those in the claims, as part of a caption.

    The claims average every seed that the config has at a setting. A study's tables average the
    study's own seeds, which may be fewer.

    Args:
        cells: the study's. studies: the cells of every study. Both have columns `grid.AXES`.

    Returns:
        A sentence without a full stop; '' if no other study has further seeds at these settings.
    """
    axes, found = varying(cells), []
    at = dict(list(studies.groupby(list(SETTING), sort=False)))
    for setting, own in cells.groupby(list(SETTING), sort=False):
        every = at[setting]
        every = every[every["category"].isin(own["category"])]
        if set(every["seed"]) > set(own["seed"]):
            name = ", ".join(f"{axis} {own[axis].iloc[0]}" for axis in axes)
            found.append(f"{name}: {seed_list(every)}" if name else seed_list(every))
    if not found:
        return ""
    more = f" and {len(found) - MOST_NAMED} settings more" if len(found) > MOST_NAMED else ""
    return (
        f"only this study's seeds are averaged ({seed_list(cells)}), whereas claims.md averages "
        f"the seeds of every study at a setting ({'; '.join(found[:MOST_NAMED])}{more}), so its "
        "means can differ"
    )


def why_claims_differ(studies: pd.DataFrame) -> str:
    """Return why the means in the claims can differ from those of the studies' tables.

    Args:
        studies: columns `study` and `grid.AXES`.
    """
    of_study = {study: seed_list(cells) for study, cells in studies.groupby("study", sort=False)}
    each = "; ".join(f"{study}: {seeds}" for study, seeds in of_study.items())
    differ = f" ({each})" if len(set(of_study.values())) > 1 else ""
    return (
        "Each side of a comparison averages, by category, the seeds of every study at its setting; "
        f"a study's table averages the seeds of that study alone{differ} and leaves out a seed in "
        "which a category is missing, so its means can differ"
    )


def seed_list(cells: pd.DataFrame) -> str:
    """Return the seeds of some cells: 'seed 0' or 'seeds 0, 1, 2'."""
    found = sorted(set(cells["seed"]))
    return f"{'seed' if len(found) == 1 else 'seeds'} {', '.join(map(str, found))}"


def versions(costs: pd.DataFrame) -> dict[str, Mapping[str, int]]:
    """Return how many runs of a stage each version made: 'its code' or package -> version -> runs.

    Args:
        costs: rows of the table that `cost.collect` returns.
    """
    counts = {"its code": costs["code"].value_counts()}
    for packages, runs in costs["packages"].value_counts().items():
        for part in packages.split(", "):
            name, version = part.split(" ")
            counts.setdefault(name, Counter())[version] += runs
    return counts


def fixed_axes(table: pd.DataFrame) -> str:
    """Return the values of the axes that do not vary: 'Teacher imagenet, fraction 1.0. '."""
    fixed = [axis for axis in SETTING if axis not in varying(table)]
    text = ", ".join(f"{axis} {table[axis].iloc[0]}" for axis in fixed)
    return f"{text[:1].upper()}{text[1:]}. " if fixed else ""


def study_sections(
    name: str,
    table: pd.DataFrame,
    basis: str,
    accuracies: Mapping[str, float | None] | None = None,
    steps: Mapping[tuple, str] | None = None,
) -> list[Section]:
    """Format a study: by category if it has one setting, else by setting with the means alone.

    There is one section for the sets with PRO, and one for each of `sets_without_pro`.

    Args:
        table: what `study_table` returns.
        basis: what `coverage` returns.
        accuracies: teacher -> its test accuracy in [0, 1], None where it has none; shown next to
            the teachers if those vary.
        steps: what `cost.steps_by_setting` returns; shown in a column if the fraction varies.
    """
    return [
        study_section(f"Study: {name}{own and ', '}{own}", part, basis, accuracies, steps)
        for own, part in split_by_pro(table).items()
    ]


def study_section(
    title: str,
    table: pd.DataFrame,
    basis: str,
    accuracies: Mapping[str, float | None] | None,
    steps: Mapping[tuple, str] | None = None,
) -> Section:
    """Format one of the parts of `split_by_pro`; the arguments are as in `study_sections`."""
    axes, metrics = varying(table), labels(table)
    by_setting = bool(axes)
    if by_setting:
        table = table[table["kind"] != CATEGORY]
    several = by_setting and table["category"].nunique() > 1
    shown = table[[*axes, *(["category"] if several or not by_setting else [])]].astype(str)
    compared = False
    if accuracies and "teacher" in axes:
        known = [accuracies.get(teacher) for teacher in table["teacher"]]
        place = shown.columns.get_loc("teacher") + 1
        shown.insert(place, "accuracy", [number(np.nan if a is None else a) for a in known])
    if steps and "fraction" in axes:
        settings = table[list(SETTING)].itertuples(index=False, name=None)
        shown["steps"] = [steps.get(setting, NO_VALUE) for setting in settings]
    for metric, label in metrics.items():
        shown[label] = [spread(*v) for v in zip(table[metric], table[f"{metric}_sd"], strict=True)]
        if by_setting:
            for rows in table.groupby("category").groups.values():
                shown.loc[rows, label] = bold_best(shown.loc[rows, label], table.loc[rows, metric])
        if by_setting and table[f"{metric}_between"].notna().any():
            shown[f"{label}, between"] = [number(v) for v in table[f"{metric}_between"]]
        if not by_setting and table[f"{metric}_paper"].notna().any():
            compared = True
            shown[f"{label}, paper"] = [number(v) for v in table[f"{metric}_paper"]]
            shown[f"{label}, difference"] = [
                number(v, signed=True) for v in table[f"{metric}_difference"]
            ]
    caption = (
        f"{spread_of(table)}; {basis}. {fixed_axes(table)}"
        f"{MVTEC_PRO if 'pro' in metrics else NO_PRO if len(metrics) > 1 else NO_MASKS}"
    )
    if by_setting:
        caption += " Means over categories, the best in bold."
        if any(column.endswith("between") for column in shown):
            caption += " Between: the standard deviation over categories."
    if "steps" in shown:
        caption += (
            " Steps: the optimiser steps of a fit; n/a if it takes none or did not record them."
        )
    if "accuracy" in shown:
        caption += (
            " Accuracy: the teacher's, on the test images of the set that it was trained on here. "
            "It is not known how long and with which optimiser the paper's authors trained their "
            "teachers; config.yaml has our settings."
        )
    if table["method"].astype(str).str.endswith("anomalib").any():
        caption += ANOMALIB
    if compared:
        caption += (
            " Paper: the entries of its Tables 1 and 2 (v3); a group's value is the mean of its "
            "entries, or the printed mean if it prints no entries (image AUROC). Differences are "
            "of unrounded values. The paper's setting: ResNet-18 pretrained on ImageNet, "
            "256 × 256, 100 epochs; config.yaml has this run's."
        )
    return Section(title, shown, caption)


def labels(table: pd.DataFrame) -> dict[str, str]:
    """Return the names of the metrics for a part of a study; the images of a video are frames."""
    names = metrics_of(table)
    frames = {"image_auroc": "frame AUROC"} if "pro" not in names and len(names) > 1 else {}
    return {name: label for name, label in (METRICS | frames).items() if name in names}


def seeds(table: pd.DataFrame) -> str:
    """Return the number of seeds of a study's rows, as part of a caption.

    Rows without a value have no seeds and are left out. Where rows differ, the
    number of seeds of the row 'mean' is given too: '1 to 3 seeds (the mean: 2)'.
    """
    complete = table.loc[table["seeds"] > 0]
    text = counted_seeds(complete["seeds"])
    means = complete.loc[complete["kind"] == MEAN, "seeds"]
    if len(means) and counted_seeds(means) != text:
        text += f" (the mean: {counted_seeds(means).removesuffix(' seeds').removesuffix(' seed')})"
    return text


def spread_of(table: pd.DataFrame) -> str:
    """Return what a study's numbers are, as the start of a caption: mean and spread over seeds.

    Args:
        table: what `study_table` returns.
    """
    complete = table.loc[table["seeds"] > 0, "seeds"]
    if complete.empty:
        return "No seed has a value yet"
    if complete.max() == 1:
        return "One seed, no spread"
    alone = "; no spread if there is one seed" if complete.min() == 1 else ""
    return f"Mean ± standard deviation over {seeds(table)}{alone}"


def counted_seeds(counts: pd.Series) -> str:
    """Return '1 seed', '3 seeds' or '1 to 3 seeds'."""
    low, high = (counts.min(), counts.max()) if len(counts) else (0, 0)
    number = f"{high}" if low == high else f"{low} to {high}"
    return f"{number} seed" if high == 1 else f"{number} seeds"


def by_category(table: pd.DataFrame) -> pd.DataFrame:
    """Return a study in wide form: one row per metric and category, two columns per setting.

    Args:
        table: what `study_table` returns.

    Returns:
        Columns `metric`, `category`, `kind`, and for each setting `SETTING` (the mean) and
        `SETTING sd`.
    """
    names = setting_names(table)
    rows = []
    for metric, part in itertools.product(METRICS, split_by_pro(table).values()):
        if metric not in metrics_of(part):
            continue
        keys = zip(names[part.index], part["category"], strict=True)
        values = zip(part[metric], part[f"{metric}_sd"], strict=True)
        found = dict(zip(keys, values, strict=True))
        for category, kind in part[["category", "kind"]].drop_duplicates().itertuples(index=False):
            row = {"metric": metric, "category": category, "kind": kind}
            for name in dict.fromkeys(names):
                row[name], row[f"{name} sd"] = found.get((name, category), (np.nan, np.nan))
            rows.append(row)
    return pd.DataFrame(rows)


def by_category_sections(name: str, table: pd.DataFrame, basis: str) -> list[Section]:
    """Format a study's wide table, one section per metric; arguments as in `study_sections`."""
    settings = list(dict.fromkeys(setting_names(table)))
    axes = varying(table)
    # A heading such as '1' would not say whether it is a level or a fraction.
    word = f"{axes[0]} " if axes in (["layers"], ["fraction"]) else ""
    sections = []
    for metric, rows in by_category(table).groupby("metric", sort=False):
        means = rows[settings].to_numpy(float)
        sds = rows[[f"{setting} sd" for setting in settings]].to_numpy(float)
        lines = [
            bold_best(list(map(spread, *values)), values[0])
            for values in zip(means, sds, strict=True)
        ]
        body = pd.DataFrame(lines, columns=[f"{word}{setting}" for setting in settings])
        body.insert(0, "category", rows["category"].to_list())
        caption = (
            f"{spread_of(table)}; by {', '.join(axes)}, the best in bold; {basis}. "
            f"{fixed_axes(table)}{MVTEC_PRO if metric == 'pro' else ''}"
        )
        sections.append(Section(f"Study: {name}, {METRICS[metric]}", body, caption.strip()))
    return sections


def differences(
    metrics: pd.DataFrame, cells: pd.DataFrame, reference: Sequence | None = None
) -> pd.DataFrame:
    """Compare the settings of a study in every metric: all pairs, or each with the reference.

    With more than `MOST_IN_PAIRS` settings only the latter: the number of pairs grows with the
    square.

    Args:
        metrics, cells: as in `study_table`.
        reference: the values of `SETTING` with which the others are compared; the study's first
            setting if it is not among them.

    Returns:
        Columns `metric`, `setting`, `reference` (as text), what `statistics.compare` returns for
        setting - reference, and `p_holm`: corrected over all rows. The pairs with the reference
        come first.
    """
    named = cells.assign(name=setting_names(cells))
    names = list(dict.fromkeys(named["name"]))
    if reference is not None:
        first = set(at_setting(named, reference)["name"])
        names.sort(key=lambda name: name not in first)
    values = named.merge(metrics, on=list(AXES))
    keys = ["metric", "name"]
    groups = dict(iter(values[[*keys, "category", "seed", "value"]].groupby(keys)))
    none = values[:0]
    twos = list(itertools.combinations(names, 2))
    if len(names) > MOST_IN_PAIRS:
        twos = twos[: len(names) - 1]
    rows = []
    for metric, (first, second) in itertools.product(metrics_of(values), twos):
        one, other = (groups.get((metric, name), none) for name in (second, first))
        pairs = statistics.paired_differences(one, other)
        rows.append({"metric": metric, "setting": second, "reference": first})
        rows[-1] |= statistics.compare(pairs)
    table = pd.DataFrame(rows)
    table.insert(len(table.columns) - 2, "p_holm", statistics.holm(table["p"]))
    return table


def differences_sections(
    name: str, table: pd.DataFrame, cells: pd.DataFrame, basis: str
) -> list[Section]:
    """Format the comparisons with a study's reference.

    Args:
        table: what `differences` returns.
    """
    reference = table["reference"].iloc[0]
    shown = table[table["reference"] == reference]
    body = pd.DataFrame(
        {
            "metric": shown["metric"].map(METRICS),
            "setting": shown["setting"],
            "difference": [number(v, signed=True) for v in shown["difference"]],
            "95% interval": [interval(*v) for v in zip(shown["low"], shown["high"], strict=True)],
            "p": [p_value(v) for v in shown["p"]],
            "p, Holm": [p_value(v) for v in shown["p_holm"]],
            "rank-biserial": [number(v, signed=True) for v in shown["rank_biserial"]],
            "values": shown["values"].astype(str),
            "categories": shown["categories"].astype(str),
            "note": shown["note"],
        }
    )
    if not shown["note"].any():
        body = body.drop(columns="note")
    tests = int(table["p"].notna().sum())
    every_two = len(table) > len(shown)
    of_what = f"of every two settings (`{name}_differences.csv`)" if every_two else "shown here"
    corrected = f"corrected for the {tests} tests of the study, {of_what} in every metric"
    caption = (
        f"Setting less reference ({', '.join(varying(cells))} {reference}), paired by category "
        f"after averaging its seeds; {basis}. Values: how many the row uses. Interval: over "
        "categories, corrected for skewness (Hall 1992). p: Wilcoxon's signed-rank test over "
        f"categories; Holm: {corrected if tests else 'no test was possible'}. Rank-biserial: "
        "matched-pairs correlation, the effect size, from -1 to +1. With fewer than "
        f"{statistics.FEWEST_PAIRS} categories no p below 0.05 is possible, and none is given."
    )
    return [Section(f"Study: {name}, differences", body, caption)]
