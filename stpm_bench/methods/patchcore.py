"""PatchCore: the distance of each patch to the nearest in a reduced bank of training patches.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, arXiv 2106.08265.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stpm_bench.levels import CHANNELS, FORWARD
from stpm_bench.methods.interface import Fitted, Scores, Settings, Teacher, option
from stpm_bench.seeds import stream

# MB per channel of a batch of `features.BATCH` images, as measured: 0.55 with ResNet-18, 0.4 with
# Wide-ResNet-50.
BATCH_MB = 0.55


@dataclass(frozen=True)
class Patchcore(Settings):
    """The settings of PatchCore.

    neighbourhood: side of the square over which each level's features are averaged; odd.
    coreset: share of the training patches that the bank keeps.
    projection: number of random dimensions to which the patches are projected while the bank is
        chosen; no projection for 0, or if a patch has no more dimensions than that.
    neighbours: number of bank entries, the one nearest to the patch and those closest to it, that
        reweight an image's score; 1 for no reweighting.
    """

    smoothing: float = option(4.0, evaluation=True, minimum=0)
    neighbourhood: int = option(3, enum=[1, 3, 5, 7, 9])
    coreset: float = option(0.1, exclusiveMinimum=0, maximum=1)
    projection: int = option(128, minimum=0)
    neighbours: int = option(9, minimum=1)

    module: ClassVar[str] = "patchcore"
    levels: ClassVar[tuple[int, ...]] = (2, 3)

    def memory_mb(self, backbone: str, images: int) -> float:
        """Return about how many MB a fit's arrays take at 256 x 256, at the levels 2 and 3.

        Counts all patches, their projections, the bank, and a batch in progress.
        """
        channels = sum(CHANNELS[backbone][1:3])
        values = channels * (1 + self.coreset) + min(self.projection, channels)
        return BATCH_MB * channels + images * 32 * 32 * values * 4 / 1e6

    def model_mb(self, backbone: str, images: int) -> float:
        """Return how many MB the bank takes, at the levels 2 and 3."""
        return self.coreset * images * 32 * 32 * sum(CHANNELS[backbone][1:3]) * 4 / 1e6

    def images_per_second(self, backbone: str) -> float:
        """Return about how many images per second are fitted: 6 as measured, bottle and ResNet-18.

        Most of the time goes into choosing the bank, which grows with the square of the images.
        """
        return FORWARD[backbone] / 4


METHODS = {"patchcore": Patchcore()}


def fit(
    teacher: Teacher,
    images: np.ndarray,
    split,
    *,
    levels,
    settings: Patchcore,
    seed: int,
    device,
    precision,
    title: str = "patchcore",
    progress: bool = True,
    unfinished=None,
) -> Fitted:
    """Choose a bank of patches; always in float32, see `features.feature_maps`.

    The model has `centre` (C,), the mean of all training patches, and `bank` (B, C), from which
    that mean is subtracted, in the order in which it was chosen; both float32.
    """
    import torch

    from stpm_bench.methods.features import feature_maps, fit_result, not_finite
    from stpm_bench.neighbours import k_centre

    start, count = time.perf_counter(), len(split.training)
    bank = None  # filled in place, since a list of batches needs twice the memory
    for rows, maps in feature_maps(teacher, images, split.training, device, title, progress):
        some = patches(maps, settings.neighbourhood)
        if bank is None:
            positions, width = some.shape[1] * some.shape[2], some.shape[3]
            bank = some.new_empty(count * positions, width)
        bank[rows.start * positions : rows.stop * positions] = some.flatten(0, 2)
    centre = bank.mean(0)
    if failure := not_finite(centre):
        return fit_result({}, count, start, failure)
    bank -= centre
    kept = max(1, round(settings.coreset * len(bank)))
    if kept < len(bank):
        generator = torch.Generator().manual_seed(stream(seed, "patchcore coreset"))
        first = int(torch.randint(len(bank), (), generator=generator))
        projected = bank
        if 0 < settings.projection < width:
            # Johnson and Lindenstrauss: normal entries, which keep distances on average.
            matrix = torch.randn(width, settings.projection, generator=generator)
            projected = bank @ (matrix / settings.projection**0.5).to(device)
        bank = bank[k_centre(projected, kept, first, title, progress)]
    return fit_result({"centre": centre, "bank": bank}, count, start)


def patches(maps, neighbourhood: int):
    """Return (B, H, W, sum of C_l): each level's local averages, joined at the finest resolution.

    Values beyond the border count as zeros, as in the authors' code; deeper levels are enlarged
    bilinearly.
    """
    from torch.nn.functional import avg_pool2d

    from stpm_bench.methods.features import join

    return join([avg_pool2d(m, neighbourhood, 1, neighbourhood // 2) for m in maps], "bilinear")


def score(
    teacher: Teacher, model: dict, images: np.ndarray, *, levels, settings: Patchcore, device
) -> Scores:
    """Return each patch's distance to the bank, and the images' reweighted scores.

    An image's score is the largest distance s, of patch q to bank entry m, times
    1 - exp(s) / sum exp ||q - n||, over m and the entries n nearest to it, `neighbours` in all:
    equations 6 and 7. With one neighbour it is s, where the formula would give zero.
    """
    return scorer(teacher, model, levels=levels, settings=settings, device=device)(images)


def scorer(
    teacher: Teacher, model: dict, *, levels, settings: Patchcore, device
) -> Callable[[np.ndarray], Scores]:
    """Return `score` as a function of the images, with the model on the device."""
    import torch

    from stpm_bench.levels import format_layers
    from stpm_bench.methods.features import feature_maps
    from stpm_bench.neighbours import nearest

    def pairwise(one, many):  # computed from differences, see `neighbours.nearest`
        return torch.cdist(one[None], many, compute_mode="donot_use_mm_for_euclid_dist")[0]

    centre, bank = model["centre"].to(device), model["bank"].to(device)
    neighbours = min(settings.neighbours, len(bank))

    def scores_of(images: np.ndarray) -> Scores:
        image_scores = np.empty(len(images), np.float32)
        distances = None
        for rows, maps in feature_maps(teacher, images, range(len(images)), device):
            some = patches(maps, settings.neighbourhood) - centre
            if distances is None:
                distances = np.empty((len(images), *some.shape[1:3]), np.float32)
            for i, queries in zip(range(rows.start, rows.stop), some.flatten(1, 2), strict=True):
                to_bank, found = nearest(queries, bank)
                distances[i] = to_bank.view(some.shape[1:3]).cpu().numpy()
                largest, place = to_bank.max(0)
                if neighbours > 1:
                    around = (
                        pairwise(bank[found[place]], bank).topk(neighbours, largest=False).indices
                    )
                    to_around = pairwise(queries[place], bank[around])
                    largest = largest * (1 - (largest - to_around.logsumexp(0)).exp())
                image_scores[i] = largest.item()
        return Scores({format_layers(levels): distances}, image_scores)

    return scores_of
