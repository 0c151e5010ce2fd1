"""What the workflow uses of Snakemake that its documentation does not promise, in one place.

Snakemake below 10 has all of it (pyproject.toml bounds it); a new version that has not fails here,
with the name of what is gone, and not in a user's run.
"""

import dataclasses
import inspect
import re
import subprocess
import sys

import pytest
from snakemake.api import Workflow
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings,
    DeploymentMethod,
    DeploymentSettings,
    OutputSettings,
)
from snakemake_interface_logger_plugins.common import LogEvent

from conftest import REPOSITORY

# Of the object `workflow`: those that the documentation shows, and those that it does not.
DOCUMENTED = {"cores"}
UNDOCUMENTED = {
    "current_basedir",  # the folder of the Snakefile, also if another workflow uses it as a module
    "overwrite_configfiles",  # whether the user named a config
    "config_settings",  # with which --configfile and --config the same command is typed again
    "global_resources",  # how many jobs may use a GPU at once, unless the user says it
    "deployment_settings",  # and whether with --use-conda
    "output_settings",  # whether it is a dry run, and how much of it is printed
}
# What is read of those, with the class that has it.
FIELDS = [
    (ConfigSettings, "config"),
    (ConfigSettings, "configfiles"),
    (DeploymentSettings, "deployment_method"),
    (OutputSettings, "dryrun"),
    (OutputSettings, "quiet"),
]


def rules() -> str:
    """Return the code of the workflow."""
    files = [REPOSITORY / "Snakefile", *(REPOSITORY / "workflow" / "rules").glob("*.smk")]
    return "\n".join(path.read_text() for path in files)


def test_what_the_rules_use_of_the_workflow_is_listed_here():
    assert set(re.findall(r"(?<!/)\bworkflow\.(\w+)", rules())) == DOCUMENTED | UNDOCUMENTED


@pytest.mark.parametrize("name", sorted(DOCUMENTED | UNDOCUMENTED))
def test_the_workflow_has_each(name):
    fields, made = Workflow.__dataclass_fields__, inspect.getsource(Workflow.__post_init__)
    assert (
        name in fields or f"self.{name} = " in made or isinstance(getattr(Workflow, name), property)
    )


@pytest.mark.parametrize(("settings", "name"), FIELDS)
def test_the_settings_have_each(settings, name):
    assert name in {field.name for field in dataclasses.fields(settings)}


SHARED = """
workflow.global_resources.setdefault("gpu", 2)
rule all:
    input: expand("{n}", n=range(4))
rule one:
    output: "{n}"
    resources: gpu=1
    shell:
        "mkdir at.{wildcards.n}; ls -d at.* | wc -l > {output}; sleep 0.5; rm -r at.{wildcards.n}"
"""


@pytest.mark.parametrize(("options", "most"), [([], 2), (["--resources", "gpu=1"], 1)])
def test_the_resources_limit_jobs_unless_the_user_does(tmp_path, options, most):
    """As common.smk limits the jobs that use a GPU."""
    (tmp_path / "Snakefile").write_text(SHARED)
    command = [sys.executable, "-m", "snakemake", "--cores", "4", "--quiet", "all", *options]
    subprocess.run(command, cwd=tmp_path, check=True)
    counts = [int((tmp_path / str(n)).read_text()) for n in range(4)]
    assert max(counts) <= most


def test_the_members_that_are_named():
    assert {"PROGRESS", "RULES"} <= set(Quietness.__members__)
    assert "CONDA" in DeploymentMethod.__members__
    # run/progress.py follows these; that they carry what it reads, test_workflow.py shows in a run.
    assert (LogEvent.JOB_INFO.value, LogEvent.JOB_FINISHED.value) == ("job_info", "job_finished")


def test_the_upper_bound_is_the_one_that_these_were_seen_below():
    assert '"snakemake>=9.3,<10"' in (REPOSITORY / "pyproject.toml").read_text()
