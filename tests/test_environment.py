"""pip and conda users get the same packages and bounds."""

import re
import tomllib

import yaml

from conftest import REPOSITORY


def test_environment_yml_and_pyproject_agree():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pip = set(project["dependencies"]) | {f"python{project['requires-python']}"}
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert {re.sub("^pytorch(?=>)", "torch", name) for name in conda} == pip


def test_the_readme_names_the_two_commands_that_ci_runs():
    readme = (REPOSITORY / "README.md").read_text()
    ci = (REPOSITORY / ".ci" / "run").read_text()
    for command in (
        "pip install -e . && snakemake --cores all --configfile workflow/config/demo.yaml",
        "pip install -e '.[test]' && pytest",
    ):
        assert f"```\n{command}\n```" in readme
        assert command in ci
