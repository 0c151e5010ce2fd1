"""Distances of two feature maps at each position, for STPM's loss and anomaly maps.

Settings name the keys of `DISTANCES` and are read without torch: the functions import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


def unit(features: torch.Tensor) -> torch.Tensor:
    """Scale features (N, C, H, W) to unit L2 norm over channels, in float32."""
    import torch.nn.functional as F

    return F.normalize(features.float(), dim=1)


def unscaled(features: torch.Tensor) -> torch.Tensor:
    """Return features (N, C, H, W) unscaled, in float32."""
    return features.float()


def squared(error: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm over channels: (N, C, H, W) to (N, H, W)."""
    return error.square().sum(dim=1)


def angle(error: torch.Tensor) -> torch.Tensor:
    """Angle in radians between unit vectors u and v, by |u - v| = 2 sin(angle/2); error is u - v.

    The squared distance of unit vectors measures their direction too, 1 - cos = |u - v|² / 2, so a
    cosine loss is the normalised L2 loss times a factor. The angle gives a different loss: its
    gradient is the same for every error, where that of the square shrinks with the error.
    arccos(u·v) would lose small values to cancellation, and a product of levels needs them.
    """
    import torch

    # Bounds keep the gradient finite where the vectors are equal or opposite.
    sine = (squared(error) / 4).clamp(1e-12, 1 - 1e-6).sqrt()
    return 2 * torch.asin(sine)


def squared_with_gradient(error: torch.Tensor) -> torch.Tensor:
    """Squared norm of the error and of its spatial gradient, summed: (N, C, H, W) to (N, H, W).

    The gradient of the error, the difference of the two maps' gradients, is taken forward:
    e(i + 1, j) - e(i, j) and e(i, j + 1) - e(i, j); it is 0 at the last row or column.
    """
    import torch.nn.functional as F

    down, right = error.diff(dim=2), error.diff(dim=3)
    return squared(error) + F.pad(squared(down), (0, 0, 0, 1)) + F.pad(squared(right), (0, 1))


class Distance(NamedTuple):
    """Which features are compared, and what is computed from their difference at each position."""

    features: Callable[[torch.Tensor], torch.Tensor]
    measure: Callable[[torch.Tensor], torch.Tensor]


DISTANCES = {
    "normalised_l2": Distance(unit, squared),
    "l2": Distance(unscaled, squared),
    "angle": Distance(unit, angle),
    "gradient": Distance(unit, squared_with_gradient),
}


def distance(
    target: torch.Tensor, student: torch.Tensor, kind: str = "normalised_l2", factor: float = 0.5
) -> torch.Tensor:
    """Return the distance of two feature maps at each position.

    By default this is half the squared distance of unit vectors (STPM, section 3), in [0, 2].

    Args:
        target: (N, C, H, W), the teacher's, already as `DISTANCES[kind].features` returns it.
        student: (N, C, H, W), as the network returns it.
        kind: a key of `DISTANCES`.
        factor: multiplies the distance.

    Returns:
        (N, H, W) float32; 0 where the two agree, ignoring norms if `kind` does not compare them.
    """
    import torch

    features, measure = DISTANCES[kind]
    # On a CPU image by image, so that intermediate results stay in the cache. The same bits.
    at_once = 1 if student.device.type == "cpu" else len(student)
    pairs = zip(target.split(at_once), student.split(at_once), strict=True)
    return factor * torch.cat([measure(t.float() - features(s)) for t, s in pairs])
