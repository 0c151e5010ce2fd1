"""The costs of a grid besides training: its dry run, Snakemake's overhead, and its tables.

No student is trained. To time Snakemake, a script in place of `python` creates each step's files at
once, empty; the tables are made from random metrics.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from stpm_bench import files, grid, results
from stpm_bench.audit import COLUMNS
from stpm_bench.config import read
from stpm_bench.metrics.definitions import DEFINITIONS

REPOSITORY = Path(__file__).parents[2]
FULL, PAPER = (REPOSITORY / "workflow" / "config" / f"{name}.yaml" for name in ("full", "paper"))
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pro", "pro_0.05")
PREPARED = ["images.npy", "images.csv", *results.MASKS.values(), results.ORIGINAL_MASKS]
# The files that a step makes: the option that names their place, and their names.
MADE = {
    "download": ("output", ["download.json"]),
    "studies": ("output", ["config.yaml", "studies.csv"]),
    "prepare": ("output", PREPARED),
    "fit": ("output", [*results.FIT_FILES, results.STAGES["fit"]]),
    "score": ("fit", [*results.SCORE_FILES, results.STAGES["score"]]),
    "evaluate": ("cell", [*results.EVALUATION_FILES, results.STAGES["evaluate"]]),
    "collect": ("results", ["metrics.csv", "pro_definitions.csv"]),
}


def run(runs: int = 5, full: Path = FULL, paper: Path = PAPER, seed: int = 0) -> pd.DataFrame:
    """Time commands on a grid and return one table.

    Args:
        runs: how often each is timed; the table gives medians.
        full: config of the grid whose dry run and tables are timed.
        paper: config of the grid whose jobs Snakemake runs.
        seed: of the random metrics.

    Returns:
        One row per command with the columns `command`, `cells`, `seconds`, `ms a cell`, `GB` (the
        highest memory of one of its processes), `runs`.
    """
    python = [sys.executable, "-m"]
    snakemake = [*python, "snakemake", "--nolock", "--drop-metadata", "--configfile"]
    with tempfile.TemporaryDirectory() as folder:
        made_up = Path(folder) / "made_up"
        # In a separate process: otherwise its memory would be counted for the timed processes.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            config = read(full) | {"results": str(made_up)}
            cells = pool.submit(write_random_results, config, seed).result()
        paper_cells = len(grid.cells(grid.studies(read(paper))))
        commands = {
            "snakemake --dry-run": (
                cells,
                lambda run_folder: [*snakemake, redirect_config(full, run_folder), "-n"],
            ),
            "snakemake, steps that do nothing": (
                paper_cells,
                lambda run_folder: [
                    *snakemake,
                    redirect_config(paper, run_folder),
                    *("--cores", "all", str(run_folder / "results" / "metrics.csv")),
                ],
            ),
            "collect": (
                cells,
                lambda run_folder: [*python, "stpm_bench", "collect", *results_option(made_up)],
            ),
            "tables": (
                cells,
                lambda run_folder: [
                    *python,
                    "stpm_bench",
                    "tables",
                    *results_option(made_up),
                    "--main",
                    "main",
                ],
            ),
        }
        idle = write_fake_python(Path(folder) / "bin")
        timed = {name: [] for name in commands}
        for turn in range(runs):
            for name, (_, command) in commands.items():
                run_folder = Path(folder) / f"{name}_{turn}"
                run_folder.mkdir()
                timed[name].append(timing(command(run_folder), idle))
    rows = []
    for name, (cells, _) in commands.items():
        seconds, gigabytes = np.median(timed[name], axis=0)
        rows.append([name, cells, seconds, 1000 * seconds / cells, gigabytes, runs])
    return pd.DataFrame(rows, columns=["command", "cells", "seconds", "ms a cell", "GB", "runs"])


def note() -> str:
    """Return how the table was measured, besides the processor."""
    return (
        "made-up metrics of workflow/config/full.yaml; Snakemake runs workflow/config/paper.yaml "
        "as far as metrics.csv, on all cores"
    )


def results_option(results: Path) -> list[str]:
    """Return the option that sets the results folder."""
    return ["--results", str(results)]


def redirect_config(config: Path, folder: Path) -> str:
    """Write a config whose outputs are all in one folder; return its path."""
    path = folder / "config.yaml"
    content = yaml.safe_load(config.read_text())
    data = content["data"] | {"folder": str(folder / "data")}  # leaves the user's folder as it is
    path.write_text(yaml.safe_dump(content | {"results": str(folder / "results"), "data": data}))
    return str(path)


def timing(command: Sequence[str], idle: Path) -> tuple[float, float]:
    """Run a command, with `idle` in place of the steps' Python.

    Returns:
        Seconds, and the highest memory of a process in 10^9 bytes.

    Raises:
        subprocess.CalledProcessError: the command fails.
    """
    path = f"{idle}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | {"PATH": path}, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            print(output.read().decode()[-2000:], file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e9


def write_fake_python(folder: Path) -> Path:
    """Write a script `python` that creates the files of `MADE`, empty; return its folder."""
    cases = "\n".join(
        f'  {step}) mkdir -p "${option}" && cd "${option}" && touch {" ".join(names)};;'
        for step, (option, names) in MADE.items()
    )
    script = f"""#!/bin/bash
# python -m stpm_bench STEP --option value ...
step=$3
while [ $# -gt 0 ]; do
  case $1 in --output) output=$2;; --fit) fit=$2;; --cell) cell=$2;; --results) results=$2;; esac
  shift
done
case $step in
{cases}
  teacher) mkdir -p "${{output%/*}}" && touch "$output" "${{output%.pt}}.json";;
  *) mkdir -p "${{output%/*}}" && touch "$output";;
esac
"""
    folder.mkdir()
    (folder / "python").write_text(script)
    (folder / "python").chmod(0o755)
    return folder


def write_random_results(config: dict, seed: int) -> int:
    """Write random results for the cells of a completed config, as far as tables need them.

    Returns:
        How many cells there are.
    """
    folder, rng = Path(config["results"]), np.random.default_rng(seed)
    cost = {"images": 100, "seconds": 2.0, "images_per_second": 50.0, "device": "cpu"}
    cost |= {"threads": 1, "peak_memory": {"host_bytes": 10**9}, "code": "made up"}
    split = {"training": 160, "validation": 40}
    student = cost | {"failure": None, "split": split, "images": 16000, "images_per_second": 27.0}
    studies = grid.studies(config)
    for name in grid.teacher_files(studies):
        teacher = json.dumps(cost | {"test_accuracy": 0.9})
        write_with_hashes(folder / "teachers", f"{name}.sha256", {f"{name}.json": teacher})
    definitions = [*((name, "nearest") for name in DEFINITIONS)]
    definitions += [("mvtec", "bilinear_any"), ("mvtec", "own")]
    audited = pd.DataFrame(definitions, columns=COLUMNS[:2])
    files.write_csv(folder / "studies.csv", studies)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    fits = grid.fit_names(studies)
    for cell, fit in fits.items():
        values = dict(zip(METRICS, rng.random(len(METRICS)).tolist(), strict=True))
        table = audited.assign(pro=rng.random(len(audited))).reindex(columns=COLUMNS)
        contents = {"metrics.json": json.dumps(values), "evaluation.json": json.dumps(cost)}
        contents["pro_definitions.csv"] = table.to_csv(index=False)
        write_with_hashes(results.cell_folder(folder, cell), "evaluation.sha256", contents)
        fit_folder = results.fit_folder(folder, fit)
        write_with_hashes(fit_folder, "score.sha256", {"score.json": json.dumps(cost)})
        write_with_hashes(fit_folder, "fit.sha256", {"fit.json": json.dumps(student)})
    return len(fits)


def write_with_hashes(folder: Path, record: str, contents: dict[str, str]) -> None:
    """Write files and the record of `files.record_hashes`, without waiting for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    contents = contents | {record: "".join(f"{value}  {n}\n" for n, value in hashes.items())}
    for name, text in contents.items():
        (folder / name).write_text(text)
