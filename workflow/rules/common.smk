# The checked config, the cells, and the names that rules share.
import functools
import gc
import hashlib
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

from snakemake.settings.enums import Quietness
from snakemake.settings.types import DeploymentMethod

# The package lies beside the Snakefile: nothing needs to be installed for the workflow to find it.
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

from stpm_bench import grid, levels
from stpm_bench.report import published
from stpm_bench.run import plan
from stpm_bench.code_version import version_of
from stpm_bench.config import complete, keeps_model, load, methods, sources, unpacks_mvtec_ad
from stpm_bench.datasets import download, layouts, mvtec
from stpm_bench.errors import InputError
from stpm_bench.files import check_writable, hold, sha256
from stpm_bench.run.progress import follow
from stpm_bench.results import MASKS, OWN_MASKS, check_layout

try:
    # Snakemake's own loader keeps the last of two keys of one name, and drops the other.
    for path in workflow.overwrite_configfiles:
        load(path)
    CONFIG = complete(config)
    WHERE = sources(CONFIG)
    check_writable(CONFIG["results"])
    check_layout(CONFIG["results"])
    LITERATURE = published.read()
except InputError as error:
    raise WorkflowError(str(error))

RESULTS = CONFIG["results"]
DATA = CONFIG["data"]["folder"]
STUDIES = CONFIG["studies"]
METHODS = methods(CONFIG)
TABLE = grid.studies(CONFIG)
CELLS = grid.cells(TABLE)
CATEGORIES = list(dict.fromkeys(cell.category for cell in CELLS))
# By the name of its file, each draw of each teacher.
TEACHERS = {
    file: CONFIG["teachers"][teacher] | ({"seed": int(seed)} if file != teacher else {})
    for file, teacher, seed in TABLE[["teacher_file", "teacher", "seed"]].itertuples(index=False)
}
CELL, FIT = (f"{RESULTS}/{kind}/{grid.CELL}" for kind in ("cells", "fits"))
# Of each cell the folder of the fit on which it rests.
FIT_OF = {cell: f"{RESULTS}/fits/{fit}" for cell, fit in grid.fits(TABLE).items()}
KEPT = [name for name, settings in METHODS.items() if keeps_model(CONFIG, settings)]
TEMPORARY = [name for name in METHODS if name not in KEPT]
TRAIN, TEST = (f"{RESULTS}/prepared/{{category}}/{split}" for split in ("train", "test"))

# What an unpacked MVTec AD is known by, and the archive of the user's of which it is made, if any.
MVTEC_AD = f"{DATA}/mvtec_ad/download.json"
ARCHIVE = CONFIG["data"]["mvtec_ad"] if unpacks_mvtec_ad(CONFIG["data"]) else None


def pretraining_name(teacher):
    """Return the name of a teacher's pretraining set: of a folder, its last part and a hash."""
    source = teacher["pretrain"]
    if isinstance(source, str):
        return source
    folder, size = source["folder"], teacher["pretraining"]["input_size"]
    return f"{Path(folder).name}-{hashlib.sha256(f'{folder} {size}'.encode()).hexdigest()[:8]}"


# Pretraining sets by name, each with a teacher that uses it.
SOURCES = {
    pretraining_name(teacher): teacher for teacher in TEACHERS.values() if "pretrain" in teacher
}
# One-class CIFAR-10 lies where the set of that name is downloaded to, for a teacher or for itself.
CIFAR10 = f"{RESULTS}/pretraining/cifar10.npz"
if any(WHERE[category].marker == CIFAR10 for category in CATEGORIES):
    SOURCES.setdefault("cifar10", {"pretrain": "cifar10"})

# The study of the main table, the audit's and the figures of each category.
MAIN = "main" if "main" in STUDIES else next(iter(STUDIES))

# The cell that a category's figure shows: the first of the main study. Later entries of a dict
# replace earlier ones, hence the reversal.
SHOWN = grid.cells_of(STUDIES[MAIN], METHODS, CONFIG["teachers"])
PANEL_CELLS = {cell.category: cell for cell in reversed(SHOWN)}

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
FIGURES |= {f"training/{study}": (study, "losses by epoch") for study in STUDIES}
FIGURES |= {
    "pro_curves": (MAIN, "PRO curves"),
    "pro_definitions": ("PRO definitions", "the difference to the exact value"),
}
OF_STPM = published.is_stpm(CONFIG, SHOWN[0].method)
if OF_STPM and published.compared(LITERATURE, TABLE[TABLE["study"] == MAIN]):
    FIGURES["difference_to_paper"] = ("published", "ours less the paper's")

try:
    CORES = workflow.cores
except WorkflowError:  # not known where an executor other than the local one runs the jobs
    CORES = 1

# A dry run lists every job: of the full grid 96 MB, and 79 s instead of 48. Of so many students it
# counts them by rule, as Snakemake's help advises; a --quiet of the user's own decides itself.
LISTED = 1000
OUTPUT = workflow.output_settings
if OUTPUT.dryrun and not OUTPUT.quiet and len(CELLS) > LISTED:
    OUTPUT.quiet = {Quietness.PROGRESS, Quietness.RULES}

NOTEBOOKS = sorted(path.stem for path in Path(PACKAGE, "analysis").glob("*.py"))


def any_of(names):
    """Return the pattern of a wildcard that is one of some names."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    category=any_of(CATEGORIES),
    teacher=any_of(CONFIG["teachers"]),
    draw=any_of(TEACHERS),
    notebook=any_of(NOTEBOOKS),
    source=any_of(SOURCES),
    layers=r"[0-9+]+",
    fraction=r"[0-9.e-]+",
    seed=r"[0-9]+",
    method=any_of(METHODS),


def options(values):
    """Return a dict as command-line options: {'batch_size': 32} is '--batch-size 32'."""
    return " ".join(
        f"--{key.replace('_', '-')}={shlex.quote(str(value))}" for key, value in values.items()
    )


@functools.cache
def count_images(category, split):
    """Return how many images a split of a category has, or will have once its set is made."""
    return plan.count_images(WHERE[category], split)


def images_to_do():
    """Return how many images each fit processes that is not done; its first cell stands for it."""
    images = {category: count_images(category, "train") for category in CATEGORIES}
    return plan.images_to_do(CONFIG, grid.fits(TABLE), images)


def announcement(todo):
    """Return what this run will do, before it starts: students, hours, downloads."""
    lines = [
        f"stpm_bench: {len(todo)} of {len(set(FIT_OF.values()))} fits are still to do, of which "
        f"{len(CELLS)} cells are evaluated "
        f"({len(CATEGORIES)} categories; studies: {', '.join(STUDIES)})."
    ]
    if gone := models_gone():
        lines.append(
            f"  The code of scoring has changed, and of {len(gone)} scored fits the model was not "
            "kept (config key 'keep_models'): these are fitted again."
        )
    hours = plan.fit_hours(CONFIG, todo, CORES)
    if hours > 0.1:
        lines.append(
            f"  They process {sum(todo.values()):,} images, about {hours:,.1f} hours of "
            f"{f'{CORES} cores' if CORES > 1 else 'one core'} at the rates of docs/cost.md; "
            "a GPU is faster."
        )
    lines += [f"  To download, where {DATA}/ does not have it: {what}" for what in downloads()]
    if any(WHERE[category].marker == MVTEC_AD for category in CATEGORIES):
        if not Path(MVTEC_AD).exists():
            lines.append(download.DATASETS["mvtec_ad"].notice)
    return "\n".join(lines)


# What a scheduler is told beforehand. A retry asks for twice as much, and the next twice that.
def memory(at_256, attempt):
    """Return the MB of a process whose arrays take `at_256` MB where images are 256 x 256.

    1000 are Python's and torch's; a quarter more is for machines other than the measured one.
    """
    return round(1.25 * (1000 + (CONFIG["image_size"] / 256) ** 2 * at_256)) * 2 ** (attempt - 1)


def fit_memory(wildcards, attempt):
    """Return the MB of a fit."""
    images = count_images(wildcards.category, "train") * float(wildcards.fraction)
    backbone = CONFIG["teachers"][wildcards.teacher]["backbone"]
    return memory(METHODS[wildcards.method].memory_mb(backbone, images), attempt)


def teacher_of(wildcards):
    """Return the file of the teacher of a fit."""
    entry = CONFIG["teachers"][wildcards.teacher]
    file = grid.teacher_file(wildcards.teacher, entry, wildcards.seed)
    return f"{RESULTS}/teachers/{file}.pt"


def fit_minutes(wildcards, attempt):
    """Return three times the minutes that a fit takes on one core, and a quarter of an hour."""
    settings, full = METHODS[wildcards.method], count_images(wildcards.category, "train")
    images = (
        settings.fit_images(full, float(wildcards.fraction)) * (CONFIG["image_size"] / 256) ** 2
    )
    rate = settings.images_per_second(CONFIG["teachers"][wildcards.teacher]["backbone"])
    return round(15 + 3 * images / rate / 60) * 2 ** (attempt - 1)


def score_minutes(wildcards, attempt):
    """Return three times the minutes that scores take on one core, and half an hour."""
    seconds = METHODS[wildcards.method].extra_seconds * (CONFIG["image_size"] / 256) ** 4
    return round(30 + 3 * seconds * count_images(wildcards.category, "test") / 60) * 2 ** (
        attempt - 1
    )


def test_memory(wildcards, attempt):
    """Return the MB of what holds a category's test images, maps and masks: at most 5 an image."""
    return memory(500 + 5 * count_images(wildcards.category, "test"), attempt)


def prepare_memory(split):
    """Return a resource function: the MB of what decodes a split, each image once and in a list."""
    return lambda wildcards, attempt: memory(0.5 * count_images(wildcards.category, split), attempt)


@functools.cache
def fit_settings_of(method, fraction):
    """Return the fields of a method that a fit or its scores depend on, as JSON.

    The steps see no other field, so that a change of another does not run them again.
    """
    settings = METHODS[method]
    return json.dumps({"file": settings.module} | settings.fit_part(float(fraction)))


def fit_settings(wildcards):
    """Return the settings that the rules 'fit' and 'score' hand to their steps."""
    return fit_settings_of(wildcards.method, wildcards.fraction)


def method_code(stage):
    """Return a params function: the version of the code of a method's fit or score."""
    versions = {s.module: version_of(stage, s.module) for s in METHODS.values()}
    return lambda wildcards: versions[METHODS[wildcards.method].module]


def evaluation_options(wildcards):
    """Return what the evaluation reads of a cell's method, and what its set says of an image."""
    truth = layouts.LAYOUTS[WHERE[wildcards.category].layout].truth
    settings = json.dumps(METHODS[wildcards.method].evaluation_part())
    return options({"settings": settings, "truth": truth})


def fit_of(wildcards):
    """Return the folder of the fit on which a cell rests; the cell need not be of a study."""
    cell = grid.cell_of(wildcards)
    return FIT_OF.get(cell) or f"{RESULTS}/fits/{grid.fits_of([cell], METHODS)[cell].folder}"


def cell_of(cell):
    """Return the folder of a cell."""
    return f"{RESULTS}/cells/{cell.folder}"


def models_gone():
    """Return the folders of fits that other code scored, and whose model was not kept."""
    return plan.models_gone(CONFIG, grid.fits(TABLE))


def after_failure():
    """Return what a failed run leaves, and the command that makes tables of what is done."""
    done = sum(plan.is_done(RESULTS, cell) for cell in CELLS)
    lines = [
        f"stpm_bench: {done} of {len(CELLS)} cells are done and kept. Mend what failed (its log is "
        "named above) and type the same command again; with --keep-going it passes over what fails."
    ]
    if done:
        lines.append(
            f"  Tables, claims and figures of these, the others as gaps: {interim_command()}"
        )
    return "\n".join(lines)


def interim_command():
    """Return the command that makes the target 'interim' of this config."""
    settings, here = workflow.config_settings, Path.cwd()
    files = [p.relative_to(here) if p.is_relative_to(here) else p for p in settings.configfiles]
    parts = ["snakemake", "interim", "--cores", "1"]
    if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
        parts.append("--use-conda")
    parts += ["--configfile", *map(str, files)] if files else []
    values = [f"{key}={json.dumps(value)}" for key, value in settings.config.items()]
    parts += ["--config", *values] if values else []
    return shlex.join(parts)


def closing():
    """Return the main table, where everything else is, and which trainings failed."""
    table = Path(RESULTS, "tables", f"{MAIN}.md")
    if not table.exists():  # a single file was asked for
        return ""
    # A set without PRO has a table of its own; a wide one of published methods may follow.
    tables = re.split(r"\n(?=## )", table.read_text(encoding="utf-8"))
    own = "\n".join(text for text in tables if text.startswith("## Study: "))
    lines = [
        f"\n{own.rstrip()}\n\nAll numbers: {RESULTS}/metrics.csv",
        f"Tables:      {RESULTS}/tables/\nFigures:     {RESULTS}/figures/",
        f"Claims:      {RESULTS}/claims.md\nNotebooks:   {RESULTS}/notebooks/",
    ]
    records = {cell: Path(cell_of(cell), "metrics.json") for cell in CELLS}
    failures = {
        cell: json.loads(path.read_text()).get("failure")
        for cell, path in records.items()
        if path.exists()
    }
    failed = [f"  {cell.folder}: {failure}" for cell, failure in failures.items() if failure]
    if failed:
        lines.append(f"The fit failed of {len(failed)} of {len(CELLS)} cells, which are gaps:")
    return "\n".join(lines + failed)


def of_cells(*files):
    """Return an input function: these files of every cell, listed only where a job wants them."""
    return lambda wildcards: [
        f"{RESULTS}/cells/{cell.folder}/{file}" for cell in CELLS for file in files
    ]


def of_fits(wildcards):
    """Return the level maps of every fit, and the models that are kept."""
    kept = [f"{fit}/model.pt" for cell, fit in FIT_OF.items() if cell.method in KEPT]
    return list(dict.fromkeys([f"{fit}/level_maps.npz" for fit in FIT_OF.values()] + kept))


def sources_of(category, split):
    """Return the files and folders that a split of a user's set is made of."""
    source = WHERE[category]
    return layouts.LAYOUTS[source.layout].sources(Path(source.root), source.category, split)


def marker_of(wildcards):
    """Return the marker of a category's set that is made here; of a user's folder there is none.

    `state_of` stands for that one: a folder dated in the future, as clocks of network disks and
    unpacked archives have it, makes Snakemake refuse and remove what was made of it.
    """
    return WHERE[wildcards.category].marker or []


def state_of(split):
    """Return a params function: a hash of names, sizes and times of the files of a user's folder.

    Snakemake looks at a folder's own time alone; an image that was replaced inside is seen by this.
    """

    def state(wildcards):
        if WHERE[wildcards.category].marker:
            return None
        return state_below(*sources_of(wildcards.category, split))

    return state


def state_below(*places):
    """Return a hash of the names, sizes and times of files, and of all files below folders.

    What is missing, and a link to nothing, are left to the step, whose error names them.
    """
    found = []
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.exists():
                status = path.stat()
                name = str(path.relative_to(place.parent))
                found.append((name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def root_of(wildcards, input):
    """Return the folder of a category's set; another place is no other set, so it is not compared."""
    return WHERE[wildcards.category].root


def category_of(split):
    """Return a params function: a category's name in its set, how the set is laid out, and which of
    a split's images are taken, as options."""

    def category(wildcards):
        source = WHERE[wildcards.category]
        values = {"category": source.category, "layout": source.layout}
        return options(values | {"every": source.every[split]} | source.reading)

    return category


def download_options(wildcards, output):
    """Return the options of the step 'download', none of which says what is downloaded."""
    room = sum(plan.prepared_bytes(CONFIG["image_size"], *n) for n in mvtec.COUNTS.values())
    values = {"results": RESULTS, "results_bytes": room}
    values |= {"mirrors": " ".join(CONFIG["data"]["mirrors"])}
    return options(values | ({"archive": ARCHIVE} if ARCHIVE else {}))


def downloads():
    """Return what this run still has to download, with its size."""
    missing = []
    made = {WHERE[category].marker for category in CATEGORIES}
    if MVTEC_AD in made and not ARCHIVE and not Path(MVTEC_AD).exists():
        missing.append("MVTec AD (4.9 GiB, and as much again unpacked)")
    sizes = {"mnist": "11 MiB", "cifar10": "163 MiB", "cifar100": "161 MiB", "svhn": "235 MiB"}
    for source in SOURCES:
        if source in sizes and not Path(f"{RESULTS}/pretraining/{source}.npz").exists():
            missing.append(f"{source} ({sizes[source]})")
    for name, teacher in TEACHERS.items():
        if is_published(teacher) and not Path(f"{RESULTS}/teachers/{name}.pt").exists():
            missing.append(f"torchvision's ImageNet weights of {teacher['backbone']}")
    return list(dict.fromkeys(missing))


def teacher_inputs(wildcards):
    """Return the pretraining set that a teacher is made of; for a file of the user's see below."""
    teacher = TEACHERS[wildcards.draw]
    if "pretrain" in teacher:
        return {"data": f"{RESULTS}/pretraining/{pretraining_name(teacher)}.npz"}
    return {}


def weights_state(wildcards):
    """Return a hash of a user's file of weights; None of another teacher. See `marker_of`."""
    teacher = TEACHERS[wildcards.draw]
    own = "weights" in teacher and not is_published(teacher)
    return state_below(Path(teacher["weights"])) if own else None


def is_published(teacher):
    """Return whether a teacher's weights are torchvision's."""
    return teacher.get("weights") in levels.PUBLISHED[teacher["backbone"]]


def teacher_options(wildcards):
    """Return the options of the step 'teacher' on which a teacher's weights depend.

    Of the wildcards alone: Snakemake does not compare params that also depend on the input.
    """
    values = {k: v for k, v in TEACHERS[wildcards.draw].items() if k != "draws"}
    if "pretrain" in values:
        values["pretrain"] = pretraining_name(values)
        values |= values.pop("pretraining")
        values |= {"device": CONFIG["device"], "precision": CONFIG["precision"]}
    return options(values)


def source_options(wildcards):
    """Return the options of the step 'pretraining-set' on which the set depends."""
    teacher = SOURCES[wildcards.source]
    if isinstance(teacher["pretrain"], str):
        return options({"source": teacher["pretrain"]})
    return options({"source": "imagefolder", "size": teacher["pretraining"]["input_size"]})


def source_state(wildcards):
    """Return a hash of the files of a folder of images; None of a set that has a name."""
    source = SOURCES[wildcards.source]["pretrain"]
    return None if isinstance(source, str) else state_below(*images_below(source["folder"]))


def source_folder(wildcards, input):
    """Return where a pretraining set is, or is downloaded to."""
    source = SOURCES[wildcards.source]["pretrain"]
    return DATA if isinstance(source, str) else source["folder"]


def images_below(folder):
    """Return the folders of an image folder's splits."""
    return [Path(folder, split) for split in ("train", "test")]


def teacher_files(wildcards, input):
    """Return where a teacher's files lie, and the levels that studies ask of it, as options.

    Another place or study is no other teacher: these depend on the input, so that they are not
    compared.
    """
    rows = TABLE[TABLE["teacher_file"] == wildcards.draw]
    asked = {level for layers in rows["layers"].unique() for level in grid.parse_layers(layers)}
    files = {"folder": f"{DATA}/weights", "levels": grid.spell_layers(asked)}
    return options(files | {"data": input.data} if "data" in input.keys() else files)
