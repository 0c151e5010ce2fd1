"""The interface of a layout: a set's images, its problems, and how its files are read."""

import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

# 'video.avi#25' is image 25, counted from 0, inside the file video.avi.
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
    """A problem of a data set; the text begins with the file.

    After an error nothing is prepared; after a warning the work continues.
    """

    severity: str
    text: str


ScanResult = tuple[list[Row], list[Problem]]


class ReadOptions(NamedTuple):
    """How a set's files are read if the files alone do not tell: keys of a set in a config.

    mask_colour: the RGB values of a defect in the masks, each 0 to 255; None: every colour but
        black.
    intensity: for images with more than 8 bits per channel, the values that become 0 and 255; None:
        the lowest and the highest value of the training images.
    max_megapixels: an image with more pixels, in millions, is rejected before it is decoded.
    """

    mask_colour: tuple[int, int, int] | None = None
    intensity: tuple[float, float] | None = None
    max_megapixels: float = 179  # Pillow's own limit


DEFAULT_OPTIONS = ReadOptions()
# Where a user sets how the files of a set are read; part of messages.
SET_KEY = "for the set under the config key 'data.sets' (check-data: {option})"


class Layout(NamedTuple):
    """The functions and facts that define one layout.

    categories: root -> the names of its categories; [] if there are none.
    scan: root, category, 'train' or 'test' -> its images and all problems; opens no image.
    sources: the same arguments -> the files and folders that the split is made from.
    nonzero: masks contain the number of a kind of defect: any non-zero pixel is a defect.
    folder: root, category -> the folder to which its rows are relative.
    inside: a file that holds many images or masks, and ascending indices -> those, as (H, W, 3) or
        (H, W) arrays; None if every image is a separate file.
    annotation: what is known about a test image. 'regions': its defects, which count separately
        (PRO); 'pixels': which pixels are anomalous; 'image': only whether it is anomalous, and
        there are no masks.
    expected: what a root should contain, for the error message; '' for one folder per category.
    good_masks: root, category -> masks of anomaly-free test images, which must mark nothing.
    """

    categories: Callable[[Path], list[str]]
    scan: Callable[[Path, str, str], ScanResult]
    sources: Callable[[Path, str, str], list[Path]]
    nonzero: bool = False
    folder: Callable[[Path, str], Path] = operator.truediv
    inside: Callable[[Path, Sequence[int]], Iterator[np.ndarray]] | None = None
    annotation: Literal["regions", "pixels", "image"] = "regions"
    expected: str = ""
    good_masks: Callable[[Path, str], list[Path]] = lambda root, category: []
