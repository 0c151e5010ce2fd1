"""Images with more than 8 bits per channel: their values, and their conversion to 8 bits."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from stpm_bench.datasets.images import (
    DECODING_ERRORS,
    convert,
    is_16_bit,
    other_rawmodes,
    read_image,
)
from stpm_bench.datasets.interface import DEFAULT_OPTIONS, SET_KEY, Problem, ReadOptions
from stpm_bench.datasets.layouts import LAYOUTS, scan
from stpm_bench.errors import InputError


def to_8_bits(
    image: Image.Image, path: Path, intensity: tuple[float, float] | None = None
) -> Image.Image:
    """Return an image in mode 'L' or 'RGB': more than 8 bits are scaled, transparency is dropped.

    Args:
        intensity: for an image with more than 8 bits per channel, the values that become 0 and 255;
            None: 0 and 65535.

    Raises:
        InputError: its mode cannot be converted; names `path`.
    """
    levels = deep_levels(image)
    if levels is not None:
        low, high = intensity or (0, 65535)
        # Pillow's own conversion to 8 bits clips at 255. In float64 every value is exact.
        scaled = (np.clip(levels, low, high).astype(np.float64) - low) * (255 / (high - low))
        return Image.fromarray(np.floor(scaled + 0.5).astype(np.uint8))
    # Indices of a palette must not be interpolated, and colours not mixed with transparency, so the
    # mode is converted before resizing. Grey stays grey until after: the same result, but faster.
    return image if image.mode == "L" else convert(image, path, "RGB")


def deep_levels(image: Image.Image) -> np.ndarray | None:
    """Return the values of an image with more than 8 bits per channel, None for any other.

    Returns:
        (H, W) or (H, W, 3): uint16, or int32 or float32 if a pixel has 32 bits.
    """
    if is_16_bit(image):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    if low := image.info.get("low_bytes"):
        high, low = (np.asarray(part.convert("RGB")).astype(np.uint16) for part in (image, low))
        return high * 256 + low
    return None


def extremes_of(image: Image.Image, path: Path) -> tuple[float, float] | None:
    """Return the lowest and highest value of an image with more than 8 bits, None for any other.

    Raises:
        InputError: a value is NaN or infinite; names `path`.
    """
    levels = deep_levels(image)
    if levels is None:
        return None
    if not np.isfinite(levels).all():
        raise InputError(
            f"{path}: contains NaN or infinite values. Expected finite numbers; fix the file."
        )
    return levels.min().item(), levels.max().item()


def training_extremes(
    root: str | Path, category: str, layout: str, read_options: ReadOptions = DEFAULT_OPTIONS
) -> dict[Path, tuple[float, float] | None]:
    """Return the `deep_extremes` of the training images of a category."""
    if LAYOUTS[layout].inside:
        return {}
    folder = LAYOUTS[layout].folder(Path(root), category)
    files = [folder / row.file for row in scan(root, category, "train", layout)[0]]
    return deep_extremes(files, read_options.max_megapixels)


def deep_extremes(
    files: Iterable[Path], max_megapixels: float = DEFAULT_OPTIONS.max_megapixels
) -> dict[Path, tuple[float, float] | None]:
    """Return `extremes_of` of files; only images with more bits are decoded, None for the others.

    A file that cannot be read gives None here; the code that reads all files reports it.
    """
    found = {}
    for path in files:
        found[path] = None
        try:
            if path.is_file():
                with Image.open(path) as image:
                    deep = is_16_bit(image) or image.mode in ("I", "F") or other_rawmodes(image)
                if deep:
                    found[path] = extremes_of(read_image(path, max_megapixels)[1], path)
        except (*DECODING_ERRORS, InputError):
            continue
    return found


def span(extremes: Iterable[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the lowest and highest of all values; None if there are none or they are equal."""
    known = [pair for pair in extremes if pair is not None]
    if not known:
        return None
    low, high = min(low for low, _ in known), max(high for _, high in known)
    return (low, high) if low < high else None


def bit_depth_problems(
    folder: Path,
    split: str,
    trained: Mapping[Path, tuple[float, float] | None],
    extremes: Mapping[Path, tuple[float, float] | None],
    read_options: ReadOptions = DEFAULT_OPTIONS,
) -> list[Problem]:
    """Report how images with more than 8 bits per channel become images of 8 bits.

    The range comes from the training images or the config, never from a test image.

    Args:
        folder: the category's.
        split: the split that `extremes` belongs to.
        trained, extremes: image -> its `extremes_of`, for the training images and for the split.
    """
    deep = {path: pair for path, pair in extremes.items() if pair is not None}
    if not deep:
        return []
    first = next(iter(deep))
    intensity, problems = read_options.intensity or span(trained.values()), []
    if not read_options.intensity and not any(pair is not None for pair in trained.values()):
        text = (
            f"{first}: has more than 8 bits per channel, like {len(deep)} of {len(extremes)} "
            "images, but no training image has, so that the range of the values is unknown. "
            "Expected the same depth in both splits; convert the images, or name the values that "
            "become 0 and 255, as in intensity: [0, 4095], "
            f"{SET_KEY.format(option='--intensity 0,4095')}."
        )
        return [Problem("error", text)]
    if len(deep) < len(extremes):
        text = (
            f"{first}: has more than 8 bits per channel, like {len(deep)} of {len(extremes)} "
            f"{split} images; the others have 8. Expected one depth: only images with more than 8 "
            "bits are scaled."
        )
        problems.append(Problem("warning", text))
    if split == "train" and not read_options.intensity:
        low, high = intensity or (0, 65535)
        text = (
            f"{folder}: {len(deep)} training images have more than 8 bits per channel; their "
            f"values, {low:g} to {high:g}, become 0 to 255 in both splits. If the camera has "
            f"another range, name it, as in intensity: [0, {_full_scale(high)}], "
            f"{SET_KEY.format(option=f'--intensity 0,{_full_scale(high)}')}."
        )
        problems.append(Problem("warning", text))
    if intensity:
        low, high = intensity
        outside = [path for path, pair in deep.items() if pair[0] < low or pair[1] > high]
        if outside:
            lowest, highest = span(deep[path] for path in outside) or deep[outside[0]]
            text = (
                f"{outside[0]}: has values outside {low:g} to {high:g}, like {len(outside)} of "
                f"{len(deep)} {split} images (from {lowest:g} to {highest:g}), which are clipped. "
                "If they matter, name a wider range, as in intensity: "
                f"[{min(low, lowest):g}, {max(high, highest):g}], "
                f"{SET_KEY.format(option='--intensity')}."
            )
            problems.append(Problem("warning", text))
    return problems


def _full_scale(value: float) -> str:
    """Return the highest value of the smallest number of bits that holds `value`, such as 4095."""
    return f"{2 ** int(value).bit_length() - 1}" if value > 1 else "1"
