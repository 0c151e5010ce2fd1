"""The memory and minutes that a scheduler is asked for each job, and what they depend on.

Snakemake calls each function with a job's wildcards and the number of the attempt; each retry asks
for twice as much as the attempt before.
"""

from collections.abc import Mapping, Sequence

from stpm_bench.grid import Cell
from stpm_bench.run import rates
from stpm_bench.run.suite import Suite


def gpu_jobs(config: Mapping) -> dict[str, int]:
    """Return how many jobs may use a GPU at once, as a resource of a run; {} without a GPU.

    Without this limit Snakemake starts a job on every core.
    """
    count = rates.FITS_PER_GPU * rates.gpus(config)
    return {"gpu": count} if count else {}


def memory_mb(image_size: int, at_256: float, attempt: int = 1) -> int:
    """Return the MB of a process whose arrays take `at_256` MB for images of 256 x 256.

    1000 MB are for Python and torch; a quarter is added for machines unlike the measured one.
    """
    return round(1.25 * (1000 + (image_size / 256) ** 2 * at_256)) * 2 ** (attempt - 1)


def fit_memory(suite: Suite, wildcards, attempt: int) -> int:
    """Return the MB of a fit."""
    settings, backbone, images = fit_inputs(suite, wildcards)
    return memory_mb(suite.config["image_size"], settings.memory_mb(backbone, images), attempt)


def fit_inputs(suite: Suite, wildcards) -> tuple:
    """Return a fit's settings, its backbone and the number of training images at its fraction."""
    full = suite.image_count(wildcards.category, "train")
    backbone = suite.config["teachers"][wildcards.teacher]["backbone"]
    return suite.methods[wildcards.method], backbone, full * float(wildcards.fraction)


def score_memory(suite: Suite, wildcards, attempt: int) -> int:
    """Return the MB for a category's test images and level maps and a method's model."""
    settings, backbone, images = fit_inputs(suite, wildcards)
    arrays = test_arrays_mb(suite, wildcards) + settings.model_mb(backbone, images)
    return memory_mb(suite.config["image_size"], arrays, attempt)


def speed_memory(suite: Suite, wildcards, attempt: int, cells: Sequence[Cell]) -> int:
    """Return the MB for scoring with the models of several methods at once.

    Args:
        cells: the cells whose models are timed, all of one category, teacher and fraction.
    """
    first = cells[0]
    images = suite.image_count(first.category, "train") * first.fraction
    backbone = suite.config["teachers"][first.teacher]["backbone"]
    models = sum(suite.methods[cell.method].model_mb(backbone, images) for cell in cells)
    return memory_mb(suite.config["image_size"], 500 + models, attempt)


def evaluate_memory(suite: Suite, wildcards, attempt: int) -> int:
    """Return the MB for a category's test images, maps and masks."""
    return memory_mb(suite.config["image_size"], test_arrays_mb(suite, wildcards), attempt)


def test_arrays_mb(suite: Suite, wildcards) -> int:
    """Return the MB at 256 x 256 of a category's test images, maps and masks: at most 5 each."""
    return 500 + 5 * suite.image_count(wildcards.category, "test")


def prepare_train_memory(suite: Suite, wildcards, attempt: int) -> int:
    """Return the MB for decoding the training images, each once and in a list."""
    return prepare_memory(suite, wildcards, attempt, "train")


def prepare_test_memory(suite: Suite, wildcards, attempt: int) -> int:
    """Return the MB for decoding the test images, each once and in a list."""
    return prepare_memory(suite, wildcards, attempt, "test")


def prepare_memory(suite: Suite, wildcards, attempt: int, split: str) -> int:
    """Return the MB for decoding a split's images."""
    images = suite.image_count(wildcards.category, split)
    return memory_mb(suite.config["image_size"], 0.5 * images, attempt)


def teacher_memory(suite: Suite, wildcards, attempt: int) -> int:
    """Return the MB for making a teacher.

    Ten epochs of SVHN, the largest built-in set, are 0.7 million images, 0.3 GB in all.
    """
    return 4000 * 2 ** (attempt - 1)


def teacher_minutes(suite: Suite, wildcards, attempt: int) -> int:
    """Return the minutes for making a teacher."""
    return 240 * 2 ** (attempt - 1)


def fit_minutes(suite: Suite, wildcards, attempt: int) -> int:
    """Return three times the minutes that a fit takes, plus a quarter of an hour.

    The rate is that recorded by fits on such a machine, else that of one busy core.
    """
    settings, backbone, _ = fit_inputs(suite, wildcards)
    full = suite.image_count(wildcards.category, "train")
    images = settings.fit_images(full, float(wildcards.fraction))
    recorded = suite.known_rates().recorded.get((wildcards.teacher, wildcards.method))
    busy = settings.images_per_second(backbone) / (suite.config["image_size"] / 256) ** 2
    rate = recorded or busy
    return round(15 + 3 * images / rate / 60) * 2 ** (attempt - 1)


def score_minutes(suite: Suite, wildcards, attempt: int) -> int:
    """Return three times the minutes that scores take on one core, plus half an hour."""
    settings = suite.methods[wildcards.method]
    seconds = settings.extra_seconds * (suite.config["image_size"] / 256) ** 4
    images = suite.image_count(wildcards.category, "test")
    return round(30 + 3 * seconds * images / 60) * 2 ** (attempt - 1)
