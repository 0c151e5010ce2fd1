# The suite that a config defines, and the names that rules share. Functions of stpm_bench/run/
# answer the rules' questions about the suite.
import functools
import gc
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

from snakemake.settings.enums import Quietness
from snakemake.settings.types import DeploymentMethod

# The package is next to the Snakefile: the workflow finds it without any installation.
# Not documented by Snakemake; tests/test_snakemake_attributes.py fails if it is gone.
PACKAGE = Path(str(workflow.current_basedir)).parents[1]
sys.path.insert(0, str(PACKAGE))

from stpm_bench.run import child_processes

# Jobs find this package without an installation, and use UTF-8.
child_processes.prepare()

# Of what parsing imports, only pandas (and NumPy with it) may be missing: bioconda's Snakemake
# brings it, pip's does not.
if importlib.util.find_spec("pandas") is None:
    from stpm_bench.errors import not_installed

    raise WorkflowError(not_installed("pandas"))

# The jobs of a large grid are millions of objects that are never freed: Python's collector would
# scan them again and again, for a quarter of a dry run's time. It is off until the run starts
# (`onstart` in the Snakefile).
gc.disable()

# Some of these are for the other .smk files and the Snakefile.
from stpm_bench import config as configs, grid, worker
from stpm_bench.code_version import version_of
from stpm_bench.errors import InputError
from stpm_bench.files import lock_results, sha256
from stpm_bench.results import MASKS, ORIGINAL_MASKS
from stpm_bench.run import catalogue, messages, options, plan, progress, resources
from stpm_bench.run.suite import has_torchvision_weights, pretraining_name, suite_of

try:
    # Only a check: `load` rejects a key given twice, of which Snakemake silently keeps the last.
    # (Not documented by Snakemake; tests/test_snakemake_attributes.py fails if it is gone.)
    for path in workflow.overwrite_configfiles:
        configs.load(path)
    SUITE = suite_of(config)
except InputError as error:
    raise WorkflowError(str(error))

CONFIG, RESULTS, DATA, MAIN_STUDY = SUITE.config, SUITE.results, SUITE.data, SUITE.main_study
CATEGORIES = SUITE.categories
CELL_FOLDER, FIT_FOLDER = (f"{RESULTS}/{kind}/{grid.CELL}" for kind in ("cells", "fits"))
TRAIN, TEST = (f"{RESULTS}/prepared/{{category}}/{split}" for split in ("train", "test"))
TABLES, FIGURES = catalogue.tables(SUITE), catalogue.figures(SUITE)
NOTEBOOKS = catalogue.notebooks(PACKAGE / "analysis")
PANEL_CELLS = SUITE.panel_cells

try:
    CORES = workflow.cores
except WorkflowError:  # unknown if jobs are run by an executor other than the local one
    CORES = 1
else:
    # Not documented by Snakemake; tests/test_snakemake_attributes.py fails if it is gone.
    for name, most in resources.gpu_jobs(CONFIG).items():
        workflow.global_resources.setdefault(name, most)  # --resources gpu=N is stronger

# A dry run lists every job: for the full grid 96 MB, and 79 s instead of 48. Of more cells than
# this the jobs are counted by rule, as Snakemake's help advises, unless the user gives --quiet.
MAX_LISTED_CELLS = 1000
# Not documented by Snakemake; tests/test_snakemake_attributes.py fails if it is gone.
OUTPUT = workflow.output_settings
if OUTPUT.dryrun and not OUTPUT.quiet and len(SUITE.cells) > MAX_LISTED_CELLS:
    OUTPUT.quiet = {Quietness.PROGRESS, Quietness.RULES}


def name_pattern(names):
    """Return the wildcard pattern that matches exactly some names."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    category=name_pattern(CATEGORIES),
    teacher=name_pattern(CONFIG["teachers"]),
    teacher_file=name_pattern(SUITE.teachers),
    notebook=name_pattern(NOTEBOOKS),
    source=name_pattern(SUITE.pretraining),
    layers=r"[0-9+]+",
    fraction=r"[0-9.e-]+",
    seed=r"[0-9]+",
    method=name_pattern(SUITE.methods),


def with_suite(function, **arguments):
    """Return an input, params or resource function that calls the package with this suite."""
    bound = functools.partial(function, SUITE, **arguments)
    # Snakemake asks for the signature at each call; finding that of a partial object again and
    # again takes a tenth of a dry run.
    bound.__signature__ = inspect.signature(bound)
    return bound


def teacher_of(wildcards):
    """Return the file of a fit's teacher."""
    entry = CONFIG["teachers"][wildcards.teacher]
    return f"{RESULTS}/teachers/{grid.teacher_file(wildcards.teacher, entry, wildcards.seed)}.pt"


def teacher_inputs(wildcards):
    """Return {"data": the file of the pretraining set}; {} if a teacher is not trained here."""
    teacher = SUITE.teachers[wildcards.teacher_file]
    if "pretrain" in teacher:
        return {"data": f"{RESULTS}/pretraining/{pretraining_name(teacher)}.npz"}
    return {}


def marker_of(wildcards):
    """Return the marker of a category's set that is made here; none for a user's folder, whose
    changes `options.category_state` detects."""
    return SUITE.sources[wildcards.category].marker or []


def files_of_cells(*files):
    """Return an input function: these files of every cell, listed only when a job needs them."""
    return lambda wildcards: [f"{SUITE.cell_folder(c)}/{f}" for c in SUITE.cells for f in files]


def fit_files(wildcards):
    """Return the level maps of every fit, and the models that are kept."""
    maps = [f"{SUITE.fit_folder(cell)}/level_maps.npz" for cell in SUITE.cells]
    methods = set(SUITE.methods_with_kept_models)
    kept = [f"{SUITE.fit_folder(c)}/model.pt" for c in SUITE.cells if c.method in methods]
    return list(dict.fromkeys(maps + kept))


def interim_command():
    """Return the command that makes the target 'interim' of this config."""
    # Not documented by Snakemake; tests/test_snakemake_attributes.py fails if it is gone.
    settings = workflow.config_settings
    with_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    return messages.interim_command(settings.configfiles, settings.config, with_conda)
