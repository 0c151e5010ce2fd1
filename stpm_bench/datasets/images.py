"""The pixels of a data set's images and masks, read whole, checked, and as arrays."""

import hashlib
import io
import os
import stat
import struct
import sys
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from skimage.transform import resize
from tqdm import tqdm

from stpm_bench.datasets.layouts import LAYOUTS, container_of, list_images, refuse, scan, tell
from stpm_bench.datasets.regions import count_regions, vanished_regions
from stpm_bench.datasets.rows import INSIDE, Problem, Reading
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
)
# Pillow's limit is one for all files; `Reading.max_megapixels` is compared instead.
Image.MAX_IMAGE_PIXELS = None
AS_THEY_ARE = Reading()
# Where a user says how a set's files are read, for messages.
SET_KEY = "at the set under the config key 'data.sets' (check-data: {option})"


def prepare(
    root: str | Path,
    category: str,
    split: str,
    image_size: int = 256,
    workers: int | None = None,
    progress: bool = True,
    layout: str = "mvtec",
    every: int = 1,
    reading: Reading = AS_THEY_ARE,
) -> tuple[np.ndarray, dict[str, np.ndarray | list] | None, pd.DataFrame]:
    """Read one split of a category into arrays.

    Images are squashed to a square whatever their shape, as the field does, by antialiased
    bilinear interpolation. Greyscale, palette, CMYK and 16-bit images become RGB with 8 bits,
    transparency is dropped and EXIF rotation applied. 16 bits are scaled over the range of the
    training images, or that of `reading`, and not by each image's own values: equal numbers stay
    equal, in both splits. What lies outside is clipped.

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
        reading: how the set's files are read.

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
            truncated or empty, or holds several images; a mask of another size than its image, not
            binary, transparent or without a defect; a mask that marks an anomaly-free image. All
            files with a problem are found; the first ten are named.
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
    trained = training_extremes(root, category, layout, reading)
    intensity = reading.intensity or span(trained.values())
    extremes, marked = {}, {}

    def read(rows: list[int]) -> str:
        """Fill some rows of the arrays; return a problem or ''."""
        files = list(table["file"].iloc[rows])
        try:
            for index, (content, image) in zip(
                rows, read_images(folder, files, layout, reading), strict=True
            ):
                path = folder / table["file"].iloc[index]
                extremes[path] = extremes_of(image, path)
                images[index] = _resized(to_8_bits(image, path, intensity), image_size)
                mask = None
                if mask_file := table["mask"].iloc[index]:
                    mask = read_mask(folder / mask_file, image, layout, reading)
                    marked[folder / mask_file] = mask.mean(), nearest(mask, image_size).sum()
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
    # The workers finish in any order, and the first of each kind is named.
    extremes = {path: extremes[path] for file in table["file"] if (path := folder / file)}
    marked = {path: marked[path] for mask in table["mask"] if mask and (path := folder / mask)}
    found = depths(folder, split, trained, extremes, reading)
    if split == "test":
        found += doubtful_masks(folder, marked, image_size)
        found += marked_good(root, category, layout, reading)
    tell(found)
    table["sha256"] = digests
    if masked:
        table["defect_pixels"] = masks["nearest"].sum(axis=(1, 2))
    if truth == "regions":
        table["regions"], table["regions_left"] = regions.T
        if split == "test":
            counts = zip(table["mask"], map(tuple, regions), strict=True)
            tell(vanished_regions(folder, {mask: n for mask, n in counts if mask}, image_size))
    return images, None if split == "train" else masks, table


def groups(files: Sequence[str], layout: str) -> list[list[int]]:
    """Return which of `files` are read in one pass: those inside one larger file, else each."""
    together: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        together.setdefault(container_of(file, layout) or file, []).append(index)
    return list(together.values())


def read_images(
    folder: Path, files: Sequence[str], layout: str, reading: Reading = AS_THEY_ARE
) -> Iterator[tuple[bytes, Image.Image]]:
    """Yield the bytes and the image of each file of one of `groups`.

    Of an image inside a larger file the bytes are its RGB values.

    Raises:
        InputError: as `read_image`; or as the layout's `inside`.
    """
    if not (container := container_of(files[0], layout)):
        yield from (read_image(folder / file, reading.max_megapixels) for file in files)
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


def read_image(
    path: Path, max_megapixels: float = AS_THEY_ARE.max_megapixels
) -> tuple[bytes, Image.Image]:
    """Return a file's bytes and its image, decoded whole and upright, in its own mode.

    Of colours with 16 bits a channel, of which Pillow keeps the high 8, `info["low_bytes"]` is the
    image of the low ones.

    Raises:
        InputError: it cannot be read, is no regular file, is empty, truncated or damaged, is no
            image or several, or has more pixels than `max_megapixels`.
    """
    content = _read_bytes(path)
    return content, _decode(content, path, max_megapixels)


def to_8_bits(
    image: Image.Image, path: Path, intensity: tuple[float, float] | None = None
) -> Image.Image:
    """Return an image in mode 'L' or 'RGB': more bits scaled, transparency dropped.

    Args:
        intensity: of an image with more than 8 bits a channel, the values that become 0 and 255;
            None: 0 and 65535.

    Raises:
        InputError: it has a mode that is not converted; names `path`.
    """
    levels = deep_levels(image)
    if levels is not None:
        low, high = intensity or (0, 65535)
        # Pillow's own conversion to 8 bits clips at 255. In float64 every value is exact.
        scaled = (np.clip(levels, low, high).astype(np.float64) - low) * (255 / (high - low))
        return Image.fromarray(np.floor(scaled + 0.5).astype(np.uint8))
    # A palette's indices must not be interpolated, nor a colour be mixed with its transparency:
    # so the mode is converted before the size. Grey stays grey until after: the same, but faster.
    return image if image.mode == "L" else _convert(image, path, "RGB")


def as_prepared(
    image: Image.Image, path: Path, size: int, intensity: tuple[float, float] | None = None
) -> np.ndarray:
    """Return an image that `read_image` read as `prepare` has it: (size, size, 3) uint8, RGB.

    Args:
        path, intensity: as of `to_8_bits`.
    """
    return _resized(to_8_bits(image, path, intensity), size)


def deep_levels(image: Image.Image) -> np.ndarray | None:
    """Return the values of an image with more than 8 bits a channel, None of any other.

    Returns:
        (H, W) or (H, W, 3): uint16, or int32 or float32 where a pixel has 32 bits.
    """
    if _is_16_bit(image):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    if low := image.info.get("low_bytes"):
        high, low = (np.asarray(part.convert("RGB")).astype(np.uint16) for part in (image, low))
        return high * 256 + low
    return None


def extremes_of(image: Image.Image, path: Path) -> tuple[float, float] | None:
    """Return the lowest and highest value of an image with more than 8 bits, None of any other.

    Raises:
        InputError: a value is NaN or infinite; names `path`.
    """
    levels = deep_levels(image)
    if levels is None:
        return None
    if not np.isfinite(levels).all():
        raise InputError(f"{path}: has values that are NaN or infinite. Expected numbers; mend it.")
    return levels.min().item(), levels.max().item()


def training_extremes(
    root: str | Path, category: str, layout: str, reading: Reading = AS_THEY_ARE
) -> dict[Path, tuple[float, float] | None]:
    """Return the `deep_extremes` of the training images of a category."""
    if LAYOUTS[layout].inside:
        return {}
    folder = LAYOUTS[layout].folder(Path(root), category)
    files = [folder / row.file for row in scan(root, category, "train", layout)[0]]
    return deep_extremes(files, reading.max_megapixels)


def deep_extremes(
    files: Iterable[Path], max_megapixels: float = AS_THEY_ARE.max_megapixels
) -> dict[Path, tuple[float, float] | None]:
    """Return `extremes_of` files; only those of deep images are decoded, None stands for others.

    What cannot be read counts as not deep, and is left to whoever reads all.
    """
    found = {}
    for path in files:
        found[path] = None
        try:
            if path.is_file():
                with Image.open(path) as image:
                    deep = _is_16_bit(image) or image.mode in ("I", "F") or _other_rawmodes(image)
                if deep:
                    found[path] = extremes_of(read_image(path, max_megapixels)[1], path)
        except (*_DECODING_ERRORS, InputError):
            continue
    return found


def span(extremes: Iterable[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the lowest and the highest of all values; None where none is, or they are the same."""
    known = [pair for pair in extremes if pair is not None]
    if not known:
        return None
    low, high = min(low for low, _ in known), max(high for _, high in known)
    return (low, high) if low < high else None


def depths(
    folder: Path,
    split: str,
    trained: Mapping[Path, tuple[float, float] | None],
    extremes: Mapping[Path, tuple[float, float] | None],
    reading: Reading = AS_THEY_ARE,
) -> list[Problem]:
    """Say how images with more than 8 bits a channel become images of 8.

    The range is the training images', or the config's: no test image has a say in it.

    Args:
        folder: of the category.
        split: whose images `extremes` are.
        trained, extremes: image -> `extremes_of` it: of the training images, of a split's.
    """
    deep = {path: pair for path, pair in extremes.items() if pair is not None}
    if not deep:
        return []
    first = next(iter(deep))
    intensity, problems = reading.intensity or span(trained.values()), []
    if not reading.intensity and not any(pair is not None for pair in trained.values()):
        text = (
            f"{first}: has more than 8 bits a channel, as have {len(deep)} of {len(extremes)} "
            "images, but no training image has, so that the range of the values is unknown. "
            "Expected the same depth in both splits; convert the images, or name the values that "
            "become 0 and 255, as in intensity: [0, 4095], "
            f"{SET_KEY.format(option='--intensity 0,4095')}."
        )
        return [Problem("error", text)]
    if len(deep) < len(extremes):
        text = (
            f"{first}: has more than 8 bits a channel, as have {len(deep)} of {len(extremes)} "
            f"{split} images; the others have 8. Expected one depth: only the deep ones are scaled."
        )
        problems.append(Problem("warning", text))
    if split == "train" and not reading.intensity:
        low, high = intensity or (0, 65535)
        text = (
            f"{folder}: {len(deep)} training images have more than 8 bits a channel and use the "
            f"values {low:g} to {high:g}, which become 0 to 255 in both splits. If that is not the "
            f"range of the camera, name it, as in intensity: [0, {_full_scale(high)}], "
            f"{SET_KEY.format(option=f'--intensity 0,{_full_scale(high)}')}."
        )
        problems.append(Problem("warning", text))
    if intensity:
        low, high = intensity
        outside = [path for path, pair in deep.items() if pair[0] < low or pair[1] > high]
        if outside:
            lowest, highest = span(deep[path] for path in outside) or deep[outside[0]]
            text = (
                f"{outside[0]}: has values outside {low:g} to {high:g}, as have {len(outside)} of "
                f"{len(deep)} {split} images (from {lowest:g} to {highest:g}), which are clipped. "
                "If they matter, name a wider range, as in intensity: "
                f"[{min(low, lowest):g}, {max(high, highest):g}], "
                f"{SET_KEY.format(option='--intensity')}."
            )
            problems.append(Problem("warning", text))
    return problems


def _full_scale(value: float) -> str:
    """Return the highest value of the fewest bits that hold `value`, as 4095."""
    return f"{2 ** int(value).bit_length() - 1}" if value > 1 else "1"


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


def read_mask(
    path: Path, image: Image.Image, layout: str = "mvtec", reading: Reading = AS_THEY_ARE
) -> np.ndarray:
    """Return a mask at its own size, as (H, W) bool, after checking it against its image.

    A coloured mask is black and one other colour, which marks the defect; where it is not black,
    `reading` says which colour does.

    Raises:
        InputError: as `read_image`; it has another size than its image, is partly transparent, has
            other values or colours than the above (in a layout whose masks have no numbers), or
            marks no defect.
    """
    values = _mask_values(path, layout, reading)
    if values.shape[:2] != (image.height, image.width):
        raise InputError(
            f"{path}: is {values.shape[1]} x {values.shape[0]} pixels, its image "
            f"{image.width} x {image.height}. Expected the same size; export the mask again."
        )
    mask = _marked(values, path, LAYOUTS[layout].nonzero, reading.mask_colour)
    if not mask.any():
        expected = reading.mask_colour or 255
        raise InputError(
            f"{path}: marks no defect (no pixel is {expected}). Expected at least one pixel of "
            f"{expected}; draw the defect, or move the image to test/good and remove the mask."
        )
    return mask


def doubtful_masks(
    folder: Path, marked: Mapping[Path, tuple[float, int]], image_size: int
) -> list[Problem]:
    """Find masks that cover most of their image, and defects that vanish at the chosen size.

    Args:
        folder: of the category.
        marked: mask -> the share of its pixels that are a defect, and how many are at
            `image_size` x `image_size`, sampled by `nearest`.
    """
    problems = []
    size = f"{image_size} x {image_size}"
    if large := [path for path, (share, _) in marked.items() if share > 0.5]:
        text = (
            f"{large[0]}: marks {percent(marked[large[0]][0])} of its image as a defect; so many "
            f"as {len(large)} of {len(marked)} masks mark more than half. Expected a defect to be "
            "the smaller part; where the mask is inverted, name the defect's colour, as in "
            f"mask_colour: [0, 0, 0], {SET_KEY.format(option='--mask-colour 0,0,0')}."
        )
        problems.append(Problem("warning", text))
    vanished = [path for path, (_, pixels) in marked.items() if not pixels]
    if vanished and len(vanished) == len(marked):
        text = (
            f"{folder}: at {size} no defect shows in its mask ({len(marked)} masks). Image AUROC "
            "alone is defined, no metric of pixels; raise the config key 'image_size'."
        )
        problems.append(Problem("warning", text))
    elif vanished:
        names = ", ".join(str(path.relative_to(folder)) for path in vanished[:10])
        more = f" and {len(vanished) - 10} more" if len(vanished) > 10 else ""
        text = (
            f"{folder}: at {size} the defect is too small to show in {len(vanished)} of "
            f"{len(marked)} masks: {names}{more}. Their images still count as defective; raise the "
            "config key 'image_size' to have their pixels count."
        )
        problems.append(Problem("warning", text))
    return problems


def marked_good(
    root: str | Path, category: str, layout: str, reading: Reading = AS_THEY_ARE
) -> list[Problem]:
    """Find masks of anomaly-free test images that mark a defect all the same."""
    wrong, problems = [], []
    for path in LAYOUTS[layout].good_masks(Path(root), category):
        try:
            values = _mask_values(path, layout, reading)
            if _marked(values, path, LAYOUTS[layout].nonzero, reading.mask_colour).any():
                wrong.append(path)
        except InputError as error:
            problems.append(Problem("error", str(error)))
    if wrong:
        more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        text = (
            f"{wrong[0]}: marks a defect in an image that counts as anomaly-free{more}. Expected "
            "no pixel to be marked; move the image and its mask to the folder of the defect, or "
            "remove the mask."
        )
        problems.append(Problem("error", text))
    return problems


def _mask_values(path: Path, layout: str, reading: Reading) -> np.ndarray:
    """Return the values of a mask, (H, W), or (H, W, 3) uint8 of one with colours."""
    if container := container_of(path.name, layout):
        index = int(path.name.rpartition(INSIDE)[2])
        return next(LAYOUTS[layout].inside(path.with_name(container), [index]))
    _, mask = read_image(path, reading.max_megapixels)
    # A palette's colours say nothing of the numbers of kinds.
    numbered = LAYOUTS[layout].nonzero and mask.mode == "P"
    if numbered or _is_16_bit(mask) or mask.mode in ("1", "L", "I", "F"):
        return np.asarray(mask)
    mask = _convert(mask, path, "RGBA")
    if mask.getextrema()[3][0] < 255:
        raise InputError(
            f"{path}: is partly transparent, so that it is unclear where the defect is. "
            "Expected black for no defect and white for a defect; export it without alpha."
        )
    values = np.asarray(mask.convert("RGB"))
    grey = (values == values[..., :1]).all()
    return values[..., 0] if grey else values


def _marked(
    values: np.ndarray, path: Path, nonzero: bool, colour: tuple[int, int, int] | None
) -> np.ndarray:
    """Return where the values of a mask are a defect, (H, W) bool.

    Raises:
        InputError: that is uncertain; names `path`.
    """
    if colour is None and nonzero:
        return values.any(axis=2) if values.ndim == 3 else values > 0
    if colour is None and values.ndim == 2:
        # 0/1, 0/255 or its like in 16 bits. Anything else is a soft edge, a lossy format or a map
        # of several classes, and to guess a threshold would move the numbers.
        found = np.unique(values).tolist()
        if not any(set(found) <= {0, defect} for defect in (1, 255, 65535)):
            raise InputError(
                f"{path}: is not binary (it holds {len(found)} values, from {found[0]} to "
                f"{found[-1]}). Expected 0 for no defect and 255 (or 1) for a defect; "
                "save it as PNG with only these."
            )
        return values > 0
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    packed = values.astype(np.int64) @ (65536, 256, 1)
    found, counts = np.unique(packed, return_counts=True)
    known = 0 if colour is None else np.dot(colour, (65536, 256, 1))
    others = found[found != known]
    if len(others) > 1 or (colour is None and 0 not in found):
        shares = sorted(zip(counts / packed.size, found, strict=True), reverse=True)
        shown = ", ".join(
            f"({n // 65536}, {n // 256 % 256}, {n % 256}) {percent(share)}"
            for share, n in shares[:4]
        )
        more = f", and {len(found) - 4} more" if len(found) > 4 else ""
        rarest = shares[-1][1]
        named = [int(rarest // 65536), int(rarest // 256 % 256), int(rarest % 256)]
        wanted = "black and one other colour" if colour is None else f"{colour} and one other"
        raise InputError(
            f"{path}: is not binary, or it is unclear what marks the defect: it holds the colours "
            f"{shown}{more}. Expected {wanted}; save the mask as PNG with only two, and where "
            f"neither is black name the defect's, as in mask_colour: {named}, "
            f"{SET_KEY.format(option='--mask-colour ' + ','.join(map(str, named)))}."
        )
    return packed != 0 if colour is None else packed == known


def percent(share: float) -> str:
    """Return a share as '6.2%'; what is nearly all is not rounded to all."""
    percent = 100 * float(share)
    return f"{percent:.2g}%" if percent < 99 else f"{percent:.4g}%"


def _read_bytes(path: Path) -> bytes:
    try:
        # A named pipe would be waited for until somebody writes into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(
                f"{path}: is no regular file, but a pipe, socket or device. Expected an image; "
                "remove it."
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). "
            "Expected an image; mend the file or its permissions, or remove it."
        ) from error
    if not content:
        raise InputError(f"{path}: is empty (0 bytes). Expected an image; copy it again.")
    return content


def _decode(content: bytes, path: Path, max_megapixels: float) -> Image.Image:
    """Decode an image whole and turn it as its EXIF data says."""
    try:
        # Pillow reads past a PNG's wrong checksums; only verify() looks at them, and it leaves
        # the image unusable, hence the second open.
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > max_megapixels * 1e6:
                raise InputError(
                    f"{path}: has {image.width} x {image.height} pixels, "
                    f"{image.width * image.height / 1e6:.0f} million. Expected at most "
                    f"{max_megapixels:g} million; make it smaller, or raise the limit, as in "
                    f"max_megapixels: {image.width * image.height / 1e6 + 1:.0f}, "
                    f"{SET_KEY.format(option='--max-megapixels')}."
                )
            image.verify()
        with Image.open(io.BytesIO(content)) as image:
            if (frames := _frames(image)) > 1:
                raise InputError(
                    f"{path}: holds {frames} images (pages of a TIFF, frames of an animation). "
                    "Expected one; save the one that is meant as a file of its own."
                )
            rawmodes = _other_rawmodes(image)
            if rawmodes == []:
                raise InputError(
                    f"{path}: has 16 bits a channel (mode {image.mode}), of which 8 would be lost. "
                    "Expected greyscale, RGB or RGBA where there are more than 8; convert it."
                )
            image.load()
            image_format = image.format
            image = ImageOps.exif_transpose(image)
            image.format = image_format  # exif_transpose drops it
        if rawmodes:
            with Image.open(io.BytesIO(content)) as low:
                low.tile = [
                    tile._replace(args=args) for tile, args in zip(low.tile, rawmodes, strict=True)
                ]
                low.load()
                image.info["low_bytes"] = ImageOps.exif_transpose(low)
        return image
    except InputError:  # it is a ValueError, as some of those of decoders are
        raise
    except _DECODING_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)  # its text names a memory address
        reason = "no known format" if unknown else error
        raise InputError(
            f"{path}: is no whole image ({reason}). "
            "Expected a whole image file; copy it again or remove it."
        ) from error


def _frames(image: Image.Image) -> int:
    """Return how many images a file holds, smaller copies of its first not counted."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "MPO":  # a camera's JPEG with its preview behind it
        return 1
    if image.format == "TIFF" and frames > 1:
        reduced = 0
        for index in range(1, frames):
            image.seek(index)
            reduced += image.tag_v2.get(254, 0) & 1  # NewSubfileType: a reduced copy
        image.seek(0)
        frames -= reduced
    return frames


def _other_rawmodes(image: Image.Image) -> list | None:
    """Return what to set as `args` of an image's tiles to decode the low bytes of its channels.

    Pillow keeps the high byte of colours with 16 bits a channel. Told that the bytes lie in the
    other order, it keeps the low one. None of an image that is not of that kind, [] of one whose
    low bytes cannot be had.
    """
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    found = []
    for tile in image.tile:
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        mode, _, depth = str(args[0]).partition(";16")
        if depth not in other or image.mode.startswith("I"):
            return None
        if mode not in ("RGB", "RGBA", "RGBX"):
            return []
        args = (f"{mode};16{other[depth]}", *args[1:])
        found.append(args if isinstance(tile.args, tuple) else args[0])
    return found or None


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
