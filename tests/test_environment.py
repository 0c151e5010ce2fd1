"""pip and conda users get the same packages and bounds."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from conftest import REPOSITORY


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


def test_the_readme_names_the_two_commands_that_ci_runs():
    readme = (REPOSITORY / "README.md").read_text()
    ci = (REPOSITORY / ".ci" / "run").read_text()
    for command in (
        "pip install -e . && snakemake --cores all --configfile workflow/config/demo.yaml",
        "pip install -e '.[test]' && pytest",
    ):
        assert f"```\n{command}\n```" in readme
        assert command in ci
