"""The images of a data set: the registry of the layouts on disk, and functions that use them.

mvtec, mpdd, btad   folders: mvtec_folders.py
visa                a table: visa.py
cifar10_oneclass    batches of images: cifar10.py
shanghaitech        videos and frames: shanghaitech.py
"""

import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from stpm_bench.datasets import cifar10, mvtec_folders, shanghaitech, visa
from stpm_bench.datasets.interface import INSIDE, Problem, Row, ScanResult
from stpm_bench.datasets.listing import folders, same_but_for_case
from stpm_bench.errors import InputError
from stpm_bench.names import wrong_category

LAYOUTS = {
    "mvtec": mvtec_folders.layout("good"),
    "visa": visa.LAYOUT,
    "btad": mvtec_folders.layout("ok"),
    "mpdd": mvtec_folders.layout("good"),
    "cifar10_oneclass": cifar10.LAYOUT,
    "shanghaitech": shanghaitech.LAYOUT,
}
# Split -> use one image in this many (see `subsample`).
EVERY_IMAGE = MappingProxyType({"train": 1, "test": 1})


def list_categories(root: str | Path, layout: str = "mvtec") -> list[str]:
    """Return the names of the categories in `root`, in the set's order.

    A folder that does not exist has no categories.
    """
    return LAYOUTS[layout].categories(Path(root))


def count_images(root: str | Path, category: str, layout: str = "mvtec") -> tuple[int, int]:
    """Return the numbers of training and of test images.

    It opens no image and never raises; for a missing folder the count is 0.
    """
    train, test = (scan(root, category, split, layout)[0] for split in ("train", "test"))
    return len(train), len(test)


def scan(root: str | Path, category: str, split: str, layout: str = "mvtec") -> ScanResult:
    """Return the images of one split of a category, sorted by file, and the problems found.

    Args:
        root: folder of the data set.
        category: one of `list_categories`.
        split: 'train' or 'test'. A training split is found without reading any test file.
        layout: a key of `LAYOUTS`.
    """
    if split not in ("train", "test"):
        raise InputError(f"Unknown split {split!r}. Expected 'train' or 'test'.")
    root = Path(root)
    known = LAYOUTS[layout].categories(root)
    if category not in known:
        return [], [Problem("error", no_category(root, layout, category))]
    # Files inside larger files have the names of a published set.
    if not LAYOUTS[layout].inside and (reason := wrong_category(category)):
        return [], [Problem("error", f"{root / category}: {reason}; rename the folder.")]
    rows, problems = LAYOUTS[layout].scan(root, category, split)
    folder = LAYOUTS[layout].folder(root, category)
    if unreadable := [row.file for row in rows if not _is_text(row.file + row.mask)]:
        text = (
            f"{folder}: the name {unreadable[0]!a} is not UTF-8 or contains a control character "
            f"({len(unreadable)} such names). Expected names that any system can read; rename them."
        )
        return [], [Problem("error", text)]
    same = same_but_for_case([root / name for name in known])
    return sorted(rows), problems + [p for p in same if p.text.startswith(f"{root / category}:")]


def list_images(
    root: str | Path, category: str, split: str, layout: str = "mvtec", every: int = 1
) -> pd.DataFrame:
    """List the images of one split of a category, in an order that is the same on every machine.

    In the layouts made of folders 'train' reads only train/good, 'test' only test/ and
    ground_truth/. There a mask belongs to an image by its name:
    ground_truth/DEFECT/X_mask.png or X.png for the image test/DEFECT/X.png, whatever the two
    suffixes. Hidden files, files whose suffix is not that of an image, and ground_truth/good are
    ignored.

    Args:
        root: folder of the data set.
        category: name of a category in it.
        split: 'train' or 'test'.
        layout: a key of `LAYOUTS`.
        every: as in `subsample`.

    Returns:
        One row per image, sorted by file, all columns strings: those of `Row`.

    Raises:
        InputError: no such category; no training image; a test split without images, without good
            ones or without defects; a mask that is missing, ambiguous or without its image; images
            where the layout has none; names that differ only in case.
    """
    rows, problems = select_images(root, category, split, layout, every)
    raise_or_warn(problems)
    return pd.DataFrame(rows, columns=list(Row._fields))


def select_images(
    root: str | Path, category: str, split: str, layout: str = "mvtec", every: int = 1
) -> ScanResult:
    """Return the images that `scan` finds, subsampled, and the problems of those that remain."""
    found, problems = scan(root, category, split, layout)
    rows = subsample(found, layout, every)
    if any(problem.severity == "error" for problem in problems):
        return rows, problems
    if split == "test" and len({row.defect == "good" for row in rows}) < 2:
        text = (
            f"{root}: of the test images of {category}, those that remain with one in {every} are "
            "all good, or all defective. Expected both; lower the config key "
            "'data.sets.NAME.every_test'."
        )
        problems = [*problems, Problem("error", text)]
    if split == "train" and len(rows) == 1:
        selection = (
            f" of {len(found)}, by the config key 'data.sets.NAME.every'" if every > 1 else ""
        )
        text = (
            f"{LAYOUTS[layout].folder(Path(root), category) / rows[0].file}: is the only training "
            f"image{selection}. Expected at least 2, one to train and one to validate; add some."
        )
        problems = [*problems, Problem("error", text)]
    return rows, problems


def raise_or_warn(problems: Iterable[Problem]) -> None:
    """Raise the errors among `problems`, see `raise_errors`; issue the others as warnings."""
    problems = list(problems)
    raise_errors([problem.text for problem in problems if problem.severity == "error"])
    for problem in problems:
        warnings.warn(problem.text, stacklevel=3)


def subsample(rows: Sequence[Row], layout: str, every: int) -> list[Row]:
    """Return the images 0, `every`, 2 `every`, ... of each folder, video or batch of images."""
    places: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        container = container_of(row.file, layout)
        places[container or row.file.rpartition("/")[0]].append(row)
    # By number: with more than 1,000 frames, '1000' must come after '999'.
    ordered = [
        sorted(place, key=lambda row: (len(row.file), row.file)) for place in places.values()
    ]
    return sorted(row for place in ordered for row in place[::every])


def container_of(file: str, layout: str) -> str:
    """Return the file that contains an image or mask, '' if it is a separate file."""
    return file.rpartition(INSIDE)[0] if LAYOUTS[layout].inside else ""


def raise_errors(errors: Sequence[str]) -> None:
    """Raise one InputError with the first ten of `errors`; do nothing if there are none."""
    if errors:
        more = [f"... and {len(errors) - 10} more."] if len(errors) > 10 else []
        raise InputError("\n".join([*errors[:10], *more]))


def no_category(root: Path, layout: str, category: str = "") -> str:
    """Return that `root` has no such category, or none at all, and what it contains instead."""
    known = list_categories(root, layout)
    if not root.is_dir():
        found = "There is no such folder."
    elif layout == "visa" and (problems := visa.read_split_csv(root)[1]):
        return problems[0].text
    elif known:
        found = f"Its categories are: {', '.join(known)}."
    elif (root / "train").is_dir() or (root / "test").is_dir():
        found = f"It looks like a category itself: name the folder above it, {root.parent}."
    elif nested := [folder for folder in folders(root) if list_categories(folder, layout)]:
        found = f"It contains no category, but {nested[0]} does: name that folder."
    elif other := [name for name in LAYOUTS if list_categories(root, name)]:
        found = f"It contains no category in this layout, but some in {', '.join(other)}."
    else:
        found = "It contains no category."
    missing = f"no category {category!r}" if category else "no category"
    expected = LAYOUTS[layout].expected or (
        f"{Path(root.name) / (category or 'CATEGORY')}/ with its images"
    )
    return f"{root}: {missing}. {found} Expected {expected}, in the layout {layout}."


def _is_text(name: str) -> bool:
    """Return whether a file's name could be decoded and contains no control characters.

    Python represents bytes that it cannot decode as surrogates.
    """
    return not any(unicodedata.category(character) in ("Cs", "Cc") for character in name)
