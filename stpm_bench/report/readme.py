"""The part of the repository's README.md on the published folders, made from their files alone."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from stpm_bench import grid
from stpm_bench.datasets import mvtec
from stpm_bench.errors import InputError
from stpm_bench.files import read_json
from stpm_bench.report import compare
from stpm_bench.report.claims import RESAMPLED, by_subject
from stpm_bench.report.literature import METRIC_NAMES, OURS, PAPER, PRINTED, over_seeds
from stpm_bench.report.publish import FOLDER
from stpm_bench.report.tables import METRICS
from stpm_bench.report.typeset import number, spread
from stpm_bench.report.verdict import NOT_TESTED, VERDICTS

AUTHORS = "authors' repository README"  # its `source` in literature.csv
# A deviation that begins with one of these does not stop README.md from comparing with the paper:
# `auto` chooses the precision by hardware, and the line above the table says that images were
# resampled.
STILL_COMPARED = ("precision ", RESAMPLED)
ENTRIES = 2  # how many folders README.md shows with their table and verdicts
BEGIN = "<!-- published results: made by `python -m stpm_bench readme`, do not edit -->"
END = "<!-- end of published results -->"


def block(published: Path) -> str:
    """Return the README.md block on the published folders, made from their files alone: an entry
    for each of the first `ENTRIES` by `coverage`, a line for each of the others.

    Args:
        published: the folder that holds them; links point to `FOLDER`.
    """
    folders = [compare.read(path.parent) for path in sorted(published.glob("[!.]*/record.json"))]
    if not folders:
        none = "No results are published yet. [docs/publish.md](docs/publish.md) says how they are."
        return "\n\n".join([BEGIN, none, END])
    shown = [folder.path for folder in sorted(folders, key=coverage, reverse=True)[:ENTRIES]]
    parts = [entry(folder.path) for folder in folders if folder.path in shown]
    others = [folder for folder in folders if folder.path not in shown]
    covering = [next((f for f in folders if covers(f, other)), None) for other in others]
    if others:
        parts.append("\n".join(["Also published:", *map(line, others, covering)]))
    return "\n\n".join([BEGIN, *parts, END])


def cells_of(folder: compare.Folder) -> set[grid.Cell]:
    """Return the cells that have values."""
    return set(grid.cells(folder.metrics))


def coverage(folder: compare.Folder) -> tuple[int, int]:
    """Return how many categories of MVTec AD, the paper's data, have values, and how many cells."""
    return len({*mvtec.CATEGORIES} & {*folder.metrics["category"]}), len(cells_of(folder))


def covers(larger: compare.Folder, smaller: compare.Folder) -> bool:
    """Return whether a folder has all cells of another at the same setting, and more."""
    same_setting = not compare.config_differences(larger.config, smaller.config)
    return same_setting and cells_of(larger) > cells_of(smaller)


def line(folder: compare.Folder, larger: compare.Folder | None) -> str:
    """Return the README.md line on a published folder.

    Args:
        larger: one that `covers` it: the line then has the verdicts of comparing the two.
    """
    text = f"- {summary(folder.path)}"
    if larger is None:
        return text
    verdicts = Counter(
        found.verdict
        for study in compare.studies_of(folder, larger)
        for found in study.comparisons.values()
    )
    each = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    return (
        f"{text} {larger.path.name} has the same cells; the two compared, each metric in each "
        f"study: {each}."
    )


def summary(folder: Path) -> str:
    """Return what a published folder has, in a sentence that begins with a link to it."""
    record = read_json(folder / "record.json")
    cells, hours = record["cells"], record["hours"]["together"]
    link = (FOLDER / folder.name / "README.md").as_posix()
    return (
        f"**[{folder.name}]({link})**: {record['data']}; {cells['done']} of {cells['planned']} "
        f"planned cells, {hours:.1f} hours of computing on {record['kind']}."
    )


def entry(folder: Path) -> str:
    """Return the README.md part on one published folder: a line; a table, if no deviation from
    the paper's setting forbids the comparison; a line for each tested claim, one for the others."""
    record = read_json(folder / "record.json")
    text = summary(folder)
    deviations = record["deviations_from_the_papers_setting"]
    if deviations:
        text += f" Differences from the paper's setting: {'; '.join(deviations)}."
    if record["note"]:
        text += f" {record['note']}"
    parts = [text]
    if all(text.startswith(STILL_COMPARED) for text in deviations):
        table = compared_with_paper(folder)
        if len(table):
            parts.append(table.to_markdown(index=False, disable_numparse=True))
    claims = read_json(folder / "claims.json")["claims"]
    claimed = (FOLDER / folder.name / "claims.md").as_posix()
    lines = [f"The paper's [claims]({claimed}) on these cells:"]
    parts.append("\n".join([*lines, *(f"- {line}" for line in verdict_lines(claims))]))
    return "\n\n".join(part for part in parts if part)


def compared_with_paper(folder: Path) -> pd.DataFrame:
    """Return our values next to those of the paper and its authors, as text; empty without ours.

    Other readings of STPM that have a value, such as `stpm_authors`, each have a column.
    """
    table = pd.read_csv(folder / "tables" / "reproductions.csv")
    rows = table[table[OURS].notna() & table["metric"].isin([*METRICS, "pro_rescaled"])]
    rows = rows[rows["category"] != PRINTED]
    printed = rows.reindex(columns=[PAPER, AUTHORS]).astype(float)
    body = pd.DataFrame(
        {
            "metric": rows["metric"].map(METRIC_NAMES),
            "category": rows["category"],
            "paper": [number(value) for value in printed[PAPER]],
            "authors' README": [number(value) for value in printed[AUTHORS]],
            f"ours, {over_seeds(rows, [OURS])}": [
                spread(*v) for v in zip(rows[OURS], rows["ours sd"], strict=True)
            ],
            "ours less paper": [
                number(value, signed=True) for value in rows[OURS] - printed[PAPER]
            ],
            "ours less authors": [
                number(value, signed=True) for value in rows[OURS] - printed[AUTHORS]
            ],
        }
    )
    for column in rows:
        is_reading = column.startswith(f"{OURS}: ") and not column.endswith(" sd")
        if is_reading and rows[column].notna().any():
            values = zip(rows[column], rows[f"{column} sd"], strict=True)
            body[column] = [spread(*v) for v in values]
    return body


def verdict_lines(claims: Sequence[Mapping]) -> list[str]:
    """Return the verdicts: one line per claim that was tested, then one that names the others.

    A line has the claim's number and statement, and its verdict for each metric.

    Args:
        claims: those of `claims_table.record`, in the order of the paper's questions.
    """
    lines, untested = [], []
    grouped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for claim in claims:
        verdicts = grouped.setdefault((claim["claim"], claim["statement"]), {})
        verdicts.setdefault(claim["verdict"], []).append(METRICS.get(claim["metric"], ""))
    for (name, statement), verdicts in grouped.items():
        if set(verdicts) == {NOT_TESTED}:
            untested.append(name)
            continue
        each = [
            f"{verdict} ({', '.join(filter(None, metrics))})" if any(metrics) else verdict
            for verdict, metrics in sorted(verdicts.items(), key=lambda v: VERDICTS.index(v[0]))
        ]
        lines.append(f"{name}. {statement}: {', '.join(each)}")
    return [*lines, f"not tested here: {by_subject(untested)}"] if untested else lines


def with_block(text: str, made: str) -> str:
    """Return a README's text with its block of published results replaced.

    Raises:
        InputError: the text does not have both markers, once each and in order.
    """
    parts = re.split(f"{re.escape(BEGIN)}.*?{re.escape(END)}", text, flags=re.S)
    if len(parts) != 2:
        raise InputError(
            f"README.md: expected the lines {BEGIN} and {END} once each, and in this order; add "
            "them where the block belongs"
        )
    return made.join(parts)
