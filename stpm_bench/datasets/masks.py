"""Masks: read, checked against their images, and resized to the maps' size."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.transform import resize

from stpm_bench.datasets.images import convert, is_16_bit, read_image
from stpm_bench.datasets.interface import DEFAULT_OPTIONS, INSIDE, SET_KEY, Problem, ReadOptions
from stpm_bench.datasets.layouts import LAYOUTS, container_of
from stpm_bench.errors import InputError


def nearest(mask: np.ndarray, size: int) -> np.ndarray:
    """Sample a bool mask (H, W) at the nearest pixels' centres: (size, size) bool."""
    binary = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(binary.resize((size, size), Image.Resampling.NEAREST)) > 0


def bilinear_any(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a mask (H, W) bilinearly, without antialiasing; any non-zero pixel is a defect.

    The same as the STPM authors' code does to 8-bit masks; a defect grows by up to one pixel of
    the small mask.
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


# How a mask is resized from its image's size to the maps' size: the methods' field `masks`.
TREATMENTS = {"nearest": nearest, "bilinear_any": bilinear_any}


def read_mask(
    path: Path,
    image: Image.Image,
    layout: str = "mvtec",
    read_options: ReadOptions = DEFAULT_OPTIONS,
) -> np.ndarray:
    """Return a mask at its own size, as (H, W) bool, after checking it against its image.

    A coloured mask is black and one other colour, which marks the defect; if its background is not
    black, `read_options` says which colour marks the defect.

    Raises:
        InputError: as in `read_image`; its size differs from its image's, it is partly transparent,
            has other values or colours than the above (in a layout whose masks have no numbers), or
            marks no defect.
    """
    values = _mask_values(path, layout, read_options)
    if values.shape[:2] != (image.height, image.width):
        raise InputError(
            f"{path}: is {values.shape[1]} x {values.shape[0]} pixels, its image "
            f"{image.width} x {image.height}. Expected the same size; export the mask again."
        )
    mask = _marked(values, path, LAYOUTS[layout].nonzero, read_options.mask_colour)
    if not mask.any():
        expected = read_options.mask_colour or 255
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
        folder: the category's.
        marked: mask -> the share of its pixels that are a defect, and how many are a defect at
            `image_size` x `image_size`, sampled by `nearest`.
    """
    problems = []
    size = f"{image_size} x {image_size}"
    if large := [path for path, (share, _) in marked.items() if share > 0.5]:
        text = (
            f"{large[0]}: marks {percent(marked[large[0]][0])} of its image as a defect; "
            f"{len(large)} of {len(marked)} masks mark more than half. Expected a defect to be "
            "the smaller part; if the mask is inverted, name the colour of the defect, as in "
            f"mask_colour: [0, 0, 0], {SET_KEY.format(option='--mask-colour 0,0,0')}."
        )
        problems.append(Problem("warning", text))
    vanished = [path for path, (_, pixels) in marked.items() if not pixels]
    if vanished and len(vanished) == len(marked):
        text = (
            f"{folder}: at {size} no defect is visible in its mask ({len(marked)} masks). Only "
            "image AUROC is defined, no pixel metric; raise the config key 'image_size'."
        )
        problems.append(Problem("warning", text))
    elif vanished:
        names = ", ".join(str(path.relative_to(folder)) for path in vanished[:10])
        more = f" and {len(vanished) - 10} more" if len(vanished) > 10 else ""
        text = (
            f"{folder}: at {size} the defect is too small to be visible in {len(vanished)} of "
            f"{len(marked)} masks: {names}{more}. Their images still count as defective; raise the "
            "config key 'image_size' so that their pixels count too."
        )
        problems.append(Problem("warning", text))
    return problems


def marked_good(
    root: str | Path, category: str, layout: str, read_options: ReadOptions = DEFAULT_OPTIONS
) -> list[Problem]:
    """Find masks of anomaly-free test images that nevertheless mark a defect."""
    wrong, problems = [], []
    for path in LAYOUTS[layout].good_masks(Path(root), category):
        try:
            values = _mask_values(path, layout, read_options)
            if _marked(values, path, LAYOUTS[layout].nonzero, read_options.mask_colour).any():
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


def _mask_values(path: Path, layout: str, read_options: ReadOptions) -> np.ndarray:
    """Return the values of a mask, (H, W), or (H, W, 3) uint8 if it is coloured."""
    if container := container_of(path.name, layout):
        index = int(path.name.rpartition(INSIDE)[2])
        return next(LAYOUTS[layout].inside(path.with_name(container), [index]))
    _, mask = read_image(path, read_options.max_megapixels)
    # In a palette, colours do not tell the numbers of the kinds of defect.
    numbered = LAYOUTS[layout].nonzero and mask.mode == "P"
    if numbered or is_16_bit(mask) or mask.mode in ("1", "L", "I", "F"):
        return np.asarray(mask)
    mask = convert(mask, path, "RGBA")
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
    """Return where the values of a mask mark a defect, (H, W) bool.

    Raises:
        InputError: it is ambiguous; names `path`.
    """
    if colour is None and nonzero:
        return values.any(axis=2) if values.ndim == 3 else values > 0
    if colour is None and values.ndim == 2:
        # 0/1, 0/255 or the same in 16 bits. Anything else is a soft edge, a lossy format or a map
        # of several classes, and guessing a threshold would change the results.
        found = np.unique(values).tolist()
        if not any(set(found) <= {0, defect} for defect in (1, 255, 65535)):
            raise InputError(
                f"{path}: is not binary (it contains {len(found)} values, from {found[0]} to "
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
            f"{path}: is not binary, or it is unclear what marks the defect: it contains the "
            f"colours {shown}{more}. Expected {wanted}; save the mask as PNG with only two, and if "
            f"neither is black, name that of the defect, as in mask_colour: {named}, "
            f"{SET_KEY.format(option='--mask-colour ' + ','.join(map(str, named)))}."
        )
    return packed != 0 if colour is None else packed == known


def percent(share: float) -> str:
    """Return a share as '6.2%'; a share just below 1 is not rounded to 100%."""
    percent = 100 * float(share)
    return f"{percent:.2g}%" if percent < 99 else f"{percent:.4g}%"
