"""Protocols: whose reading of the method is followed, each difference a field.

The paper, its authors' code and anomalib give different numbers under one name. `PROTOCOLS` is the
one place that says where they part; a config's `protocols` makes others by single differences.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

# The weight α of each level in the loss, from level 1 on. STPM, section 3: all are 1.
EQUAL = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Protocol:
    """Everything in which readings of STPM differ. Configs and provenance spell these names."""

    # Between the feature vectors of teacher and student, in the loss and in the maps:
    # normalised_l2, l2, angle or gradient (see `anomaly_map.DISTANCES`), times a factor.
    distance: str
    factor: float
    # The loss: the mean over an image's positions, then mean or sum over the batch; then the sum
    # over levels, weighted by level_weights (levels 1 to 4).
    reduction: str
    level_weights: tuple[float, ...]
    # Of the levels' maps: product or sum, made at the size of the image or of the finest level's
    # map, from where it is enlarged to the image's.
    fusion: str
    map_resolution: str
    # The epoch that is kept: of the lowest validation_loss, of the lowest mean of the fused maps of
    # the validation images (validation_map), or the last.
    checkpoint: str
    # How masks come to the maps' size (see `datasets.images.TREATMENTS`): nearest or bilinear_any.
    masks: str
    # SGD with a constant learning rate. schedule: epochs, or steps: as many optimiser steps as a
    # fraction of 1.0 would take in these epochs (5% of bottle is one step an epoch).
    epochs: int
    schedule: str
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    # Share of the training images that validates.
    validation_fraction: float


# The paper (arXiv 2103.04257), as far as its figures, tables and later readers tell. How masks are
# resized it does not state: nearest leaves a defect as large as it is.
PAPER = Protocol(
    distance="normalised_l2",
    factor=0.5,
    reduction="mean",
    level_weights=EQUAL,
    fusion="product",
    map_resolution="image",
    checkpoint="validation_loss",
    masks="nearest",
    epochs=100,
    schedule="epochs",
    batch_size=32,
    learning_rate=0.4,
    momentum=0.9,
    weight_decay=1e-4,
    validation_fraction=0.2,
)

PROTOCOLS = {
    "paper": PAPER,
    # The authors' released main.py: no 1/2; maps of 64 x 64 multiplied, then enlarged; the epoch
    # whose validation map has the lowest mean; masks resized bilinearly, any non-zero pixel a
    # defect. 100 epochs are main.py's default, its README's command has 200.
    "authors": replace(
        PAPER,
        factor=1.0,
        map_resolution="finest",
        checkpoint="validation_map",
        masks="bilinear_any",
    ),
    # anomalib's stfpm: the loss sums over the batch, weight decay is ten times the paper's. It
    # trains on all of train/good and stops early on a metric of the *test* images: a leak that is
    # not reproduced. Instead, as the paper, 20% validate and the lowest validation loss is kept, of
    # at most 100 epochs, as its example config has. Its teacher is another: timm's resnet18, by
    # default of the tag a1_in1k, not torchvision's IMAGENET1K_V1; here the study's is taken.
    "anomalib": replace(
        PAPER,
        reduction="sum",
        weight_decay=1e-3,
    ),
}

MAP_FIELDS = ("distance", "factor", "fusion", "map_resolution")


def define(own: Mapping[str, Mapping], training: Mapping[str, float]) -> dict[str, Protocol]:
    """Return every protocol of a config by name: the built-in ones, then its own.

    Args:
        own: the config's `protocols`: name -> `like` (a built-in one; 'paper' if left out) and the
            fields that differ from it.
        training: the config's `training`: what replaces a built-in protocol's numbers. An own
            protocol's fields replace both.
    """
    known = {name: replace(protocol, **training) for name, protocol in PROTOCOLS.items()}
    return known | {name: differing(known, entry) for name, entry in own.items()}


def differing(known: Mapping[str, Protocol], entry: Mapping) -> Protocol:
    """Return the protocol that `entry` describes by its differences from the one it is `like`."""
    values = {key: value for key, value in entry.items() if key != "like"}
    if "level_weights" in values:
        values["level_weights"] = tuple(values["level_weights"])
    return replace(known[entry.get("like", "paper")], **values)


def training_part(protocol: Protocol) -> dict:
    """Return the fields on which a student depends: what else changes does not train it anew."""
    evaluation = {"masks"}
    if protocol.checkpoint != "validation_map":
        evaluation |= {"fusion", "map_resolution"}
    return {key: value for key, value in asdict(protocol).items() if key not in evaluation}


def map_part(protocol: Protocol) -> dict:
    """Return the fields on which a student's anomaly maps depend, besides the student."""
    return {key: getattr(protocol, key) for key in MAP_FIELDS}


def optimiser_steps(protocol: Protocol, training: int, whole: int) -> int:
    """Return how many optimiser steps a student takes.

    Args:
        training: how many images train it.
        whole: how many would at a fraction of 1.0.
    """
    images = whole if protocol.schedule == "steps" else training
    return protocol.epochs * math.ceil(images / protocol.batch_size)
