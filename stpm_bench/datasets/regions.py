"""Counts the regions of a mask, over which PRO averages, and those left at the maps' size."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from stpm_bench.datasets.interface import Problem
from stpm_bench.metrics.ordering import EIGHT_NEIGHBOURS


def count_regions(mask: np.ndarray, size: int) -> tuple[int, int]:
    """Count the regions of a mask, and those that keep at least one pixel at a smaller size.

    Args:
        mask: (H, W) bool, at its image's own size.
        size: the side to which it is resized, by nearest neighbour (`masks.nearest`).

    Returns:
        The number of 8-connected regions, and how many of them are sampled. Regions that touch only
        after resizing still count separately.
    """
    from scipy import ndimage

    labels, before = ndimage.label(mask, EIGHT_NEIGHBOURS)
    small = Image.fromarray(labels.astype(np.int32)).resize((size, size), Image.Resampling.NEAREST)
    return before, len(np.setdiff1d(np.asarray(small), [0]))


def vanished_regions(
    folder: Path, regions: Mapping[str, tuple[int, int]], image_size: int
) -> list[Problem]:
    """Find masks in which some regions vanish on resizing and others remain.

    Args:
        folder: the category's. regions: mask -> what `count_regions` returns.
    """
    some = [mask for mask, (before, after) in regions.items() if 0 < after < before]
    if not some:
        return []
    before, after = (sum(counts) for counts in zip(*regions.values(), strict=True))
    names = ", ".join(some[:10]) + (f" and {len(some) - 10} more" if len(some) > 10 else "")
    text = (
        f"{folder}: at {image_size} x {image_size} {before - after} of {before} regions of the "
        f"masks vanish; some masks lose a part of their regions: {names}. PRO is the mean over "
        "the remaining regions; raise the config key 'image_size' to keep them all."
    )
    return [Problem("warning", text)]
