"""Which images a data set has: a small adapter for each layout on disk.

mvtec, mpdd     CATEGORY/train/good/*.png
                CATEGORY/test/good/*.png
                CATEGORY/test/DEFECT/*.png
                CATEGORY/ground_truth/DEFECT/*_mask.png
btad            the same with 'ok' instead of 'good', and 'ko' as the only defect;
                CATEGORY/ground_truth/ko/* has its images' names
visa            split_csv/1cls.csv: columns object, split, label, image, mask; its images and masks
                lie where it says, CATEGORY/Data/{Images,Masks}/...
cifar10_oneclass, shanghaitech: modules of their own, cifar10.py and shanghaitech.py

MPDD (Jezek et al., 2021) has MVTec AD's layout. BTAD: Mishra et al., 2021. VisA: Zou et al., 2022,
github.com/amazon-science/spot-diff, whose utils/prepare_data.py also says what its masks mean: any
non-zero pixel is a defect, the numbers are kinds of defect.
"""

import csv
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pandas as pd

from stpm_bench.datasets import cifar10, shanghaitech
from stpm_bench.datasets.rows import (
    INSIDE,
    SUFFIXES,
    Found,
    Layout,
    Problem,
    Row,
    both_kinds,
    folders,
    image_files,
    images_below,
)
from stpm_bench.errors import InputError
from stpm_bench.names import wrong_category

# Split -> of its images every so many are taken (see `thinned`).
NOT_THINNED = MappingProxyType({"train": 1, "test": 1})
SPLIT_CSV = Path("split_csv", "1cls.csv")
SPLIT_CSV_COLUMNS = ("object", "split", "label", "image", "mask")
# How a mask's name goes on behind its image's, where the two lie side by side.
MASK_ENDINGS = ("_mask", "_gt", "_label")


def list_categories(root: str | Path, layout: str = "mvtec") -> list[str]:
    """Return the names of the categories in `root`, in the set's order.

    A folder that does not exist has no categories.
    """
    return LAYOUTS[layout].categories(Path(root))


def count_images(root: str | Path, category: str, layout: str = "mvtec") -> tuple[int, int]:
    """Return the numbers of training and of test images.

    It opens no image and never raises: what is missing counts as 0.
    """
    train, test = (scan(root, category, split, layout)[0] for split in ("train", "test"))
    return len(train), len(test)


def scan(root: str | Path, category: str, split: str, layout: str = "mvtec") -> Found:
    """Return the images of one split of a category, sorted by file, and what is wrong with them.

    Args:
        root: folder of the data set.
        category: one of `list_categories`.
        split: 'train' or 'test'. A training split is found without a look at any test file.
        layout: a key of `LAYOUTS`.
    """
    if split not in ("train", "test"):
        raise InputError(f"Unknown split {split!r}. Expected 'train' or 'test'.")
    root = Path(root)
    known = LAYOUTS[layout].categories(root)
    if category not in known:
        return [], [Problem("error", no_category(root, layout, category))]
    # What lies inside larger files has the names of a published set.
    if not LAYOUTS[layout].inside and (reason := wrong_category(category)):
        return [], [Problem("error", f"{root / category}: {reason}; rename the folder.")]
    rows, problems = LAYOUTS[layout].scan(root, category, split)
    folder = LAYOUTS[layout].folder(root, category)
    if unreadable := [row.file for row in rows if not _is_text(row.file + row.mask)]:
        text = (
            f"{folder}: the name {unreadable[0]!a} is not UTF-8 or has a control character, and so "
            f"have {len(unreadable) - 1} more. Expected names that any system can read; rename "
            "them."
        )
        return [], [Problem("error", text)]
    same = _same_but_for_case([root / name for name in known])
    return sorted(rows), problems + [p for p in same if p.text.startswith(f"{root / category}:")]


def list_images(
    root: str | Path, category: str, split: str, layout: str = "mvtec", every: int = 1
) -> pd.DataFrame:
    """List the images of one split of a category, in an order that is the same on every machine.

    In the layouts made of folders 'train' looks into train/good and nowhere else, 'test' into
    test/ and ground_truth/. There a mask belongs to an image by its name:
    ground_truth/DEFECT/X_mask.png or X.png for the image test/DEFECT/X.png, whatever the two
    suffixes. Hidden files and files that are no images by their suffix are passed over, and so is
    ground_truth/good.

    Args:
        root: folder of the data set.
        category: name of a category in it.
        split: 'train' or 'test'.
        layout: a key of `LAYOUTS`.
        every: as of `thinned`.

    Returns:
        One row an image, sorted by file, all columns strings: those of `Row`.

    Raises:
        InputError: no such category; no training image; a test split without images, without good
            ones or without defects; a mask missing, ambiguous or without its image; images where
            the layout has none; names that differ only in case.
    """
    rows, problems = taken(root, category, split, layout, every)
    tell(problems)
    return pd.DataFrame(rows, columns=list(Row._fields))


def taken(
    root: str | Path, category: str, split: str, layout: str = "mvtec", every: int = 1
) -> Found:
    """Return what `scan` finds, thinned, and what is wrong with the images that are left."""
    found, problems = scan(root, category, split, layout)
    rows = thinned(found, layout, every)
    if any(problem.severity == "error" for problem in problems):
        return rows, problems
    if split == "test" and len({row.defect == "good" for row in rows}) < 2:
        text = (
            f"{root}: of every {every} test images the first are all good, or all defective, in "
            f"{category}. Expected both; lower the config key 'data.sets.NAME.every_test'."
        )
        problems = [*problems, Problem("error", text)]
    if split == "train" and len(rows) == 1:
        thinner = f" of {len(found)}, by the config key 'data.sets.NAME.every'" if every > 1 else ""
        text = (
            f"{LAYOUTS[layout].folder(Path(root), category) / rows[0].file}: is the only training "
            f"image{thinner}. Expected at least 2, one to train and one to validate; add some."
        )
        problems = [*problems, Problem("error", text)]
    return rows, problems


def tell(problems: Iterable[Problem]) -> None:
    """Raise the errors among `problems` as `refuse` does; give the warnings as Python's."""
    problems = list(problems)
    refuse([problem.text for problem in problems if problem.severity == "error"])
    for problem in problems:
        warnings.warn(problem.text, stacklevel=3)


def thinned(rows: Sequence[Row], layout: str, every: int) -> list[Row]:
    """Return the images 0, `every`, 2 `every`, ... of each folder, video or batch of images."""
    places: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        container = container_of(row.file, layout)
        places[container or row.file.rpartition("/")[0]].append(row)
    # By number: where there are more than 1,000 frames, '1000' comes after '999'.
    ordered = [
        sorted(place, key=lambda row: (len(row.file), row.file)) for place in places.values()
    ]
    return sorted(row for place in ordered for row in place[::every])


def container_of(file: str, layout: str) -> str:
    """Return the file inside which an image or mask lies, '' where it is a file of its own."""
    return file.rpartition(INSIDE)[0] if LAYOUTS[layout].inside else ""


def refuse(errors: Sequence[str]) -> None:
    """Raise one InputError that names the first ten of `errors`; do nothing where there is none."""
    if errors:
        more = [f"... and {len(errors) - 10} more."] if len(errors) > 10 else []
        raise InputError("\n".join([*errors[:10], *more]))


# --- folders: mvtec, mpdd, btad -------------------------------------------------------------------


def _folder_categories(root: Path) -> list[str]:
    """Return the subfolders that hold train/ or test/."""
    return [
        folder.name
        for folder in folders(root)
        if (folder / "train").is_dir() or (folder / "test").is_dir()
    ]


def _folder_sources(root: Path, category: str, split: str) -> list[Path]:
    names = ["train"] if split == "train" else ["test", "ground_truth"]
    return [path for name in names if (path := root / category / name).is_dir()]


def _scan_folders(root: Path, category: str, split: str, *, good: str) -> Found:
    """Scan a category whose anomaly-free images lie in folders called `good`."""
    scan_split = _scan_train if split == "train" else _scan_test
    return scan_split(root / category, good)


def _scan_train(folder: Path, good: str) -> Found:
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
                f"{train}: holds no image. Expected anomaly-free training images "
                f"({' '.join(SUFFIXES)}) directly in it; put them there.",
            )
        )
    if loose := image_files(folder / "train"):
        text = (
            f"{loose[0]}: lies directly in train/{_and_more(loose)}. Expected anomaly-free "
            f"training images in train/{good}; move them into it, or out of the data set."
        )
        problems.append(Problem("error", text))
    problems += _masks_beside(images, set())
    for other in folders(folder / "train"):
        if other.name != good and (found := image_files(other) + images_below(other)):
            problems.append(
                Problem(
                    "warning",
                    f"{other}: {len(found)} image(s) are passed over. Only train/{good} trains; "
                    "move them into it where they have no anomaly.",
                )
            )
    for other in folders(folder):
        if other.name not in ("train", "test", "ground_truth") and (
            found := image_files(other) + images_below(other)
        ):
            text = (
                f"{other}: {len(found)} image(s) are passed over. Only train/{good}, test/ and "
                "ground_truth/ are read, and the images that validate are taken from "
                f"train/{good}; move them there where they have no anomaly."
            )
            problems.append(Problem("warning", text))
    if loose := image_files(folder):
        text = (
            f"{loose[0]}: is passed over{_and_more(loose)}. Only train/{good}, test/ and "
            "ground_truth/ are read; move it into one of them."
        )
        problems.append(Problem("warning", text))
    return [Row(f"train/{good}/{image.name}", "good", "") for image in images], problems


def _scan_test(folder: Path, good: str) -> Found:
    test, truth = folder / "test", folder / "ground_truth"
    images = {defect.name: found for defect in folders(test) if (found := image_files(defect))}
    problems = [
        Problem(
            "error",
            f"{image}: lies directly in test/. Expected test/{good}/{image.name} or "
            f"test/DEFECT/{image.name}; move it into the folder of its defect.",
        )
        for image in image_files(test)
    ]
    problems += _same_but_for_case(folders(test))
    problems += [problem for defect in folders(test) for problem in _unexpected(defect)]
    if not images:
        text = (
            f"{test}: holds no image. Expected test/{good}/*.png and test/DEFECT/*.png, "
            "a folder for each kind of defect; put the test images there."
        )
        return [], [Problem("error", text), *problems]
    problems += both_kinds(test, set(images), good, f"test/{good}", "test/DEFECT")
    problems += _misplaced_masks(truth)
    if good != "good" and "good" in images:
        text = f"{test / 'good'}: expected anomaly-free images in test/{good}; rename it."
        problems.append(Problem("error", text))
        del images["good"]

    good_images = images.pop(good, [])
    problems += _masks_beside(good_images, set())
    rows = [Row(f"test/{good}/{image.name}", "good", "") for image in good_images]
    masks = {
        defect.name: found
        for defect in folders(truth)
        if defect.name != good and (found := image_files(defect))
    }
    for defect in sorted({*images, *masks}):
        of_defect, their_masks = images.get(defect, []), masks.get(defect, [])
        pairs, mismatched = _match_masks(of_defect, their_masks, test / defect, truth / defect)
        masked = {_composed(mask.stem).removesuffix("_mask") for mask in their_masks}
        problems += mismatched + _masks_beside(of_defect, masked)
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
    """Pair each image of one defect with its mask, by name; None where it has none."""
    problems = []
    by_stem: dict[str, Path] = {}
    for image in images:
        other = by_stem.setdefault(_composed(image.stem), image)
        if other != image:
            problems.append(
                f"{other} and {image.name}: two images of one name, so that it is unclear whose "
                "the mask is. Expected different names; rename one and its mask."
            )
    mask_of: dict[Path, Path] = {}
    for mask in masks:
        stem = _composed(mask.stem)
        image = by_stem.get(stem.removesuffix("_mask")) or by_stem.get(stem)
        if image is None:
            problems.append(
                f"{mask}: a mask without its image. Expected an image called "
                f"{mask.stem.removesuffix('_mask')} in {test}; add it or remove the mask."
            )
        elif mask_of.setdefault(image, mask) != mask:
            problems.append(
                f"{mask_of[image]} and {mask.name}: two masks for {image}. "
                "Expected one; remove the other."
            )
    problems += [
        f"{image}: the mask is missing. Expected {truth / image.stem}_mask.png; add it, or take "
        "the image out of the test set."
        for image in by_stem.values()
        if image not in mask_of
    ]
    pairs = [(image, mask_of.get(image)) for image in images]
    return pairs, [Problem("error", text) for text in problems]


def _unexpected(folder: Path) -> list[Problem]:
    """Find what would be passed over in a folder of images, and names alike but for case."""
    problems = _same_but_for_case(image_files(folder))
    if nested := images_below(folder):
        text = (
            f"{nested[0]}: lies too deep and would be passed over{_and_more(nested)}. Expected "
            f"images directly in {folder}; move them up, or out of the data set."
        )
        problems.append(Problem("error", text))
    problems += [
        Problem(
            "warning",
            f"{path}: is passed over, as no image by its suffix. Expected one of "
            f"{' '.join(SUFFIXES)}; convert it where it is one.",
        )
        for path in sorted(folder.iterdir())
        if path.suffix.lower() not in (*SUFFIXES, ".db", ".txt", ".md", ".json", ".csv")
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return problems


def _misplaced_masks(truth: Path) -> list[Problem]:
    """Find masks that no image's mask is looked for among: loose ones, and too deep ones."""
    problems = []
    if loose := image_files(truth):
        text = (
            f"{loose[0]}: lies directly in ground_truth/{_and_more(loose)}. Expected "
            "ground_truth/DEFECT/NAME_mask.png for test/DEFECT/NAME.png; move the masks into the "
            "folders of their defects."
        )
        problems.append(Problem("error", text))
    for defect in folders(truth):
        if deep := images_below(defect):
            text = (
                f"{deep[0]}: lies too deep and would be passed over{_and_more(deep)}. Expected one "
                f"mask an image, directly in {defect}, as {deep[0].parent.name}_mask.png; of "
                "MVTec LOCO's folders, one an image, merge the masks into one."
            )
            problems.append(Problem("error", text))
    return problems


def _masks_beside(images: list[Path], masked: set[str]) -> list[Problem]:
    """Find masks among a folder's images: X_mask beside X, but for the stems `masked`.

    Those have a mask of their own, and so are images.
    """
    stems = {_composed(image.stem) for image in images}
    beside = [
        image
        for image in images
        if (stem := _composed(image.stem)) not in masked
        and any(stem.endswith(end) and stem.removesuffix(end) in stems for end in MASK_ENDINGS)
    ]
    if not beside:
        return []
    text = (
        f"{beside[0]}: is by its name the mask of an image beside it, and would be taken for an "
        f"image{_and_more(beside)}. Expected masks in ground_truth/DEFECT/NAME_mask.png alone; "
        "move them there, or rename what is an image."
    )
    return [Problem("error", text)]


def _and_more(paths: Sequence[Path]) -> str:
    """Return ', and N more like it', '' where there is one."""
    return f", and {len(paths) - 1} more like it" if len(paths) > 1 else ""


def _good_masks(root: Path, category: str, *, good: str) -> list[Path]:
    return image_files(root / category / "ground_truth" / good)


# --- a table: visa --------------------------------------------------------------------------------


def _read_split_csv(root: Path) -> tuple[list[dict[str, str]], list[Problem]]:
    path = root / SPLIT_CSV
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = set(SPLIT_CSV_COLUMNS) - set(reader.fieldnames or [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        return [], [
            Problem(
                "error",
                f"{path}: cannot be read ({reason}). Expected VisA's table of its images; take it "
                "from the data set's archive.",
            )
        ]
    if missing:
        return [], [
            Problem(
                "error",
                f"{path}: lacks the columns {', '.join(sorted(missing))}. Expected "
                f"{','.join(SPLIT_CSV_COLUMNS)}; take it from the data set's archive.",
            )
        ]
    return rows, []


def _csv_categories(root: Path) -> list[str]:
    return sorted({row["object"] for row in _read_split_csv(root)[0] if row["object"]})


def _csv_sources(root: Path, category: str, split: str) -> list[Path]:
    rows, _ = _scan_csv(root, category, split)
    files = [root / category / name for row in rows for name in (row.file, row.mask) if name]
    return [root / SPLIT_CSV, *files]


def _scan_csv(root: Path, category: str, split: str) -> Found:
    path = root / SPLIT_CSV
    lines, problems = _read_split_csv(root)
    rows, seen = [], {}
    for line in lines:
        if line["object"] != category:
            continue
        where = f"{path}: {line['image'] or 'a line without an image'}"
        image, mask = (_below(category, line[key]) for key in ("image", "mask"))
        wrong = None
        if line["split"] not in ("train", "test"):
            wrong = f"its split is {line['split']!r}. Expected train or test"
        elif line["label"] not in ("normal", "anomaly"):
            wrong = f"its label is {line['label']!r}. Expected normal or anomaly"
        elif image is None or (mask is None and line["mask"]):
            wrong = f"does not lie in its object's folder. Expected {category}/Data/..."
        elif seen.setdefault(image, line) is not line:
            wrong = "is named twice. Expected each image once, in train or in test"
        elif line["split"] == "train" and line["label"] != "normal":
            wrong = "an anomaly that trains. Expected normal images alone in train"
        elif line["label"] == "anomaly" and mask is None:
            wrong = "the mask is missing. Expected its file in the column mask"
        if wrong and (line["split"] == split or line["split"] not in ("train", "test")):
            problems.append(Problem("error", f"{where}: {wrong}; mend the line."))
        if line["split"] == split and image:
            good = line["label"] == "normal"
            rows.append(Row(image, "good" if good else line["label"], "" if good else mask or ""))
    if not rows:
        text = f"{path}: has no {split} images of {category}. Expected some; mend the table."
        problems.append(Problem("error", text))
    elif split == "test":
        kinds = {row.defect for row in rows}
        problems += both_kinds(path, kinds, "good", "lines test,normal", "lines test,anomaly")
    problems += _same_but_for_case([root / category / row.file for row in rows])
    return rows, problems


def _csv_good_masks(root: Path, category: str) -> list[Path]:
    masks = [
        _below(category, line["mask"])
        for line in _read_split_csv(root)[0]
        if (line["object"], line["split"], line["label"]) == (category, "test", "normal")
    ]
    return [root / category / mask for mask in masks if mask]


def _below(category: str, file: str) -> str | None:
    """Return a file of the table relative to its category's folder; None where it is elsewhere."""
    parts = PurePosixPath(file.strip()).parts
    if len(parts) < 2 or parts[0] != category or ".." in parts:
        return None
    return str(PurePosixPath(*parts[1:]))


# --- what they share ------------------------------------------------------------------------------


def _of_folders(good: str) -> Layout:
    """Return the layout of folders whose anomaly-free images lie in folders called `good`."""
    return Layout(
        _folder_categories,
        partial(_scan_folders, good=good),
        _folder_sources,
        good_masks=partial(_good_masks, good=good),
    )


LAYOUTS = {
    "mvtec": _of_folders("good"),
    "visa": Layout(
        _csv_categories, _scan_csv, _csv_sources, nonzero=True, good_masks=_csv_good_masks
    ),
    "btad": _of_folders("ok"),
    "mpdd": _of_folders("good"),
    "cifar10_oneclass": cifar10.LAYOUT,
    "shanghaitech": shanghaitech.LAYOUT,
}


def _same_but_for_case(paths: Iterable[Path]) -> list[Problem]:
    """Find paths that are one path on Windows and macOS, where one overwrites the other."""
    first: dict[str, Path] = {}
    return [
        Problem(
            "error",
            f"{path}: differs from {other.name} only in case, and where case does not count one "
            "replaces the other. Expected different names; rename one (and its mask).",
        )
        for path in paths
        if (other := first.setdefault(_composed(str(path)).casefold(), path)) != path
    ]


def _composed(name: str) -> str:
    """Return a name with each accented letter as one character; macOS writes two."""
    return unicodedata.normalize("NFC", name)


def _is_text(name: str) -> bool:
    """Return whether a file's name could be decoded and has no control character.

    Python keeps what it could not decode as surrogates.
    """
    return not any(unicodedata.category(character) in ("Cs", "Cc") for character in name)


def no_category(root: Path, layout: str, category: str = "") -> str:
    """Say that `root` has no such category, or none at all, and what there is instead."""
    known = list_categories(root, layout)
    if not root.is_dir():
        found = "There is no such folder."
    elif layout == "visa" and (problems := _read_split_csv(root)[1]):
        return problems[0].text
    elif known:
        found = f"Its categories are: {', '.join(known)}."
    elif (root / "train").is_dir() or (root / "test").is_dir():
        found = f"It looks like a category itself: name the folder above it, {root.parent}."
    elif nested := [folder for folder in folders(root) if list_categories(folder, layout)]:
        found = f"It holds no category, but {nested[0]} does: name that folder."
    elif other := [name for name in LAYOUTS if list_categories(root, name)]:
        found = f"It holds no category in this layout, but some in {', '.join(other)}."
    else:
        found = "It holds no category."
    missing = f"no category {category!r}" if category else "no category"
    expected = LAYOUTS[layout].expected or (
        f"{Path(root.name) / (category or 'CATEGORY')}/ with its images"
    )
    return f"{root}: {missing}. {found} Expected {expected}, in the layout {layout}."
