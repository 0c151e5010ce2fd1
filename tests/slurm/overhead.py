"""The overhead of a cell on Slurm: the seconds of its job if the steps do nothing.

`python tests/slurm/overhead.py` starts a Slurm of two nodes and sends cells of
`workflow/config/paper.yaml` there, one job at a time, through the profile.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from cluster import OPTIONS, Cluster, missing
from stpm_bench import grid
from stpm_bench.benchmarks.grid import PAPER, REPOSITORY, redirect_config, write_fake_python
from stpm_bench.config import read


def seconds_of_jobs(folder: Path, cells: int) -> list[float]:
    """Run the first cells on a cluster; return how long the job of each took, by Slurm's record."""
    idle = write_fake_python(folder / "bin")
    config = redirect_config(PAPER, folder)
    first = grid.cells(grid.studies(read(config)))[:cells]
    targets = [str(folder / "results" / "cells" / cell.folder / "metrics.json") for cell in first]
    command = [sys.executable, "-m", "snakemake", *targets, *OPTIONS, "--configfile", config]
    command += ["--jobs", "1", "--drop-metadata", "--slurm-logdir", str(folder / "slurm_logs")]
    (folder / "slurm").mkdir()
    with Cluster(folder / "slurm") as cluster:
        path = f"{idle}:{cluster.environment['PATH']}"
        subprocess.run(
            command, cwd=REPOSITORY, env=cluster.environment | {"PATH": path}, check=True
        )
        jobs = [job for job in cluster.jobs() if "rule_cell" in job["Comment"]]
    times = [[datetime.fromisoformat(job[f"{x}Time"]) for x in ("Start", "End")] for job in jobs]
    return [(end - start).total_seconds() for start, end in times]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=5, help="how many")
    arguments = parser.parse_args()
    if reason := missing():
        parser.error(reason)
    with tempfile.TemporaryDirectory() as folder:
        seconds = seconds_of_jobs(Path(folder), arguments.cells)
    print(f"a cell's job: {statistics.median(seconds):.0f} s, median of {len(seconds)}: {seconds}")
