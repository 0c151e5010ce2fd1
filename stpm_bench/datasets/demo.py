"""The embedded demo: three textures with generated defects, in MVTec AD's layout and names.

Crops of scikit-image's bundled photographs brick, grass and gravel; nothing is downloaded. The left
part of each photograph gives the training crops, the right part the test crops. The defects are
those of real surfaces: cracks, foreign patches, smears, stains and threads.

Every image has its own random generator, seeded by its identity (seed, category, split, defect,
index), so that changing the number of images leaves the others unchanged. The arithmetic uses only
operations that IEEE 754 rounds exactly (+ - * / sqrt; no sin, exp, BLAS or float sums): the results
of others differ in the last bit between machines, and the demo must be the same on all.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stpm_bench.errors import InputError
from stpm_bench.files import atomic_write

CATEGORIES = ("brick", "grass", "gravel")
TRAIN_GOOD = 40
TEST_GOOD = 20
PER_DEFECT = 5

# The photographs are 512 x 512. Grass and gravel are halved: at full scale a crop holds few stones
# and leaves, so that each one stands out; at half scale they form a texture.
_SHRINK = {"brick": 1, "grass": 2, "gravel": 2}
# The first column of the test crops. Split by columns, not rows: the bricks grow towards the
# viewer. Mirrored bricks lean the other way, so left crops and their mirror images resemble right
# ones.
_BORDER = {"brick": 320, "grass": 128, "gravel": 128}
# Textures without an upright direction: their crops are also rotated by multiples of 90 degrees.
_TURNED = {"brick": False, "grass": True, "gravel": True}
_SIZES = (64, 128)
_MIDDLE = 118  # roughly the photographs' mean grey level
# The images of a defect go from small to large; everything else about a defect is random.
_SCALES = (0.6, 0.8, 1.0, 1.2, 1.5)
# A patch is visible because its texture differs from the one around it.
_FOREIGN = {"brick": "gravel", "grass": "brick", "gravel": "brick"}


class Crop(NamedTuple):
    """One image of the demo: its identity, and the pixels [top:bottom, left:right] of its crop.

    The pixels are those of the photograph at the scale of its category.
    """

    category: str
    split: str
    defect: str
    index: int
    left: int
    top: int
    right: int
    bottom: int


class Sample(NamedTuple):
    """The pixels of one image.

    image: (size, size) uint8, as written.
    mask: (size, size) bool, the defect; all False for a good image.
    clean: (size, size) uint8, the same image without its defect; equal to it outside the mask.
    """

    image: np.ndarray
    mask: np.ndarray
    clean: np.ndarray


def write(folder: str | Path, size: int = 128, seed: int = 0) -> None:
    """Write the demo set as 8-bit single-channel PNG files.

    `folder`/CATEGORY/train/good/000.png, test/good/000.png, test/DEFECT/000.png and
    ground_truth/DEFECT/000_mask.png (0 or 255), for each of `CATEGORIES`. The same size and seed
    give the same pixels on every machine. Each file is written atomically; existing ones are
    replaced.

    Args:
        folder: made if it does not exist.
        size: side of the square images in pixels, 64 to 128; a crop is never rescaled.
        seed: 0 or above.

    Raises:
        InputError: `size` or `seed` out of range, or the folder cannot be written.
    """
    folder = Path(folder)
    for category in CATEGORIES:
        for crop in crops(category, size, seed):
            sample = render(crop, seed)
            name = f"{crop.index:03d}"
            _save(folder / category / crop.split / crop.defect / f"{name}.png", sample.image)
            if crop.defect != "good":
                mask = sample.mask.astype(np.uint8) * 255
                _save(folder / category / "ground_truth" / crop.defect / f"{name}_mask.png", mask)


def crops(category: str, size: int = 128, seed: int = 0) -> list[Crop]:
    """List the images of a category with the boxes of the photograph that they are cut from.

    Raises:
        InputError: an unknown category, or `size` or `seed` out of range.
    """
    if category not in CATEGORIES:
        raise InputError(f"demo category {category!r} is unknown. Allowed: {', '.join(CATEGORIES)}")
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise InputError(
            f"demo image size {size}: expected {_SIZES[0]} to {_SIZES[1]} pixels, because train "
            "and test images are cut from separate parts of a photograph of 256 pixels"
        )
    if seed < 0:
        raise InputError(f"demo seed {seed}: expected 0 or above")
    listed = []
    for split, defect, index in _names():
        border, whole = _BORDER[category], 512 // _SHRINK[category]
        first, last = (0, border) if split == "train" else (border, whole)
        rng = _generator(seed, category, split, defect, index, "box")
        left = int(rng.integers(first, last - size, endpoint=True))
        top = int(rng.integers(0, whole - size, endpoint=True))
        listed.append(Crop(category, split, defect, index, left, top, left + size, top + size))
    return listed


def render(crop: Crop, seed: int = 0) -> Sample:
    """Return the pixels of one of the images that `crops` lists for the same seed."""
    rng = _generator(seed, crop.category, crop.split, crop.defect, crop.index, "exposure")
    pixels = _photograph(crop.category)[crop.top : crop.bottom, crop.left : crop.right]
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = np.rot90(pixels, rng.integers(4) if _TURNED[crop.category] else 0)
    gain = rng.uniform(0.94, 1.06)
    offset = rng.uniform(-6, 6)
    noise = rng.uniform(-2.5, 2.5, pixels.shape)

    def expose(scene: np.ndarray) -> np.ndarray:
        # The defect is on the surface, so exposure and sensor noise are applied after it.
        grey = (scene - _MIDDLE) * gain + _MIDDLE + offset + noise
        return np.clip(np.floor(grey + 0.5), 0, 255).astype(np.uint8)

    scene = pixels.copy()
    clean = expose(scene)
    if crop.defect == "good":
        return Sample(clean, np.zeros(clean.shape, bool), clean)
    rng = _generator(seed, crop.category, crop.split, crop.defect, crop.index, "defect")
    scale = _SCALES[crop.index % len(_SCALES)] * scene.shape[0] / 128
    changed, mask = DEFECTS[crop.defect](scene, rng, scale, crop.category)
    return Sample(np.where(mask, expose(changed), clean), mask, clean)


# Each defect: (scene, rng, scale, category) -> (changed scene, mask). `scene` is float64 (H, W), 0
# to 255; `scale` 0.5 (small) to 1.5 (large) for 128 pixels. Changes outside the mask are dropped.


def _crack(scene, rng, scale, category):
    """A jagged dark line that forks."""
    start, direction = _somewhere(rng, scene, 0.3), _direction(rng)
    trunk = _walk(rng, start, direction, 6, 11 * scale, bend=0.7)
    branch = _walk(rng, trunk[3], _bent(rng, direction, 1.2), 2, 11 * scale, bend=0.7)
    distance = np.minimum(_along(scene, trunk), _along(scene, branch))
    weight = np.clip(rng.uniform(1.4, 2.0) + 0.5 - distance, 0, 1)
    return scene + weight * (rng.uniform(8, 28) - scene), weight > 0.15


def _patch(scene, rng, scale, category):
    """A patch of another texture."""
    texture = _photograph(_FOREIGN[category])
    top = rng.integers(0, texture.shape[0] - scene.shape[0], endpoint=True)
    left = rng.integers(0, texture.shape[1] - scene.shape[1], endpoint=True)
    foreign = texture[top : top + scene.shape[0], left : left + scene.shape[1]]
    weight = _blob(scene, rng, 15 * scale, softness=0.15)
    return scene + weight * (foreign - scene), weight > 0.15


def _smear(scene, rng, scale, category):
    """An area wiped in one direction, along which its texture is lost."""
    rows, columns = _grid(scene)
    tries = []
    for _ in range(8):
        weight = _blob(scene, rng, 17 * scale, softness=0.2)
        dy, dx = _direction(rng)
        reach = range(-9, 10)
        wiped = sum(_bilinear(scene, rows + k * dy, columns + k * dx) for k in reach) / len(reach)
        tries.append((scene + weight * (_box_mean(wiped, 1) - scene), weight > 0.15))
    # Use the most visible one: between joints, or along one, there is nothing to wipe away.
    return max(tries, key=lambda tried: _mean(np.abs(tried[0] - scene)[tried[1]]))


def _stain(scene, rng, scale, category):
    """A blot that darkens or bleaches the surface under it."""
    weight = _blob(scene, rng, 15 * scale, softness=0.4)
    target = 10 if rng.random() < 0.5 else 235
    strength = rng.uniform(0.6, 0.75) * (0.85 + 0.15 * _clouds(scene, rng, 10))
    return scene + weight * strength * (target - scene), weight > 0.15


def _thread(scene, rng, scale, category):
    """A long bright curved thread that lies on the surface, with its shadow."""
    points = _walk(rng, _somewhere(rng, scene, 0.3), _direction(rng), 12, 6 * scale, bend=0.35)
    distance = _along(scene, points)
    shade = _along(scene, [(y + 2, x + 2) for y, x in points])
    thread = np.clip(rng.uniform(1.2, 1.7) + 0.5 - distance, 0, 1)
    shadow = np.clip(1.2 + 0.5 - shade, 0, 1)
    scene = scene * (1 - 0.7 * shadow)
    return scene + thread * (rng.uniform(235, 250) - scene), np.maximum(thread, shadow) > 0.15


DEFECTS = {"crack": _crack, "patch": _patch, "smear": _smear, "stain": _stain, "thread": _thread}
# Split -> number of images of a category.
IMAGES = {"train": TRAIN_GOOD, "test": TEST_GOOD + len(DEFECTS) * PER_DEFECT}


def _names() -> Iterator[tuple[str, str, int]]:
    """Yield (split, defect, index) for each image of a category."""
    yield from (("train", "good", index) for index in range(TRAIN_GOOD))
    yield from (("test", "good", index) for index in range(TEST_GOOD))
    for defect in DEFECTS:
        yield from (("test", defect, index) for index in range(PER_DEFECT))


def _generator(seed: int, *name) -> np.random.Generator:
    return np.random.default_rng([seed, *"/".join(map(str, name)).encode()])


@cache
def _photograph(category: str) -> np.ndarray:
    """Return a photograph at the scale of its category: float64, 0 to 255."""
    import skimage.data  # not above: Snakemake's environment reads this module and may lack it

    photograph = getattr(skimage.data, category)().astype(np.float64)
    shrink = _SHRINK[category]
    side = photograph.shape[0] // shrink
    # Sums of at most four integers, divided by a power of two: exact.
    photograph = photograph.reshape(side, shrink, side, shrink).mean(axis=(1, 3))
    photograph.setflags(write=False)
    return photograph


def _mean(grey: np.ndarray) -> float:
    """The mean of whole grey levels: an integer sum, exact in any order."""
    return int(grey.astype(np.int64).sum()) / grey.size


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _somewhere(rng: np.random.Generator, scene: np.ndarray, margin: float) -> tuple[float, float]:
    """A point (y, x) at least `margin` (a share of the side) away from the image's edge."""
    y, x = (rng.uniform(margin, 1 - margin) * side for side in scene.shape)
    return y, x


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    """A unit vector (y, x): a point of the square, normalised."""
    y, x = rng.uniform(-1, 1), _sign(rng) * rng.uniform(0.05, 1)
    norm = np.sqrt(y * y + x * x)
    return float(y / norm), float(x / norm)


def _bent(rng: np.random.Generator, direction: tuple[float, float], most: float) -> tuple:
    """A direction turned by at most about `most` radians: a rotation without sin and cos."""
    (y, x), bend = direction, rng.uniform(-most, most)
    norm = np.sqrt(1 + bend * bend)
    return float((y + bend * x) / norm), float((x - bend * y) / norm)


def _walk(
    rng: np.random.Generator, start: tuple, direction: tuple, steps: int, length: float, bend: float
) -> list[tuple[float, float]]:
    """The points of a line with this many steps of about `length` pixels, each bent at random."""
    points = [start]
    for _ in range(steps):
        direction = _bent(rng, direction, bend)
        step = rng.uniform(0.8, 1.2) * length
        points.append((points[-1][0] + step * direction[0], points[-1][1] + step * direction[1]))
    return points


def _along(scene: np.ndarray, points: list[tuple[float, float]]) -> np.ndarray:
    """The distance of each pixel to a line through points, in pixels."""
    return np.minimum.reduce([_distance(scene, *ends) for ends in pairwise(points)])


def _grid(scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column of each pixel."""
    rows, columns = np.indices(scene.shape, dtype=np.float64)
    return rows, columns


def _distance(scene: np.ndarray, start: tuple, end: tuple) -> np.ndarray:
    """The distance of each pixel to the segment from `start` to `end`, in pixels."""
    rows, columns = _grid(scene)
    y, x = rows - start[0], columns - start[1]
    dy, dx = end[0] - start[0], end[1] - start[1]
    along = np.clip((y * dy + x * dx) / (dy * dy + dx * dx), 0, 1)
    y, x = y - along * dy, x - along * dx
    return np.sqrt(y * y + x * x)


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`image` at fractional positions, which are clipped to its edge."""
    height, width = image.shape
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top = np.minimum(rows.astype(int), height - 2)
    left = np.minimum(columns.astype(int), width - 2)
    down, right = rows - top, columns - left
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _clouds(scene: np.ndarray, rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise, 0 to 1: a coarse random grid, interpolated."""
    rows, columns = _grid(scene)
    coarse = rng.random((cells + 1, cells + 1))
    return _bilinear(coarse, rows * cells / scene.shape[0], columns * cells / scene.shape[1])


def _blob(
    scene: np.ndarray, rng: np.random.Generator, radius: float, softness: float
) -> np.ndarray:
    """An irregular ellipse: 1 inside, 0 outside, a soft edge `softness` radii wide."""
    cy, cx = _somewhere(rng, scene, 0.2)
    dy, dx = _direction(rng)
    stretch = rng.uniform(1, 1.5)
    rows, columns = _grid(scene)
    y, x = rows - cy, columns - cx
    along, across = (y * dy + x * dx) / stretch, (x * dy - y * dx) * stretch
    distance = np.sqrt(along * along + across * across) / radius
    distance = distance + 0.6 * (_clouds(scene, rng, 8) - 0.5)
    edge = np.clip((1 + softness / 2 - distance) / softness, 0, 1)
    return edge * edge * (3 - 2 * edge)


def _box_mean(image: np.ndarray, reach: int) -> np.ndarray:
    """The mean of the (2 reach + 1)² pixels around each, edge pixels repeated."""
    height, width = image.shape
    padded = np.pad(image, reach, mode="edge")
    window = range(2 * reach + 1)
    rows = sum(padded[shift : shift + height] for shift in window)
    return sum(rows[:, shift : shift + width] for shift in window) / len(window) ** 2


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary)
