"""SPADE: finds a test image's nearest training images, and for each position of the test image the
nearest feature vector anywhere in those images.

Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020, arXiv
2005.02357.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stpm_bench.errors import InputError
from stpm_bench.levels import CHANNELS, FORWARD
from stpm_bench.methods.interface import Fitted, Scores, Settings, Teacher, option

# MB per channel of a batch of `features.BATCH` images, as measured: 0.5 with ResNet-18, 0.4 with
# Wide-ResNet-50.
BATCH_MB = 0.5


@dataclass(frozen=True)
class Spade(Settings):
    """The settings of SPADE.

    neighbours: how many of the training images are retrieved for a test image; all if there are no
        more.
    retrieval: the level whose features, averaged over the image, are used to retrieve them; 0 for
        the deepest.
    """

    # `smoothing` and `neighbours` are the paper's. The paper retrieves by conv5_x, the last level
    # of its teacher; a teacher here ends at the deepest level in use (docs/methods.md).
    smoothing: float = option(4.0, evaluation=True, minimum=0)
    neighbours: int = option(50, minimum=1)
    retrieval: int = option(0, minimum=0)

    module: ClassVar[str] = "spade"
    extra_seconds: ClassVar[float] = 9.0  # measured, with ResNet-18 and 209 images
    depends_on_seed: ClassVar[bool] = False

    def memory_mb(self, backbone: str, images: int) -> float:
        """Return about how many MB a fit's arrays take at 256 x 256, at the levels 1 to 3.

        Counts each image's maps at the resolution of the teacher's levels, and a batch in progress.
        """
        return BATCH_MB * sum(CHANNELS[backbone][:3]) + self.model_mb(backbone, images)

    def model_mb(self, backbone: str, images: int) -> float:
        """Return how many MB the maps of all images take, at the levels 1 to 3."""
        channels = CHANNELS[backbone][:3]
        values = sum(n * (128 >> level) ** 2 for level, n in enumerate(channels, 1))
        return images * values * 4 / 1e6

    def images_per_second(self, backbone: str) -> float:
        """Return about how many images per second are fitted: 26 as measured with ResNet-18."""
        return FORWARD[backbone]


METHODS = {"spade": Spade()}


def fit(
    teacher: Teacher,
    images: np.ndarray,
    split,
    *,
    levels,
    settings: Spade,
    seed: int,
    device,
    precision,
    title: str = "spade",
    progress: bool = True,
    unfinished=None,
) -> Fitted:
    """Keep the features of all training images; always in float32, see `features.feature_maps`.

    The model has, for each level l, `centre_l` (C_l,), the mean feature, and `features_l`
    (N, H_l, W_l, C_l), less that mean: `neighbours.nearest` needs centred features. Each level
    keeps its own resolution, which at the levels 1 to 3 takes a quarter of the memory that the
    finest resolution would. Both are float32.

    Raises:
        InputError: `retrieval` is not one of the levels.
    """
    import torch

    from stpm_bench.methods.features import feature_maps, fit_result, not_finite

    if settings.retrieval and settings.retrieval not in levels:
        raise InputError(
            f"config key 'retrieval' of a method like 'spade' is {settings.retrieval}; expected "
            f"one of the levels {', '.join(map(str, levels))}, or 0 for the deepest of them"
        )
    start, count, model = time.perf_counter(), len(split.training), {}
    for rows, maps in feature_maps(teacher, images, split.training, device, title, progress):
        for level, m in zip(levels, maps, strict=True):
            m, name = m.permute(0, 2, 3, 1), f"features_{level}"
            if name not in model:  # filled in place: a list of batches needs twice the memory
                model[name] = m.new_empty(count, *m.shape[1:])
            model[name][rows] = m
    for level in levels:
        whole = model[f"features_{level}"]
        centre = model[f"centre_{level}"] = whole.mean((0, 1, 2))
        whole -= centre
    failure = not_finite(torch.cat([model[f"centre_{level}"] for level in levels]))
    return fit_result(model, count, start, failure)


def score(
    teacher: Teacher, model: dict, images: np.ndarray, *, levels, settings: Spade, device
) -> Scores:
    """Return each position's distance to the nearest position in the retrieved images.

    Positions are those of the finest level, to which the others are enlarged bilinearly. An
    image's score is its mean distance to the retrieved images, between features of the level
    `retrieval` averaged over positions. All distances are Euclidean, not squared.
    """
    return scorer(teacher, model, levels=levels, settings=settings, device=device)(images)


def scorer(
    teacher: Teacher, model: dict, *, levels, settings: Spade, device
) -> Callable[[np.ndarray], Scores]:
    """Return `score` as a function of the images, with the model on the device."""
    import torch

    from stpm_bench.levels import format_layers
    from stpm_bench.methods.features import feature_maps, join
    from stpm_bench.neighbours import nearest

    bank = [model[f"features_{level}"].to(device).permute(0, 3, 1, 2) for level in levels]
    centres = [model[f"centre_{level}"].to(device)[:, None, None] for level in levels]
    of_retrieval = levels.index(settings.retrieval or max(levels))
    image_features = bank[of_retrieval].mean((2, 3))

    def scores_of(images: np.ndarray) -> Scores:
        image_scores = np.empty(len(images), np.float32)
        distances = None
        for rows, maps in feature_maps(teacher, images, range(len(images)), device):
            centred = [m - centre for m, centre in zip(maps, centres, strict=True)]
            joined = join(centred, "bilinear")
            if distances is None:
                distances = np.empty((len(images), *joined.shape[1:3]), np.float32)
            # From differences: a matrix product would round away the difference of similar images.
            to_images = torch.cdist(
                centred[of_retrieval].mean((2, 3)),
                image_features,
                compute_mode="donot_use_mm_for_euclid_dist",
            )
            found = to_images.topk(min(settings.neighbours, len(image_features)), largest=False)
            image_scores[rows] = found.values.mean(1).cpu().numpy()
            for i, queries, retrieved in zip(
                range(rows.start, rows.stop),
                joined.flatten(1, 2),
                found.indices.tolist(),
                strict=True,
            ):
                least = queries.new_full((len(queries),), torch.inf)
                for one in retrieved:  # one at a time, so that its enlarged features are freed
                    gallery = join([level[one : one + 1] for level in bank], "bilinear")
                    least = torch.minimum(least, nearest(queries, gallery.flatten(0, 2))[0])
                distances[i] = least.view(joined.shape[1:3]).cpu().numpy()
        return Scores({format_layers(levels): distances}, image_scores)

    return scores_of
