"""Folders in MVTec AD's layout: which images there are, and their pixels as arrays.

ROOT/CATEGORY/train/good/*.png
ROOT/CATEGORY/test/good/*.png
ROOT/CATEGORY/test/DEFECT/*.png
ROOT/CATEGORY/ground_truth/DEFECT/*_mask.png
"""

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from stpm_bench.errors import InputError

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle",
    "cable",
    "capsule",
    "hazelnut",
    "metal_nut",
    "pill",
    "screw",
    "toothbrush",
    "transistor",
    "zipper",
)
CATEGORIES = TEXTURES + OBJECTS

# Published numbers of train and test images.
COUNTS: dict[str, tuple[int, int]] = {
    "carpet": (280, 117),
    "grid": (264, 78),
    "leather": (245, 124),
    "tile": (230, 117),
    "wood": (247, 79),
    "bottle": (209, 83),
    "cable": (224, 150),
    "capsule": (219, 132),
    "hazelnut": (391, 110),
    "metal_nut": (220, 115),
    "pill": (267, 167),
    "screw": (320, 160),
    "toothbrush": (60, 42),
    "transistor": (213, 100),
    "zipper": (240, 151),
}

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

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


# --- which images there are ----------------------------------------------------------------------


def list_categories(root: str | Path) -> list[str]:
    """Return the names of the subfolders of `root` that hold train/ or test/, sorted.

    A folder that does not exist has no categories.
    """
    return [
        folder.name
        for folder in _folders(Path(root))
        if (folder / "train").is_dir() or (folder / "test").is_dir()
    ]


def count_images(root: str | Path, category: str) -> tuple[int, int]:
    """Return the numbers of images in train/good and in test/*, to compare with `COUNTS`.

    It only lists folders, opens no file and never raises: what is missing counts as 0.
    """
    folder = Path(root) / category
    return (
        len(_images(folder / "train" / "good")),
        sum(len(_images(defect)) for defect in _folders(folder / "test")),
    )


def list_images(root: str | Path, category: str, split: str) -> pd.DataFrame:
    """List the images of one split of a category, in an order that is the same on every machine.

    'train' looks into train/good and nowhere else; 'test' looks into test/ and ground_truth/. A
    mask belongs to an image by its name: ground_truth/DEFECT/X_mask.png or X.png for the image
    test/DEFECT/X.png, whatever the two suffixes. Hidden files and files that are no images by
    their suffix are passed over, and so is ground_truth/good.

    Args:
        root: folder of the data set.
        category: name of a folder in it.
        split: 'train' or 'test'.

    Returns:
        One row an image, sorted by file, all columns strings: `file`, relative to ROOT/CATEGORY
        with posix slashes; `defect`, 'good' or the name of the defect's folder; `mask`, relative
        like `file`, '' for a good image.

    Raises:
        InputError: no such category; train/good missing or empty; a test split without images,
            without good ones or without defects; a mask missing, ambiguous or without its image;
            images where the layout has none.
    """
    if split not in ("train", "test"):
        raise InputError(f"Unknown split {split!r}. Expected 'train' or 'test'.")
    folder = _category_folder(Path(root), category)
    rows = _train_rows(folder) if split == "train" else _test_rows(folder)
    return pd.DataFrame(sorted(rows), columns=["file", "defect", "mask"])


def _train_rows(folder: Path) -> list[tuple[str, str, str]]:
    good = folder / "train" / "good"
    if not good.is_dir():
        raise InputError(
            f"{good}: no such folder. Training images are expected there, "
            f"as in {folder.name}/train/good/000.png; move the anomaly-free images into it."
        )
    images = _images(good)
    if not images:
        raise InputError(
            f"{good}: holds no image. Expected anomaly-free training images "
            f"({' '.join(SUFFIXES)}) directly in it; put them there."
        )
    _refuse_nested(good)
    return [(f"train/good/{image.name}", "good", "") for image in images]


def _test_rows(folder: Path) -> list[tuple[str, str, str]]:
    test, truth = folder / "test", folder / "ground_truth"
    if stray := _images(test):
        raise InputError(
            f"{stray[0]}: lies directly in test/. Expected test/good/{stray[0].name} or "
            f"test/DEFECT/{stray[0].name}; move it into the folder of its defect."
        )
    images = {defect.name: found for defect in _folders(test) if (found := _images(defect))}
    if not images:
        raise InputError(
            f"{test}: holds no image. Expected test/good/*.png and test/DEFECT/*.png, "
            "a folder for each kind of defect; put the test images there."
        )
    if "good" not in images:
        raise InputError(
            f"{test}: has no good images (found only {', '.join(images)}). Expected anomaly-free "
            "test images in test/good: without them no AUROC is defined. Add some."
        )
    if len(images) == 1:
        raise InputError(
            f"{test}: has good images only. Expected images with defects in test/DEFECT "
            "and their masks in ground_truth/DEFECT: without them no AUROC is defined. Add some."
        )
    for defect in images:
        _refuse_nested(test / defect)

    masks = {
        defect.name: found
        for defect in _folders(truth)
        if defect.name != "good" and (found := _images(defect))
    }
    rows = [(f"test/good/{image.name}", "good", "") for image in images.pop("good")]
    for defect, found in images.items():
        pairs = _match_masks(found, masks.pop(defect, []), truth / defect)
        rows += [
            (f"test/{defect}/{image.name}", defect, f"ground_truth/{defect}/{mask.name}")
            for image, mask in pairs
        ]
    for defect, found in masks.items():
        raise InputError(
            f"{found[0]}: {len(found)} mask(s) here without an image. "
            f"Expected the images in {test / defect}; add them or remove the masks."
        )
    return rows


def _match_masks(images: list[Path], masks: list[Path], truth: Path) -> Iterable[tuple[Path, Path]]:
    """Pair each image of one defect with its mask, by name."""
    by_stem: dict[str, Path] = {}
    for image in images:
        if image.stem in by_stem:
            raise InputError(
                f"{by_stem[image.stem]} and {image.name}: two images of one name, so that it is "
                "unclear whose the mask is. Expected different names; rename one and its mask."
            )
        by_stem[image.stem] = image

    mask_of: dict[Path, Path] = {}
    for mask in masks:
        image = by_stem.get(mask.stem.removesuffix("_mask")) or by_stem.get(mask.stem)
        if image is None:
            raise InputError(
                f"{mask}: a mask without its image. Expected an image called "
                f"{mask.stem.removesuffix('_mask')} in {images[0].parent}; "
                "add it or remove the mask."
            )
        if image in mask_of:
            raise InputError(
                f"{mask_of[image]} and {mask.name}: two masks for {image}. "
                "Expected one; remove the other."
            )
        mask_of[image] = mask

    missing = [image for image in images if image not in mask_of]
    if missing:
        more = f" (and {len(missing) - 1} more images)" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0]}{more}: the mask is missing. Expected "
            f"{truth / missing[0].stem}_mask.png; add it, or take the image out of the test set."
        )
    return mask_of.items()


def _category_folder(root: Path, category: str) -> Path:
    """Return ROOT/CATEGORY, or raise an InputError that says what there is instead."""
    known = list_categories(root)
    if category in known:
        return root / category
    if not root.is_dir():
        found = "There is no such folder."
    elif known:
        found = f"Its categories are: {', '.join(known)}."
    elif (root / "train").is_dir() or (root / "test").is_dir():
        found = f"It looks like a category itself: name the folder above it, {root.parent}."
    elif nested := [folder for folder in _folders(root) if list_categories(folder)]:
        found = f"It holds no category, but {nested[0]} does: name that folder."
    else:
        found = "It holds no category."
    raise InputError(
        f"{root}: no category {category!r}. {found} "
        f"Expected {Path(root.name) / category}/ with train/good, test and ground_truth in it."
    )


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
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


def _refuse_nested(folder: Path) -> None:
    for nested in _folders(folder):
        if found := _images(nested):
            raise InputError(
                f"{found[0]}: lies one folder too deep and would be passed over. Expected images "
                f"directly in {folder}; move it up, or out of the data set."
            )


# --- their pixels --------------------------------------------------------------------------------


def prepare(
    root: str | Path,
    category: str,
    split: str,
    image_size: int = 256,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, pd.DataFrame]:
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

    Returns:
        images: (N, S, S, 3) uint8, RGB.
        masks: for each of `TREATMENTS`, (N, S, S) bool, True on a defect; None for 'train'.
        table: N rows in the images' order: the columns of `list_images`, then `sha256` of the
            image file's bytes, then `defect_pixels`, how many pixels of the nearest mask are True.

    Raises:
        InputError: whatever `list_images` raises; an image or mask that cannot be read, is
            truncated or empty; a mask of another size than its image, not binary, transparent or
            without a defect. All files with a problem are found; the first ten are named.
    """
    folder = Path(root) / category
    table = list_images(root, category, split)
    images = np.empty((len(table), image_size, image_size, 3), np.uint8)
    masks = {name: np.zeros(images.shape[:3], bool) for name in TREATMENTS}

    def read(index: int) -> tuple[str, str]:
        """Fill one row of the arrays; return the file's hash, and a problem or ''."""
        row = table.iloc[index]
        try:
            content = _read_bytes(folder / row["file"])
            image = _decode(content, folder / row["file"])
            images[index] = _to_rgb(image, folder / row["file"], image_size)
            if row["mask"]:
                path = folder / row["mask"]
                mask = _to_mask(path, image)
                for name, treatment in TREATMENTS.items():
                    masks[name][index] = treatment(mask, image_size)
        except InputError as error:
            return "", str(error)
        return hashlib.sha256(content).hexdigest(), ""

    with ThreadPoolExecutor(workers or os.cpu_count()) as executor:
        results = list(
            tqdm(
                executor.map(read, range(len(table))),
                desc=f"{category} {split}",
                total=len(table),
                unit="image",
                disable=None if progress else True,  # None: only where there is a terminal
            )
        )

    problems = [problem for _, problem in results if problem]
    if problems:
        more = [f"... and {len(problems) - 10} more files."] if len(problems) > 10 else []
        raise InputError("\n".join(problems[:10] + more))
    table["sha256"] = [digest for digest, _ in results]
    table["defect_pixels"] = masks["nearest"].sum(axis=(1, 2))
    vanished = table[(table["defect"] != "good") & (table["defect_pixels"] == 0)]
    if len(vanished):
        warnings.warn(
            f"{category}: at {image_size} x {image_size} the defect is too small to show in the "
            f"mask of {', '.join(vanished['file'])}. The images still count as defective.",
            stacklevel=2,
        )
    return images, None if split == "train" else masks, table


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


def _to_rgb(image: Image.Image, path: Path, size: int) -> np.ndarray:
    """Return an image resized, as a (size, size, 3) uint8 array."""
    if _is_16_bit(image):
        # Pillow's own conversion to 8 bits clips at 255.
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(
            f"{path}: has 32 bits a pixel (mode {image.mode}), whose range is unknown. "
            "Expected 8 or 16 bits; convert it."
        )
    # A palette's indices must not be interpolated, nor a colour be mixed with its transparency:
    # so the mode is converted before the size. Grey stays grey until after: the same, but faster.
    if image.mode != "L":
        image = _convert(image, path, "RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))


def read_masks(root: str | Path, category: str) -> list[np.ndarray]:
    """Return the test set's masks at their images' own size, in the order of `list_images`.

    Returns:
        N arrays (H, W) bool, True on a defect; all False for a good image.

    Raises:
        InputError: as `prepare`, of the first file with a problem.
    """
    folder = Path(root) / category
    masks = []
    for row in list_images(root, category, "test").itertuples():
        image = _decode(_read_bytes(folder / row.file), folder / row.file)
        if row.mask:
            masks.append(_to_mask(folder / row.mask, image))
        else:
            masks.append(np.zeros((image.height, image.width), bool))
    return masks


def nearest(mask: np.ndarray, size: int) -> np.ndarray:
    """Sample a bool mask (H, W) at the nearest pixels' centres: (size, size) bool."""
    binary = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(binary.resize((size, size), Image.Resampling.NEAREST)) > 0


def bilinear_any(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a mask (H, W) bilinearly, without antialiasing; any non-zero pixel is a defect.

    What the STPM authors' code does to 8-bit masks; a defect grows by up to a pixel of the small
    mask.
    """
    from skimage.transform import resize  # slow to import, and the workflow imports this module

    grey = resize(
        np.where(mask, np.float32(255), np.float32(0)),
        (size, size),
        order=1,
        mode="edge",
        anti_aliasing=False,
        preserve_range=True,
    )
    return np.rint(grey) > 0


# How a mask at its image's own size comes to the maps' size: the protocol field `masks`.
TREATMENTS = {"nearest": nearest, "bilinear_any": bilinear_any}


def _to_mask(path: Path, image: Image.Image) -> np.ndarray:
    """Return a mask at its own size, as (H, W) bool, after checking it against its image."""
    mask = _decode(_read_bytes(path), path)
    if mask.size != image.size:
        raise InputError(
            f"{path}: is {mask.width} x {mask.height} pixels, its image "
            f"{image.width} x {image.height}. Expected the same size; export the mask again."
        )
    if not _is_16_bit(mask) and mask.mode not in ("1", "L", "I", "F"):
        mask = _convert(mask, path, "RGBA")
        if mask.getextrema()[3][0] < 255:
            raise InputError(
                f"{path}: is partly transparent, so that it is unclear where the defect is. "
                "Expected black for no defect and white for a defect; export it without alpha."
            )
        mask = mask.convert("RGB")
    values = np.asarray(mask)
    if values.ndim == 3:
        values = values.max(axis=2)
    # 0/1, 0/255 or its like in 16 bits. Anything else is a soft edge, a lossy format or a map of
    # several classes, and to guess a threshold would move the numbers.
    found = np.unique(values).tolist()
    if not any(set(found) <= {0, defect} for defect in (1, 255, 65535)):
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
