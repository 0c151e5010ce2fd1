# The suite that a config asks for, and the names that rules share. What rules ask of the suite are
# functions of stpm_bench/run/.
import functools
import gc
import importlib.util
import json
import re
import sys
from pathlib import Path

from snakemake.settings.enums import Quietness
from snakemake.settings.types import DeploymentMethod

# The package lies beside the Snakefile: nothing needs to be installed for the workflow to find it.
# Not documented by Snakemake: tests/test_snakemake_attributes.py.
PACKAGE = Path(str(workflow.current_basedir)).parents[1]
sys.path.insert(0, str(PACKAGE))

from stpm_bench.run import child_processes

child_processes.prepare()

# All else that is imported here comes with Snakemake; pandas with bioconda's, not with pip's.
if importlib.util.find_spec("pandas") is None:
    from stpm_bench.errors import not_installed

    raise WorkflowError(not_installed("pandas"))

# The jobs of a large grid are millions of objects that all stay: Python's collector would look
# through them again and again, for a quarter of a dry run's time. It sleeps until the run starts.
gc.disable()

from stpm_bench import config as config_of, grid
from stpm_bench.code_version import version_of
from stpm_bench.errors import InputError
from stpm_bench.files import hold, sha256
from stpm_bench.report import published
from stpm_bench.results import MASKS, OWN_MASKS
from stpm_bench.run import catalogue, messages, options, plan, progress, resources
from stpm_bench.run.suite import is_published, pretraining_name, suite_of

try:
    # Snakemake's own loader keeps the last of two keys of one name, and drops the other.
    # (The attribute is not documented by Snakemake: tests/test_snakemake_attributes.py.)
    for path in workflow.overwrite_configfiles:
        config_of.load(path)
    SUITE = suite_of(config)
except InputError as error:
    raise WorkflowError(str(error))

CONFIG, RESULTS, DATA, MAIN = SUITE.config, SUITE.results, SUITE.data, SUITE.main
CATEGORIES = SUITE.categories
CELL, FIT = (f"{RESULTS}/{kind}/{grid.CELL}" for kind in ("cells", "fits"))
TRAIN, TEST = (f"{RESULTS}/prepared/{{category}}/{split}" for split in ("train", "test"))
TABLES, FIGURES = catalogue.tables(SUITE), catalogue.figures(SUITE)
NOTEBOOKS = sorted(path.stem for path in Path(PACKAGE, "analysis").glob("*.py"))
PANEL_CELLS = SUITE.panel_cells

try:
    CORES = workflow.cores
except WorkflowError:  # not known where an executor other than the local one runs the jobs
    CORES = 1

# A dry run lists every job: of the full grid 96 MB, and 79 s instead of 48. Of more cells than this
# it counts them by rule, as Snakemake's help advises; a --quiet of the user's own decides itself.
MOST_LISTED = 1000
# Not documented by Snakemake: tests/test_snakemake_attributes.py.
OUTPUT = workflow.output_settings
if OUTPUT.dryrun and not OUTPUT.quiet and len(SUITE.cells) > MOST_LISTED:
    OUTPUT.quiet = {Quietness.PROGRESS, Quietness.RULES}


def any_of(names):
    """Return the pattern of a wildcard that is one of some names."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    category=any_of(CATEGORIES),
    teacher=any_of(CONFIG["teachers"]),
    draw=any_of(SUITE.teachers),
    notebook=any_of(NOTEBOOKS),
    source=any_of(SUITE.pretraining),
    layers=r"[0-9+]+",
    fraction=r"[0-9.e-]+",
    seed=r"[0-9]+",
    method=any_of(SUITE.methods),


def ask(function, **arguments):
    """Return an input, params or resource function: one of the package, asked of this suite."""
    return functools.partial(function, SUITE, **arguments)


def teacher_of(wildcards):
    """Return the file of the teacher of a fit."""
    entry = CONFIG["teachers"][wildcards.teacher]
    return f"{RESULTS}/teachers/{grid.teacher_file(wildcards.teacher, entry, wildcards.seed)}.pt"


def teacher_inputs(wildcards):
    """Return the pretraining set that a teacher is made of, if it is trained here."""
    teacher = SUITE.teachers[wildcards.draw]
    if "pretrain" in teacher:
        return {"data": f"{RESULTS}/pretraining/{pretraining_name(teacher)}.npz"}
    return {}


def marker_of(wildcards):
    """Return the marker of a category's set that is made here; of a user's folder there is none,
    for which `options.category_state` stands."""
    return SUITE.sources[wildcards.category].marker or []


def of_cells(*files):
    """Return an input function: these files of every cell, listed only where a job wants them."""
    return lambda wildcards: [f"{SUITE.cell_folder(c)}/{f}" for c in SUITE.cells for f in files]


def of_fits(wildcards):
    """Return the level maps of every fit, and the models that are kept."""
    maps = [f"{SUITE.fit_folder(cell)}/level_maps.npz" for cell in SUITE.cells]
    methods = set(SUITE.kept)
    kept = [f"{SUITE.fit_folder(c)}/model.pt" for c in SUITE.cells if c.method in methods]
    return list(dict.fromkeys(maps + kept))


def interim_command():
    """Return the command that makes the target 'interim' of this config."""
    # Not documented by Snakemake: tests/test_snakemake_attributes.py.
    settings = workflow.config_settings
    with_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    return messages.interim_command(settings.configfiles, settings.config, with_conda)
