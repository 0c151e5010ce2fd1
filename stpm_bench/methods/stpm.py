"""STPM: a student learns the teacher's features of anomaly-free images, and differs at defects.

Wang, Han, Ding, Huang: Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC 2021
(arXiv 2103.04257). The paper, its authors' code and anomalib give different numbers under this
name; `METHODS` defines their differences. The training is in `student.py`, the distance of two
feature maps in `distance.py`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from stpm_bench.anomaly_map import FUSIONS
from stpm_bench.methods.distance import DISTANCES, distance
from stpm_bench.methods.interface import Fitted, Scores, Settings, Split, Teacher, option
from stpm_bench.seeds import stream


@dataclass(frozen=True)
class Stpm(Settings):
    """All settings in which implementations of STPM differ; the defaults are the paper's.

    The paper does not say how masks are resized; nearest keeps the size of a defect.

    distance: between the feature vectors of teacher and student, in the loss and in the maps (see
        `distance.DISTANCES`). angle is in radians; 1 - cosine is half of normalised_l2, and so not
        a separate loss.
    factor: multiplies the distance.
    reduction: of the loss over the batch, after the mean over an image's positions.
    level_weights: of levels 1 to 4 in the loss, which is summed over levels. STPM, section 3: all
        weights are 1.
    fusion: how the enlarged maps of the levels are combined (see `anomaly_map.FUSIONS`).
    map_resolution: where they are combined: at the image's size, or at the finest level's (64 x 64
        at 256), after which the result is enlarged.
    checkpoint: the epoch that is kept: that of the lowest validation_loss, that of the lowest mean
        of the fused maps of the validation images (validation_map), or the last.
    epochs: how many times the student sees all training images.
    schedule: epochs, or steps: as many optimiser steps as a fraction of 1.0 would take in these
        epochs (5% of bottle is one step per epoch).
    batch_size: images per step.
    learning_rate: of SGD, constant.
    momentum: of SGD.
    weight_decay: of SGD.
    validation_fraction: share of the training images that is used for validation.
    last_epoch: whether the weights of the last epoch are kept too; their metrics are then reported
        as last_epoch_METRIC, next to those of the kept epoch.
    """

    distance: str = option("normalised_l2", enum=list(DISTANCES))
    factor: float = option(0.5, exclusiveMinimum=0)
    reduction: str = option("mean", enum=["mean", "sum"])
    level_weights: tuple[float, ...] = option(
        (1.0, 1.0, 1.0, 1.0), minItems=4, maxItems=4, items={"type": "number", "minimum": 0}
    )
    fusion: str = option("product", evaluation=True, enum=list(FUSIONS))
    map_resolution: str = option("image", evaluation=True, enum=["image", "finest"])
    checkpoint: str = option("validation_loss", enum=["validation_loss", "validation_map", "last"])
    epochs: int = option(100, minimum=1)
    schedule: str = option("epochs", enum=["epochs", "steps"])
    batch_size: int = option(32, minimum=1)
    learning_rate: float = option(0.4, exclusiveMinimum=0)
    momentum: float = option(0.9, minimum=0, exclusiveMaximum=1)
    weight_decay: float = option(1e-4, minimum=0)
    validation_fraction: float = option(0.2, exclusiveMinimum=0, exclusiveMaximum=1)
    last_epoch: bool = option(False)

    module: ClassVar[str] = "stpm"
    keeps_model: ClassVar[bool] = True
    reads_precision: ClassVar[bool] = True

    def validation_share(self) -> float:
        return self.validation_fraction

    def fit_part(self, fraction: float) -> dict:
        part = super().fit_part(fraction)
        if fraction == 1:  # both schedules take the same steps
            part["schedule"] = "epochs"
        if self.checkpoint == "validation_map":  # computed from the fused maps
            part |= {"fusion": self.fusion, "map_resolution": self.map_resolution}
        return part

    def fit_images(self, full: int, fraction: float) -> int:
        at_all = full * (1 - self.validation_fraction)
        used = max(1, round(at_all * fraction))
        steps = optimiser_steps(self, used, round(at_all))
        return round(used * steps / math.ceil(used / self.batch_size))

    def map_levels(self, levels: Sequence[int]) -> list[int]:
        return list(levels) * (1 + self.last_epoch)

    def networks(self) -> int:
        return 1 + self.last_epoch

    def images_per_second(self, backbone: str) -> float:
        return COST[backbone].images_per_second

    def memory_mb(self, backbone: str, images: int) -> float:
        cost = COST[backbone]
        return self.batch_size / 32 * cost.batch_mb + images * cost.image_mb


class Cost(NamedTuple):
    """A student's cost on one core, at 256 x 256 in float32, measured on a busy machine."""

    batch_mb: int  # memory during the training on a batch of 32
    image_mb: float  # memory per image, whose features are kept
    images_per_second: int


COST = {
    "resnet18": Cost(1900, 2.5, 10),
    "resnet34": Cost(2500, 2.5, 5),
    "resnet50": Cost(6400, 8, 2),
    "wide_resnet50_2": Cost(8600, 8, 1),
    "mobilenet_v2": Cost(4100, 1.1, 5),
}

METHODS = {
    # The paper, as far as its figures, tables and later readers tell.
    "stpm": Stpm(),
    # The authors' released main.py: no factor 1/2; maps of 64 x 64 are multiplied, then enlarged;
    # the epoch whose validation map has the lowest mean is kept; masks are resized bilinearly, any
    # non-zero pixel a defect. 100 epochs are main.py's default; its README's command has 200.
    "stpm_authors": Stpm(
        factor=1.0,
        map_resolution="finest",
        checkpoint="validation_map",
        masks="bilinear_any",
    ),
    # anomalib's stfpm: the loss sums over the batch; weight decay is ten times the paper's. It
    # trains on all of train/good and stops early on a metric of the *test* images: this leak is
    # not reproduced. Instead, as in the paper, 20% validate and the lowest validation loss is kept,
    # out of at most 100 epochs as in its example config. Its teacher also differs: timm's resnet18,
    # by default with the tag a1_in1k, not torchvision's IMAGENET1K_V1; here the study's is used.
    "stpm_anomalib": Stpm(reduction="sum", weight_decay=1e-3),
}


def optimiser_steps(settings: Stpm, training: int, full: int) -> int:
    """Return how many optimiser steps a student takes.

    Args:
        training: the number of training images.
        full: their number at a fraction of 1.0.
    """
    images = full if settings.schedule == "steps" else training
    return settings.epochs * math.ceil(images / settings.batch_size)


def fit(
    teacher: Teacher,
    images: np.ndarray,
    split: Split,
    *,
    levels: Sequence[int],
    settings: Stpm,
    seed: int,
    device,
    precision,
    title: str = "stpm",
    progress: bool = True,
    unfinished: Path | None = None,
) -> Fitted:
    """Train a student; see `interface` for the arguments, `student.train` for the training.

    The model holds `weights` and, if the settings ask for it, `last_epoch_weights`: tensors under
    torchvision's names.
    """
    from stpm_bench import backbone
    from stpm_bench.methods import student

    # One random stream per purpose: cells that differ in one axis share the draws of the others.
    network = backbone.create(teacher.backbone, levels, stream(seed, "student"))
    training = functools.partial(
        student.train,
        teacher.network,
        network,
        images,
        split,
        levels=levels,
        seed=seed,
        device=device,
        precision=precision,
        title=title,
        progress=progress,
        unfinished_file=unfinished,
    )
    return student.within_memory(training, settings, device)


def score(
    teacher: Teacher,
    model: dict,
    images: np.ndarray,
    *,
    levels: Sequence[int],
    settings: Stpm,
    device,
) -> Scores:
    """Compare teacher and student on test images, in float32 whatever the training precision."""
    return scorer(teacher, model, levels=levels, settings=settings, device=device)(images)


def scorer(
    teacher: Teacher, model: dict, *, levels: Sequence[int], settings: Stpm, device
) -> Callable[[np.ndarray], Scores]:
    """Return `score` as a function of the images, with the student on the device."""
    from stpm_bench import backbone

    students = {}
    for name in ("weights", "last_epoch_weights"):
        if name in model:
            network = backbone.create(teacher.backbone, levels, seed=0)
            backbone.load(network, model[name], "the student")
            students[name] = network.to(device)

    def scores_of(images: np.ndarray) -> Scores:
        maps = {
            name: level_maps(teacher.network, network, images, settings, device)
            for name, network in students.items()
        }
        named = {name: dict(zip(map(str, levels), m, strict=True)) for name, m in maps.items()}
        last = named.get("last_epoch_weights")
        return Scores(named["weights"], variants={"last_epoch": last} if last else {})

    return scores_of


def level_maps(
    teacher, student, images: np.ndarray, settings: Stpm, device, batch_size: int = 16
) -> list[np.ndarray]:
    """Return the distances of two networks' features: one (N, H_l, W_l) float32 array per level.

    Args:
        teacher, student: networks with the same levels, on `device`.
        images: (N, S, S, 3) uint8.
    """
    import torch

    teacher.eval()
    student.eval()
    # Filled in place: for a video's thousands of frames, a list of batches needs twice the memory.
    result: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            maps = distances(teacher, student, torch.from_numpy(images[rows]).to(device), settings)
            if not result:
                result = [np.empty((len(images), *m.shape[1:]), np.float32) for m in maps]
            for target, level in zip(result, maps, strict=True):
                target[rows] = level.cpu().numpy()
    return result


def distances(teacher, student, pixels, settings: Stpm) -> list:
    """Return the distances of a batch (N, S, S, 3) uint8: a tensor (N, H_l, W_l) per level."""
    from stpm_bench import backbone

    batch = backbone.normalise(pixels)
    features = DISTANCES[settings.distance].features
    return [
        distance(features(t), s, settings.distance, settings.factor)
        for t, s in zip(teacher(batch), student(batch), strict=True)
    ]
