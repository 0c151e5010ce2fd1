"""The pixels of a data set's images and masks, read whole, checked, and as arrays."""

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from skimage.transform import resize
from tqdm import tqdm

from stpm_bench.datasets.layouts import LAYOUTS, container_of, list_images, refuse
from stpm_bench.datasets.regions import count_regions, vanished_regions
from stpm_bench.datasets.rows import INSIDE, SUFFIXES
from stpm_bench.errors import InputError

# What Pillow raises on damaged files, by format and by where the damage lies.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def prepare(
    root: str | Path,
    category: str,
    split: str,
    image_size: int = 256,
    workers: int | None = None,
    progress: bool = True,
    layout: str = "mvtec",
    every: int = 1,
) -> tuple[np.ndarray, dict[str, np.ndarray | list] | None, pd.DataFrame]:
    """Read one split of a category into arrays.

    Images are squashed to a square whatever their shape, as the field does, by antialiased
    bilinear interpolation. Greyscale, palette, CMYK and 16-bit greyscale images become RGB with 8
    bits, transparency is dropped and EXIF rotation applied. 16 bits are scaled over their whole
    range (65535 becomes 255), not by each image's own values: equal numbers stay equal.

    Masks are brought to the size by each of `TREATMENTS`. Sampled at the nearest pixels' centres
    they are never thickened, but a defect so small that no sample falls on it vanishes; the image
    stays a defective one in the table, its `defect_pixels` is 0 and a warning names it. So take an
    image's label from `defect`, not from its mask.

    The result does not depend on the number of workers.

    Args:
        root: folder of the data set.
        category: name of a folder in it.
        split: 'train' or 'test'.
        image_size: side S of the square, in pixels.
        workers: threads that decode; the processor's cores by default.
        progress: show a progress bar where the output is a terminal.
        layout: a key of `layouts.LAYOUTS`.
        every: as of `layouts.thinned`.

    Returns:
        images: (N, S, S, 3) uint8, RGB.
        masks: for each of `TREATMENTS`, (N, S, S) bool, True on a defect, (0, S, S) of a set
            without masks; under 'own' the N masks (H, W) bool at their images' own size, none of a
            set without regions (see `rows.Layout`); None for 'train'.
        table: N rows in the images' order: the columns of `list_images`, then `sha256` of the
            image file's bytes (inside a larger file, of the image's RGB values), then, where there
            are masks, `defect_pixels`, how many pixels of the nearest one are True, then, of a set
            with regions, `regions` and `regions_left`, see `regions.count_regions`.

    Raises:
        InputError: whatever `list_images` raises; an image or mask that cannot be read, is
            truncated or empty; a mask of another size than its image, not binary, transparent or
            without a defect. All files with a problem are found; the first ten are named.
    """
    folder = LAYOUTS[layout].folder(Path(root), category)
    truth = LAYOUTS[layout].truth
    masked = truth != "image"
    table = list_images(root, category, split, layout, every)
    images = np.empty((len(table), image_size, image_size, 3), np.uint8)
    shape = (len(table) if masked else 0, image_size, image_size)
    masks = {name: np.zeros(shape, bool) for name in TREATMENTS}
    masks["own"] = [None] * len(table) if truth == "regions" else []
    digests = np.full(len(table), "", object)
    regions = np.zeros((len(table), 2), int)

    def read(rows: list[int]) -> str:
        """Fill some rows of the arrays; return a problem or ''."""
        files = list(table["file"].iloc[rows])
        try:
            for index, (content, image) in zip(
                rows, read_images(folder, files, layout), strict=True
            ):
                images[index] = _resized(to_8_bits(image, folder / files[0]), image_size)
                mask = None
                if mask_file := table["mask"].iloc[index]:
                    mask = read_mask(folder / mask_file, image, layout)
                    for name, treatment in TREATMENTS.items():
                        masks[name][index] = treatment(mask, image_size)
                    if truth == "regions":
                        regions[index] = count_regions(mask, image_size)
                if truth == "regions" and split == "test":
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
            disable=None if progress else True,  # None: only where there is a terminal
        ) as bar,
    ):
        for rows, problem in zip(together, executor.map(read, together), strict=True):
            problems += [problem] if problem else []
            bar.update(len(rows))

    refuse(problems)
    table["sha256"] = digests
    if masked:
        table["defect_pixels"] = masks["nearest"].sum(axis=(1, 2))
        vanished = table.loc[(table["defect"] != "good") & (table["defect_pixels"] == 0), "file"]
        if len(vanished):
            warnings.warn(
                f"{category}: at {image_size} x {image_size} the defect is too small to show in "
                f"the mask of {', '.join(vanished)}. The images still count as defective.",
                stacklevel=2,
            )
    if truth == "regions":
        table["regions"], table["regions_left"] = regions.T
        counted = {row.mask: (row.regions, row.regions_left) for row in table.itertuples()}
        for problem in vanished_regions(folder, counted, image_size):
            warnings.warn(problem.text, stacklevel=2)
    return images, None if split == "train" else masks, table


def groups(files: Sequence[str], layout: str) -> list[list[int]]:
    """Return which of `files` are read in one pass: those inside one larger file, else each."""
    together: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        together.setdefault(container_of(file, layout) or file, []).append(index)
    return list(together.values())


def read_images(
    folder: Path, files: Sequence[str], layout: str
) -> Iterator[tuple[bytes, Image.Image]]:
    """Yield the bytes and the image of each file of one of `groups`.

    Of an image inside a larger file the bytes are its RGB values.

    Raises:
        InputError: as `read_image`; or as the layout's `inside`.
    """
    if not (container := container_of(files[0], layout)):
        yield from (read_image(folder / file) for file in files)
        return
    indices = [int(file.rpartition(INSIDE)[2]) for file in files]
    for pixels in LAYOUTS[layout].inside(folder / container, indices):
        yield pixels.tobytes(), Image.fromarray(np.ascontiguousarray(pixels))


def refuse_leak(
    train: pd.DataFrame, test: pd.DataFrame, root: str | Path, category: str, layout: str = "mvtec"
) -> None:
    """Raise an InputError where a test image is a training image too, by `sha256`.

    Images that lie inside larger files are the published set's, and cannot be taken out: there it
    is a warning.

    Args:
        train, test: the tables that `prepare` returns.
        root, category, layout: as of `prepare`.
    """
    folder = LAYOUTS[layout].folder(Path(root), category)
    trained = dict(zip(train["sha256"], train["file"], strict=True))
    leaked = [
        shared(folder / row.file, folder / trained[row.sha256])
        for row in test.itertuples()
        if row.sha256 in trained
    ]
    if not LAYOUTS[layout].inside:
        refuse(leaked)
    elif leaked:
        warnings.warn(f"{len(leaked)} test images; the first: {leaked[0]}", stacklevel=2)


def shared(test: Path, train: Path) -> str:
    """Say that a test image is a training image too."""
    return (
        f"{test}: is the same image as {train}. Expected no training image in the test set: the "
        "numbers would be too good; remove one of the two."
    )


def read_image(path: Path) -> tuple[bytes, Image.Image]:
    """Return a file's bytes and its image, decoded whole and upright, in its own mode.

    Raises:
        InputError: it cannot be read, is empty, truncated or damaged, or is no image.
    """
    content = _read_bytes(path)
    return content, _decode(content, path)


def to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Return an image in mode 'L' or 'RGB': 16 bits scaled, transparency dropped.

    Raises:
        InputError: it has 32 bits a pixel, or a mode that is not converted; names `path`.
    """
    if _is_16_bit(image):
        # Pillow's own conversion to 8 bits clips at 255.
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(
            f"{path}: has 32 bits a pixel (mode {image.mode}), whose range is unknown. "
            "Expected 8 or 16 bits; convert it."
        )
    # A palette's indices must not be interpolated, nor a colour be mixed with its transparency:
    # so the mode is converted before the size. Grey stays grey until after: the same, but faster.
    return image if image.mode == "L" else _convert(image, path, "RGB")


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """Return an image of mode 'L' or 'RGB' as a (size, size, 3) uint8 array."""
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))


def nearest(mask: np.ndarray, size: int) -> np.ndarray:
    """Sample a bool mask (H, W) at the nearest pixels' centres: (size, size) bool."""
    binary = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(binary.resize((size, size), Image.Resampling.NEAREST)) > 0


def bilinear_any(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a mask (H, W) bilinearly, without antialiasing; any non-zero pixel is a defect.

    What the STPM authors' code does to 8-bit masks; a defect grows by up to a pixel of the small
    mask.
    """
    grey = resize(
        np.where(mask, np.float32(255), np.float32(0)),
        (size, size),
        order=1,
        mode="edge",
        anti_aliasing=False,
        preserve_range=True,
    )
    return np.rint(grey) > 0


# How a mask at its image's own size comes to the maps' size: the methods' field `masks`.
TREATMENTS = {"nearest": nearest, "bilinear_any": bilinear_any}


def read_mask(path: Path, image: Image.Image, layout: str = "mvtec") -> np.ndarray:
    """Return a mask at its own size, as (H, W) bool, after checking it against its image.

    Raises:
        InputError: as `read_image`; it has another size than its image, is partly transparent,
            not binary (in a layout whose masks are), or marks no defect.
    """
    nonzero = LAYOUTS[layout].nonzero
    values = _mask_values(path, layout)
    if values.shape != (image.height, image.width):
        raise InputError(
            f"{path}: is {values.shape[1]} x {values.shape[0]} pixels, its image "
            f"{image.width} x {image.height}. Expected the same size; export the mask again."
        )
    # 0/1, 0/255 or its like in 16 bits. Anything else is a soft edge, a lossy format or a map of
    # several classes, and to guess a threshold would move the numbers.
    found = np.unique(values).tolist()
    if not nonzero and not any(set(found) <= {0, defect} for defect in (1, 255, 65535)):
        raise InputError(
            f"{path}: is not binary (it holds {len(found)} values, from {found[0]} to "
            f"{found[-1]}). Expected 0 for no defect and 255 (or 1) for a defect; "
            "save it as PNG with only these."
        )
    if not any(found):
        raise InputError(
            f"{path}: marks no defect (all pixels are 0). Expected at least one pixel of 255; "
            "draw the defect, or move the image to test/good and remove the mask."
        )
    return values > 0


def _mask_values(path: Path, layout: str) -> np.ndarray:
    """Return the values of a mask, (H, W), of a coloured one the highest of its channels."""
    if container := container_of(path.name, layout):
        index = int(path.name.rpartition(INSIDE)[2])
        return next(LAYOUTS[layout].inside(path.with_name(container), [index]))
    _, mask = read_image(path)
    # A palette's colours say nothing of the numbers of kinds.
    numbered = LAYOUTS[layout].nonzero and mask.mode == "P"
    if not numbered and not _is_16_bit(mask) and mask.mode not in ("1", "L", "I", "F"):
        mask = _convert(mask, path, "RGBA")
        if mask.getextrema()[3][0] < 255:
            raise InputError(
                f"{path}: is partly transparent, so that it is unclear where the defect is. "
                "Expected black for no defect and white for a defect; export it without alpha."
            )
        mask = mask.convert("RGB")
    values = np.asarray(mask)
    return values.max(axis=2) if values.ndim == 3 else values


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). "
            "Expected an image; mend the file or its permissions, or remove it."
        ) from error
    if not content:
        raise InputError(f"{path}: is empty (0 bytes). Expected an image; copy it again.")
    return content


def _decode(content: bytes, path: Path) -> Image.Image:
    """Decode an image whole and turn it as its EXIF data says; of several frames, the first."""
    try:
        # Pillow reads past a PNG's wrong checksums; only verify() looks at them, and it leaves
        # the image unusable, hence the second open.
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            image_format = image.format
            image = ImageOps.exif_transpose(image)
            image.format = image_format  # exif_transpose drops it
            return image
    except _DECODING_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)  # its text names a memory address
        reason = "no known format" if unknown else error
        raise InputError(
            f"{path}: is no whole image ({reason}). "
            f"Expected one of {' '.join(SUFFIXES)}; copy it again or remove it."
        ) from error


def _convert(image: Image.Image, path: Path, mode: str) -> Image.Image:
    """Return an image in mode 'RGB' or 'RGBA'."""
    try:
        # By way of RGBA, because Pillow warns when it drops a palette's transparency.
        return image.convert("RGBA").convert(mode) if image.mode == "P" else image.convert(mode)
    except _DECODING_ERRORS as error:
        raise InputError(
            f"{path}: mode {image.mode} cannot be converted to RGB ({error}). "
            "Expected a greyscale, palette, RGB or CMYK image; convert it."
        ) from error


def _is_16_bit(image: Image.Image) -> bool:
    # Before version 11 Pillow gave a 16-bit PNG the 32-bit mode "I".
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
