"""Reads the images of a data set, with checks of each file."""

import io
import stat
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stpm_bench.datasets.interface import DEFAULT_OPTIONS, INSIDE, SET_KEY, ReadOptions
from stpm_bench.datasets.layouts import LAYOUTS, container_of
from stpm_bench.errors import InputError

# The exceptions that Pillow raises on damaged files, by format and place of the damage.
DECODING_ERRORS = (
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
# Pillow has one limit for all files; `ReadOptions.max_megapixels` is used instead.
Image.MAX_IMAGE_PIXELS = None


def groups(files: Sequence[str], layout: str) -> list[list[int]]:
    """Return which of `files` are read in one pass: those inside one larger file, else each."""
    together: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        together.setdefault(container_of(file, layout) or file, []).append(index)
    return list(together.values())


def read_images(
    folder: Path, files: Sequence[str], layout: str, read_options: ReadOptions = DEFAULT_OPTIONS
) -> Iterator[tuple[bytes, Image.Image]]:
    """Yield the bytes and the image of each file in one of `groups`.

    For an image inside a larger file, the bytes are its RGB values.

    Raises:
        InputError: as in `read_image`; or as in the layout's `inside`.
    """
    if not (container := container_of(files[0], layout)):
        yield from (read_image(folder / file, read_options.max_megapixels) for file in files)
        return
    indices = [int(file.rpartition(INSIDE)[2]) for file in files]
    for pixels in LAYOUTS[layout].inside(folder / container, indices):
        yield pixels.tobytes(), Image.fromarray(np.ascontiguousarray(pixels))


def read_image(
    path: Path, max_megapixels: float = DEFAULT_OPTIONS.max_megapixels
) -> tuple[bytes, Image.Image]:
    """Return a file's bytes and its image, decoded completely and upright, in its own mode.

    For colours with 16 bits per channel Pillow keeps only the high 8; `info["low_bytes"]` is then
    an image of the low ones.

    Raises:
        InputError: it cannot be read, is not a regular file, is empty, truncated or damaged, is
            not an image or holds several, or has more pixels than `max_megapixels`.
    """
    content = _read_bytes(path)
    return content, _decode(content, path, max_megapixels)


def _read_bytes(path: Path) -> bytes:
    try:
        # Opening a named pipe would block until another process writes to it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(
                f"{path}: is not a regular file, but a pipe, socket or device. Expected an image; "
                "remove it."
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). "
            "Expected an image; fix the file or its permissions, or remove it."
        ) from error
    if not content:
        raise InputError(f"{path}: is empty (0 bytes). Expected an image; copy it again.")
    return content


def _decode(content: bytes, path: Path, max_megapixels: float) -> Image.Image:
    """Decode an image and rotate it as its EXIF data says."""
    try:
        # Pillow reads past a PNG's wrong checksums; only verify() checks them, and it leaves
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
                    f"{path}: contains {frames} images (pages of a TIFF, frames of an animation). "
                    "Expected one; save the right one as a separate file."
                )
            rawmodes = other_rawmodes(image)
            if rawmodes == []:
                raise InputError(
                    f"{path}: has 16 bits per channel (mode {image.mode}), of which 8 would be "
                    "lost. Expected greyscale, RGB or RGBA for more than 8 bits; convert it."
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
    except InputError:  # it is a ValueError, like some of the decoders' errors
        raise
    except DECODING_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)  # its text contains a memory address
        reason = "unknown format" if unknown else error
        raise InputError(
            f"{path}: is not a complete image ({reason}). "
            "Expected a complete image file; copy it again or remove it."
        ) from error


def _frames(image: Image.Image) -> int:
    """Return how many images a file holds, without smaller copies of the first."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "MPO":  # a camera's JPEG followed by its preview
        return 1
    if image.format == "TIFF" and frames > 1:
        reduced = 0
        for index in range(1, frames):
            image.seek(index)
            reduced += image.tag_v2.get(254, 0) & 1  # NewSubfileType: a reduced copy
        image.seek(0)
        frames -= reduced
    return frames


def other_rawmodes(image: Image.Image) -> list | None:
    """Return the `args` for an image's tiles with which the low bytes of its channels are decoded.

    Pillow keeps the high byte of colours with 16 bits per channel. If it is told that the bytes are
    in the opposite order, it keeps the low one. None for an image of another kind, [] for one whose
    low bytes cannot be obtained.
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


def convert(image: Image.Image, path: Path, mode: str) -> Image.Image:
    """Return an image in mode 'RGB' or 'RGBA'."""
    try:
        # Through RGBA, because Pillow warns when it drops a palette's transparency.
        return image.convert("RGBA").convert(mode) if image.mode == "P" else image.convert(mode)
    except DECODING_ERRORS as error:
        raise InputError(
            f"{path}: mode {image.mode} cannot be converted to RGB ({error}). "
            "Expected a greyscale, palette, RGB or CMYK image; convert it."
        ) from error


def is_16_bit(image: Image.Image) -> bool:
    # Before version 11 Pillow used the 32-bit mode "I" for a 16-bit PNG.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
