"""Installation: pip and conda give the same packages, and Snakemake alone reads the workflow."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from builders import small_config, write_category
from conftest import REPOSITORY, snakemake


def test_environment_yml_and_pyproject_agree():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pip = set(project["dependencies"]) | {f"python{project['requires-python']}"}
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert {re.sub("^pytorch(?=>)", "torch", name) for name in conda} == pip


def test_constraints_freeze_every_dependency_within_its_bound():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    # Names and versions alone: no place, no build for one kind of processor or GPU.
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line)] == []
    frozen = dict(line.split("==") for line in lines)
    assert len(frozen) == len(lines)
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(name for extra in extras for name in extra)]
    for requirement in map(Requirement, asked):
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(frozen[requirement.name]), requirement


def test_every_file_of_the_package_is_in_its_wheel():
    package = REPOSITORY / "stpm_bench"
    setuptools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    asked = {
        file
        for name, patterns in setuptools["package-data"].items()
        for folder in (package.rglob("") if name == "*" else [REPOSITORY / name.replace(".", "/")])
        for pattern in patterns
        for file in folder.glob(pattern)
    }
    others = {
        file
        for file in package.rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }
    assert package / "embedded" / "mobilenet_v2.npz" in others
    assert others - asked == set()


def test_the_readme_names_the_two_commands_that_ci_runs():
    readme = (REPOSITORY / "README.md").read_text()
    ci = (REPOSITORY / ".ci" / "run").read_text()
    for command in (
        "pip install -e . && snakemake --cores all --configfile workflow/config/demo.yaml",
        "pip install -e '.[test]' && pytest",
    ):
        assert f"```bash\n{command}\n```" in readme
        assert command in ci


# What Snakemake alone has, as bioconda's package brings it: pandas, and Pygments for the report.
SNAKEMAKE_ALONE = ("snakemake", "pandas", "pygments")

BLOCKER = """
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
"""


def closure(*names: str) -> set[str]:
    """Return these distributions and all that they depend on, as far as they are installed."""
    found, waiting = set(), [*names]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        needed = map(Requirement, metadata.requires(name) or [])
        waiting += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


def block(modules: set[str], folder: Path, monkeypatch) -> None:
    """Make imports of these modules fail in every Python that is started from now on."""
    (folder / "sitecustomize.py").write_text(BLOCKER.format(blocked=modules))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def snakemake_alone(tmp_path, monkeypatch):
    """Python finds only the packages that Snakemake depends on."""
    installed = {d.name for d in metadata.distributions()}
    plugins = [name for name in installed if name.startswith("snakemake-executor-plugin")]
    there = closure(*SNAKEMAKE_ALONE, *plugins)
    others = {
        module
        for module, names in metadata.packages_distributions().items()
        if not there & set(map(canonicalize_name, names))
    } - {"stpm_bench", "sitecustomize"}
    assert {"torch", "torchvision", "skimage", "sklearn", "scipy", "PIL", "tqdm"} < others
    assert not {"snakemake", "pandas", "numpy", "yaml", "jsonschema", "requests"} & others
    block(others, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["demo", "paper", "full"])
def test_snakemake_alone_reads_the_workflow(name, snakemake_alone):
    run = snakemake(REPOSITORY / "workflow" / "config" / f"{name}.yaml", "--list-rules")
    assert run.returncode == 0, run.stderr
    assert "fit" in run.stdout.split()


def test_snakemake_alone_plans_a_run_and_makes_the_report(finished, snakemake_alone, tmp_path):
    config = finished / "config.yaml"
    run = snakemake(config, "-n", "--forceall")
    assert run.returncode == 0, run.stderr
    assert "This was a dry-run" in run.stdout
    run = snakemake(config, "--report", str(tmp_path / "report.html"))
    assert run.returncode == 0, run.stderr
    assert "main" in (tmp_path / "report.html").read_text()


def test_a_step_without_its_packages_says_what_to_install(snakemake_alone):
    command = [sys.executable, "-m", "stpm_bench", "teacher", "--backbone", "resnet18"]
    command += ["--output", "teacher.pt"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: the package 'torch' is not installed")
    assert "environment.yml" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_snakemake_without_pandas_says_what_to_install(tmp_path, monkeypatch):
    # As pip installs it. Absent to Snakemake's own code too, which does not need it.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'pandas' else find(name, *more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = snakemake(REPOSITORY / "workflow" / "config" / "demo.yaml", "--list-rules")
    assert run.returncode != 0
    assert "the package 'pandas' is not installed" in run.stderr
    assert "environment.yml" in run.stderr


# A fake conda, called by Snakemake: its environments are empty folders, and the steps run
# with the Python of the tests, with all its packages.
CONDA = """#!/bin/sh
case "$*" in
    "info --json") echo '{{"conda_prefix": "{base}", "platform": "linux-64"}}' ;;
    --version) echo conda 26.7.0 ;;
    config*) echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
    clean*) ;;
    *create*) for last; do :; done; mkdir -p "$last"; echo "$*" >> "{base}/created" ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def conda(tmp_path, monkeypatch) -> Path:
    """Put a fake conda in PATH; its folder contains `created` once it made an environment."""
    base = tmp_path / "conda"
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "conda").write_text(CONDA.format(base=base))
    (base / "bin" / "conda").chmod(0o755)
    (base / "bin" / "activate").write_text("unset PYTHONPATH\n")
    monkeypatch.setenv("PATH", f"{base / 'bin'}{os.pathsep}{os.environ['PATH']}")
    # Not in this checkout, where a run with a real conda would use these environments.
    monkeypatch.setenv("SNAKEMAKE_CONDA_PREFIX", str(tmp_path / "environments"))
    return base


def test_snakemake_alone_runs_with_conda_and_a_failed_run_names_the_target_interim(
    small_set, conda, snakemake_alone
):
    """The steps find their packages; the process of Snakemake does not."""
    image = small_set / "data" / "alpha" / "train" / "good" / "003.png"
    image.write_bytes(image.read_bytes()[:100])
    run = snakemake(small_config(small_set), "--keep-going", "--use-conda")
    assert run.returncode != 0
    assert "\ncells 1 of 2, " in run.stderr
    assert "1 of 2 cells are done and kept" in run.stderr
    command = shlex.split(re.search(r"(snakemake interim .*)", run.stderr)[1])
    assert command[:2] == ["snakemake", "interim"]
    assert "--use-conda" in command
    made = subprocess.run(
        [sys.executable, "-m", *command, "--nolock"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert (conda / "created").exists()
    text = (small_set / "results" / "tables" / "main.md").read_text()
    assert "1 of 2 cells; the others failed or have not run: gaps" in text


@pytest.fixture
def checkout(tmp_path, conda):
    """A copy of this checkout with a small set: a function runs Snakemake there."""
    copy = tmp_path / "copy"
    for name in ("stpm_bench", "workflow", "analysis", "profiles"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignore)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, copy / name)
    write_category(tmp_path / "data", "alpha")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(small_config(tmp_path)))

    def run(*arguments: str) -> str:
        target = str(tmp_path / "results" / "studies.csv")
        command = [sys.executable, "-m", "snakemake", target, *arguments, "--cores", "1"]
        made = subprocess.run(
            [*command, "--configfile", str(config)], cwd=copy, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
        return made.stdout + made.stderr

    run.folder, run.created = copy, conda / "created"
    return run


NOTHING, CHANGED = "Nothing to be done", "oftware environment definition has changed"


def test_a_run_with_pip_is_not_run_again_with_conda(checkout):
    assert "1 of 1 steps (100%) done" in checkout()
    assert NOTHING in checkout("-n", "--use-conda")
    # It is the profile that makes the difference.
    assert CHANGED in checkout("-n", "--use-conda", "--workflow-profile", "none")


def test_a_run_with_conda_is_run_again_neither_with_pip_nor_after_an_edit_of_a_comment(checkout):
    assert "1 of 1 steps (100%) done" in checkout("--use-conda")
    assert checkout.created.exists()  # by the fake conda
    assert NOTHING in checkout("-n")
    environment = checkout.folder / "environment.yml"
    environment.write_text(environment.read_text() + "# a comment\n")
    assert NOTHING in checkout("-n", "--use-conda")
    assert CHANGED in checkout("-n", "--use-conda", "--workflow-profile", "none")


def test_environment_yml_names_no_channel_that_conda_would_look_up():
    channels = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["channels"]
    assert channels == ["conda-forge", "bioconda"]


def test_every_pin_can_be_installed_on_the_oldest_python_of_pyproject():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (bound,) = SpecifierSet(project["requires-python"])
    assert bound.operator == ">="
    refused, asked = [], 0
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        name, version = line.split("==")
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:  # of an extra that is not installed here
            continue
        if found["Version"] != version:
            continue  # its bound may be another
        asked += 1
        needed = found["Requires-Python"] or ""
        if not SpecifierSet(needed).contains(f"{bound.version}"):
            refused.append(f"{line} needs Python {needed}, pyproject.toml has {bound}")
    if not asked:
        pytest.skip("no package is installed in the version that constraints.txt has")
    assert refused == []
