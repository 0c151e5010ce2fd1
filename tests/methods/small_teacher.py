"""A small teacher with simple features, and the same features computed with NumPy."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stpm_bench import backbone
from stpm_bench.methods.interface import Split, Teacher

CPU = torch.device("cpu")
CHANNELS = (5, 7, 6)  # of the levels 1 to 3
SIZE = 32  # of the images: maps of 8, 4 and 2


class Pooled(nn.Module):
    """Level l: averages over squares of 2^(l+1) pixels, mixed by fixed weights, then a sine.

    Not linear, so that the channels, more than the three of an image, are independent.
    """

    def __init__(self, levels, change=lambda level, weight: None):
        super().__init__()
        self.levels = levels
        self.weights = []
        for level in levels:
            generator = torch.Generator().manual_seed(level)
            weight = torch.randn(CHANNELS[level - 1], 3, 1, 1, generator=generator)
            change(level, weight)
            self.weights.append(weight)

    def forward(self, images):
        return tuple(
            F.conv2d(F.avg_pool2d(images, 2 ** (level + 1)), 2 * weight).sin() + 3
            for level, weight in zip(self.levels, self.weights, strict=True)
        )


def small_teacher(levels=(1, 2, 3), **options) -> Teacher:
    return Teacher("resnet18", Pooled(levels, **options).eval())


def nan_teacher(levels=(1, 2, 3)) -> Teacher:
    def spoil(level, weight):
        if level == 2:
            weight[3, 1] = torch.nan

    return small_teacher(levels, change=spoil)


def noise(count: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Images whose coarse structure differs, so that all levels tell them apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (count, size // 4, size // 4, 3))
    fine = rng.integers(0, 56, (count, size, size, 3))
    return (coarse.repeat(4, 1).repeat(4, 2) + fine).astype(np.uint8)


def everything(images) -> Split:
    return Split(range(len(images)), [], len(images))


def fit(module, images, settings, teacher=None, split=None, levels=(1, 2, 3), seed=0, **options):
    return module.fit(
        teacher or small_teacher(levels),
        images,
        split or everything(images),
        levels=levels,
        settings=settings,
        seed=seed,
        device=CPU,
        precision=torch.bfloat16,
        title="cell",
        unfinished=None,
        **{"progress": False} | options,
    )


def score(module, model, images, settings, teacher=None, levels=(1, 2, 3)):
    teacher = teacher or small_teacher(levels)
    return module.score(teacher, model, images, levels=levels, settings=settings, device=CPU)


def maps_of(teacher: Teacher, images) -> list[np.ndarray]:
    """The teacher's maps of all images at once, (N, H_l, W_l, C_l) float64."""
    with torch.no_grad():
        maps = teacher.network(backbone.normalise(torch.from_numpy(images)))
    return [m.permute(0, 2, 3, 1).double().numpy() for m in maps]


def repeated(maps) -> np.ndarray:
    """All levels at the finest one's resolution, each value repeated."""
    size = max(m.shape[1] for m in maps)
    return np.concatenate(
        [m.repeat(size // m.shape[1], 1).repeat(size // m.shape[1], 2) for m in maps], axis=3
    )


def bilinear(maps) -> np.ndarray:
    """All levels at the finest one's resolution, interpolated between pixel centres."""
    size = max(m.shape[1] for m in maps)
    enlarged = []
    for m in maps:
        side = m.shape[1]
        at = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
        low = np.minimum(at.astype(int), max(side - 2, 0))
        high = np.minimum(low + 1, side - 1)
        weight = at - low
        rows = m[:, low] * (1 - weight)[:, None, None] + m[:, high] * weight[:, None, None]
        columns = rows[:, :, low] * (1 - weight)[:, None] + rows[:, :, high] * weight[:, None]
        enlarged.append(columns)
    return np.concatenate(enlarged, axis=3)
