"""The interface of a method: a dataclass of settings and two functions, `fit` and `score`.

A method is one file of this package with the names

- `METHODS`: name of a built-in method -> its `Settings`;
- `fit(teacher, images, split, *, levels, settings, seed, device, precision, title, progress,
  unfinished) -> Fitted`: sees only training images, all of them anomaly-free;
- `score(teacher, model, images, *, levels, settings, device) -> Scores`: `model` is the one in
  `Fitted`, read from its file;
- `scorer(teacher, model, *, levels, settings, device)`, optional: returns `score` as a function of
  the images alone, after doing everything that needs no image, such as moving the model to the
  device. For images that arrive one after the other; see `methods.scorer`.

A method is imported when the Snakefile is parsed, without torch, which is slow to start: it imports
torch inside its functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

HISTORY = ["epoch", "train_loss", "validation_loss", "validation_map", "seconds", "kept"]


class Teacher(NamedTuple):
    """A frozen network on the device that is used.

    Attributes:
        backbone: torchvision's name, a key of `levels.LEVELS`.
        network: an nn.Module in evaluation mode that maps (N, 3, H, W) float32 images, as
            `backbone.normalise` returns them, to a tuple with one (N, C_l, H_l, W_l) feature map
            for each requested level, in their order.
    """

    backbone: str
    network: Any


class Split(NamedTuple):
    """Which of the training images a fit uses.

    Attributes:
        training, validation: indices into the images; a method that does not validate has no
            validation images.
        full: the number of training images at a fraction of 1.0.
    """

    training: Sequence[int]
    validation: Sequence[int]
    full: int


class Fitted(NamedTuple):
    """The result of a fit.

    Attributes:
        model: what `score` needs besides the teacher: tensors, numbers and texts by name, as
            `torch.load(weights_only=True)` reads them; empty if the fit failed.
        history: columns `HISTORY`, one row per epoch; no rows for a method without epochs.
        images: how many images the fit processed, counting every epoch.
        seconds: of the work itself.
        failure: what went wrong, or None.
        steps: the number of optimiser steps; None for a method that takes none.
    """

    model: dict
    history: pd.DataFrame
    images: int
    seconds: float
    failure: str | None = None
    steps: int | None = None


def no_history() -> pd.DataFrame:
    """Return the history of a fit without epochs."""
    return pd.DataFrame(columns=HISTORY)


class Scores(NamedTuple):
    """A method's scores for N test images; higher is more anomalous.

    Attributes:
        level_maps: name of a level, or of levels that were joined ('1+2+3') -> (N, H_l, W_l)
            float32, at the features' resolution.
        image_scores: (N,) float32 for a method that computes them; None where an image's score is
            the maximum of its anomaly map.
        variants: other level maps of the same images by name, such as 'last_epoch'; their metrics
            are reported as NAME_METRIC.
    """

    level_maps: dict[str, np.ndarray]
    image_scores: np.ndarray | None = None
    variants: dict[str, dict[str, np.ndarray]] = {}  # noqa: RUF012 (never changed)


def option(default, *, evaluation: bool = False, **schema):
    """Return a field of settings.

    Args:
        default: its value; it also determines the type of the config key.
        evaluation: whether only the evaluation reads it. All other fields are read by `fit` or
            `score`: cells that differ in one of them share no fit.
        schema: bounds as JSON Schema keywords, such as `minimum=1` or `enum=[...]`.
    """
    return field(default=default, metadata={"evaluation": evaluation, "schema": schema})


@dataclass(frozen=True)
class Settings:
    """The fields that every method has; a method's dataclass adds more.

    masks: how masks are resized to the size of the maps: nearest; or bilinear_any: bilinearly, and
        every non-zero pixel counts as a defect (see `datasets.masks.TREATMENTS`).
    smoothing: standard deviation in pixels, at 256 x 256, of the Gaussian filter over the anomaly
        map; scaled with the image's size, 0 for none.
    """

    masks: str = option("nearest", evaluation=True, enum=["nearest", "bilinear_any"])
    smoothing: float = option(0.0, evaluation=True, minimum=0)

    # Name of the method's file. The levels that the method uses where a study says 'default'.
    module: ClassVar[str]
    levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    # Whether a fit computes in the config's precision; other methods always use float32.
    reads_precision: ClassVar[bool] = False
    # About how many seconds more than STPM a test image of 256 x 256 takes on one core.
    extra_seconds: ClassVar[float] = 0.0
    # Whether its models are kept by default, and whether a fit itself depends on its seed.
    keeps_model: ClassVar[bool] = False
    depends_on_seed: ClassVar[bool] = True

    def validation_share(self) -> float:
        """Return the share of the chosen images that is used for validation, in [0, 1)."""
        return 0.0

    def fit_part(self, fraction: float) -> dict:
        """Return the fields that `fit` or `score` reads: if they are equal, the fit is shared.

        Args:
            fraction: of the training images.
        """
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata["evaluation"]}

    def evaluation_part(self) -> dict:
        """Return the fields that the evaluation reads."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["evaluation"]}

    def fit_images(self, full: int, fraction: float) -> int:
        """Return about how many images a fit processes, counting every epoch.

        Args:
            full: how many training images the category has.
        """
        return max(1, round(full * fraction))

    def map_levels(self, levels: Sequence[int]) -> list[int]:
        """Return for each stored level map the level that has its resolution."""
        return [min(levels)]

    def networks(self) -> int:
        """Return how many networks, cut at the deepest level, a model holds the weights of."""
        return 0

    def images_per_second(self, backbone: str) -> float:
        """Return about how many images per second a fit processes at 256 x 256 on one core, in
        float32, on a busy machine."""
        raise NotImplementedError

    def memory_mb(self, backbone: str, images: int) -> float:
        """Return about how many MB a fit's arrays take at 256 x 256.

        Args:
            images: how many it is fitted on.
        """
        raise NotImplementedError

    def model_mb(self, backbone: str, images: int) -> float:
        """Return about how many MB a model takes at 256 x 256, besides the weights of `networks`.

        Args:
            images: how many it is fitted on.
        """
        return 0.0
