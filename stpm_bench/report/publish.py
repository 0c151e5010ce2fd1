"""Publishes a run, finished or not, as a folder of results/published, which is kept in git.

A published folder uses the file names of a results folder (config.yaml, metrics.csv, claims.json,
tables/, figures/). It also has record.json (machine, versions, hours and counts) and a README.md.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from stpm_bench import grid
from stpm_bench.errors import InputError
from stpm_bench.files import read_json, read_verified
from stpm_bench.levels import EMBEDDED, names_a_file
from stpm_bench.provenance import git_commit
from stpm_bench.report.tables import STUDENT_MODULE
from stpm_bench.report.verdict import shortened
from stpm_bench.results import STAGES, cell_folder, fit_folder

FOLDER = Path("results/published")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
NOT_RECORDED = "not recorded"
# What record.json keeps of a teacher's record.
TEACHER_KEYS = ("source", "declared", "weights_sha256", "data_sha256", "test_accuracy")
FEW = 5  # names that a message or a README lists before 'and N more'


class StageRun(NamedTuple):
    """One run of a stage ('teacher', 'fit', 'score' or 'evaluate'): the name of its folder or of
    the teacher's file, its record, and the names of the folders of the cells that use it."""

    stage: str
    name: str
    record: Mapping
    cells: tuple[str, ...]


def runs(results: Path, studies: pd.DataFrame) -> list[StageRun]:
    """Return every run of a stage for the studies' cells; a fit that cells share appears once.

    Args:
        studies: what `grid.studies` returns.
    """
    unique = studies.drop_duplicates(list(grid.AXES))
    cells = pd.Series([cell.folder for cell in grid.cells(unique)], index=unique.index)
    found = []
    for file, names in cells.groupby(unique["teacher_file"], sort=False):
        found.append(("teacher", file, results / "teachers" / f"{file}.json", names))
    for fit, names in cells.groupby(unique["fit"], sort=False):
        for stage in ("fit", "score"):
            found.append((stage, fit, fit_folder(results, fit) / STAGES[stage], names))
    for name in cells:
        found.append(("evaluate", name, cell_folder(results, name) / STAGES["evaluate"], [name]))
    return [
        StageRun(stage, name, read_json(path), tuple(names))
        for stage, name, path, names in found
        if path.exists()
    ]


def kinds(found: Sequence[StageRun]) -> dict[str, list[str]]:
    """Return the kinds of processor that computed the results: kind -> the cells that used it.

    A GPU is named without the processor of its machine. A teacher that was not trained here only
    copied its weights, and an evaluation records no processor, so neither of these counts.
    """
    result: dict[str, list[str]] = {}
    for stage, _, record, cells in found:
        counts = stage in ("fit", "score") or "training_seconds" in record
        if counts and "processor" in record:
            name = record["processor"] if record["device"] == "cpu" else record["device"]
            kind = f"{name} ({record.get('capability', f'capability {NOT_RECORDED}')})"
            result.setdefault(kind, []).extend(cells)
    return {kind: list(dict.fromkeys(cells)) for kind, cells in result.items()}


def versions(found: Sequence[StageRun]) -> dict[str, dict[str, list[str]]]:
    """Return what may be mixed: the code of each stage, packages, Python, the students' precision.

    Returns:
        What -> version -> the cells that used it.
    """
    result: dict[str, dict[str, list[str]]] = {}
    for stage, _, record, cells in found:
        file = record.get("settings", {}).get("file", "")
        seen = dict(record.get("packages", {}))
        if "code" in record:
            seen[f"the code of {f'{stage} {file}'.strip()}"] = record["code"]
        if "python" in record:
            seen["Python"] = record["python"]
        if stage == "fit" and file == STUDENT_MODULE:
            seen["the students' precision"] = record["precision"]
        for what, version in seen.items():
            result.setdefault(what, {}).setdefault(version, []).extend(cells)
    return result


def cells_by_version(by_version: Mapping[str, Sequence[str]]) -> str:
    """Return which cells come from which version, as text."""
    return "; ".join(
        f"{version}: {len(set(cells))} cells ({shortened(cells, FEW)})"
        for version, cells in by_version.items()
    )


def contents(results: Path, name: str, note: str = "", mixed: bool = False) -> dict[str, bytes]:
    """Return the files of a published folder: path in it -> content.

    Args:
        results: a results folder with tables, claims and figures of the cells that are done.
        name: the name of the published folder.
        note: the publisher's remark, a line of its README.md.
        mixed: whether to allow mixed versions of code and packages; the README then lists them.

    Raises:
        InputError: the name is not a plain one; tables are missing or do not match the cells that
            are done; the cells come from several kinds of processor, or, without `mixed`, from
            several versions.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"the name {name!a} for the published folder: expected at most 80 letters, digits, "
            "'_', '-' and '.', of which the first is a letter or a digit; choose another name"
        )
    if not Path(results, "metrics.csv").exists():
        raise InputError(
            f"{results}/metrics.csv: no such file; expected a run's results. Of a run that is not "
            f"finished make it with: python -m stpm_bench interim --results {results} --main STUDY "
            "(before it, where studies.csv is missing: python -m stpm_bench studies --config "
            f"CONFIG --output {results})"
        )
    studies = grid.read(results / "studies.csv")
    main = grid.main_study(studies["study"])
    status = status_of(results, studies, main)
    found = runs(results, studies)
    processors = kinds(found)
    if len(processors) > 1:
        raise InputError(
            f"{results}: its cells come from {len(processors)} kinds of processor, and a published "
            f"folder may have only one: {cells_by_version(processors)}. Run them on one kind, or "
            "give each kind a results folder of its own and publish both"
        )
    refuse_other_machine(results, processors)
    mixtures = {what: seen for what, seen in versions(found).items() if len(seen) > 1}
    if mixtures and not mixed:
        lines = "".join(f"\n  {what}: {cells_by_version(seen)}" for what, seen in mixtures.items())
        raise InputError(
            f"{results}: its cells were made with several versions:{lines}\nExpected one of each. "
            "Run the older cells again, or publish with --mixed: the README.md then lists them"
        )
    files = {
        file: read_verified(results / file)
        for file in ("config.yaml", "metrics.csv", "claims.json", "claims.md")
    }
    for path in (results / "speed.csv", results / "speed.json"):
        if path.exists():
            files[path.name] = read_verified(path)
    for suffix in ("csv", "md"):
        for path in sorted((results / "tables").glob(f"*.{suffix}")):
            files[f"tables/{path.name}"] = read_verified(path)
    for figure in figures(results, main, studies["study"].unique()):
        files[f"figures/{figure}.png"] = read_verified(results / "figures" / f"{figure}.png")
    record = record_of(name, files, studies, status, found, note)
    files["record.json"] = (json.dumps(record, indent=2) + "\n").encode()
    files["README.md"] = readme_of(record, files, main).encode()
    return files


def refuse_other_machine(results: Path, known: Collection[str]) -> None:
    """Raise an InputError if the methods were timed on another kind of processor than the cells.

    Args:
        known: the kind of processor of the cells, see `kinds`; empty where none is recorded.
    """
    if known and (results / "speed.json").exists():
        timed = read_json(results / "speed.json")["machine"]
        name = timed["processor"] if timed["device"] == "cpu" else timed["device"]
        if not any(kind.startswith(f"{name} (") for kind in known):
            raise InputError(
                f"{results}/speed.json: its methods were timed on {name}, and the cells come from "
                f"{', '.join(known)}; expected one kind of processor, so time them there again "
                "(delete speed.json and speed.csv, then run again)"
            )


def figures(results: Path, main: str, studies: Iterable[str]) -> list[str]:
    """Return the figures to publish, of those that exist: the main study's, its training's, the
    differences to the paper, and one for each of the other studies.

    Raises:
        InputError: the main study has no figure.
    """
    wanted = dict.fromkeys([main, f"training/{main}", "difference_to_paper", *studies])
    found = [figure for figure in wanted if figure_of(results, figure).exists()]
    if main not in found:
        raise InputError(
            f"{figure_of(results, main)}: no such file; expected the figures of these results: "
            f"{how_to_update(results, main)}"
        )
    return found


def figure_of(results: Path, name: str) -> Path:
    """Return the file of a figure."""
    return Path(results, "figures", f"{name}.png")


def how_to_update(results: Path, main: str) -> str:
    """Return the sentence that says how to update tables, claims and figures to the cells done."""
    return f"make them with: python -m stpm_bench interim --results {results} --main {main}"


def status_of(results: Path, studies: pd.DataFrame, main: str) -> dict[str, str]:
    """Return the status of every planned cell: its folder's name -> 'done', 'failed' or 'missing'.

    Raises:
        InputError: metrics.csv or the tables do not match the cells that are done now.
    """
    valued = {cell.folder for cell in grid.cells(grid.read(results / "metrics.csv"))}
    status = {}
    for cell in grid.cells(studies):
        path = cell_folder(results, cell) / "metrics.json"
        status[cell.folder] = "missing"
        if path.exists():
            status[cell.folder] = "failed" if "failure" in read_json(path) else "done"
    done = {name for name, what in status.items() if what == "done"}
    if done != valued:
        raise InputError(
            f"{results}/metrics.csv: has {len(valued)} cells, and {len(done)} are done "
            f"({shortened(sorted(done ^ valued), FEW)}); {how_to_update(results, main)}"
        )
    costs = grid.read(results / "tables" / "cost.csv")
    evaluated = costs[costs["stage"] == "evaluate"].astype({"seed": int})
    tabled = {cell.folder for cell in grid.cells(evaluated)}
    if done != tabled:
        raise InputError(
            f"{results}/tables: are of {len(tabled)} cells, and metrics.csv of {len(done)} "
            f"({shortened(sorted(done ^ tabled), FEW)}); {how_to_update(results, main)}"
        )
    return status


def record_of(
    name: str,
    files: Mapping[str, bytes],
    studies: pd.DataFrame,
    status: Mapping[str, str],
    found: Sequence[StageRun],
    note: str,
) -> dict:
    """Return what record.json holds: machine, versions, commits, precision, hours and counts."""
    claims = json.loads(files["claims.json"])
    seconds = Counter()
    for run in found:
        seconds[run.stage] += run.record.get("seconds", 0)
    hours = {stage: round(s / 3600, 3) for stage, s in seconds.items()}
    by_study = {
        study: counted([status[cell.folder] for cell in grid.cells(rows)])
        for study, rows in studies.groupby("study", sort=False)
    }
    seen = versions(found)
    teachers = {
        run.name: {key: run.record[key] for key in TEACHER_KEYS if run.record.get(key) is not None}
        for run in found
        if run.stage == "teacher"
    }
    return {
        "name": name,
        "data": claims["data"],
        "deviations_from_the_papers_setting": claims["deviations_from_the_papers_setting"],
        "note": note,
        "kind": next(iter(kinds(found)), NOT_RECORDED),
        **{key: values_of(found, key) for key in ("processor", "capability", "device", "platform")},
        "auto": chosen_by_auto(yaml.safe_load(files["config.yaml"]), found),
        "versions": {what: sorted(of_it) for what, of_it in sorted(seen.items())},
        "mixed": {what: cells_by_version(of_it) for what, of_it in seen.items() if len(of_it) > 1},
        "git_commits": dict(
            Counter(str(r.record["git_commit"]) for r in found if has_environment(r))
        ),
        "published_at": git_commit()["git_commit"],
        "hours": hours | {"together": round(sum(seconds.values()) / 3600, 3)},
        "cells": counted(status.values()),
        "studies": by_study,
        "failed": [cell for cell, what in status.items() if what == "failed"],
        "missing": [cell for cell, what in status.items() if what == "missing"],
        "teachers": teachers,
    }


def chosen_by_auto(config: Mapping, found: Sequence[StageRun]) -> dict[str, dict[str, int]]:
    """Return what the config's `device: auto` and `precision: auto` were: key -> value -> fits.

    The precision is that of the fits of students; the other methods always compute in float32.
    """
    fits = [run.record for run in found if run.stage == "fit"]
    students = [
        record for record in fits if record.get("settings", {}).get("file") == STUDENT_MODULE
    ]
    records = {"device": fits, "precision": students}
    return {
        key: dict(Counter(record[key] for record in records[key] if key in record))
        for key in ("device", "precision")
        if config.get(key) == "auto"
    }


def has_environment(run: StageRun) -> bool:
    """Return whether a stage records its environment; an evaluation does not."""
    return "git_commit" in run.record


def values_of(found: Sequence[StageRun], key: str) -> list[str]:
    """Return the distinct values of a key in the records."""
    return list(
        dict.fromkeys(
            run.record[key] for run in found if key in run.record and has_environment(run)
        )
    )


def counted(statuses: Sequence[str]) -> dict[str, int]:
    """Return the numbers of cells: planned, done, failed, missing."""
    counts = Counter(statuses)
    return {"planned": counts.total()} | {k: counts[k] for k in ("done", "failed", "missing")}


# The folder's README.md


def readme_of(record: Mapping, files: Mapping[str, bytes], main: str) -> str:
    """Return the README.md of a published folder: what was run, where, and how to run it again."""
    config = yaml.safe_load(files["config.yaml"])
    place = FOLDER / record["name"]
    lines = [f"# {record['name']}", "", opening(config, record), ""]
    if record["note"]:
        lines += [f"Note by the publisher: {record['note']}", ""]
    lines += ["| study | cells planned | done | failed | not run |", "|:--|--:|--:|--:|--:|"]
    for study, n in (record["studies"] | {"together (each cell once)": record["cells"]}).items():
        counts = (n[key] for key in ("planned", "done", "failed", "missing"))
        lines.append(f"| {study} | {' | '.join(map(str, counts))} |")
    lines += ["", "## What it found", "", tables_of(files[f"tables/{main}.md"].decode()), ""]
    for figure in (file for file in files if file.startswith("figures/")):
        lines.append(f"![{figure}]({figure})")
    lines += [
        "",
        "Every number by cell: [metrics.csv](metrics.csv). Every table: [tables](tables). The "
        f"paper's claims, tested on these cells: [claims.md](claims.md); data: {record['data']}. "
        "A 'Made by' line names files of the results folder, of which only these are published, "
        "and, under `stpm_bench/`, files of the repository at the commit that made the tables.",
    ]
    lines += ["", "## Differences from the paper's setting", ""]
    deviations = record["deviations_from_the_papers_setting"]
    lines += [f"- {text}" for text in deviations] or ["None: it is the paper's setting."]
    lines += ["", "## Run it again", "", "In the folder of the Snakefile:", "", "```"]
    lines += [f"snakemake --cores all --configfile {place.as_posix()}/config.yaml", "```", ""]
    lines += [
        "The paths in it are the publisher's; a relative path starts at the folder in which you "
        "type the command. Put your data there, or change the path in a copy of config.yaml.",
        "",
        "| config key | here | what it is |",
        "|:--|:--|:--|",
        *(f"| `{key}` | {value} | {meaning} |" for key, value, meaning in paths(config)),
        "",
        "On another kind of processor or with other versions the numbers differ slightly: "
        f"`python -m stpm_bench compare {place.as_posix()} {config['results']}` says whether the "
        "differences are within the noise of the seeds.",
        "",
        "## Machine, hours, versions",
        "",
        *machine(record),
        "",
        "## What is missing",
        "",
        *missing_lines(record),
        "",
    ]
    return "\n".join(lines)


def opening(config: Mapping, record: Mapping) -> str:
    """Return how much of the plan is done, and what it was, in a few sentences."""
    studies = config["studies"].values()
    axes = {
        axis: list(dict.fromkeys(str(value) for study in studies for value in study[axis]))
        for axis in ("category", "method", "teacher", "fraction", "seed")
    }
    categories = axes["category"]
    shown = ", ".join(categories) if len(categories) <= 15 else f"{len(categories)} categories"
    cells = record["cells"]
    text = (
        f"{cells['done']} of {cells['planned']} planned cells (a cell is one method's run on one "
        f"category, evaluated) are done. "
        f"Planned: {shown}, at {config['image_size']} × {config['image_size']}; methods "
        f"{', '.join(axes['method'])}; teachers {', '.join(axes['teacher'])}; fractions of the "
        f"training images {', '.join(axes['fraction'])}; seeds {', '.join(axes['seed'])}."
    )
    if config["data"]["demo"]:
        text += " The data are the embedded demo set: the numbers say nothing about the paper."
    return text


def tables_of(markdown: str) -> str:
    """Return the tables in a study's Markdown without those of published methods, with headings
    one level lower."""
    parts = re.split(r"\n(?=## )", markdown)
    own = [part for part in parts if part.startswith("## Study: ")]
    return "\n".join(own).replace("## Study: ", "### Study: ").rstrip()


def paths(config: Mapping) -> list[tuple[str, str, str]]:
    """Return the paths in a completed config: the key, its value as Markdown, its meaning."""
    data = config["data"]
    found = [("results", config["results"], "where the results are written")]
    if data["demo"]:
        found.append(("data.demo", "true", "the demo set is made there: no data are needed"))
    elif data["mvtec_ad"] or not data["sets"]:
        meaning = "a copy of MVTec AD (its folder, or the published archive)"
        if not data["mvtec_ad"]:
            meaning = f"not set: MVTec AD is downloaded into `{data['folder']}`"
        found.append(("data.mvtec_ad", data["mvtec_ad"] or "null", meaning))
    for name, part in data["sets"].items():
        path = part.get("path") or "null"
        found.append((f"data.sets.{name}.path", path, f"the set's folder, layout {part['layout']}"))
    for name, teacher in config["teachers"].items():
        weights, source = teacher.get("weights"), teacher.get("pretrain")
        if names_a_file(teacher):
            meaning = "a file of weights; its SHA-256 is in record.json"
            if teacher.get("source"):
                meaning += f"; declared as {teacher['source']}"
            found.append((f"teachers.{name}.weights", weights, meaning))
        elif weights == EMBEDDED:
            found.append((f"teachers.{name}.weights", weights, "weights that ship with stpm_bench"))
        elif weights:
            meaning = f"torchvision's weights, downloaded into `{data['folder']}`"
            found.append((f"teachers.{name}.weights", weights, meaning))
        elif isinstance(source, Mapping):
            found.append((f"teachers.{name}.pretrain.folder", source["folder"], "its images"))
        elif source:
            meaning = f"the teacher is trained on it; a download goes into `{data['folder']}`"
            found.append((f"teachers.{name}.pretrain", source, meaning))
    return [(key, f"`{value}`", meaning) for key, value, meaning in found]


def absolute_paths(config: Mapping) -> list[str]:
    """Return the keys and values of a config that are absolute paths: readers would see them."""
    return [
        f"{key}: {value.strip('`')}"
        for key, value, _ in paths(config)
        if Path(value.strip("`")).is_absolute()
    ]


def machine(record: Mapping) -> list[str]:
    """Return the README lines on machine, precision, hours, versions and commits."""
    hours = record["hours"]
    each = ", ".join(f"{stage} {h:.2f}" for stage, h in hours.items() if stage != "together")
    seen = record["versions"]
    # Without 'the code of STAGE', which the commits below show, and 'the students' precision'.
    packages = [f"{what} {' and '.join(v)}" for what, v in seen.items() if "the " not in what]
    precision = " and ".join(seen.get("the students' precision", ["none was trained"]))
    commits = [
        f"{commit} ({n} steps: teachers, fits, scores)"
        for commit, n in record["git_commits"].items()
    ]
    lines = [
        f"- Kind of processor: {record['kind']}",
        f"- Platform: {', '.join(record['platform']) or NOT_RECORDED}",
        f"- Students' precision: {precision}",
        *(f"- {text}" for text in map(auto_was, record["auto"], record["auto"].values())),
        f"- Hours of computing: {hours['together']:.2f} ({each}), the sum over all steps, "
        "including those that ran in parallel",
        f"- Versions: {', '.join(packages) or NOT_RECORDED}",
        f"- Commit: {', '.join(commits) or NOT_RECORDED}",
        f"- Published at commit {record['published_at'] or NOT_RECORDED}, which made the tables",
    ]
    if any(commit.endswith("+changes") for commit in record["git_commits"]):
        lines.append("  (`+changes`: the checkout had changes that were not committed)")
    for what, each in record["mixed"].items():
        lines.append(f"- MIXED, {what}: {each}")
    return lines


def auto_was(key: str, values: Mapping[str, int]) -> str:
    """Return what a key that is `auto` in config.yaml was here.

    Args:
        values: value -> the number of fits with it.
    """
    texts = {"cpu": "the CPU"} if key == "device" else {}
    each = [
        f"{texts.get(value, value)} ({fits} {'fit' if fits == 1 else 'fits'})"
        for value, fits in values.items()
    ]
    mixed = "MIXED, " if len(each) > 1 else ""
    return f"`{key}: auto` in config.yaml was here: {mixed}{' and '.join(each) or 'no fit'}"


def missing_lines(record: Mapping) -> list[str]:
    """Return the README lines on planned cells without a value."""
    lines = []
    for key, text in (("missing", "have not run"), ("failed", "failed in their fit")):
        cells = record[key]
        if cells:
            lines.append(f"- Planned cells that {text}: {len(cells)} ({shortened(cells, FEW)})")
    if lines:
        return [*lines, "", "record.json names all of them. They are gaps in every table."]
    return ["Nothing: every planned cell has its metrics."]


# Writing a folder atomically


def write(folder: Path, files: Mapping[str, bytes], replace: bool = False) -> None:
    """Write a published folder. A killed process leaves the old one or the new one complete, at
    worst under a hidden name, `.NAME.old` or `.NAME.tmp`.

    Raises:
        InputError: it exists and may not be replaced, or it cannot be written.
    """
    if folder.exists() and not replace:
        raise InputError(
            f"{folder}: is there already; expected a new name. Choose another, or replace it with "
            "--replace"
        )
    temporary, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("tmp", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); expected a writable folder with "
            "enough space"
        ) from error
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
