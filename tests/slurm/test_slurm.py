"""The Slurm profile on a real Slurm. Run by `.ci/run`: `pytest -n 0 tests/slurm`, minutes.

That takes two cells of the demo; `WHOLE_DEMO=1 pytest -n 0 tests/slurm` takes all of it.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from cluster import OPTIONS, Cluster, missing
from conftest import REPOSITORY
from soak import differences

if reason := missing():
    pytest.skip(reason, allow_module_level=True)
pytest.importorskip(
    "snakemake_executor_plugin_slurm", reason="no Slurm plugin (pip install -e '.[slurm]')"
)


WHOLE = "WHOLE_DEMO" in os.environ
TARGETS = ["all"] if WHOLE else ["tables", "claims"]
PATIENCE = 3600 if WHOLE else 400  # seconds


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def config(folder: Path, name: str) -> Path:
    """Write the demo's config, or one of two of its cells, with results in `folder`/`name`."""
    demo = yaml.safe_load((REPOSITORY / "workflow" / "config" / "demo.yaml").read_text())
    cells = {"category": ["brick", "gravel"], "teacher": ["random"], "seed": [0]}
    two = {"studies": {"main": demo["studies"]["main"] | cells}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(demo | {"results": str(folder / name)} | ({} if WHOLE else two)))
    return path


@contextlib.contextmanager
def running(cluster: Cluster, config: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Run the workflow on the cluster, two jobs at once; its output goes beside the config."""
    options = [*OPTIONS, "--jobs", "2", "--slurm-logdir", str(config.with_suffix(".slurm_logs"))]
    command = [sys.executable, "-m", "snakemake", *arguments, *options, "--configfile", str(config)]
    with config.with_suffix(".log").open("w") as log:
        run = subprocess.Popen(
            command, cwd=REPOSITORY, env=cluster.environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def test_a_node_dies_and_the_results_are_those_of_a_local_run(cluster, folder):
    path = config(folder, "slurm")
    log = path.with_suffix(".log")
    with running(cluster, path, *TARGETS) as run:
        kill_in_training(cluster, "node1", run, log)
        assert run.wait(timeout=PATIENCE) == 0, log.read_text()
    assert cluster.states()["node1"].startswith("down")
    restarted = [job for job in cluster.jobs() if int(job["Restarts"])]
    assert restarted
    assert {job["NodeList"] for job in restarted} == {"node2"}

    local = config(folder, "local")
    command = [sys.executable, "-m", "snakemake", *TARGETS, "--cores", "2", "--nolock"]
    subprocess.run([*command, "--configfile", str(local)], cwd=REPOSITORY, check=True)
    assert differences(folder / "local", folder / "slurm") == []


def test_a_job_out_of_memory_is_sent_again_with_more(cluster, folder):
    path = folder / "slurm.yaml"  # with the teacher and the images of the run before
    cell = "category-brick_layers-1+2+3_teacher-random_fraction-1.0_seed-2_method-stpm"
    student = folder / "slurm" / "fits" / cell / "model.pt"
    before = {job["JobId"] for job in cluster.jobs()}
    # A student of the demo takes 1 GB. The option takes the place of the profile's, hence the gpu.
    less = ["--set-resources", "fit:mem_mb=600 * attempt", "fit:gpu=0"]
    with running(cluster, path, str(student), *less) as run:
        assert run.wait(timeout=300) == 0, path.with_suffix(".log").read_text()
    jobs = [job for job in cluster.jobs() if job["JobId"] not in before]
    assert [job["MinMemoryNode"] for job in jobs] == ["600M", "1200M"]
    assert jobs[0]["JobState"] != jobs[1]["JobState"] == "COMPLETED"
    assert student.exists()


def test_where_slurm_may_not_start_a_job_again_snakemake_does(folder, tmp_path):
    path = config(folder, "requeue")
    log = path.with_suffix(".log")
    cell = "category-brick_layers-1+2+3_teacher-random_fraction-1.0_seed-0_method-stpm"
    student = folder / "requeue" / "fits" / cell / "model.pt"
    with Cluster(tmp_path, requeue=False) as cluster:
        with running(cluster, path, str(student)) as run:
            kill_in_training(cluster, "node1", run, log)
            assert run.wait(timeout=300) == 0, log.read_text()
        jobs = [job for job in cluster.jobs() if "fit" in job["Comment"]]
    assert [job["JobState"] for job in jobs] == ["NODE_FAIL", "COMPLETED"]
    assert [job["Restarts"] for job in jobs] == ["0", "0"]
    assert student.exists()


def kill_in_training(cluster: Cluster, node: str, run: subprocess.Popen, log: Path) -> None:
    """Kill a node as soon as a student trains there."""
    while not trains_on(cluster, node):
        assert run.poll() is None, log.read_text()
        time.sleep(0.2)
    cluster.kill_node(node)


def trains_on(cluster: Cluster, node: str) -> bool:
    """Return whether a student on a node is past its imports."""
    for process in cluster.processes(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "fit" in process.cmdline()[:4] and process.cpu_times().user > 4:
                return True
    return False
