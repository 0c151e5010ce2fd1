"""Reads a category's images and masks into arrays, once for all cells."""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from stpm_bench.datasets.bit_depth import (
    bit_depth_problems,
    extremes_of,
    span,
    to_8_bits,
    training_extremes,
)
from stpm_bench.datasets.images import groups, read_images
from stpm_bench.datasets.interface import DEFAULT_OPTIONS, ReadOptions
from stpm_bench.datasets.layouts import LAYOUTS, list_images, raise_errors, raise_or_warn
from stpm_bench.datasets.masks import TREATMENTS, doubtful_masks, marked_good, nearest, read_mask
from stpm_bench.datasets.regions import count_regions, vanished_regions
from stpm_bench.errors import InputError


def prepare(
    root: str | Path,
    category: str,
    split: str,
    image_size: int = 256,
    workers: int | None = None,
    progress: bool = True,
    layout: str = "mvtec",
    every: int = 1,
    read_options: ReadOptions = DEFAULT_OPTIONS,
) -> tuple[np.ndarray, dict[str, np.ndarray | list] | None, pd.DataFrame]:
    """Read one split of a category into arrays.

    Images of any shape are squashed to a square, as is usual in the field, by antialiased bilinear
    interpolation. Greyscale, palette, CMYK and 16-bit images become RGB with 8 bits, transparency
    is dropped and EXIF rotation applied. 16 bits are scaled over the range of the training images,
    or that of `read_options`, and not by each image's own values: equal values stay equal, in both
    splits. Values outside the range are clipped.

    Masks are resized by each of `TREATMENTS`. Resized by nearest neighbour they never get
    thicker, but a defect so small that no sample falls on it vanishes; in the table the image
    remains defective, its `defect_pixels` is 0 and a warning names it. So take an image's label
    from `defect`, not from its mask.

    The result does not depend on the number of workers.

    Args:
        root: folder of the data set.
        category: name of a folder in it.
        split: 'train' or 'test'.
        image_size: side S of the square, in pixels.
        workers: threads that decode; the processor's cores by default.
        progress: show a progress bar if the output is a terminal.
        layout: a key of `layouts.LAYOUTS`.
        every: as in `layouts.subsample`.
        read_options: how the set's files are read.

    Returns:
        images: (N, S, S, 3) uint8, RGB.
        masks: for each of `TREATMENTS`, (N, S, S) bool, True on a defect, (0, S, S) for a set
            without masks; under 'own' the N masks (H, W) bool at their images' own size, none for a
            set without regions (see `interface.Layout`); None for 'train'.
        table: N rows in the images' order: the columns of `list_images`, then `sha256` of the
            image file's bytes (inside a larger file, of the image's RGB values), then, if there are
            masks, `defect_pixels`, how many pixels of the nearest one are True, then, for a set
            with regions, `regions` and `regions_left`, see `regions.count_regions`.

    Raises:
        InputError: any error of `list_images`; an image or mask that cannot be read, is truncated
            or empty, or holds several images; a mask that differs in size from its image, or is
            not binary, transparent or without a defect; a mask that marks an anomaly-free image.
            All files with a problem are found; the first ten are named.
    """
    folder = LAYOUTS[layout].folder(Path(root), category)
    annotation = LAYOUTS[layout].annotation
    masked = annotation != "image"
    table = list_images(root, category, split, layout, every)
    images = np.empty((len(table), image_size, image_size, 3), np.uint8)
    shape = (len(table) if masked else 0, image_size, image_size)
    masks = {name: np.zeros(shape, bool) for name in TREATMENTS}
    masks["own"] = [None] * len(table) if annotation == "regions" else []
    digests = np.full(len(table), "", object)
    regions = np.zeros((len(table), 2), int)
    trained = training_extremes(root, category, layout, read_options)
    intensity = read_options.intensity or span(trained.values())
    # File -> its extremes; mask -> the share of its pixels that is marked, and how many are left.
    extremes, marked = {}, {}

    def read(rows: list[int]) -> str:
        """Fill some rows of the arrays; return a problem or ''."""
        files = list(table["file"].iloc[rows])
        try:
            for index, (content, image) in zip(
                rows, read_images(folder, files, layout, read_options), strict=True
            ):
                path = folder / table["file"].iloc[index]
                extremes[path] = extremes_of(image, path)
                images[index] = _resized(to_8_bits(image, path, intensity), image_size)
                mask = None
                if mask_file := table["mask"].iloc[index]:
                    mask = read_mask(folder / mask_file, image, layout, read_options)
                    marked[folder / mask_file] = mask.mean(), nearest(mask, image_size).sum()
                    for name, treatment in TREATMENTS.items():
                        masks[name][index] = treatment(mask, image_size)
                    if annotation == "regions":
                        regions[index] = count_regions(mask, image_size)
                if annotation == "regions" and split == "test":
                    none = np.zeros((image.height, image.width), bool)
                    masks["own"][index] = none if mask is None else mask
                digests[index] = hashlib.sha256(content).hexdigest()
        except InputError as error:
            return str(error)
        return ""

    together = groups(list(table["file"]), layout)
    problems = []
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as executor,
        tqdm(
            desc=f"{category} {split}",
            total=len(table),
            unit="image",
            disable=None if progress else True,  # None: only if there is a terminal
        ) as bar,
    ):
        for rows, problem in zip(together, executor.map(read, together), strict=True):
            problems += [problem] if problem else []
            bar.update(len(rows))

    raise_errors(problems)
    # The workers finish in any order, but the first problem of each kind is named.
    extremes = {path: extremes[path] for file in table["file"] if (path := folder / file)}
    marked = {path: marked[path] for mask in table["mask"] if mask and (path := folder / mask)}
    found = bit_depth_problems(folder, split, trained, extremes, read_options)
    if split == "test":
        found += doubtful_masks(folder, marked, image_size)
        found += marked_good(root, category, layout, read_options)
    raise_or_warn(found)
    table["sha256"] = digests
    if masked:
        table["defect_pixels"] = masks["nearest"].sum(axis=(1, 2))
    if annotation == "regions":
        table["regions"], table["regions_left"] = regions.T
        if split == "test":
            counts = zip(table["mask"], map(tuple, regions), strict=True)
            raise_or_warn(
                vanished_regions(folder, {mask: n for mask, n in counts if mask}, image_size)
            )
    return images, None if split == "train" else masks, table


def check_no_leak(
    train: pd.DataFrame, test: pd.DataFrame, root: str | Path, category: str, layout: str = "mvtec"
) -> None:
    """Raise an InputError if a test image is a training image too, by `sha256`.

    Images inside larger files belong to the published set and cannot be removed: for them it is a
    warning.

    Args:
        train, test: the tables that `prepare` returns.
        root, category, layout: as in `prepare`.
    """
    folder = LAYOUTS[layout].folder(Path(root), category)
    trained = dict(zip(train["sha256"], train["file"], strict=True))
    leaked = [
        leak_message(folder / row.file, folder / trained[row.sha256])
        for row in test.itertuples()
        if row.sha256 in trained
    ]
    if not LAYOUTS[layout].inside:
        raise_errors(leaked)
    elif leaked:
        warnings.warn(f"{len(leaked)} test images; the first: {leaked[0]}", stacklevel=2)


def leak_message(test: Path, train: Path) -> str:
    """Return the message that a test image is a training image too."""
    return (
        f"{test}: is the same image as {train}. Expected no training image in the test set, since "
        "the metrics would be too high; remove one of the two."
    )


def as_prepared(
    image: Image.Image, path: Path, size: int, intensity: tuple[float, float] | None = None
) -> np.ndarray:
    """Convert an image from `read_image` in the same way as `prepare`: (size, size, 3) uint8, RGB.

    Args:
        path, intensity: as in `bit_depth.to_8_bits`.
    """
    return _resized(to_8_bits(image, path, intensity), size)


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """Return an image in mode 'L' or 'RGB' as a (size, size, 3) uint8 array."""
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))
