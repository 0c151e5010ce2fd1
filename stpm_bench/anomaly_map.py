"""From two feature pyramids to an anomaly map."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stpm_bench import backbone


def unit(features: torch.Tensor) -> torch.Tensor:
    """Scale features (N, C, H, W) to unit L2 norm over channels, in float32."""
    return F.normalize(features.float(), dim=1)


def distance(teacher_unit: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Half the squared distance of unit feature vectors at each position (STPM, section 3).

    Args:
        teacher_unit: (N, C, H, W), of unit norm over channels (see `unit`).
        student: (N, C, H, W), as the network gives it.

    Returns:
        (N, H, W) float32 in [0, 2]: 0 where the vectors point the same way. The difference is
        taken before the square: 1 - cos would lose the small values, which a product of levels
        needs, to cancellation.
    """
    return 0.5 * (teacher_unit.float() - unit(student)).square().sum(dim=1)


def fuse(level_maps: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Upsample each level's map (N, H_l, W_l) bilinearly to `size` and multiply them: (N, S, S)."""
    fused = None
    for level_map in level_maps:
        upsampled = F.interpolate(
            level_map[:, None], size=(size, size), mode="bilinear", align_corners=False
        )[:, 0]
        fused = upsampled if fused is None else fused * upsampled
    return fused


@torch.inference_mode()
def score(
    teacher: nn.Module,
    student: nn.Module,
    images: np.ndarray,
    device: torch.device,
    batch_size: int = 16,
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Compare teacher and student on test images, in float32 whatever the student trained in.

    Args:
        teacher, student: networks that give the same levels, on `device`.
        images: (N, S, S, 3) uint8.

    Returns:
        anomaly maps (N, S, S) float32; a list with one (N, H_l, W_l) float32 array a level;
        image scores (N,) float32, the maximum of each anomaly map.
    """
    teacher.eval()
    student.eval()
    size = images.shape[1]
    fused, levels = [], []
    for start in range(0, len(images), batch_size):
        batch = backbone.normalise(torch.from_numpy(images[start : start + batch_size]).to(device))
        maps = [distance(unit(t), s) for t, s in zip(teacher(batch), student(batch), strict=True)]
        fused.append(fuse(maps, size).cpu().numpy())
        levels.append([level_map.cpu().numpy() for level_map in maps])
    anomaly_maps = np.concatenate(fused)
    level_maps = [np.concatenate(parts) for parts in zip(*levels, strict=True)]
    return anomaly_maps, level_maps, anomaly_maps.max(axis=(1, 2))
