"""From two feature pyramids to an anomaly map."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stpm_bench import backbone
from stpm_bench.protocols import PAPER, Protocol


def unit(features: torch.Tensor) -> torch.Tensor:
    """Scale features (N, C, H, W) to unit L2 norm over channels, in float32."""
    return F.normalize(features.float(), dim=1)


def squared(error: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm over channels: (N, C, H, W) to (N, H, W)."""
    return error.square().sum(dim=1)


def angle(error: torch.Tensor) -> torch.Tensor:
    """Angle in radians between unit vectors u and v, of their difference: |u - v| = 2 sin(angle/2).

    The squared distance of unit vectors measures their direction too, 1 - cos = |u - v|² / 2, and
    so a loss of the cosine is that of normalised L2 times a factor. The angle is another loss: the
    same pull at every error, where the square pulls less the smaller it is. arccos(u·v) would lose
    the small values, which a product of levels needs, to cancellation.
    """
    # Bounds keep the gradient finite, where the vectors are equal and where they are opposite.
    sine = (squared(error) / 4).clamp(1e-12, 1 - 1e-6).sqrt()
    return 2 * torch.asin(sine)


def squared_with_gradient(error: torch.Tensor) -> torch.Tensor:
    """Squared norm of the error and of its spatial gradient, summed: (N, C, H, W) to (N, H, W).

    The gradient of the error, the difference of the two maps' gradients, is taken forward:
    e(i + 1, j) - e(i, j) and e(i, j + 1) - e(i, j); it is 0 at the last row or column.
    """
    down, right = error.diff(dim=2), error.diff(dim=3)
    return squared(error) + F.pad(squared(down), (0, 0, 0, 1)) + F.pad(squared(right), (0, 1))


class Distance(NamedTuple):
    """What is compared of the features, and what is made of the difference at each position."""

    features: Callable[[torch.Tensor], torch.Tensor]
    of_error: Callable[[torch.Tensor], torch.Tensor]


DISTANCES = {
    "normalised_l2": Distance(unit, squared),
    "l2": Distance(torch.Tensor.float, squared),
    "angle": Distance(unit, angle),
    "gradient": Distance(unit, squared_with_gradient),
}


def distance(
    target: torch.Tensor, student: torch.Tensor, kind: str = PAPER.distance, factor=PAPER.factor
) -> torch.Tensor:
    """Return the distance of two feature maps at each position.

    By default half the squared distance of unit vectors (STPM, section 3), in [0, 2].

    Args:
        target: (N, C, H, W), the teacher's, already as `DISTANCES[kind].features` gives it.
        student: (N, C, H, W), as the network gives it.
        kind: a key of `DISTANCES`.
        factor: by which it is multiplied.

    Returns:
        (N, H, W) float32, 0 where the two agree, up to their norms where those are not compared.
    """
    features, of_error = DISTANCES[kind]
    # On a CPU image by image: what lies between then stays in its cache. The same bits.
    at_once = 1 if student.device.type == "cpu" else len(student)
    pairs = zip(target.split(at_once), student.split(at_once), strict=True)
    return factor * torch.cat([of_error(t.float() - features(s)) for t, s in pairs])


FUSIONS = {"product": torch.mul, "sum": torch.add}


def fuse(level_maps: Sequence[torch.Tensor], size: int, fusion: str = PAPER.fusion) -> torch.Tensor:
    """Enlarge each level's map (N, H_l, W_l) to `size` and multiply, or add, them: (N, S, S)."""
    return functools.reduce(FUSIONS[fusion], [enlarge(level, size) for level in level_maps])


def fused_size(level_maps: Sequence[torch.Tensor], image_size: int, map_resolution: str) -> int:
    """Return the side at which levels are fused: the image's, or the finest level's ('finest')."""
    return image_size if map_resolution == "image" else max(m.shape[-1] for m in level_maps)


def enlarge(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Enlarge maps (N, H, W) bilinearly, pixel centres aligned, to (N, size, size)."""
    return F.interpolate(
        maps[:, None], size=(size, size), mode="bilinear", align_corners=False
    ).squeeze(1)


@torch.inference_mode()
def score(
    teacher: nn.Module,
    student: nn.Module,
    images: np.ndarray,
    device: torch.device,
    protocol: Protocol = PAPER,
    batch_size: int = 16,
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Compare teacher and student on test images, in float32 whatever the student trained in.

    Args:
        teacher, student: networks that give the same levels, on `device`.
        images: (N, S, S, 3) uint8.
        protocol: its distance, fusion and map resolution are used.

    Returns:
        anomaly maps (N, S, S) float32; a list with one (N, H_l, W_l) float32 array a level;
        image scores (N,) float32, the maximum of each anomaly map.
    """
    teacher.eval()
    student.eval()
    # Filled in place: of a video's thousands of frames a list of batches takes the memory twice.
    anomaly_maps = np.empty(images.shape[:3], np.float32)
    level_maps: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        fused, levels = maps_of(
            teacher, student, torch.from_numpy(images[rows]).to(device), protocol
        )
        anomaly_maps[rows] = fused.cpu().numpy()
        if not level_maps:
            level_maps = [np.empty((len(images), *m.shape[1:]), np.float32) for m in levels]
        for whole, level in zip(level_maps, levels, strict=True):
            whole[rows] = level.cpu().numpy()
    return anomaly_maps, level_maps, anomaly_maps.max(axis=(1, 2))


def maps_of(
    teacher: nn.Module, student: nn.Module, pixels: torch.Tensor, protocol: Protocol = PAPER
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the anomaly maps (N, S, S) of a batch (N, S, S, 3) uint8, and each level's maps."""
    batch, size = backbone.normalise(pixels), pixels.shape[1]
    features = DISTANCES[protocol.distance].features
    level_maps = [
        distance(features(t), s, protocol.distance, protocol.factor)
        for t, s in zip(teacher(batch), student(batch), strict=True)
    ]
    side = fused_size(level_maps, size, protocol.map_resolution)
    return enlarge(fuse(level_maps, side, protocol.fusion), size), level_maps
