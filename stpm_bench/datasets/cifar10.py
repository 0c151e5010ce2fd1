"""One-class CIFAR-10: each class in turn is normal, the other nine are its defects.

cifar-10-batches-py/{data_batch_1 ... data_batch_5, test_batch}, as torchvision unpacks them

A category trains on its class's images of the five batches (5,000) and is tested on all 10,000 of
test_batch. No pixel is marked: there are no masks.
"""

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stpm_bench.datasets.interface import INSIDE, Layout, Problem, Row, ScanResult
from stpm_bench.datasets.listing import both_kinds
from stpm_bench.errors import InputError

FOLDER = "cifar-10-batches-py"
# torchvision's names, in the order of the labels.
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# MD5 of the published files, as torchvision compares them.
PUBLISHED = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BATCHES = {"train": tuple(PUBLISHED)[:5], "test": tuple(PUBLISHED)[5:]}
SIDE = 32
IMAGES = {"train": 5000, "test": 10_000}  # of a category: its class only, and all classes


def read_batch(path: Path) -> tuple[np.ndarray, list[int]]:
    """Return a batch's images, (N, 32, 32, 3) uint8, and its N labels.

    Raises:
        InputError: it cannot be read, or is not a batch of CIFAR-10.
    """
    try:
        with open(path, "rb") as file:
            content = _Arrays(file, encoding="bytes").load()
        # The published files were written by Python 2, which did not separate bytes from text.
        content = {key.decode() if isinstance(key, bytes) else key: content[key] for key in content}
        planes, labels = np.asarray(content["data"]), [int(label) for label in content["labels"]]
    except Exception as error:  # a damaged pickle raises many kinds of exceptions
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: cannot be read ({reason}). Expected a batch of CIFAR-10 for Python; unpack "
            "cifar-10-python.tar.gz again."
        ) from error
    whole = planes.dtype == np.uint8 and planes.shape == (len(labels), 3 * SIDE * SIDE)
    if not whole or not set(labels) <= set(range(len(CLASSES))):
        raise InputError(
            f"{path}: holds {planes.dtype} data of shape {planes.shape} and {len(labels)} labels. "
            f"Expected uint8 of (N, {3 * SIDE * SIDE}) and N labels from 0 to {len(CLASSES) - 1}; "
            "unpack cifar-10-python.tar.gz again."
        )
    return planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels


class _Arrays(pickle.Unpickler):
    """Reads arrays; refuses to run anything else that a file asks for."""

    def find_class(self, module: str, name: str):
        """Return the functions that arrays are made with; reject all others."""
        array = module.startswith("numpy.") or module == "numpy"
        if (array and name in ("_reconstruct", "ndarray", "dtype", "_frombuffer")) or (
            (module, name) == ("_codecs", "encode")
        ):
            # The published files name numpy.core, which is numpy._core since 2.0.
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not an array")


def _categories(root: Path) -> list[str]:
    return list(CLASSES) if (root / FOLDER).is_dir() else []


def _folder(root: Path, category: str) -> Path:
    return root / FOLDER


def _sources(root: Path, category: str, split: str) -> list[Path]:
    return [root / FOLDER / name for name in BATCHES[split]]


def _scan(root: Path, category: str, split: str) -> ScanResult:
    rows, problems = [], []
    for path in _sources(root, category, split):
        try:
            _, labels = read_batch(path)
        except InputError as error:
            problems.append(Problem("error", str(error)))
            continue
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if digest != PUBLISHED[path.name]:
            text = (
                f"{path}: is not the published batch, by its MD5. Expected "
                f"{PUBLISHED[path.name]}; results on it are not comparable with published ones."
            )
            problems.append(Problem("warning", text))
        names = [CLASSES[label] for label in labels]
        rows += [
            Row(f"{path.name}{INSIDE}{i:05}", "good" if name == category else name, "")
            for i, name in enumerate(names)
            if name == category or split == "test"
        ]
    if not rows and not any(problem.severity == "error" for problem in problems):
        text = (
            f"{root / FOLDER}: has no {split} image of {category}. Expected some; unpack it again."
        )
        problems.append(Problem("error", text))
    elif rows and split == "test":
        kinds = {row.defect for row in rows}
        problems += both_kinds(root / FOLDER, kinds, "good", category, "the other classes")
    return rows, problems


def _inside(path: Path, indices: Sequence[int]) -> Iterator[np.ndarray]:
    images, _ = read_batch(path)
    yield from images[list(indices)]


LAYOUT = Layout(
    _categories,
    _scan,
    _sources,
    folder=_folder,
    inside=_inside,
    annotation="image",
    expected=f"{FOLDER}/ with data_batch_1 ... data_batch_5 and test_batch",
)
