"""The published numbers (literature.csv), and tables that compare ours with them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from stpm_bench.config import methods as methods_of
from stpm_bench.datasets import mvtec
from stpm_bench.errors import InputError
from stpm_bench.grid import AXES, SETTING, set_of
from stpm_bench.levels import format_layers
from stpm_bench.methods import DEFAULT
from stpm_bench.report.tables import (
    CATEGORY,
    GROUPS,
    MEAN,
    METRICS,
    PAPER_SETTING,
    SET,
    at_papers_setting,
    mean_of_entries,
    metrics_of,
    seeds,
    split_by_pro,
    study_table,
)
from stpm_bench.report.typeset import Section, bold_best, number, spread

FILE = Path(__file__).with_name("literature.csv")
# `checked` is 'one source' or 'two sources': in how many places the value was found.
COLUMNS = ["source", "table", "method", "category", "metric", "value", "checked"]
# METHOD is the method's name in literature.csv; in this package it is STPM.
PAPER, METHOD = "paper v3", "STFPM"
# The authors define PRO differently, so their values have a separate name and table.
AUTHORS_PRO = "linear_4000_both_rescaled"
AUTHORS_MASKS = "bilinear_any"  # also theirs: the values in their README use both
METRIC_NAMES = METRICS | {
    "pro_rescaled": "PRO by the authors' own definition (both axes rescaled)",
    "pixel_ap": "pixel average precision",
}
OURS = "ours"
MVTEC = set_of(mvtec.CATEGORIES[0])
PRINTED = "mean, as printed"
NO_READINGS: Mapping = MappingProxyType({})
# The published methods that are run here: each one's name in the tables, and its name in
# literature.csv by the teacher's backbone ('' stands for any backbone).
RUN_HERE = {
    "padim": ("PaDiM", {"resnet18": "PaDiM-R18", "wide_resnet50_2": "PaDiM-WR50"}),
    "spade": ("SPADE", {"": "SPADE"}),
    "patchcore": ("PatchCore", {"": "PatchCore"}),
}


def read(path: str | Path = FILE) -> pd.DataFrame:
    """Return columns source, table, method, category, metric, value (in [0, 1]), checked.

    Raises:
        InputError: the file cannot be read as CSV, a column is missing, a source is empty, a metric
            is unknown, or a value is not a number in [0, 1].
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; expected {COLUMNS}")
    for row, values in enumerate(table[COLUMNS].to_dict("records"), start=2):
        place = f"{path}, line {row}"
        if pd.isna(values["source"]):
            raise InputError(f"{place}: has no source; every number needs one")
        if values["metric"] not in METRIC_NAMES:
            raise InputError(
                f"{place}: metric {values['metric']!r} is unknown; allowed: "
                f"{', '.join(METRIC_NAMES)}"
            )
        # Not its type: one text in the column makes pandas return every value as text.
        if not 0 <= pd.to_numeric(values["value"], errors="coerce") <= 1:
            raise InputError(f"{place}: value {values['value']!r}; expected a number from 0 to 1")
    return table.astype({"value": float})


def without(literature: pd.DataFrame, others: Collection[str]) -> pd.DataFrame:
    """Return the published values that are comparable where some categories are not MVTec AD's.

    Args:
        others: categories that share a name with one of MVTec AD's but hold other images. Their
            entries are left out, and so are the means, which cover all 15 categories.
    """
    if not others:
        return literature
    return literature[~literature["category"].isin([*others, "mean"])]


def paper(literature: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the paper's own STPM values: (category or 'mean', metric) -> value.

    Category 'mean' is the row that the paper prints, not always the mean of its entries.
    """
    rows = literature[(literature["source"] == PAPER) & (literature["method"] == METHOD)]
    return entries(rows)


def entries(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return (category, metric) -> value."""
    return dict(zip(zip(rows["category"], rows["metric"], strict=True), rows["value"], strict=True))


def is_stpm(config: dict, method: str) -> bool:
    """Return whether a method of a completed config is a reading of STPM.

    Only such methods are compared with the paper's values of STPM.
    """
    known = methods_of(config)
    return known[method].module == known[DEFAULT].module


def has_paper_values(literature: pd.DataFrame, cells: pd.DataFrame) -> bool:
    """Return whether the paper has a value for a category of these cells, at its setting."""
    known = {category for category, _ in paper(literature)}
    return bool(at_papers_setting(cells)["category"].isin(known).any())


class Baseline(NamedTuple):
    """A published method that was also run here, with the main study's teacher and all images.

    Attributes:
        title: its name in the tables.
        printed: its name in literature.csv for the teacher's backbone (the file may have no values
            under it); '' if `RUN_HERE` has no name for this backbone.
        table: what `tables.study_table` returns for it, on the main study's categories.
    """

    title: str
    printed: str
    table: pd.DataFrame

    @property
    def column(self) -> str:
        return f"{OURS}: {self.title}"


def baselines(
    metrics: pd.DataFrame,
    cells: pd.DataFrame,
    config: dict,
    main: pd.DataFrame,
    others: Collection[str] = (),
) -> list[Baseline]:
    """Return the methods of `RUN_HERE` that have values at the main study's teacher in any study.

    Args:
        metrics: the long table. cells: those of every study, columns `grid.AXES`.
        config: completed. main: the main study's cells. others: as in `without`.

    Returns:
        One `Baseline` per method, at its default levels and a fraction of 1.0. A category on which
        it was not run is a gap, and so is every mean that includes the category.
    """
    known, teacher = methods_of(config), main["teacher"].iloc[0]
    categories, found = list(dict.fromkeys(main["category"])), []
    for name, (title, printed) in RUN_HERE.items():
        if name == main["method"].iloc[0]:  # already in the column 'ours'
            continue
        setting = {"layers": format_layers(known[name].levels), "teacher": teacher}
        setting |= {"fraction": PAPER_SETTING["fraction"], "method": name}
        same = (cells[list(setting)] == pd.Series(setting)).all(axis=1)
        seeds_planned = sorted(
            cells.loc[same & cells["category"].isin(categories), "seed"].unique()
        )
        planned = [{"category": c, "seed": s} | setting for c in categories for s in seeds_planned]
        wanted = pd.DataFrame(planned, columns=list(AXES))
        if len(wanted.astype(metrics.dtypes[list(AXES)]).merge(metrics)):
            backbone = config["teachers"][teacher]["backbone"]
            table = study_table(metrics, wanted, {}, tuple(METRICS), others)
            found.append(Baseline(title, printed.get(backbone, printed.get("", "")), table))
    return found


def methods(
    literature: pd.DataFrame,
    table: pd.DataFrame,
    others: Collection[str] = (),
    ran: Sequence[Baseline] = (),
) -> pd.DataFrame:
    """Compare the published methods with ours: one row for each metric and category.

    Args:
        literature: only what is comparable with these results, see `without`.
        table: what `tables.study_table` returns; only its rows at the paper's setting are used,
            and not those of sets without PRO if there are other sets.
        others: as in `without`. ran: what `baselines` returns.

    Returns:
        Columns `metric`, `category`, `kind`, one for each published method that has a value for
        these rows ('METHOD (SOURCE)' if several sources print it), among them 'STPM (paper)',
        `ours`, `ours sd`, `difference` (ours less the paper's), and for each of `ran`
        `ours: TITLE`, `ours: TITLE sd` and `ours: TITLE less printed`. If the study plans all 15
        categories, the last row of each metric, 'mean, as printed', has the means printed by the
        sources. No rows if nothing is published for these categories.
    """
    table = at_papers_setting(split_by_pro(table).get("", table))
    # Other sources of STPM's numbers are compared in `reproductions`.
    rows = literature[(literature["method"] != METHOD) | (literature["source"] == PAPER)]
    several = rows.groupby("method")["source"].nunique() > 1
    names = rows["method"].where(
        ~rows["method"].map(several), rows["method"] + " (" + rows["source"] + ")"
    )
    names = names.where(rows["method"] != METHOD, "STPM (paper)")
    columns = {name: entries(part) for name, part in rows.groupby(names, sort=False)}
    # Last, next to ours; empty if the paper has no value: `difference` is made from it.
    columns["STPM (paper)"] = columns.pop("STPM (paper)", {})
    run = list(table.loc[table["kind"] == CATEGORY, "category"])
    members_of = {name: set(members) - set(others) for name, members in GROUPS.items()}
    members_of |= {name: [c for c in run if set_of(c) == name] for name in map(set_of, run)}
    lines = []
    for metric in metrics_of(table):
        for _, ours in table.iterrows():
            name, kind = ours["category"], ours["kind"]
            of_group = members_of.get(name, run) if kind != CATEGORY else [name]
            members = [c for c in run if c in of_group]
            lines.append({"metric": metric, "category": name, "kind": kind})
            lines[-1] |= {n: mean_of_entries(v, members, metric) for n, v in columns.items()}
            lines[-1] |= {OURS: ours[metric], "ours sd": ours[f"{metric}_sd"]}
            for baseline in ran:
                lines[-1] |= with_printed_difference(baseline, rows, name, members, metric)
        if set(mvtec.CATEGORIES) <= set(run) - set(others):
            lines.append({"metric": metric, "category": PRINTED, "kind": MEAN})
            lines[-1] |= {n: v.get(("mean", metric), np.nan) for n, v in columns.items()}
            lines[-1] |= {OURS: np.nan, "ours sd": np.nan}
    own = [OURS, "ours sd", "difference"]
    own += [f"{one.column}{end}" for one in ran for end in ("", " sd", " less printed")]
    wide = pd.DataFrame(lines, columns=["metric", "category", "kind", *columns, *own])
    wide["difference"] = wide[OURS] - wide["STPM (paper)"]
    wide = wide.drop(columns=[name for name in columns if wide[name].isna().all()])
    return wide if set(columns) & set(wide) else wide.iloc[:0]


def with_printed_difference(
    baseline: Baseline,
    literature: pd.DataFrame,
    category: str,
    members: Sequence[str],
    metric: str,
) -> dict[str, float]:
    """Return our value of a method in a row of `methods`, and its difference from the printed one.

    If several sources print it, only the paper's value counts.

    Args:
        literature: the published values of all methods. members: the categories of the row.
    """
    printed = literature[literature["method"] == baseline.printed]
    if printed["source"].nunique() > 1:
        printed = printed[printed["source"] == PAPER]
    row = baseline.table[baseline.table["category"] == category]
    mean, sd = (row[c].item() if len(row) else np.nan for c in (metric, f"{metric}_sd"))
    difference = mean - mean_of_entries(entries(printed), members, metric)
    name = baseline.column
    return {name: mean, f"{name} sd": sd, f"{name} less printed": difference}


def methods_sections(
    name: str, table: pd.DataFrame, basis: str, ran: Sequence[Baseline] = ()
) -> list[Section]:
    """Format the comparison with published methods: one section per metric, row maxima in bold.

    Args:
        table: what `methods` returns. ran: the argument that `methods` got.
    """
    sections = []
    for metric, rows in table.groupby("metric", sort=False):
        published = rows.columns[3 : rows.columns.get_loc(OURS)]
        columns = [c for c in published if rows[c].notna().any()]
        rows = rows[rows[columns].notna().any(axis=1)]
        if rows.empty:
            continue
        shown = [one for one in ran if rows[one.column].notna().any()]
        own = [OURS, *(one.column for one in shown)]
        differences = {"ours less paper": "difference"}
        differences |= {
            f"{one.title}, ours less printed": f"{one.column} less printed" for one in shown
        }
        differences = {
            k: c for k, c in differences.items() if c == "difference" or rows[c].notna().any()
        }
        lines = []
        for _, row in rows.iterrows():
            texts = [number(row[c]) for c in columns]
            texts += [spread(row[c], row[f"{c} sd"]) for c in own]
            best = bold_best(texts, [*row[columns], *row[own]])
            less = [number(row[c], signed=True) for c in differences.values()]
            lines.append([row["category"], *best, *less])
        body = pd.DataFrame(lines, columns=["category", *columns, *own, *differences])
        caption = (
            "Published values (`stpm_bench/report/literature.csv` gives the source of each) and "
            f"ours, {over_seeds(rows, own)}; {basis}. The best of a row is in bold; "
            "n/a: not published, or not run here. A group's published value is the mean of its "
            "entries, or, for all 15 categories, the printed mean if an entry is missing; "
            f"'{PRINTED}' is what the sources print, which is not always the mean of their entries."
        )
        if shown:
            each = ", ".join(f"{one.title} on {seeds(one.table)}" for one in shown)
            caption += (
                " Also run here, with the same teacher, all training images and each method's "
                f"default levels: {each}."
            )
        if any(one.printed == "SPADE" for one in shown):
            caption += " As far as is known, the printed values of SPADE are from a Wide-ResNet-50."
        sections.append(Section(f"{METRICS[metric]}: published methods and {name}", body, caption))
    return sections


def over_seeds(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return what our values in some columns are, as part of a caption or as a heading.

    Args:
        table: each of `columns` is followed by `COLUMN sd`, NaN for a single seed.
    """
    if table[[f"{column} sd" for column in columns]].notna().any(axis=None):
        return "mean ± standard deviation over seeds"
    return "one seed, no spread" if table[list(columns)].notna().any(axis=None) else "not run"


def ours(
    metrics: pd.DataFrame,
    definitions: pd.DataFrame,
    cells: pd.DataFrame,
    others: Collection[str] = (),
) -> Mapping[tuple[str, str], tuple[float, float]]:
    """Return our values at the paper's setting: (category or 'mean', metric) -> (mean, sd).

    'mean' is the mean over MVTec AD, present if the study's categories without a prefix are exactly
    its 15, whatever other sets it has; NaN until all have run.

    Args:
        metrics: the long table. definitions: the audit's long table, for the authors' PRO.
        cells: the study's cells. others: as in `without`; they are left out.
    """
    cells = cells[~cells["category"].isin(others)]
    if cells.empty:
        return {}
    of_authors = definitions[
        (definitions["definition"] == AUTHORS_PRO) & (definitions["masks"] == AUTHORS_MASKS)
    ].rename(columns={"pro": "value"})
    long = pd.concat([metrics, of_authors.assign(metric="pro_rescaled")])[metrics.columns]
    long = long.astype({"value": float})  # without any audit, the concatenation gives objects
    table = at_papers_setting(study_table(long, cells, {}, tuple(METRIC_NAMES)))
    shown = table[table["kind"] == CATEGORY]
    if {c for c in shown["category"] if set_of(c) == MVTEC} == set(mvtec.CATEGORIES):
        # Where there are other sets, MVTec AD's mean is in a row with the set's name.
        means = table[table["category"].isin([MVTEC, "mean"]) & table["kind"].isin([SET, MEAN])]
        shown = pd.concat([shown, means.head(1).assign(category="mean")])
    return {
        (row["category"], metric): (row[metric], row[f"{metric}_sd"])
        for _, row in shown.iterrows()
        for metric in METRIC_NAMES
    }


def readings(cells: pd.DataFrame, config: dict, main: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the other readings of STPM that a study plans at the main study's setting.

    A reading is a built-in method from STPM's file, or a method of the config that is `like` such
    a method, but `like` neither `stpm` nor the main study's method: the authors' code with 200
    epochs is a reading, the paper's with another loss is not.

    Args:
        cells: those of every study, columns `grid.AXES`. config: completed.
        main: the main study's cells.

    Returns:
        Name of the method -> its cells, in the main study's categories.
    """
    first = main[list(SETTING)].iloc[0]
    fixed = [axis for axis in SETTING if axis != "method"]
    same = (cells[fixed] == first[fixed]).all(axis=1)
    same &= cells["category"].isin(main["category"])
    found = {}
    for name in cells.loc[same, "method"].unique():
        like = config["methods"].get(name, {}).get("like", DEFAULT)
        own = name in config["methods"] and like in (DEFAULT, first["method"])
        if name != first["method"] and is_stpm(config, name) and not own:
            rows = cells[same & (cells["method"] == name)]
            found[name] = rows[list(AXES)].drop_duplicates()
    return found


def reproductions(
    literature: pd.DataFrame,
    own: Mapping[tuple[str, str], tuple[float, float]],
    others: Mapping[str, Mapping[tuple[str, str], tuple[float, float]]] = NO_READINGS,
) -> pd.DataFrame:
    """Compare all sources of STPM's numbers: one row for each metric and category.

    Args:
        own: what `ours` returns. others: the same for each of `readings`.

    Returns:
        Columns `metric`, `category`, `kind`, one for each source, `ours`, `ours sd`, for each of
        `others` `ours: NAME` and `ours: NAME sd`, and `range` (highest less lowest of the sources
        and `ours`). Over all 15 categories: 'mean' of the entries, and 'mean, as printed'.
    """
    rows = literature[literature["method"] == METHOD]
    sources = {name: entries(part) for name, part in rows.groupby("source", sort=False)}
    known = list(dict.fromkeys(rows["category"]))
    categories = [c for c in mvtec.CATEGORIES if c in known]
    categories += [c for c in known if c not in (*categories, "mean")]
    lines = []
    for metric in METRIC_NAMES:
        for category in [*categories, "mean", PRINTED]:
            kind = MEAN if category in ("mean", PRINTED) else CATEGORY
            line = {"metric": metric, "category": category, "kind": kind}
            for name, values in sources.items():
                if category == "mean":
                    line[name] = mean_of_entries(values, mvtec.CATEGORIES, metric)
                else:
                    key = "mean" if category == PRINTED else category
                    line[name] = values.get((key, metric), np.nan)
            mean, sd = own.get((category, metric), (np.nan, np.nan))
            seen = [value for value in [*line.values(), mean] if isinstance(value, float)]
            seen = [value for value in seen if not np.isnan(value)]
            line |= {OURS: mean, "ours sd": sd}
            for name, values in others.items():
                value = values.get((category, metric), (np.nan, np.nan))
                line |= dict(zip((f"{OURS}: {name}", f"{OURS}: {name} sd"), value, strict=True))
            lines.append(line | {"range": max(seen) - min(seen) if len(seen) > 1 else np.nan})
    return pd.DataFrame(lines)


def reproductions_sections(table: pd.DataFrame, basis: str) -> list[Section]:
    """Format what `reproductions` returns, one section per metric."""
    sections = []
    for metric, rows in table.groupby("metric", sort=False):
        start = rows.columns.get_loc(OURS)
        columns = [c for c in rows.columns[3:start] if rows[c].notna().any()]
        body = pd.DataFrame({"category": rows["category"]})
        for column in columns:
            body[column] = [number(value) for value in rows[column]]
        for column in rows.columns[start:-1:2]:  # each is followed by its standard deviation
            body[column] = [
                spread(*v) for v in zip(rows[column], rows[f"{column} sd"], strict=True)
            ]
        body["range"] = [number(value) for value in rows["range"]]
        run = rows[OURS].notna() & rows["category"].isin(mvtec.CATEGORIES)
        caption = (
            "STPM as the paper, its authors' repository and others report it (each source in "
            "`stpm_bench/report/literature.csv`) and ours, "
            f"{over_seeds(rows, rows.columns[start:-1:2])}, "
            f"of {run.sum()} of 15 categories; {basis}. Range: the highest value of the "
            "row minus the lowest. n/a: not reported, or not run here. 'mean' is the mean of the "
            "15 entries, or the printed mean if an entry is missing."
        )
        if metric == "pro":
            caption += " Ours is MVTec's definition; others often do not say which one they used."
        if metric == "pro_rescaled":
            caption += (
                " This is not the PRO of the other tables: a curve that is rescaled on both axes "
                "gives weak categories higher values. Ours: the same definition, "
                f"`{AUTHORS_PRO}` of `stpm_bench/metrics/definitions.py`, and their treatment of "
                f"the masks, "
                f"`{AUTHORS_MASKS}` (bilinear, any non-zero pixel a defect), on our maps: rows of "
                "`pro_definitions.csv`."
            )
        sections.append(Section(f"Reproductions: {METRIC_NAMES[metric]}", body, caption))
    return sections
