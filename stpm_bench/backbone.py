"""A network cut at the deepest requested level; it returns the feature pyramid."""

import functools
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from stpm_bench import networks
from stpm_bench.errors import InputError
from stpm_bench.levels import level_names

# Every network here, teacher or student, gets images normalised by the statistics of ImageNet.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def create(backbone: str, levels: Sequence[int], seed: int) -> nn.Module:
    """Return an untrained network that maps (N, 3, H, W) float32 to a tuple of feature maps.

    The network ends at the deepest of `levels`; its parameters have torchvision's names and, for a
    backbone, depend on `seed` alone, not on `levels`. The output holds one map
    (N, C_l, H / 2^(l+1), W / 2^(l+1)) for each level, in the order of `levels`.

    Raises:
        InputError: the backbone is unknown, or does not have one of the levels.
    """
    names = level_names(backbone, levels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Pyramid(networks.classifier(backbone), names)


class Pyramid(nn.Module):
    """A classifier up to the deepest of the named modules, whose outputs it returns in order.

    `network` is what is left of the classifier: its tensors have torchvision's names.
    """

    def __init__(self, classifier: nn.Sequential, names: Sequence[str]):
        super().__init__()
        # The levels of a ResNet are modules of the classifier, those of a MobileNet of `features`.
        parent = names[0].rpartition(".")[0]
        stages = classifier.get_submodule(parent)
        path = [f"{parent}.{name}" if parent else name for name, _ in stages.named_children()]
        self.names = tuple(names)
        self.path = path[: 1 + max(map(path.index, names))]
        stages = stages[: len(self.path)]
        self.network = nn.Sequential(OrderedDict({parent: stages})) if parent else stages

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = {}
        for name in self.path:
            images = self.network.get_submodule(name)(images)
            if name in self.names:
                maps[name] = images
        return tuple(maps[name] for name in self.names)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the network's tensors on the CPU under torchvision's names."""
    return {key: value.cpu() for key, value in network.network.state_dict().items()}


def load(network: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Copy `weights` into a network made by `create`; keys beyond its deepest level are ignored.

    Args:
        weights: torchvision's keys to tensors; may include a classifier or deeper levels.
        source: the file that the weights came from, for the error message.

    Raises:
        InputError: a key that the network needs is missing or has a wrong shape; names the first.
    """
    needed = network.network.state_dict()
    for key, tensor in needed.items():
        if key.endswith("num_batches_tracked"):  # files from before PyTorch 0.4.1 lack it
            continue
        found = weights.get(key)
        if found is None or found.shape != tensor.shape:
            is_there = "it is missing" if found is None else f"it has {tuple(found.shape)}"
            raise InputError(
                f"{source}: does not fit the backbone. The first key that differs is {key!r}: "
                f"expected {tuple(tensor.shape)}, {is_there}. "
                "Name the backbone that the file was trained with, or another file, "
                "under the config key 'teachers'."
            )
    network.network.load_state_dict({key: weights.get(key, needed[key]) for key in needed})


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as float32 (N, 3, H, W), channels last in memory.

    Values 0..255 become (x / 255 - mean) / std with ImageNet's mean and standard deviation.
    """
    mean, std = statistics(images.device)
    # (N, H, W, 3) viewed as (N, 3, H, W) is the channels-last layout: no copy is made.
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


@functools.cache
def statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ImageNet's mean and standard deviation of pixels 0..255: two (3,) float32.

    Made once per device: a tensor that is copied to a GPU waits for all that the GPU has to do.
    """
    return tuple(
        torch.tensor(values, device=device) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
