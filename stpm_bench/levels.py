"""The levels of each backbone; needs no torch, which is slow to import."""

import re
from collections.abc import Mapping, Sequence

from stpm_bench.errors import InputError

# Level l is the last feature map at stride 2 ** (l + 1), with torchvision's name of its module:
# 1 is conv2_x of a ResNet, 4 is conv5_x.
RESNET = ("layer1", "layer2", "layer3", "layer4")
LEVELS = {
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
    "wide_resnet50_2": RESNET,
    "mobilenet_v2": ("features.3", "features.6", "features.13", "features.17"),
}

# The number of channels of each level.
CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "wide_resnet50_2": (256, 512, 1024, 2048),
    "mobilenet_v2": (24, 32, 96, 320),
}

# Images per second through the levels 1 to 3 at 256 x 256: measured on one core, in float32.
FORWARD = {
    "resnet18": 26,
    "resnet34": 13,
    "resnet50": 9,
    "wide_resnet50_2": 4,
    "mobilenet_v2": 55,
}


# The names of torchvision's published weights of each backbone, all trained on ImageNet.
PUBLISHED = {
    "resnet18": ("IMAGENET1K_V1",),
    "resnet34": ("IMAGENET1K_V1",),
    "resnet50": ("IMAGENET1K_V1", "IMAGENET1K_V2"),
    "wide_resnet50_2": ("IMAGENET1K_V1", "IMAGENET1K_V2"),
    "mobilenet_v2": ("IMAGENET1K_V1", "IMAGENET1K_V2"),
}

# The weights that are part of this package, also trained on ImageNet, and the levels they have.
EMBEDDED = "embedded"
EMBEDDED_LEVELS = {"mobilenet_v2": (1, 2, 3)}


def names_a_file(teacher: Mapping) -> bool:
    """Return whether an entry of the config's `teachers` names a user's file of weights."""
    weights = teacher.get("weights")
    return weights not in (None, EMBEDDED, *PUBLISHED[teacher["backbone"]])


def level_names(backbone: str, levels: Sequence[int]) -> list[str]:
    """Return torchvision's name of each level's last module.

    Raises:
        InputError: the backbone is unknown, or does not have one of the levels.
    """
    if backbone not in LEVELS:
        raise InputError(f"backbone {backbone!r} is unknown; allowed: {', '.join(LEVELS)}")
    names = LEVELS[backbone]
    for level in levels:
        if not 1 <= level <= len(names):
            raise InputError(
                f"level {level} does not exist in backbone {backbone!r}; "
                f"allowed: {', '.join(str(i + 1) for i in range(len(names)))}"
            )
    return [names[level - 1] for level in levels]


def format_layers(levels: Sequence[int]) -> str:
    """Return levels in ascending order as the tables write them: [3, 1] is '1+3'."""
    return "+".join(str(level) for level in sorted(levels))


def parse_layers(layers: str) -> list[int]:
    """Return the levels of such a text: '1+3' is [1, 3].

    Raises:
        InputError: it is written in another way.
    """
    if not re.fullmatch(r"\d+(\+\d+)*", layers):
        raise InputError(f"layers {layers!r}: expected levels joined by '+', as in 1+2+3")
    return [int(level) for level in layers.split("+")]
