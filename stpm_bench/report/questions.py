"""The studies' questions beyond the paper's claims: one row per study, varied axis and metric."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from stpm_bench.grid import SETTING, varying
from stpm_bench.report import statistics
from stpm_bench.report.tables import METRICS
from stpm_bench.report.verdict import Comparison, Evidence, drawn, label

COLUMNS = ["study", "question", "metric", "setting", "reference", "effect", "low", "high", "p"]
COLUMNS += ["p_holm", "values", "planned", "categories", "draws", "comparisons", "note"]
WORDS = {
    "layers": "do the levels matter",
    "teacher": "does the teacher matter",
    "fraction": "does the number of training images matter",
}
MOST_PAIRS = 30  # comparisons in a row: the largest of hundreds would say nothing
METHOD = "does the method or its settings matter"
SPREAD = "does the spread over seeds grow if the teacher is drawn for each seed"
LAST_EPOCH = "does the training collapse after the epoch that is kept"


def questions(data: Evidence, studies: pd.DataFrame) -> pd.DataFrame:
    """Return the answer of each study that varies an axis.

    For each axis that varies, and each combination of the other axes' values, the settings are
    compared with a reference: the main study's value of the axis, or else the study's first. The
    row shows the largest difference in either direction. Two kinds of study have a further
    question. If one teacher appears both drawn for each seed and drawn once, the spread over seeds
    is compared. If the method keeps the last epoch besides the best (`last_epoch: true`), the two
    are compared.

    Args:
        studies: columns `study` and the axes, the cells of each study.

    Returns:
        Columns `COLUMNS`; `comparisons` is the number from which the largest was taken, and
        `p_holm` is corrected for them.
    """
    rows = []
    for name, cells in studies.groupby("study", sort=False):
        for axis in varying(cells):
            pairs = compared(cells, axis, data.main)
            for metric in METRICS:
                made = [data.compare(metric, "", *pair) for pair in pairs]
                rows.append(answer(name, WORDS.get(axis, METHOD), metric, pairs, made))
        for fixed, other in drawn_twice(cells, data.config):
            rows += [spread(data, name, metric, fixed, other) for metric in METRICS]
        for setting in cells[list(SETTING)].drop_duplicates().to_dict("records"):
            rows += [last_epoch(data, name, metric, setting) for metric in METRICS]
    return pd.DataFrame([row for row in rows if row], columns=COLUMNS)


def compared(cells: pd.DataFrame, axis: str, main: dict) -> list[tuple[dict, dict]]:
    """Return the pairs of settings that differ in one axis only: (setting, reference).

    If there are more than `MOST_PAIRS` pairs, as in a whole grid, only those with the study's
    reference are returned.

    A method that shares its levels with no other, such as one with other default levels, is
    compared with the study's reference itself.
    """
    settings = cells[list(SETTING)].drop_duplicates()
    every = settings.to_dict("records")
    whole = next((row for row in every if row == main), every[0])
    others = [name for name in SETTING if name != axis]
    pairs = []
    for _, group in settings.groupby(others, sort=False):
        rows = group.to_dict("records")
        reference = next((row for row in rows if row[axis] == main[axis]), rows[0])
        pairs += [(row, reference) for row in rows if row is not reference]
        if len(rows) == 1 and axis == "method" and reference[axis] != whole[axis]:
            pairs.append((reference, whole))
    return pairs if len(pairs) <= MOST_PAIRS else [pair for pair in pairs if pair[1] == whole]


def answer(
    study: str,
    question: str,
    metric: str,
    pairs: Sequence[tuple[dict, dict]],
    made: Sequence[Comparison],
) -> dict | None:
    """Return the row of the largest difference; None if no comparison is planned.

    Args:
        pairs: what `compared` returns. made: the comparison for each pair.
    """
    planned = [(pair, c) for pair, c in zip(pairs, made, strict=True) if c.planned]
    if not planned:
        return None
    corrected = statistics.holm([c.p for _, c in planned])
    sizes = [abs(c.effect) if np.isfinite(c.effect) else -1.0 for _, c in planned]
    largest = int(np.argmax(sizes))
    (setting, reference), found = planned[largest]
    shown = varying(pd.DataFrame(itertools.chain.from_iterable(pairs)))
    names = (label({key: row[key] for key in shown}) for row in (setting, reference))
    return row_of(
        study,
        question,
        metric,
        *names,
        found._replace(p_holm=float(corrected[largest])),
        len(planned),
    )


def row_of(
    study: str,
    question: str,
    metric: str,
    setting: str,
    reference: str,
    found: Comparison,
    comparisons: int,
) -> dict:
    """Return a row, columns `COLUMNS`."""
    keys = ("effect", "low", "high", "p", "p_holm", "values", "planned", "categories", "draws")
    return {
        "study": study,
        "question": question,
        "metric": metric,
        "setting": setting,
        "reference": reference,
        **{key: getattr(found, key) for key in keys},
        "comparisons": comparisons,
        "note": "; ".join(text for text in (found.missing, found.doubt, found.note) if text),
    }


def drawn_twice(cells: pd.DataFrame, config: dict) -> list[tuple[str, str]]:
    """Return the pairs of teachers that differ only in `draws`: (drawn once, for each seed)."""
    teachers = {name: config["teachers"][name] for name in dict.fromkeys(cells["teacher"])}

    def rest(name: str) -> dict:
        return {key: value for key, value in teachers[name].items() if key != "draws"}

    return [
        (fixed, other)
        for fixed in teachers
        for other in teachers
        if not drawn(config, fixed) and drawn(config, other) and rest(fixed) == rest(other)
    ]


def spread(data: Evidence, study: str, metric: str, fixed: str, other: str) -> dict | None:
    """Return the row on how much larger the standard deviation over seeds is, paired by category.

    Args:
        fixed, other: the teacher drawn once, and the one drawn for each seed.
    """
    plans = [data.planned(metric, teacher=teacher) for teacher in (other, fixed)]
    rows = [data.found(metric, teacher=teacher) for teacher in (other, fixed)]
    deviations = [
        part.groupby("category", sort=False)["value"].std().reset_index() for part in rows
    ]
    if any(plan.empty for plan in plans):
        return None
    found = statistics.compare(statistics.paired_differences(*deviations))
    comparison = Comparison(
        "",
        0.0,
        found["difference"],
        found["low"],
        found["high"],
        found["p"],
        found["p"],
        values=sum(map(len, rows)),
        planned=sum(map(len, plans)),
        categories=found["categories"],
        note=found["note"],
    )
    names = (f"sd over seeds, teacher {teacher}" for teacher in (other, fixed))
    return row_of(study, SPREAD, metric, *names, comparison, 1)


def last_epoch(data: Evidence, study: str, metric: str, setting: dict) -> dict | None:
    """Return the row of the last epoch less the kept one, paired by category; None if a setting
    has no metrics of the last epoch.

    Args:
        setting: the values of `SETTING`.
    """
    rows = [data.found(name, **setting) for name in (f"last_epoch_{metric}", metric)]
    if rows[0].empty:
        return None
    found = statistics.compare(statistics.paired_differences(*rows))
    keys = ("low", "high", "p", "values", "categories", "note")
    comparison = Comparison(
        "",
        0.0,
        found["difference"],
        **{key: found[key] for key in keys},
        p_holm=found["p"],
        planned=2 * len(data.planned(metric, **setting)),
    )
    name = label(setting)
    return row_of(study, LAST_EPOCH, metric, f"last epoch, {name}", "the kept epoch", comparison, 1)
