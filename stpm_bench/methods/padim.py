"""PaDiM: a Gaussian at each position, and the Mahalanobis distance from it.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR workshops 2021, arXiv 2011.08785.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stpm_bench.levels import CHANNELS, FORWARD
from stpm_bench.methods.interface import Fitted, Scores, Settings, Teacher, option
from stpm_bench.seeds import stream

# The number of channels that the paper draws, by how many the levels 1 to 3 have together: for
# ResNet-18 and for Wide-ResNet-50.
CHOSEN = {448: 100, 1792: 550}
# How many positions' covariances are computed at once, in float64.
POSITIONS = 128
# MB per channel of a batch of `features.BATCH` images, as measured: 1.2 with ResNet-18, 1.0 with
# Wide-ResNet-50.
BATCH_MB = 1.2


@dataclass(frozen=True)
class Padim(Settings):
    """The settings of PaDiM.

    channels: how many channels, out of those of all levels, are drawn at random; all if there are
        no more. 0 is the paper's number for this many channels (see `CHOSEN`), or, where the paper
        gives none, the same share as for ResNet-18, 100 / 448.
    regularisation: added to the diagonal of each covariance.
    """

    smoothing: float = option(4.0, evaluation=True, minimum=0)
    channels: int = option(0, minimum=0)
    regularisation: float = option(0.01, minimum=0)

    module: ClassVar[str] = "padim"

    def memory_mb(self, backbone: str, images: int) -> float:
        """Return about how many MB a fit's arrays take at 256 x 256, at the levels 1 to 3.

        Counts the chosen features of all images, one matrix per position, and a batch in progress.
        """
        channels = sum(CHANNELS[backbone][:3])
        chosen = count_chosen(channels, self.channels)
        return BATCH_MB * channels + 64 * 64 * chosen * (images + chosen) * 4 / 1e6

    def model_mb(self, backbone: str, images: int) -> float:
        """Return how many MB the means and one matrix per position take, at the levels 1 to 3."""
        chosen = count_chosen(sum(CHANNELS[backbone][:3]), self.channels)
        return 64 * 64 * chosen * (chosen + 1) * 4 / 1e6

    def images_per_second(self, backbone: str) -> float:
        """Return about how many images per second are fitted: 18 with ResNet-18 (20 measured)."""
        return 0.7 * FORWARD[backbone]


METHODS = {"padim": Padim()}


def count_chosen(channels: int, wanted: int) -> int:
    """Return how many of `channels` are drawn if the setting is `wanted`."""
    return min(wanted or CHOSEN.get(channels) or max(1, round(channels * 100 / 448)), channels)


def fit(
    teacher: Teacher,
    images: np.ndarray,
    split,
    *,
    levels,
    settings: Padim,
    seed: int,
    device,
    precision,
    title: str = "padim",
    progress: bool = True,
    unfinished=None,
) -> Fitted:
    """Fit a Gaussian at each position; features are float32, see `features.feature_maps`.

    The covariance is the sample covariance, divided by images - 1 (zero for one image), plus
    `regularisation` on its diagonal: section III.B. It is computed
    and inverted in float64.

    The model has `channels` (C,) int64, indices into the channels of all levels joined; `means`
    (P, C) and `whitening` (P, C, C), both float32: the norm of (x - mean) @ whitening is the
    Mahalanobis distance.
    """
    import torch

    from stpm_bench.methods.features import feature_maps, fit_result, join, not_finite

    start, count = time.perf_counter(), len(split.training)
    features = None  # (P, N, C): filled in place, since a list of batches needs twice the memory
    for rows, maps in feature_maps(teacher, images, split.training, device, title, progress):
        joined = join(maps, "nearest")
        if features is None:
            generator = torch.Generator().manual_seed(stream(seed, "padim channels"))
            order = torch.randperm(joined.shape[3], generator=generator)
            channels = order[: count_chosen(len(order), settings.channels)].sort().values.to(device)
            positions = joined.shape[1] * joined.shape[2]
            features = joined.new_empty(positions, count, len(channels))
        features[:, rows] = joined[..., channels].flatten(1, 2).transpose(0, 1)
    means = features.mean(1)
    if failure := not_finite(means):
        return fit_result({}, count, start, failure)
    whitening = features.new_empty(positions, len(channels), len(channels))
    identity = torch.eye(len(channels), dtype=torch.float64, device=device)
    for first in range(0, positions, POSITIONS):
        some = slice(first, first + POSITIONS)
        centred = features[some].double()
        centred -= centred.mean(1, keepdim=True)
        covariance = centred.mT @ centred / max(count - 1, 1) + settings.regularisation * identity
        factor, _ = torch.linalg.cholesky_ex(covariance)  # lower L, covariance = L L^T
        # If the matrix is singular, a pivot is mere rounding error, or not found: NaN or zero.
        pivots = factor.diagonal(dim1=1, dim2=2).square()
        smallest = covariance.diagonal(dim1=1, dim2=2).amax(1) * len(channels) * 2**-50
        singular = ~(pivots.amin(1) > smallest)
        if singular.any():
            failure = (
                f"the covariance of {len(channels)} channels over {count} images is singular at "
                f"position {first + int(singular.nonzero()[0])} of {positions}, with "
                f"regularisation {settings.regularisation:g}; expected more than 0"
            )
            return fit_result({}, count, start, failure)
        inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        whitening[some] = inverse.mT
    model = {"channels": channels, "means": means, "whitening": whitening}
    return fit_result(model, count, start)


def score(
    teacher: Teacher, model: dict, images: np.ndarray, *, levels, settings: Padim, device
) -> Scores:
    """Return the Mahalanobis distance at each position of the finest level: equation 2."""
    return scorer(teacher, model, levels=levels, settings=settings, device=device)(images)


def scorer(
    teacher: Teacher, model: dict, *, levels, settings: Padim, device
) -> Callable[[np.ndarray], Scores]:
    """Return `score` as a function of the images, with the model on the device."""
    import torch

    from stpm_bench.levels import format_layers
    from stpm_bench.methods.features import feature_maps, join

    channels, means, whitening = (
        model[name].to(device) for name in ("channels", "means", "whitening")
    )

    def scores_of(images: np.ndarray) -> Scores:
        distances = None
        for rows, maps in feature_maps(teacher, images, range(len(images)), device):
            joined = join(maps, "nearest")
            if distances is None:
                distances = np.empty((len(images), *joined.shape[1:3]), np.float32)
            some = joined[..., channels].flatten(1, 2).transpose(0, 1)
            centred = some - means[:, None]  # (P, B, C)
            lengths = torch.bmm(centred, whitening).norm(dim=2)
            distances[rows] = lengths.T.reshape(joined.shape[:3]).cpu().numpy()
        return Scores({format_layers(levels): distances})

    return scores_of
