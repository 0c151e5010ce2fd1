"""Which training images a fit uses, and which of them are for validation."""

import hashlib
from collections.abc import Sequence

import pandas as pd

from stpm_bench.errors import InputError
from stpm_bench.methods.interface import Split


def split(
    files: Sequence[str], fraction: float, validation_fraction: float, seed: int
) -> pd.DataFrame:
    """Choose a fraction of the training images and divide it into training and validation.

    Files are ordered by a hash of seed and name. So the choice is the same on every machine,
    whatever the order of `files`, and nested: with one seed, the images of a smaller fraction are
    among those of a larger one. At least two images are chosen and at least one is for validation;
    for the smallest MVTec category (60 images) a fraction of 0.05 gives 2 for training and 1 for
    validation. A method without validation is fitted on all of the chosen images, at least one.

    Args:
        files: names of the training images, all different.
        fraction: share of the images to use, in (0, 1].
        validation_fraction: share of the chosen images for validation, in [0, 1).
        seed: the cell's seed.

    Returns:
        Columns `file` and `role` ('training' or 'validation'), in the order of the hash.

    Raises:
        InputError: a fraction is out of range, or there are too few images.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}; expected above 0 and at most 1")
    if not 0 <= validation_fraction < 1:
        raise InputError(
            f"config key 'training.validation_fraction' is {validation_fraction}; "
            "expected above 0 and below 1"
        )
    if len(files) < (2 if validation_fraction else 1):
        raise InputError(
            f"train/good has {len(files)} image(s); expected at least 2, "
            "one for training and one for validation"
        )
    ordered = sorted(files, key=lambda file: hashlib.sha256(f"{seed}/{file}".encode()).digest())
    chosen = ordered[: max(2, round(fraction * len(files)))]
    n_validation = 0
    if validation_fraction:
        n_validation = min(max(1, round(validation_fraction * len(chosen))), len(chosen) - 1)
    roles = ["training"] * (len(chosen) - n_validation) + ["validation"] * n_validation
    return pd.DataFrame({"file": chosen, "role": roles})


def divide(
    files: Sequence[str], fraction: float, validation_fraction: float, seed: int
) -> tuple[Split, pd.DataFrame]:
    """Return the rows of `files` for training and validation, and what `split` returns.

    Args:
        files, fraction, validation_fraction, seed: as in `split`.
    """
    chosen = split(files, fraction, validation_fraction, seed)
    full = split(files, 1.0, validation_fraction, seed)
    row = {file: index for index, file in enumerate(files)}
    roles = {
        role: [row[file] for file in chosen.loc[chosen["role"] == role, "file"]]
        for role in ("training", "validation")
    }
    return Split(**roles, full=int((full["role"] == "training").sum())), chosen
