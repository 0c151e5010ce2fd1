"""Computes an image's anomaly map from the maps of single levels; uses NumPy, not torch."""

import functools
from collections.abc import Sequence

import numpy as np

# Combines two enlarged level maps into one.
FUSIONS = {"product": np.multiply, "sum": np.add}


def anomaly_maps(
    level_maps: Sequence[np.ndarray],
    size: int,
    fusion: str = "product",
    map_resolution: str = "image",
    smoothing: float = 0.0,
) -> np.ndarray:
    """Return the anomaly maps (N, size, size) float32 for some level maps.

    Args:
        level_maps: one (N, H_l, W_l) float32 array per level.
        size: side of the image in pixels.
        fusion: a key of `FUSIONS`.
        map_resolution: where levels are fused: at the image's size ('image'; STPM, section 3), or
            at that of the finest level ('finest'; the authors' code), after which the result is
            enlarged.
        smoothing: standard deviation in pixels, at 256 x 256, of a Gaussian filter over the result
            (PaDiM, section 4; also SPADE and PatchCore); scaled with `size`, 0 for none.
    """
    from scipy.ndimage import gaussian_filter

    side = fused_size(level_maps, size, map_resolution)
    result = np.empty((len(level_maps[0]), size, size), np.float32)
    # Image by image: intermediate results stay in the cache and take no extra memory.
    for index, target in enumerate(result):
        fused = fuse([maps[index] for maps in level_maps], side, fusion)
        target[:] = enlarge(fused, size)
        if smoothing:
            gaussian_filter(target, smoothing * size / 256, output=target)
    return result


def image_scores(maps: np.ndarray, method_scores: np.ndarray | None) -> np.ndarray:
    """Return image scores (N,): the method's, or the maxima of the anomaly maps (N, S, S)."""
    return maps.max(axis=(1, 2)) if method_scores is None else method_scores


def fuse(level_maps: Sequence[np.ndarray], size: int, fusion: str = "product") -> np.ndarray:
    """Enlarge each level's map (..., H_l, W_l) to `size` and multiply or add them."""
    return functools.reduce(FUSIONS[fusion], [enlarge(maps, size) for maps in level_maps])


def fused_size(level_maps: Sequence[np.ndarray], image_size: int, map_resolution: str) -> int:
    """Return the side at which levels are fused: the image's, or the finest level's ('finest')."""
    return image_size if map_resolution == "image" else max(m.shape[-1] for m in level_maps)


def enlarge(maps: np.ndarray, size: int) -> np.ndarray:
    """Enlarge maps (..., H, W) float32 bilinearly, pixel centres aligned, to (..., size, size).

    The same as torch's interpolate(mode='bilinear', align_corners=False). The sums are written out
    so that every machine gives the same bits: in a product with a matrix of weights, the
    linear-algebra library would choose their order.
    """
    height, width = maps.shape[-2:]
    if (height, width) == (size, size):
        return maps
    low, high, weight = interpolation_weights(width, size)
    rows = maps[..., low] * (1 - weight) + maps[..., high] * weight
    low, high, weight = interpolation_weights(height, size)
    weight = weight[:, None]
    return rows[..., low, :] * (1 - weight) + rows[..., high, :] * weight


@functools.cache
def interpolation_weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of `new` positions the two of `old` positions on either side, and the weight
    of the second in [0, 1), float32."""
    place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(place.astype(int), old - 1)
    return low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32)
