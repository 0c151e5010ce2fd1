"""Checks a whole data set before anything is made from it: its content, and any problems."""

import hashlib
import itertools
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from stpm_bench.datasets.bit_depth import bit_depth_problems, deep_levels, extremes_of, to_8_bits
from stpm_bench.datasets.images import groups, read_images
from stpm_bench.datasets.interface import DEFAULT_OPTIONS, Problem, ReadOptions, Row
from stpm_bench.datasets.layouts import (
    EVERY_IMAGE,
    LAYOUTS,
    list_categories,
    no_category,
    select_images,
)
from stpm_bench.datasets.listing import folders, image_files, images_below
from stpm_bench.datasets.masks import doubtful_masks, marked_good, nearest, percent, read_mask
from stpm_bench.datasets.prepare import leak_message
from stpm_bench.datasets.regions import count_regions, vanished_regions
from stpm_bench.errors import InputError

COLUMNS = ("category", "split", "defect", "images", "masks", "sizes", "modes")


class CheckedImage(NamedTuple):
    """One image after reading: size and mode are None and pixels '' if it cannot be read.

    extremes: as in `bit_depth.extremes_of`. marked: of its mask, as in `masks.doubtful_masks`.
    """

    split: str
    row: Row
    size: tuple[int, int] | None = None
    mode: str | None = None
    pixels: str = ""
    extremes: tuple[float, float] | None = None
    marked: tuple[float, int] | None = None
    regions: tuple[int, int] | None = None
    problem: str = ""


def check_folder(
    root: str | Path,
    layout: str = "mvtec",
    workers: int | None = None,
    progress: bool = True,
    every: Mapping[str, int] = EVERY_IMAGE,
    image_size: int = 256,
    read_options: ReadOptions = DEFAULT_OPTIONS,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read every image and mask of a data set as `prepare.prepare` does, continuing after errors.

    In addition to the errors of `prepare`, it compares files. Errors: an image of the test set that
    is a training image too, or is both good and defective (both by their pixels, whatever the
    format). Warnings: images of several sizes in one category (all are squashed to one size), and
    folders with images that are not a category.

    Args:
        root: folder of the data set.
        layout: a key of `layouts.LAYOUTS`.
        workers: threads that decode; the processor's cores by default.
        progress: show a progress bar if the output is a terminal.
        every: split -> read one image in this many, see `layouts.subsample`.
        image_size: the side in pixels at which defects must be visible in their masks.
        read_options: how the set's files are read.

    Returns:
        table: columns `COLUMNS`, one row for each category, split and defect: the numbers of images
            and of masks; their size (width x height, upright), or how many sizes there are, and
            Pillow's modes, as text.
        problems: without duplicates, errors first.
    """
    root = Path(root)
    rows, problems, jobs = [], [], []
    categories = list_categories(root, layout)
    if not categories:
        problems.append(Problem("error", no_category(root, layout)))
    for category in categories:
        for split in ("train", "test"):
            kept, wrong = select_images(root, category, split, layout, every[split])
            problems += wrong
            together = groups([row.file for row in kept], layout)
            jobs += [(category, split, [kept[i] for i in rows]) for rows in together]
    if categories and not LAYOUTS[layout].expected:
        problems += _no_categories(root, categories)

    seen: dict[str, list[CheckedImage]] = defaultdict(list)
    total = sum(len(rows) for *_, rows in jobs)
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as executor,
        tqdm(desc=str(root), total=total, unit="image", disable=not progress) as bar,
    ):
        results = executor.map(
            lambda job: _read_rows(root, *job, layout, image_size, read_options), jobs
        )
        for (category, _, rows_read), result in zip(jobs, results, strict=True):
            seen[category] += result
            bar.update(len(rows_read))

    for category, group in seen.items():
        rows += _summary(category, group)
        problems += [Problem("error", one.problem) for one in group if one.problem]
        folder = LAYOUTS[layout].folder(root, category)
        problems += _same_pixels(folder, group, layout)
        problems += _sizes(folder, group)
        extremes = {
            split: {folder / one.row.file: one.extremes for one in group if one.split == split}
            for split in ("train", "test")
        }
        for split, split_extremes in extremes.items():
            problems += bit_depth_problems(
                folder, split, extremes["train"], split_extremes, read_options
            )
        marked = {folder / one.row.mask: one.marked for one in group if one.marked}
        problems += doubtful_masks(folder, marked, image_size)
        regions = {one.row.mask: one.regions for one in group if one.regions}
        problems += vanished_regions(folder, regions, image_size)
        problems += marked_good(root, category, layout, read_options)
    once = list(dict.fromkeys(problems))
    return pd.DataFrame(rows, columns=COLUMNS), sorted(once, key=lambda p: p.severity)


def _read_rows(
    root: Path,
    category: str,
    split: str,
    rows: list[Row],
    layout: str,
    image_size: int,
    read_options: ReadOptions,
) -> list[CheckedImage]:
    """Read some images, those of one of `groups`, and their masks."""
    folder = LAYOUTS[layout].folder(root, category)
    found = []
    images = read_images(folder, [row.file for row in rows], layout, read_options)
    for row in rows:
        one = CheckedImage(split, row)
        try:
            _, image = next(images)
            mode = f"{image.mode};16" if "low_bytes" in image.info else image.mode
            one = one._replace(size=image.size, mode=mode)
            one = one._replace(extremes=extremes_of(image, folder / row.file))
            # A deep image's range is known after all are read; until then its values are compared.
            values = deep_levels(image)
            if values is None:
                values = np.asarray(to_8_bits(image, folder / row.file).convert("RGB"))
            content = repr(image.size).encode() + np.ascontiguousarray(values).tobytes()
            one = one._replace(pixels=hashlib.sha256(content).hexdigest())
            if row.mask:
                mask = read_mask(folder / row.mask, image, layout, read_options)
                one = one._replace(marked=(mask.mean(), nearest(mask, image_size).sum()))
                if LAYOUTS[layout].annotation == "regions":
                    one = one._replace(regions=count_regions(mask, image_size))
        except InputError as error:
            one = one._replace(problem=str(error))
        found.append(one)
        if one.size is None:  # nothing more can be read from the same file
            break
    return found


def _summary(category: str, group: list[CheckedImage]) -> list[tuple]:
    parts: dict[tuple[str, str], list[CheckedImage]] = defaultdict(list)
    for one in group:
        parts[one.split, one.row.defect].append(one)
    return [
        (
            category,
            *part,
            len(members),
            sum(bool(one.row.mask) for one in members),
            _sized([one.size for one in members if one.size]),
            _counted(one.mode for one in members if one.mode),
        )
        for part, members in parts.items()
    ]


def _sized(sizes: list[tuple[int, int]]) -> str:
    """Return '448 x 448' if all sizes are equal, '13 sizes' if they differ, '' if there is none."""
    different = set(sizes)
    return f"{len(different)} sizes" if len(different) > 1 else "".join(map(_size, different))


def _counted(values) -> str:
    """Return 'A' if all values are A, 'A (9), B (1)' if they differ, '' if there are none."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return str(counts[0][0])
    return ", ".join(f"{value} ({count})" for value, count in counts)


def _same_pixels(folder: Path, group: list[CheckedImage], layout: str) -> list[Problem]:
    """Find images with the same pixels as an earlier one; the training images come first.

    Images inside larger files belong to the published set and cannot be removed: there is one
    warning for all of them.
    """
    first: dict[str, CheckedImage] = {}
    problems = []
    for one in group:
        other = first.setdefault(one.pixels, one)
        if not one.pixels or other is one:
            continue
        path, earlier = folder / one.row.file, folder / other.row.file
        if one.split != other.split:
            problems.append(Problem("error", leak_message(path, earlier)))
        elif one.row.defect != other.row.defect:
            text = (
                f"{path}: is the same image as {earlier}, but has another label. "
                "Expected one label; remove the wrong one."
            )
            problems.append(Problem("error", text))
        else:
            text = f"{path}: is the same image as {earlier}, which counts twice; remove one."
            problems.append(Problem("warning", text))
    if LAYOUTS[layout].inside and problems:
        worst = min(problems, key=lambda problem: problem.severity)
        text = (
            f"{folder}: {len(problems)} images are the same as an earlier one, such as {worst.text}"
        )
        return [Problem("warning", text)]
    return problems


def in_columns(table: pd.DataFrame, width: int = 80) -> str:
    """Return a table as lines of at most `width` characters, as far as its texts can be wrapped.

    Numbers are right-aligned; the widest text columns are wrapped.
    """
    cells = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [i for i, number in enumerate(numeric) if not number]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths[i] for i in texts) > 8:
        widths[max(texts, key=widths.__getitem__)] -= 1
    lines = []
    for row in cells:
        folded = [textwrap.wrap(text, wide) for text, wide in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*folded, fillvalue=""):
            aligned = [
                part.rjust(wide) if number else part.ljust(wide)
                for part, wide, number in zip(parts, widths, numeric, strict=True)
            ]
            lines.append("  ".join(aligned).rstrip())
    lines.insert(1, "  ".join("-" * wide for wide in widths))
    return "\n".join(lines)


def _sizes(folder: Path, group: list[CheckedImage]) -> list[Problem]:
    """Warn if the images of a category have several sizes."""
    counts = Counter(one.size for one in group if one.size)
    if len(counts) < 2:
        return []
    smallest, largest = (_size(pick(counts, key=_area)) for pick in (min, max))
    [(usual, count)] = counts.most_common(1)
    other = next(one for one in group if one.size and one.size != usual)
    text = (
        f"{folder / other.row.file}: has {_size(other.size)} pixels. Its category has "
        f"{len(counts)} sizes, from {smallest} to {largest}; {percent(count / counts.total())} of "
        f"the images have the most common one, {_size(usual)}. Expected one size: every image is "
        "resized to the same square, so that images of different shapes are distorted differently."
    )
    return [Problem("warning", text)]


def _area(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] * size[1], size[0]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _no_categories(root: Path, categories: Sequence[str]) -> list[Problem]:
    """Warn of folders with images that are not among the categories and are ignored."""
    return [
        Problem(
            "warning",
            f"{folder}: {len(found)} image(s) are ignored. Expected train/ and test/ in the "
            "folder of a category; add them, or move the folder away.",
        )
        for folder in folders(root)
        if folder.name not in categories and (found := image_files(folder) + images_below(folder))
    ]
