"""The results folder: paths and formats of prepared images, teachers, fits and cells."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stpm_bench import grid
from stpm_bench.anomaly_map import anomaly_maps
from stpm_bench.errors import InputError
from stpm_bench.files import (
    forget_hashes,
    read_json,
    record_hashes,
    sha256,
    unreadable,
    verified,
    write_arrays,
    write_json,
    write_tensors,
)
from stpm_bench.grid import Cell
from stpm_bench.methods.interface import Scores, Teacher

# The version of the layout: paths, file names and formats. It is raised if this package could
# misread older results; a further file or column is no reason.
LAYOUT = 2

# The arrays of masks in the folder of the prepared test images, by treatment (how the masks were
# resized, a key of `datasets.masks.TREATMENTS`).
MASKS = {"nearest": "masks.npy", "bilinear_any": "masks_bilinear_any.npy"}
ORIGINAL_MASKS = "masks_own.npz"  # at their images' own size, one array per image

# The stages of a cell, and the file in which each records its settings, its inputs and its cost:
# the first two in the folder of the fit, the last in that of the cell.
STAGES = {"fit": "fit.json", "score": "score.json", "evaluate": "evaluation.json"}
# Each stage's other files.
FIT_FILES = ("model.pt", "history.csv", "split.csv")
SCORE_FILES = ("level_maps.npz",)
EVALUATION_FILES = ("metrics.json", "image_scores.csv", "pro_curve.csv", "pro_definitions.csv")
UNFINISHED = "unfinished.pt"  # the state of an unfinished training, in the folder of the fit


def cell_folder(results: str | Path, cell: Cell | str) -> Path:
    """Return the folder of a cell, with its metrics."""
    return Path(results, "cells", cell if isinstance(cell, str) else cell.folder)


def fit_folder(results: str | Path, fit: Cell | str) -> Path:
    """Return the folder of a fit, with its model and the level maps of the test images.

    Args:
        fit: the cell that the fit is named after (`grid.fits_of`), not another cell that shares
            the fit; or the name of the folder.
    """
    return Path(results, "fits", fit if isinstance(fit, str) else fit.folder)


def prepared_folder(results: str | Path, category: str, split: str) -> Path:
    """Return the folder of a category's prepared images of a split, 'train' or 'test'."""
    return Path(results, "prepared", category, split)


def stage_file(results: str | Path, cell: str, fit: str, stage: str) -> Path:
    """Return the record of a stage of a cell.

    Args:
        cell, fit: names of their folders.
    """
    folder = cell_folder(results, cell) if stage == "evaluate" else fit_folder(results, fit)
    return folder / STAGES[stage]


def check_layout(results: str | Path) -> None:
    """Reject results with another layout; record the layout of a new folder.

    Raises:
        InputError: another version of this package made these results.
    """
    marker = Path(results, "layout.json")
    if marker.exists():
        found = read_json(marker).get("layout")
    elif Path(results, "cells").is_dir():
        found = 1  # version 1 did not record it
    else:
        write_json(marker, {"layout": LAYOUT})
        return
    if found != LAYOUT:
        raise InputError(
            f"config key 'results': {results} holds results of layout {found}, made by another "
            f"version of stpm_bench; this one reads and writes layout {LAYOUT}. Name another "
            "folder with the config key 'results', or delete the old results and run again"
        )


def failure_of(fit: Path) -> str | None:
    """Return why a fit failed, None if it did not.

    Args:
        fit: its folder.
    """
    return read_json(fit / STAGES["fit"]).get("failure")


def write_scores(fit: Path, scores: Scores) -> None:
    """Write a method's scores of the test images to level_maps.npz in the folder of its fit."""
    arrays = dict(scores.level_maps)
    for variant, maps in scores.variants.items():
        arrays |= {f"{variant}/{name}": array for name, array in maps.items()}
    if scores.image_scores is not None:
        arrays["image_scores"] = scores.image_scores
    write_arrays(fit / "level_maps.npz", arrays)


def read_scores(fit: Path) -> Scores:
    """Read the scores that `write_scores` wrote."""
    level_maps, variants = {}, {}
    arrays = load_arrays(fit / "level_maps.npz")
    image_scores = arrays.pop("image_scores", None)
    for name, array in arrays.items():
        variant, slash, level = name.rpartition("/")
        (variants.setdefault(variant, {}) if slash else level_maps)[level] = array
    return Scores(level_maps, image_scores, variants)


def anomaly_maps_of(cell: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the level maps of a cell's fit, and the anomaly maps computed from them again.

    Args:
        cell: its folder.

    Returns:
        Name of a level -> (N, H_l, W_l) float32, and (N, S, S) float32, the maps from which the
        cell's metrics were computed.

    Raises:
        InputError: the cell's fit failed.
    """
    record = read_json(cell / STAGES["evaluate"])
    fit = fit_folder(cell.parents[1], record["fit"])
    if failure := failure_of(fit):
        raise InputError(f"{cell}: has no anomaly maps: its fit failed: {failure}")
    level_maps = read_scores(fit).level_maps
    # `masks` chooses among the prepared masks; all other fields are arguments of `anomaly_maps`.
    settings = {key: value for key, value in record["evaluation"].items() if key != "masks"}
    maps = anomaly_maps(list(level_maps.values()), record["image_size"], **settings)
    return level_maps, maps


# What every file of a teacher contains; that of an older version may lack 'degenerate'.
TEACHER_KEYS = {"backbone", "weights", "levels", "source"}


def write_teacher(path: Path, content: Mapping, description: dict) -> None:
    """Write a teacher: its weights, and a JSON file next to them that describes it.

    Args:
        content: has `TEACHER_KEYS`, and `degenerate`: level -> why it carries no information.
    """
    forget_hashes(path.with_suffix(".sha256"))
    write_tensors(path, dict(content))
    write_json(path.with_suffix(".json"), description | {"sha256": sha256(path)})
    record_hashes(path.with_suffix(".sha256"), path.name, path.with_suffix(".json").name)


def read_teacher(path: Path, levels: Sequence[int], device) -> Teacher:
    """Read a teacher, cut at `levels`, onto a device.

    Raises:
        InputError: the file is damaged or is not a teacher's, or the teacher does not have one of
            the levels.
    """
    from stpm_bench import backbone

    content = load_tensors(path, TEACHER_KEYS)
    missing = sorted(set(levels) - set(content["levels"]))
    if missing:
        raise InputError(
            f"{path}: the teacher {path.stem} ({content['source']}) has the levels "
            f"{', '.join(map(str, content['levels']))}, but not {', '.join(map(str, missing))}, "
            "which a study requires with 'layers'; use a file of weights with that level, or "
            "remove the level from the study"
        )
    network = backbone.create(content["backbone"], levels, seed=0)  # its weights are replaced
    backbone.load(network, content["weights"], str(path))
    return Teacher(content["backbone"], network.eval().to(device))


def degenerate(teacher: Path, levels: Sequence[int]) -> str | None:
    """Return why nothing can be fitted on a teacher: a level that carries no information."""
    reasons = load_tensors(teacher, TEACHER_KEYS).get("degenerate", {})
    for level in levels:
        if level in reasons:
            return (
                f"level {level} of the teacher {teacher.stem} carries no information: "
                f"{reasons[level]}; no method could find a defect in it"
            )
    return None


def read_model(fit: Path) -> dict:
    """Read the model of a fit: the `model` of `interface.Fitted`."""
    path = fit / "model.pt"
    if not path.exists():
        raise InputError(
            f"{path}: is missing: perhaps the models of this method are not kept (config key "
            "'keep_models'). Set the key to true and fit again"
        )
    return load_tensors(path, set())


def read_fitted(fit: Path, teacher: Path, levels: Sequence[int], device) -> tuple[Teacher, dict]:
    """Read the model of a fit, and its teacher, onto a device.

    Args:
        fit: its folder. teacher: its file.

    Raises:
        InputError: the fit failed, its model was not kept, the teacher is missing or is not that of
            the fit, or a file is damaged.
    """
    record = read_json(fit / STAGES["fit"])
    if record["failure"]:
        raise InputError(f"{fit}: has no model: the fit failed: {record['failure']}")
    if not teacher.is_file():
        raise InputError(
            f"{teacher}: no such file; expected the teacher on which {fit / 'model.pt'} was "
            "fitted, written by the step 'teacher'"
        )
    if (found := sha256(verified(teacher))) != record["teacher_sha256"]:
        raise InputError(
            f"{fit / 'model.pt'}: was fitted on another teacher than {teacher} (teacher_sha256 in "
            f"fit.json is {record['teacher_sha256']}, that file's is {found}); name the teacher "
            "of the fit, or fit again"
        )
    return read_teacher(teacher, levels, device), read_model(fit)


def load_tensors(path: Path, keys: set[str]) -> dict:
    """Load a file of tensors that a step wrote; it must contain `keys`."""
    import torch

    verified(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds of exceptions for damaged files
        raise unreadable(path, str(error).splitlines()[0]) from error
    if not (isinstance(content, dict) and keys <= set(content)):
        raise InputError(f"{path}: was not written by the step 'teacher' or 'fit'")
    return content


def load_array(path: Path) -> np.ndarray:
    """Read a .npy file that a step wrote."""
    verified(path)
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise unreadable(path, error) from error


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file that a step wrote."""
    verified(path)
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error) from error


def image_sides(results: Path, categories: Iterable[str]) -> dict[str, int]:
    """Return the longest side of a category's test images before they were prepared, in pixels.

    Read from the headers of the masks at the images' own size. A category that is not prepared or
    has no masks has no key.
    """
    found = {}
    for category in categories:
        path = prepared_folder(results, category, "test") / ORIGINAL_MASKS
        if not path.exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                sides = [max(shape_of(archive, name)) for name in archive.namelist()]
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise unreadable(path, error) from error
        if sides:
            found[category] = max(sides)
    return found


def shape_of(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Return the shape of an array in a .npz file from its header."""
    with archive.open(name) as member:
        np.lib.format.read_magic(member)  # 1.0: NumPy writes others only for arrays with fields
        return np.lib.format.read_array_header_1_0(member)[0]


def read_image_table(path: Path) -> pd.DataFrame:
    """Read a CSV with a row per image; a defect called 'NA' is a name, not a gap."""
    return pd.read_csv(verified(path), keep_default_na=False)


def read_teachers(results: Path, studies: pd.DataFrame) -> dict[str, list[dict]]:
    """Return the records of the draws of each teacher of the studies, as far as they exist."""
    found = {name: [] for name in studies["teacher"].unique()}
    for file, name in grid.teacher_files(studies).items():
        path = results / "teachers" / f"{file}.json"
        if path.exists():
            found[name].append(read_json(path))
    return found


def accuracies_of(results: Path, studies: pd.DataFrame) -> dict[str, float | None]:
    """Return the test accuracy of each teacher of the studies, the mean over its draws; None for a
    teacher not trained here."""
    found = {}
    for name, records in read_teachers(results, studies).items():
        known = [r["test_accuracy"] for r in records if r.get("test_accuracy") is not None]
        found[name] = float(np.mean(known)) if known else None
    return found


def categories_with_other_images(results: Path, config: dict) -> dict[str, tuple[int, int]]:
    """Return the categories with the name of one of MVTec AD's, but with other images.

    They are those whose numbers of images differ from MVTec AD's; equal numbers are taken as the
    same images. Downloaded or unpacked data were checked; for a user's folder the prepared images
    are counted. The demo's category has none of these names.

    Returns:
        Category -> its numbers of training and of test images.
    """
    from stpm_bench.config import unpacks_mvtec_ad
    from stpm_bench.datasets import mvtec

    if config["data"]["demo"] or unpacks_mvtec_ad(config["data"]):
        return {}
    found = {}
    for category in set(config["data"]["categories"]) & set(mvtec.CATEGORIES):
        folder = results / "prepared" / category
        manifests = [folder / split / "images.csv" for split in ("train", "test")]
        if all(path.exists() for path in manifests):
            counts = tuple(len(read_image_table(path)) for path in manifests)
            if counts != mvtec.COUNTS[category]:
                found[category] = counts
    return dict(sorted(found.items()))


def rows_of_study(studies_file: Path, study: str) -> pd.DataFrame:
    """Return a study's rows of studies.csv, columns `grid.AXES`.

    Raises:
        InputError: it has no such study.
    """
    table = grid.read(studies_file)
    rows = table.loc[table["study"] == study, list(grid.AXES)]
    if rows.empty:
        raise InputError(
            f"{studies_file}: no study {study!r}; its studies: {', '.join(table['study'].unique())}"
        )
    return rows
