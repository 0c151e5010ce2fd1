"""Shared by the methods without a student: the teacher's features, and the result of a fit."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from stpm_bench import backbone
from stpm_bench.methods.interface import Fitted, Teacher, no_history

# Images per pass through the teacher: more are no faster on a CPU, and take more memory.
BATCH = 16


@torch.no_grad()
def feature_maps(
    teacher: Teacher,
    images: np.ndarray,
    rows: Sequence[int],
    device: torch.device,
    title: str = "features",
    progress: bool = False,
) -> Iterator[tuple[slice, tuple[torch.Tensor, ...]]]:
    """Yield the teacher's maps of `images[rows]` in batches, in float32.

    Always float32: a distance is a small difference of large features, and a bfloat16 pass changes
    the features by more than the difference between neighbours.

    Args:
        images: (N, S, S, 3) uint8.
        rows: indices into them, in the desired order.
        title, progress: of the progress bar, and whether there is one.

    Yields:
        Which of `rows` the batch contains, as a slice, and one (B, C_l, H_l, W_l) tensor per level.
    """
    rows = np.asarray(rows)
    starts = range(0, len(rows), BATCH)
    for start in tqdm(starts, desc=title, unit="batch", disable=not progress):
        batch = rows[start : start + BATCH]
        pixels = torch.from_numpy(images[batch]).to(device)
        yield slice(start, start + len(batch)), teacher.network(backbone.normalise(pixels))


def join(maps: Sequence[torch.Tensor], mode: str) -> torch.Tensor:
    """Resize maps (B, C_l, H_l, W_l) to the finest one's resolution, and join their channels.

    Args:
        mode: 'nearest' or 'bilinear' (pixel centres aligned).

    Returns:
        (B, H, W, sum of C_l): one feature vector per position, contiguous.
    """
    size = max(m.shape[-2:] for m in maps)
    options = {"mode": mode} | ({"align_corners": False} if mode == "bilinear" else {})
    enlarged = [m if m.shape[-2:] == size else F.interpolate(m, size, **options) for m in maps]
    # Each vector's channels are contiguous in memory, as matrix products and gathers need them.
    return torch.cat([m.permute(0, 2, 3, 1) for m in enlarged], dim=3)


def fit_result(model: dict, images: int, start: float, failure: str | None = None) -> Fitted:
    """Return the result of a fit without epochs.

    Args:
        model: tensors on any device; dropped if the fit failed.
        images: how many it was fitted on.
        start: `time.perf_counter()` when it began.
        failure: what went wrong, or None.
    """
    kept = {} if failure else {name: tensor.cpu() for name, tensor in model.items()}
    seconds = time.perf_counter() - start
    return Fitted(kept, no_history(), images, seconds, failure)


def not_finite(mean: torch.Tensor) -> str | None:
    """Return why features with this mean over training images cannot be fitted, or None.

    If a feature is NaN or infinite, so is its mean.
    """
    bad = int((~torch.isfinite(mean)).sum())
    if not bad:
        return None
    return (
        f"the teacher's features of the training images are not finite ({bad} of {mean.numel()} "
        "means over the images are NaN or infinite)"
    )
