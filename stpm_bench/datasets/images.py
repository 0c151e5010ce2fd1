"""The images of a data set, read whole and checked."""

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

# What Pillow raises on damaged files, by format and by where the damage lies.
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
# Pillow's limit is one for all files; `ReadOptions.max_megapixels` is compared instead.
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
    """Yield the bytes and the image of each file of one of `groups`.

    Of an image inside a larger file the bytes are its RGB values.

    Raises:
        InputError: as `read_image`; or as the layout's `inside`.
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
    """Return a file's bytes and its image, decoded whole and upright, in its own mode.

    Of colours with 16 bits a channel, of which Pillow keeps the high 8, `info["low_bytes"]` is the
    image of the low ones.

    Raises:
        InputError: it cannot be read, is no regular file, is empty, truncated or damaged, is no
            image or several, or has more pixels than `max_megapixels`.
    """
    content = _read_bytes(path)
    return content, _decode(content, path, max_megapixels)


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
            rawmodes = other_rawmodes(image)
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
    except DECODING_ERRORS as error:
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


def other_rawmodes(image: Image.Image) -> list | None:
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


def convert(image: Image.Image, path: Path, mode: str) -> Image.Image:
    """Return an image in mode 'RGB' or 'RGBA'."""
    try:
        # By way of RGBA, because Pillow warns when it drops a palette's transparency.
        return image.convert("RGBA").convert(mode) if image.mode == "P" else image.convert(mode)
    except DECODING_ERRORS as error:
        raise InputError(
            f"{path}: mode {image.mode} cannot be converted to RGB ({error}). "
            "Expected a greyscale, palette, RGB or CMYK image; convert it."
        ) from error


def is_16_bit(image: Image.Image) -> bool:
    # Before version 11 Pillow gave a 16-bit PNG the 32-bit mode "I".
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
