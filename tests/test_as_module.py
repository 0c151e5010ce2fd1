"""The workflow from another folder, and as a module of another workflow: docs/as_a_module.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from builders import small_config
from conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "as_a_module.md"


def run(folder: Path, *arguments: str) -> str:
    """Run Snakemake in a folder outside the checkout, and return what it printed."""
    # The package is found by the workflow itself, whatever the tests were started with.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "1"]
    made = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout + made.stderr


def jobs(text: str) -> dict[str, int]:
    """Return the jobs of a dry run: rule -> how many."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", text, re.M)}


@pytest.fixture
def module(small_set) -> Path:
    """A folder with the page's own Snakefile, for this checkout and a small config."""
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert "/path/to/stpm_bench/Snakefile" in text
    text = text.replace("/path/to/stpm_bench", str(REPOSITORY))
    (small_set / "Snakefile").write_text(text)
    config = {"stpm_bench": small_config(small_set, results="benchmark")}
    (small_set / "config.yaml").write_text(json.dumps(config))
    return small_set


def test_another_workflow_has_the_rules_as_a_module(module):
    text = run(module, "-n", "--quiet", "rules")
    assert jobs(text).items() >= {"mine": 1, "stpm_fit": 2, "stpm_tables": 1}.items()
    assert not {"all", "fit", "tables"} & set(jobs(text))


def test_a_step_runs_in_a_module(module):
    """It finds the package, and its results are those of the other workflow's folder."""
    run(module, "benchmark/studies.csv")
    assert (module / "benchmark" / "studies.csv").exists()


def test_a_module_without_a_config_has_the_papers(tmp_path):
    (tmp_path / "Snakefile").write_text(
        f'module stpm_bench:\n    snakefile: "{REPOSITORY}/Snakefile"\n\n\n'
        "use rule * from stpm_bench\n"
    )
    assert jobs(run(tmp_path, "-n", "--quiet", "rules"))["fit"] == 675


def test_the_workflow_runs_from_another_folder(tmp_path):
    demo = REPOSITORY / "workflow" / "config" / "demo.yaml"
    text = run(
        tmp_path,
        *("--snakefile", str(REPOSITORY / "Snakefile")),
        *("--configfile", str(demo), "-n", "--quiet", "rules"),
    )
    assert jobs(text)["all"] == 1
    assert (tmp_path / "results" / "demo").is_dir()  # relative paths of a config begin here
