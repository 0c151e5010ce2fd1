"""Inputs on which Snakemake itself failed: odd names, clocks, folders, two runs at once."""

import json
import os
import subprocess
import sys
import time

from builders import small_config, write_category
from conftest import REPOSITORY, snakemake
from stpm_bench.files import lock_results


def test_a_held_folder_stops_the_second_run(small_set):
    (small_set / "results").mkdir()
    lock_results(small_set / "results")
    run = snakemake(small_config(small_set), f"{small_set}/results/studies.csv")
    assert run.returncode != 0
    assert f"in use by another run: process {os.getpid()} on " in run.stderr
    assert "Traceback" not in run.stderr
    assert not (small_set / "results" / "studies.csv").exists()


def test_a_key_twice_stops_the_run(small_set):
    path = small_set / "twice.yaml"
    path.write_text(json.dumps(small_config(small_set))[:-1] + ', "image_size": 32}')
    run = snakemake(path, "--dry-run")
    assert run.returncode != 0
    assert f"{path}: has the key 'image_size' twice" in run.stdout + run.stderr


def test_from_another_folder_with_odd_names_and_a_clock_that_is_ahead(tmp_path):
    """Names with a meaning for Snakemake, shells, argparse and matplotlib; times in the future."""
    root, name = tmp_path / "da$ta {b}", "-a 'b' $c$ (1)&%#_,+@=~^!;[x] é"
    write_category(root, name)
    for part in ("test", "ground_truth"):
        (root / name / part / "square").rename(root / name / part / "{sq} $u$are")
    ahead = time.time() + 3600
    for path in (root, root / name, *(root / name).rglob("*")):
        os.utime(path, (ahead, ahead))
    config = small_config(tmp_path) | {"data": {"mvtec_ad": str(root)}, "results": "results"}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += [f"results/prepared/{name}/test/images.npy", "results/config.yaml"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [*command, "--cores", "2", "--nolock", "--configfile", "config.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    manifest = (tmp_path / "results" / "prepared" / name / "test" / "images.csv").read_text()
    assert "test/{sq} $u$are/000.png" in manifest
    again = subprocess.run(
        [*command, "--dry-run", "--cores", "2", "--nolock", "--configfile", "config.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Nothing to be done" in again.stdout + again.stderr
