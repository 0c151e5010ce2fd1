"""The layout of MVTec AD, MPDD and BTAD: the folder of an image tells its kind.

CATEGORY/train/good/*.png
CATEGORY/test/good/*.png
CATEGORY/test/DEFECT/*.png
CATEGORY/ground_truth/DEFECT/*_mask.png

BTAD has 'ok' instead of 'good', and 'ko' as the only defect; the files in its
CATEGORY/ground_truth/ko/ have the same names as its images. MPDD: Jezek et al., 2021. BTAD: Mishra
et al., 2021.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stpm_bench.datasets.interface import Layout, Problem, Row, ScanResult
from stpm_bench.datasets.listing import (
    SUFFIXES,
    both_kinds,
    composed,
    folders,
    image_files,
    images_below,
    same_but_for_case,
)

# What is appended to an image's name for its mask, if the two are in the same folder.
MASK_ENDINGS = ("_mask", "_gt", "_label")


def layout(good: str) -> Layout:
    """Return the layout of folders whose anomaly-free images are in folders called `good`."""
    return Layout(
        _categories,
        partial(_scan, good=good),
        _sources,
        good_masks=partial(_good_masks, good=good),
    )


def _categories(root: Path) -> list[str]:
    """Return the subfolders that hold train/ or test/."""
    return [
        folder.name
        for folder in folders(root)
        if (folder / "train").is_dir() or (folder / "test").is_dir()
    ]


def _sources(root: Path, category: str, split: str) -> list[Path]:
    names = ["train"] if split == "train" else ["test", "ground_truth"]
    return [path for name in names if (path := root / category / name).is_dir()]


def _scan(root: Path, category: str, split: str, *, good: str) -> ScanResult:
    """Scan a category whose anomaly-free images are in folders called `good`."""
    scan_split = _scan_train if split == "train" else _scan_test
    return scan_split(root / category, good)


def _scan_train(folder: Path, good: str) -> ScanResult:
    train = folder / "train" / good
    if not train.is_dir():
        return [], [
            Problem(
                "error",
                f"{train}: no such folder. Training images are expected there, as in "
                f"{folder.name}/train/{good}/000.png; move the anomaly-free images into it.",
            )
        ]
    images, problems = image_files(train), _unexpected(train)
    if not images:
        problems.append(
            Problem(
                "error",
                f"{train}: contains no image. Expected anomaly-free training images "
                f"({' '.join(SUFFIXES)}) directly in it; put them there.",
            )
        )
    if loose := image_files(folder / "train"):
        text = (
            f"{loose[0]}: is directly in train/{_and_more(loose)}. Expected anomaly-free "
            f"training images in train/{good}; move them into it, or out of the data set."
        )
        problems.append(Problem("error", text))
    problems += _masks_among_images(images, set())
    for other in folders(folder / "train"):
        if other.name != good and (found := image_files(other) + images_below(other)):
            problems.append(
                Problem(
                    "warning",
                    f"{other}: {len(found)} image(s) are ignored. Only train/{good} is used for "
                    "training; move those without an anomaly into it.",
                )
            )
    for other in folders(folder):
        if other.name not in ("train", "test", "ground_truth") and (
            found := image_files(other) + images_below(other)
        ):
            text = (
                f"{other}: {len(found)} image(s) are ignored. Only train/{good}, test/ and "
                f"ground_truth/ are read; validation images are chosen from train/{good}. Move "
                "those without an anomaly there."
            )
            problems.append(Problem("warning", text))
    if loose := image_files(folder):
        text = (
            f"{loose[0]}: is ignored{_and_more(loose)}. Only train/{good}, test/ and "
            "ground_truth/ are read; move it into one of them."
        )
        problems.append(Problem("warning", text))
    return [Row(f"train/{good}/{image.name}", "good", "") for image in images], problems


def _scan_test(folder: Path, good: str) -> ScanResult:
    test, truth = folder / "test", folder / "ground_truth"
    images = {defect.name: found for defect in folders(test) if (found := image_files(defect))}
    problems = [
        Problem(
            "error",
            f"{image}: is directly in test/. Expected test/{good}/{image.name} or "
            f"test/DEFECT/{image.name}; move it into the folder of its defect.",
        )
        for image in image_files(test)
    ]
    problems += same_but_for_case(folders(test))
    problems += [problem for defect in folders(test) for problem in _unexpected(defect)]
    if not images:
        text = (
            f"{test}: contains no image. Expected test/{good}/*.png and test/DEFECT/*.png, "
            "one folder per kind of defect; put the test images there."
        )
        return [], [Problem("error", text), *problems]
    problems += both_kinds(test, set(images), good, f"test/{good}", "test/DEFECT")
    problems += _misplaced_masks(truth)
    if good != "good" and "good" in images:
        text = f"{test / 'good'}: expected anomaly-free images in test/{good}; rename it."
        problems.append(Problem("error", text))
        del images["good"]

    good_images = images.pop(good, [])
    problems += _masks_among_images(good_images, set())
    rows = [Row(f"test/{good}/{image.name}", "good", "") for image in good_images]
    masks = {
        defect.name: found
        for defect in folders(truth)
        if defect.name != good and (found := image_files(defect))
    }
    for defect in sorted({*images, *masks}):
        defect_images, their_masks = images.get(defect, []), masks.get(defect, [])
        pairs, mismatched = _match_masks(defect_images, their_masks, test / defect, truth / defect)
        masked = {composed(mask.stem).removesuffix("_mask") for mask in their_masks}
        problems += mismatched + _masks_among_images(defect_images, masked)
        rows += [
            Row(
                f"test/{defect}/{image.name}",
                defect,
                f"ground_truth/{defect}/{mask.name}" if mask else "",
            )
            for image, mask in pairs
        ]
    return rows, problems


def _match_masks(
    images: list[Path], masks: list[Path], test: Path, truth: Path
) -> tuple[list[tuple[Path, Path | None]], list[Problem]]:
    """Pair each image of one defect with its mask, by name; None if it has none."""
    problems = []
    by_stem: dict[str, Path] = {}
    for image in images:
        other = by_stem.setdefault(composed(image.stem), image)
        if other != image:
            problems.append(
                f"{other} and {image.name}: two images with the same name, so that it is unclear "
                "which of them a mask belongs to. Expected different names; rename one and its "
                "mask."
            )
    mask_of: dict[Path, Path] = {}
    for mask in masks:
        stem = composed(mask.stem)
        image = by_stem.get(stem.removesuffix("_mask")) or by_stem.get(stem)
        if image is None:
            problems.append(
                f"{mask}: a mask without an image. Expected an image called "
                f"{mask.stem.removesuffix('_mask')} in {test}; add it or remove the mask."
            )
        elif mask_of.setdefault(image, mask) != mask:
            problems.append(
                f"{mask_of[image]} and {mask.name}: two masks for {image}. "
                "Expected one; remove the other."
            )
    problems += [
        f"{image}: the mask is missing. Expected {truth / image.stem}_mask.png; add it, or "
        "remove the image from the test set."
        for image in by_stem.values()
        if image not in mask_of
    ]
    pairs = [(image, mask_of.get(image)) for image in images]
    return pairs, [Problem("error", text) for text in problems]


def _unexpected(folder: Path) -> list[Problem]:
    """Find ignored files in a folder of images, and names that differ only in case."""
    problems = same_but_for_case(image_files(folder))
    if nested := images_below(folder):
        text = (
            f"{nested[0]}: is in a subfolder that is not read{_and_more(nested)}. Expected "
            f"images directly in {folder}; move them up, or out of the data set."
        )
        problems.append(Problem("error", text))
    problems += [
        Problem(
            "warning",
            f"{path}: is ignored, since its suffix is not that of an image. Expected one of "
            f"{' '.join(SUFFIXES)}; convert it if it is an image.",
        )
        for path in sorted(folder.iterdir())
        if path.suffix.lower() not in (*SUFFIXES, ".db", ".txt", ".md", ".json", ".csv")
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return problems


def _misplaced_masks(truth: Path) -> list[Problem]:
    """Find masks where no image's mask is searched: directly in the folder, or too deep."""
    problems = []
    if loose := image_files(truth):
        text = (
            f"{loose[0]}: is directly in ground_truth/{_and_more(loose)}. Expected "
            "ground_truth/DEFECT/NAME_mask.png for test/DEFECT/NAME.png; move the masks into the "
            "folders of their defects."
        )
        problems.append(Problem("error", text))
    for defect in folders(truth):
        if deep := images_below(defect):
            text = (
                f"{deep[0]}: is in a subfolder that is not read{_and_more(deep)}. Expected one "
                f"mask per image, directly in {defect}, such as {deep[0].parent.name}_mask.png. "
                "MVTec LOCO has one folder of masks per image: merge them into one mask."
            )
            problems.append(Problem("error", text))
    return problems


def _masks_among_images(images: list[Path], masked: set[str]) -> list[Problem]:
    """Find masks among a folder's images: X_mask next to X, except for the stems `masked`.

    Files with those stems have a mask themselves, and so are images.
    """
    stems = {composed(image.stem) for image in images}
    misplaced = [
        image
        for image in images
        if (stem := composed(image.stem)) not in masked
        and any(stem.endswith(end) and stem.removesuffix(end) in stems for end in MASK_ENDINGS)
    ]
    if not misplaced:
        return []
    text = (
        f"{misplaced[0]}: has the name of a mask of another image in its folder, but would be read "
        f"as an image{_and_more(misplaced)}. Expected masks only in "
        "ground_truth/DEFECT/NAME_mask.png; move masks there, or rename the images."
    )
    return [Problem("error", text)]


def _and_more(paths: Sequence[Path]) -> str:
    """Return ', and N more like it', or '' if there is only one."""
    return f", and {len(paths) - 1} more like it" if len(paths) > 1 else ""


def _good_masks(root: Path, category: str, *, good: str) -> list[Path]:
    return image_files(root / category / "ground_truth" / good)
