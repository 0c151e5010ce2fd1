"""What a layout says of a data set: its images, what is wrong with them, and how they are read."""

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# 'video.avi#25' is the image 25, counted from 0, inside the file video.avi.
INSIDE = "#"


class Row(NamedTuple):
    """An image: its file, its defect ('good' for none) and its mask ('' for none).

    Both files are relative to the category's folder, with posix slashes; an image or mask inside a
    larger file is named FILE#INDEX.
    """

    file: str
    defect: str
    mask: str


class Problem(NamedTuple):
    """Something that is wrong with a data set; the text begins with the file.

    With an error nothing is prepared; a warning is what deserves a look.
    """

    severity: str
    text: str


Found = tuple[list[Row], list[Problem]]


class Reading(NamedTuple):
    """How a set's files are read, where its files alone do not say it: keys of a set in a config.

    mask_colour: the RGB values of a defect in the masks, each 0 to 255; None: what is not black.
    intensity: of images with more than 8 bits a channel, the values that become 0 and 255; None:
        the lowest and the highest value of the training images.
    max_megapixels: an image of more, in millions of pixels, is refused before it is decoded.
    """

    mask_colour: tuple[int, int, int] | None = None
    intensity: tuple[float, float] | None = None
    max_megapixels: float = 179  # Pillow's own limit


class Layout(NamedTuple):
    """What one layout needs to say.

    categories: root -> the names of its categories; [] where there is none.
    scan: root, category, 'train' or 'test' -> every image of it, and every problem; opens no image.
    sources: the same arguments -> the files and folders that the split is made of.
    nonzero: masks hold the number of a kind of defect: any non-zero pixel is a defect.
    folder: root, category -> the folder to which its rows are relative.
    inside: a file that holds many images or masks, and ascending indices -> those, as (H, W, 3) or
        (H, W) arrays; None where every image is a file of its own.
    truth: what is known of a test image. 'regions': its defects, each of which counts (PRO);
        'pixels': which pixels are anomalous; 'image': only whether it is, and there are no masks.
    expected: what a root holds, for the error where it does not; '' for a folder a category.
    good_masks: root, category -> masks of anomaly-free test images, which must mark nothing.
    """

    categories: Callable[[Path], list[str]]
    scan: Callable[[Path, str, str], Found]
    sources: Callable[[Path, str, str], list[Path]]
    nonzero: bool = False
    folder: Callable[[Path, str], Path] = operator.truediv
    inside: Callable[[Path, Sequence[int]], Iterator[np.ndarray]] | None = None
    truth: Literal["regions", "pixels", "image"] = "regions"
    expected: str = ""
    good_masks: Callable[[Path, str], list[Path]] = lambda root, category: []


def folders(path: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted; [] where there is no such folder."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted; [] where there is no such folder.

    A link that leads nowhere counts as an image, so that reading it fails with its name: left out
    in silence it would change the numbers.
    """
    if not folder.is_dir():
        return []
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and not p.is_dir()
    )


def images_below(folder: Path) -> list[Path]:
    """Return the image files at any depth below a folder's own folders, sorted.

    Links to folders are followed, each folder once; hidden folders are passed over.
    """

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], {os.path.realpath(folder)}
    for place, names, _ in os.walk(folder, followlinks=True, onerror=fail):
        visible = []
        for name in sorted(names):
            real = os.path.realpath(os.path.join(place, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                visible.append(name)
        names[:] = visible
        if Path(place) != folder:
            found += image_files(Path(place))
    return sorted(found)


def both_kinds(
    path: Path, kinds: set[str], good: str, good_place: str, defect_place: str
) -> list[Problem]:
    """Find that a test split has no good images, or no others."""
    if good not in kinds:
        text = (
            f"{path}: has no good images (found only {', '.join(sorted(kinds))}). Expected "
            f"anomaly-free test images in {good_place}: without them no AUROC is defined. Add some."
        )
    elif kinds == {good}:
        text = (
            f"{path}: has good images only. Expected images with defects in {defect_place} "
            "and their masks: without them no AUROC is defined. Add some."
        )
    else:
        return []
    return [Problem("error", text)]
