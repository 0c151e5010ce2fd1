"""The sets on which teachers are trained: the labelled images of a source, all in memory."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from stpm_bench.datasets import transfer
from stpm_bench.datasets.bit_depth import deep_extremes, span, to_8_bits
from stpm_bench.datasets.images import read_image
from stpm_bench.errors import InputError

_SIDE = 32  # of digits, the same as in CIFAR and SVHN
_SEED = 0  # of random choices for a source (its split): the same for every teacher

# Photographs of several things, from scikit-image's wheel.
_PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "cell",
    "chelsea",
    "clock",
    "coffee",
    "coins",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
    "stereo_motorcycle",
    "text",
)

# The files that torchvision expects below its root, for users who put them there by hand.
_TORCHVISION_FILES = {
    "mnist": "MNIST/raw/{train-images-idx3,train-labels-idx1,t10k-images-idx3,t10k-labels-idx1}"
    "-ubyte",
    "cifar10": "cifar-10-python.tar.gz, or cifar-10-batches-py/ unpacked from it",
    "cifar100": "cifar-100-python.tar.gz, or cifar-100-python/ unpacked from it",
    "svhn": "train_32x32.mat and test_32x32.mat",
}
_DIGITS = [str(digit) for digit in range(10)]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Pretraining(NamedTuple):
    """A labelled image set.

    train_images, test_images: (N, H, W, 3) uint8, 0 to 255, RGB; one H and W in both.
    train_labels, test_labels: (N,) int64, indices into `classes`.
    classes: the names of the classes.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: list[str]


def load(source: str, folder: str | Path | None = None) -> Pretraining:
    """Load a pretraining source.

    Args:
        source: a name in `SOURCES`.
        folder: where mnist, cifar10, cifar100 and svhn are, or are downloaded to; not needed for
            digits.

    Raises:
        InputError: an unknown source; no `folder` where one is needed; files that are missing and
            cannot be downloaded, or cannot be read.
    """
    if source not in SOURCES:
        raise InputError(f"pretraining source {source!r} is unknown. Allowed: {', '.join(SOURCES)}")
    return SOURCES[source](folder)


def load_digits(folder: str | Path | None = None) -> Pretraining:
    """Return scikit-learn's 1797 handwritten digits at 32 x 32, a fifth of each class held out.

    They are part of scikit-learn; `folder` is not used.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The values of the source go from 0 to 16.
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = _stack([_resize(Image.fromarray(image), _SIDE) for image in grey])
    return _split(images, digits.target.astype(np.int64), 0.2, list(_DIGITS))


def photographs(size: int = 256) -> np.ndarray:
    """Return the bundled photographs, (15, size, size, 3) uint8, RGB."""
    return _stack([_resize(_photograph(name).convert("RGB"), size) for name in _PHOTOGRAPHS])


def load_folder(path: str | Path, size: int = 32) -> Pretraining:
    """Load `path`/train/CLASS/* and `path`/test/CLASS/*, images of any mode and size.

    Images become RGB and are resized to `size` x `size`, without keeping their aspect ratio; more
    than 8 bits per channel are scaled by the range of the images in train/. Without a test folder a
    tenth of each class is held out, always the same. Files without an image suffix are ignored.

    Raises:
        InputError: no train folder, fewer than two classes, a class without images, a class that
            train/ lacks, a single image in a class that must be split, an unreadable image.
    """
    path = Path(path)
    expected = f"Expected {path}/train/CLASS/*.png (or .jpg, ...), and the same below test/"
    if not (path / "train").is_dir():
        raise InputError(
            f"{path / 'train'}: no such folder. {expected}; the config key "
            "'teachers.NAME.pretrain.folder' names it."
        )
    classes = _subfolders(path / "train")
    if len(classes) < 2:
        raise InputError(
            f"{path / 'train'}: a classifier needs at least two classes, found "
            f"{', '.join(classes) or 'none'}. {expected}, one folder per class."
        )
    files = [file for name in classes for file in _image_files(path / "train" / name)]
    intensity = span(deep_extremes(files).values())
    images, labels = _labelled(path / "train", classes, classes, size, intensity)
    if not (path / "test").exists():
        for label, name in enumerate(classes):
            if np.count_nonzero(labels == label) < 2:
                raise InputError(
                    f"{path / 'train' / name}: only one image, but without {path / 'test'} "
                    "a tenth of each class is held out. Add images, or a test folder."
                )
        return _split(images, labels, 0.1, classes)
    test_classes = _subfolders(path / "test")
    if not test_classes:
        raise InputError(
            f"{path / 'test'}: contains no class folders. {expected}; or remove it, and a tenth of "
            "train/ is held out instead."
        )
    for name in test_classes:
        if name not in classes:
            raise InputError(
                f"{path / 'test' / name}: class {name!r} is not in train/, which has "
                f"{', '.join(classes)}. Rename or remove it, or add it to train/."
            )
    return Pretraining(
        images, labels, *_labelled(path / "test", test_classes, classes, size, intensity), classes
    )


def _load_torchvision(source: str, folder: str | Path | None) -> Pretraining:
    """Load mnist, cifar10, cifar100 or svhn below `folder`; download missing files."""
    folder = _required(source, folder)
    # Imported here: torchvision takes seconds to import, and digits do not need it.
    from torchvision import datasets

    make, parts = {
        "mnist": (datasets.MNIST, ({"train": True}, {"train": False})),
        "cifar10": (datasets.CIFAR10, ({"train": True}, {"train": False})),
        "cifar100": (datasets.CIFAR100, ({"train": True}, {"train": False})),
        "svhn": (datasets.SVHN, ({"split": "train"}, {"split": "test"})),
    }[source]
    try:
        try:
            train, test = (make(root=folder, **part) for part in parts)
        except RuntimeError:  # torchvision raises this for missing or damaged files
            folder.mkdir(parents=True, exist_ok=True)
            # A second job that waited for the lock finds the files there.
            with transfer.locked(folder / f".{source}.lock"), _read_timeout():
                train, test = (make(root=folder, download=True, **part) for part in parts)
    # Network and disk errors, and the exceptions of torchvision's readers for damaged files.
    except (OSError, HTTPException, RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"pretraining source {source!r}: is not complete in {folder}, and the download failed "
            f"({reason}); another run starts it from the beginning. Put "
            f"{_TORCHVISION_FILES[source]} there, or name another folder with the config key "
            "'data.folder'."
        ) from error
    if source == "svhn":
        # (N, 3, H, W); torchvision has already changed its label 10 to the digit 0.
        arrays = [(part.data.transpose(0, 2, 3, 1), part.labels) for part in (train, test)]
    elif source == "mnist":
        arrays = [(_rgb(part.data.numpy()), part.targets) for part in (train, test)]
    else:
        arrays = [(part.data, part.targets) for part in (train, test)]
    (train_images, train_labels), (test_images, test_labels) = arrays
    return Pretraining(
        np.ascontiguousarray(train_images),
        np.asarray(train_labels, np.int64),
        np.ascontiguousarray(test_images),
        np.asarray(test_labels, np.int64),
        list(_DIGITS) if source in ("mnist", "svhn") else list(train.classes),
    )


SOURCES = {
    "digits": load_digits,
    "mnist": partial(_load_torchvision, "mnist"),
    "cifar10": partial(_load_torchvision, "cifar10"),
    "cifar100": partial(_load_torchvision, "cifar100"),
    "svhn": partial(_load_torchvision, "svhn"),
}


def _required(source: str, folder: str | Path | None) -> Path:
    if folder is None:
        raise InputError(
            f"pretraining source {source!r} needs a folder. Name it with the config key "
            "'data.folder'."
        )
    return Path(folder)


@contextmanager
def _read_timeout() -> Iterator[None]:
    """Time out if a server sends nothing; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(transfer.READ_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _photograph(name: str) -> Image.Image:
    import skimage.data

    pixels = getattr(skimage.data, name)()
    # The motorcycle is a tuple: left view, right view, disparity.
    return Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels)


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)


def _labelled(
    folder: Path,
    names: list[str],
    classes: list[str],
    size: int,
    intensity: tuple[float, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of the class folders `names` and their labels, indices into `classes`."""
    images, labels = [], []
    for name in names:
        files = _image_files(folder / name)
        if not files:
            raise InputError(
                f"{folder / name}: is a class without images. Expected files named "
                f"{', '.join(f'*{suffix}' for suffix in sorted(_SUFFIXES))}; add some, or remove "
                "the folder."
            )
        images += [_resize(to_8_bits(read_image(f)[1], f, intensity), size) for f in files]
        labels += [classes.index(name)] * len(files)
    return _stack(images), np.array(labels, np.int64)


def _resize(image: Image.Image, side: int) -> np.ndarray:
    """Return an image as uint8 (side, side) or (side, side, 3), antialiased bilinear."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _rgb(grey: np.ndarray) -> np.ndarray:
    """Grey levels (..., H, W) as three equal channels (..., H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=-1)


def _stack(images: list[np.ndarray]) -> np.ndarray:
    """Stack images of one size, grey or RGB, to (N, H, W, 3)."""
    return np.stack([image if image.ndim == 3 else _rgb(image) for image in images])


def _split(images: np.ndarray, labels: np.ndarray, share: float, classes: list[str]) -> Pretraining:
    """Hold out `share` of each class, at least one image, chosen by the fixed seed."""
    rng = np.random.default_rng(_SEED)
    test = np.zeros(len(labels), bool)
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero(labels == label))
        test[members[: max(1, round(share * len(members)))]] = True
    return Pretraining(images[~test], labels[~test], images[test], labels[test], classes)
