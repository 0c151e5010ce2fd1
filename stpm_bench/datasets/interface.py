"""What a layout says of a data set: its images, what is wrong with them, and how they are read."""

import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

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


ScanResult = tuple[list[Row], list[Problem]]


class ReadOptions(NamedTuple):
    """How a set's files are read, where its files alone do not say it: keys of a set in a config.

    mask_colour: the RGB values of a defect in the masks, each 0 to 255; None: what is not black.
    intensity: of images with more than 8 bits a channel, the values that become 0 and 255; None:
        the lowest and the highest value of the training images.
    max_megapixels: an image of more, in millions of pixels, is refused before it is decoded.
    """

    mask_colour: tuple[int, int, int] | None = None
    intensity: tuple[float, float] | None = None
    max_megapixels: float = 179  # Pillow's own limit


DEFAULT_OPTIONS = ReadOptions()
# Where a user says how a set's files are read, for messages.
SET_KEY = "at the set under the config key 'data.sets' (check-data: {option})"


class Layout(NamedTuple):
    """What one layout needs to say.

    categories: root -> the names of its categories; [] where there is none.
    scan: root, category, 'train' or 'test' -> every image of it, and every problem; opens no image.
    sources: the same arguments -> the files and folders that the split is made of.
    nonzero: masks hold the number of a kind of defect: any non-zero pixel is a defect.
    folder: root, category -> the folder to which its rows are relative.
    inside: a file that holds many images or masks, and ascending indices -> those, as (H, W, 3) or
        (H, W) arrays; None where every image is a file of its own.
    annotation: what is known of a test image. 'regions': its defects, each of which counts (PRO);
        'pixels': which pixels are anomalous; 'image': only whether it is, and there are no masks.
    expected: what a root holds, for the error where it does not; '' for a folder a category.
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
