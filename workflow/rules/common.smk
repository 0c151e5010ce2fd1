# The checked config, the cells, and the names that rules share.
import hashlib
import json
import re
import shlex
import sys
from pathlib import Path

# The package lies beside the Snakefile: nothing needs to be installed for the workflow to find it.
sys.path.insert(0, str(Path(workflow.basedir)))

from stpm_bench import grid, published
from stpm_bench.config import complete
from stpm_bench.datasets import demo, mvtec
from stpm_bench.errors import InputError
from stpm_bench.files import check_writable

try:
    CONFIG = complete(config)
    check_writable(CONFIG["results"])
    PUBLISHED = published.read()
except InputError as error:
    raise WorkflowError(str(error))

RESULTS = CONFIG["results"]
DATA = CONFIG["data"]["folder"]
STUDIES = CONFIG["studies"]
TABLE = grid.studies(CONFIG)
CELLS = grid.cells(TABLE)
CATEGORIES = list(dict.fromkeys(cell.category for cell in CELLS))
TEACHERS = {
    name: CONFIG["teachers"][name] for name in dict.fromkeys(cell.teacher for cell in CELLS)
}
CELL = f"{RESULTS}/cells/{grid.CELL}"

# Where the images are: the embedded demo, MVTec AD downloaded, or the user's own folder. What is made
# here is whole when its marker is there.
if CONFIG["data"]["demo"]:
    ROOT, MARKER = f"{RESULTS}/demo_data", f"{RESULTS}/demo_data/made.json"
elif CONFIG["data"]["mvtec_ad"] is None:
    ROOT, MARKER = f"{DATA}/mvtec_ad", f"{DATA}/mvtec_ad/download.json"
else:
    ROOT, MARKER = CONFIG["data"]["mvtec_ad"], None

# The study of the main table, the audit's and the figures of each category.
MAIN = "main" if "main" in STUDIES else next(iter(STUDIES))

# The cell that a category's figure shows: the first of the main study. Later entries of a dict
# replace earlier ones, hence the reversal.
SHOWN = grid.cells_of(STUDIES[MAIN], CONFIG["protocol"])
PANEL_CELLS = {cell.category: f"{RESULTS}/cells/{cell.folder}" for cell in reversed(SHOWN)}

# What the steps 'tables' and 'figures' make: name -> category of the report, and what it is.
VARYING = [study for study in STUDIES if grid.varying(TABLE[TABLE["study"] == study])]
TABLES = {study: (study, "means and spread") for study in STUDIES}
TABLES |= {f"{study}_by_category": (study, "by category") for study in VARYING}
TABLES |= {f"{study}_differences": (study, "paired differences, tests") for study in VARYING}
TABLES |= {
    "reproductions": ("published", "the paper, its authors, others and ours"),
    "pro_definitions": ("PRO definitions", "one set of maps, each definition"),
    "cost": ("cost", "seconds, images a second, memory"),
}
FIGURES = {study: (study, "metrics") for study in STUDIES}
FIGURES |= {
    "pro_curves": (MAIN, "PRO curves"),
    "pro_definitions": ("PRO definitions", "the difference to the exact value"),
}
if published.compared(PUBLISHED, TABLE[TABLE["study"] == MAIN]):
    FIGURES["difference_to_paper"] = ("published", "ours less the paper's")

try:
    CORES = workflow.cores
except WorkflowError:  # not known where an executor other than the local one runs the jobs
    CORES = 1

NOTEBOOKS = sorted(path.stem for path in Path(workflow.basedir, "analysis").glob("*.py"))

# What one core trains a second, measured (README.md, 'Cost'); for the announcement alone.
IMAGES_PER_SECOND = 17

# With as many cells as cores or more, one thread each trains the most images a second; few cells
# get the cores that would be idle.
THREADS = max(1, CORES // len(CELLS))


wildcard_constraints:
    category="|".join(map(re.escape, CATEGORIES)),
    teacher="|".join(map(re.escape, TEACHERS)),
    notebook="|".join(NOTEBOOKS),
    split="train|test",
    source=r"[a-z0-9]+",
    layers=r"[0-9+]+",
    fraction=r"[0-9.e-]+",
    seed=r"[0-9]+",
    protocol=r"[a-z_]+",


def options(values):
    """Return a dict as command-line options: {'batch_size': 32} is '--batch-size 32'."""
    return " ".join(
        f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in values.items()
    )


def announcement():
    """Return what this run will do, before it starts: students, hours, downloads."""
    todo = [
        cell for cell in CELLS if not Path(RESULTS, "cells", cell.folder, "metrics.json").exists()
    ]
    lines = [
        f"stpm_bench: {len(todo)} of {len(CELLS)} students are still to do "
        f"({len(CATEGORIES)} categories; studies: {', '.join(STUDIES)})."
    ]
    images = sum(map(training_images, todo))
    hours = images * (CONFIG["image_size"] / 256) ** 2 / IMAGES_PER_SECOND / CORES / 3600
    if hours > 0.1:
        lines.append(
            f"  They train on {images:,} images. At {IMAGES_PER_SECOND} a second and core (256 x 256, "
            f"ResNet-18; see 'Cost' in README.md) that is about {hours:,.1f} hours on "
            f"{CORES} cores; a GPU is faster."
        )
    lines += [f"  To download, where {DATA}/ does not have it: {what}" for what in downloads()]
    return "\n".join(lines)


def training_images(cell):
    """Return how many images, each epoch's counted, a cell trains on."""
    if CONFIG["data"]["demo"]:
        count = demo.TRAIN_GOOD
    elif CONFIG["data"]["mvtec_ad"] is None:
        count = mvtec.COUNTS[cell.category][0]
    else:
        count = mvtec.count_images(ROOT, cell.category)[0]
    share = cell.fraction * (1 - CONFIG["training"]["validation_fraction"])
    return round(count * share) * CONFIG["training"]["epochs"]


def closing():
    """Return the main table and where everything else is."""
    table = Path(RESULTS, "tables", f"{MAIN}.md")
    if not table.exists():  # a single file was asked for
        return ""
    first = table.read_text().split("\n## ")[0]  # a wide table of published methods may follow
    return (
        f"\n{first.rstrip()}\n\nAll numbers: {RESULTS}/metrics.csv\n"
        f"Tables:      {RESULTS}/tables/\nFigures:     {RESULTS}/figures/\n"
        f"Claims:      {RESULTS}/claims.md\nNotebooks:   {RESULTS}/notebooks/"
    )


def images_of(*folders):
    """Return an input function: the marker of a set that is made here, else a split's folders."""

    def inputs(wildcards):
        if MARKER:
            return MARKER
        # A folder that is missing is left to the step, whose error says what was expected.
        paths = [Path(ROOT, wildcards.category, folder) for folder in folders]
        return [str(path) for path in paths if path.is_dir()]

    return inputs


def state_of(*folders):
    """Return a params function: a hash of names, sizes and times of the files of a user's folder.

    Snakemake looks at a folder's own time alone; an image that was replaced inside is seen by this.
    """

    def state(wildcards):
        if MARKER:
            return None
        found = [
            (str(path.relative_to(ROOT)), path.stat().st_size, path.stat().st_mtime_ns)
            for folder in folders
            for path in sorted(Path(ROOT, wildcards.category, folder).rglob("*"))
        ]
        return hashlib.sha256(repr(found).encode()).hexdigest()

    return state


def downloads():
    """Return what this run still has to download, with its size."""
    missing = []
    if MARKER == f"{DATA}/mvtec_ad/download.json" and not Path(MARKER).exists():
        missing.append("MVTec AD (4.9 GiB, and as much again unpacked)")
    sizes = {"mnist": "11 MiB", "cifar10": "163 MiB", "cifar100": "161 MiB", "svhn": "235 MiB"}
    for name, teacher in TEACHERS.items():
        source = teacher.get("pretrain")
        if source in sizes and not Path(f"{RESULTS}/pretraining/{source}.npz").exists():
            missing.append(f"{source} ({sizes[source]})")
        if (
            teacher.get("weights") == "torchvision"
            and not Path(f"{RESULTS}/teachers/{name}.pt").exists()
        ):
            missing.append(f"torchvision's ImageNet weights of {teacher['backbone']}")
    return list(dict.fromkeys(missing))


def teacher_inputs(wildcards):
    """Return the file that a teacher is made of: its weights, or its pretraining set."""
    teacher = TEACHERS[wildcards.teacher]
    if "pretrain" in teacher:
        return {"data": f"{RESULTS}/pretraining/{teacher['pretrain']}.npz"}
    if teacher.get("weights", "torchvision") != "torchvision":
        return {"weights": teacher["weights"]}
    return {}


def teacher_options(wildcards):
    """Return the options of the step 'teacher' on which a teacher's weights depend.

    Of the wildcards alone: Snakemake does not compare params that also depend on the input.
    """
    values = dict(TEACHERS[wildcards.teacher])
    if "pretrain" in values:
        values |= CONFIG["pretraining"]
        values |= {"device": CONFIG["device"], "precision": CONFIG["precision"]}
    return options(values)


def teacher_files(wildcards, input):
    """Return the options that say where a teacher's files lie; another place is no other teacher."""
    files = {"folder": f"{DATA}/weights"}
    return options(files | {"data": input.data} if "data" in input.keys() else files)


def not_compared(value):
    """Return a params function of the input, which Snakemake does not compare: places of files."""
    return lambda wildcards, input: value
