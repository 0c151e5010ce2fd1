"""A look at a whole data set before anything is made of it: what is there, and what is wrong."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from stpm_bench.datasets.images import groups, read_images, read_mask, shared, to_8_bits
from stpm_bench.datasets.layouts import (
    LAYOUTS,
    NOT_THINNED,
    list_categories,
    no_category,
    scan,
    thinned,
)
from stpm_bench.datasets.regions import count_regions, vanished_regions
from stpm_bench.datasets.rows import Problem, Row
from stpm_bench.errors import InputError

COLUMNS = ("category", "split", "defect", "images", "masks", "sizes", "modes")


class Seen(NamedTuple):
    """One image after reading: size and mode are None and pixels '' where it cannot be read."""

    split: str
    row: Row
    size: tuple[int, int] | None
    mode: str | None
    pixels: str
    problem: str
    regions: tuple[int, int] | None = None


def check(
    root: str | Path,
    layout: str = "mvtec",
    workers: int | None = None,
    progress: bool = True,
    every: Mapping[str, int] = NOT_THINNED,
    image_size: int = 256,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read every image and mask of a data set as `images.prepare` does, and go on after an error.

    Besides what `prepare` refuses, it looks across files: an image of the test set that is a
    training image too, or both good and defective (both by their pixels, whatever the format), and
    images of several sizes in one category (a warning: they are squashed to one).

    Args:
        root: folder of the data set.
        layout: a key of `layouts.LAYOUTS`.
        workers: threads that decode; the processor's cores by default.
        progress: show a progress bar where the output is a terminal.
        every: split -> of its images every so many are read, see `layouts.thinned`.
        image_size: the side in pixels at which defects must show in their masks.

    Returns:
        table: columns `COLUMNS`, a row for each category, split and defect: the numbers of images
            and of masks; their sizes (width x height, upright) and Pillow's modes, as text.
        problems: each once, errors first.
    """
    root = Path(root)
    rows, problems, jobs = [], [], []
    categories = list_categories(root, layout)
    if not categories:
        problems.append(Problem("error", no_category(root, layout)))
    for category in categories:
        for split in ("train", "test"):
            found, wrong = scan(root, category, split, layout)
            problems += wrong
            kept = thinned(found, layout, every[split])
            together = groups([row.file for row in kept], layout)
            jobs += [(category, split, [kept[i] for i in rows]) for rows in together]

    seen: dict[str, list[Seen]] = defaultdict(list)
    total = sum(len(rows) for *_, rows in jobs)
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as executor,
        tqdm(desc=str(root), total=total, unit="image", disable=not progress) as bar,
    ):
        results = executor.map(lambda job: _look(root, *job, layout, image_size), jobs)
        for (category, _, rows_read), result in zip(jobs, results, strict=True):
            seen[category] += result
            bar.update(len(rows_read))

    for category, group in seen.items():
        rows += _summary(category, group)
        problems += [Problem("error", one.problem) for one in group if one.problem]
        folder = LAYOUTS[layout].folder(root, category)
        problems += _same_pixels(folder, group, layout)
        problems += _sizes(folder, group)
        regions = {one.row.mask: one.regions for one in group if one.regions}
        problems += vanished_regions(folder, regions, image_size)
    once = list(dict.fromkeys(problems))
    return pd.DataFrame(rows, columns=COLUMNS), sorted(once, key=lambda p: p.severity)


def _look(
    root: Path, category: str, split: str, rows: list[Row], layout: str, image_size: int
) -> list[Seen]:
    """Read some images, those of one of `groups`, and their masks."""
    folder = LAYOUTS[layout].folder(root, category)
    found = []
    images = read_images(folder, [row.file for row in rows], layout)
    for row in rows:
        size = mode = None
        pixels = problem = ""
        regions = None
        try:
            _, image = next(images)
            size, mode = image.size, image.mode
            rgb = to_8_bits(image, folder / row.file).convert("RGB")
            pixels = hashlib.sha256(repr(size).encode() + np.asarray(rgb).tobytes()).hexdigest()
            if row.mask:
                mask = read_mask(folder / row.mask, image, layout)
                if LAYOUTS[layout].truth == "regions":
                    regions = count_regions(mask, image_size)
        except InputError as error:
            problem = str(error)
        found.append(Seen(split, row, size, mode, pixels, problem, regions))
        if size is None:  # of what lies in the same file nothing more can be read
            break
    return found


def _summary(category: str, group: list[Seen]) -> list[tuple]:
    parts: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for one in group:
        parts[one.split, one.row.defect].append(one)
    return [
        (
            category,
            *part,
            len(members),
            sum(bool(one.row.mask) for one in members),
            _counted(f"{one.size[0]} x {one.size[1]}" for one in members if one.size),
            _counted(one.mode for one in members if one.mode),
        )
        for part, members in parts.items()
    ]


def _counted(values) -> str:
    """Return 'A' where all are A, 'A (9), B (1)' where they differ, '' where there is none."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return str(counts[0][0])
    return ", ".join(f"{value} ({count})" for value, count in counts)


def _same_pixels(folder: Path, group: list[Seen], layout: str) -> list[Problem]:
    """Find images with the pixels of an earlier one; the training images come first.

    Images inside larger files are the published set's, and cannot be taken out: there it is one
    warning for all.
    """
    first: dict[str, Seen] = {}
    problems = []
    for one in group:
        other = first.setdefault(one.pixels, one)
        if not one.pixels or other is one:
            continue
        path, earlier = folder / one.row.file, folder / other.row.file
        if one.split != other.split:
            problems.append(Problem("error", shared(path, earlier)))
        elif one.row.defect != other.row.defect:
            text = (
                f"{path}: is the same image as {earlier}, with another label. "
                "Expected one of the two; remove the wrong one."
            )
            problems.append(Problem("error", text))
        else:
            text = f"{path}: is the same image as {earlier}, and counts twice; remove one."
            problems.append(Problem("warning", text))
    if LAYOUTS[layout].inside and problems:
        worst = min(problems, key=lambda problem: problem.severity)
        text = f"{folder}: {len(problems)} images are the same as an earlier one, as {worst.text}"
        return [Problem("warning", text)]
    return problems


def _sizes(folder: Path, group: list[Seen]) -> list[Problem]:
    counts = Counter(one.size for one in group if one.size)
    if len(counts) < 2:
        return []
    usual = counts.most_common(1)[0][0]
    other = next(one for one in group if one.size and one.size != usual)
    text = (
        f"{folder / other.row.file}: is {other.size[0]} x {other.size[1]} pixels, most of its "
        f"category {usual[0]} x {usual[1]} ({len(counts)} sizes in all). Expected one size: each "
        "image is squashed to the same square, so that they are distorted differently."
    )
    return [Problem("warning", text)]
