"""The messages of a run: before it starts, when it has finished, and when it has failed."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from stpm_bench.config import warnings_of
from stpm_bench.datasets import mvtec
from stpm_bench.grid import Cell
from stpm_bench.run import plan, rates
from stpm_bench.run.suite import Suite, has_torchvision_weights

MIB = {"mnist": "11 MiB", "cifar10": "163 MiB", "cifar100": "161 MiB", "svhn": "235 MiB"}


def announcement(suite: Suite, todo: Mapping[Cell, int], cores: int) -> str:
    """Return what a run will do, before it starts: fits, hours, downloads.

    Args:
        todo: what `plan.images_to_do` returns.
    """
    lines = [
        f"stpm_bench: {len(todo)} of {len(set(suite.fits.values()))} fits remain. The config has "
        f"{len(suite.cells)} cells ({len(suite.categories)} categories; studies: "
        f"{', '.join(suite.config['studies'])})."
    ]
    lines += [f"  Warning: {text}." for text in warnings_of(suite.config)]
    if gone := plan.fits_without_models(suite.config, suite.fits):
        lines.append(
            f"  The scoring code has changed, and the models of {len(gone)} scored fits were not "
            "kept (config key 'keep_models'): these are fitted again."
        )
    known = suite.known_rates()
    hours = rates.fit_hours(suite.config, todo, cores, known)
    if hours > 0.1:
        lines.append(
            f"  They process {sum(todo.values()):,} images, in about {hours:,.1f} hours on "
            f"{rates.place(suite.config, cores)}: {known.source_text(todo)}."
        )
    teachers = plan.teachers_to_do(suite.config, suite.cells).values()
    hours = rates.pretraining_hours(teachers, plan.pretraining_images(teachers), cores)
    if hours > 0.1:
        lines.append(f"  The teachers are pretrained in about {hours:,.1f} hours.")
    lines += [f"  To download, unless {suite.data}/ already has it: {x}" for x in downloads(suite)]
    made = {suite.sources[category].marker for category in suite.categories}
    if suite.mvtec_marker in made and not Path(suite.mvtec_marker).exists():
        lines.append(mvtec.NOTICE)
    return "\n".join(lines)


def downloads(suite: Suite) -> list[str]:
    """Return what a run still has to download, with its size."""
    missing = []
    made = {suite.sources[category].marker for category in suite.categories}
    if suite.mvtec_marker in made and not suite.archive and not Path(suite.mvtec_marker).exists():
        missing.append("MVTec AD (4.9 GiB, and as much again unpacked)")
    for source in suite.pretraining:
        if source in MIB and not Path(f"{suite.results}/pretraining/{source}.npz").exists():
            missing.append(f"{source} ({MIB[source]})")
    for name, teacher in suite.teachers.items():
        file = Path(f"{suite.results}/teachers/{name}.pt")
        if has_torchvision_weights(teacher) and not file.exists():
            missing.append(f"torchvision's ImageNet weights of {teacher['backbone']}")
    return list(dict.fromkeys(missing))


def interim_command(configfiles: Iterable[Path], config: Mapping[str, object], conda: bool) -> str:
    """Return the command that makes the target 'interim' with the same config.

    Args:
        configfiles: the values of --configfile. config: the values of --config.
        conda: whether the run uses conda.
    """
    here = Path.cwd()
    files = [p.relative_to(here) if p.is_relative_to(here) else p for p in configfiles]
    parts = ["snakemake", "interim", "--cores", "1"]
    parts += ["--use-conda"] if conda else []
    parts += ["--configfile", *map(str, files)] if files else []
    values = [f"{key}={json.dumps(value)}" for key, value in config.items()]
    parts += ["--config", *values] if values else []
    return shlex.join(parts)


def after_failure(suite: Suite, interim: str) -> str:
    """Return what a failed run has left, and the command that makes tables from finished cells."""
    done = sum(plan.is_done(suite.results, cell) for cell in suite.cells)
    lines = [
        f"stpm_bench: {done} of {len(suite.cells)} cells are done and kept. Fix the error (see the "
        "log that is named above) and run the same command again; with --keep-going the run "
        "continues with all jobs that do not depend on a failed one."
    ]
    if done:
        lines.append(f"  To make tables, claims and figures of the finished cells only: {interim}")
    return "\n".join(lines)


def closing(suite: Suite) -> str:
    """Return the main table, what to open first and next, and which fits failed."""
    table = Path(suite.results, "tables", f"{suite.main_study}.md")
    if not table.exists():  # a single file was asked for
        return ""
    # A set without PRO has a separate table; a wide table of published methods may follow.
    tables = re.split(r"\n(?=## )", table.read_text(encoding="utf-8"))
    main_tables = "\n".join(text for text in tables if text.startswith("## Study: "))
    pages = {
        Path(suite.results, "first_page.html"): "main table, verdicts on the claims, anomaly maps",
        Path(suite.results, "explorer", f"{suite.main_cells[0].category}.html"): (
            "images, level maps, thresholds"
        ),
    }
    there = [f"{page} ({what})" for page, what in pages.items() if page.exists()]
    lines = [
        f"\n{main_tables.rstrip()}\n",
        *([f"Look first, in a browser, at {', then at '.join(there)}."] if there else []),
        f"In {suite.results}/: metrics.csv, claims.md, tables/, figures/, notebooks/.",
    ]
    records = {c: Path(suite.cell_folder(c), "metrics.json") for c in suite.cells}
    failures = {
        cell: json.loads(path.read_text()).get("failure")
        for cell, path in records.items()
        if path.exists()
    }
    failed = [f"  {cell.folder}: {failure}" for cell, failure in failures.items() if failure]
    if failed:
        lines.append(
            f"The fits of {len(failed)} of {len(suite.cells)} cells failed; the tables have gaps "
            "there:"
        )
    return "\n".join(lines + failed)
