"""The backbones as image classifiers: ResNets and MobileNetV2, as torchvision defines them.

torchvision is not imported: with PyTorch 2.15 that loads torch._dynamo, which takes as long as
torch itself, in every process that fits or scores. Here parameters have torchvision's names, the
same seed draws the same initial weights, and the outputs are the same bits; tests compare all three
with torchvision.
"""

from collections.abc import Sequence

import torch
from torch import nn

# Blocks per stage, channels of the first stage's 3x3 convolutions, and whether blocks are
# bottlenecks. He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1;
# Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016 (twice the channels in 3x3).
RESNETS = {
    "resnet18": ((2, 2, 2, 2), 64, False),
    "resnet34": ((3, 4, 6, 3), 64, False),
    "resnet50": ((3, 4, 6, 3), 64, True),
    "wide_resnet50_2": ((3, 4, 6, 3), 128, True),
}

# Expansion, output channels, blocks, stride of the first block. Sandler et al., MobileNetV2, CVPR
# 2018, table 2.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def classifier(backbone: str, classes: int = 1000) -> nn.Sequential:
    """Return an untrained network, drawn from torch's global generator.

    It maps images (N, 3, H, W) float32 to logits (N, classes). The modules are in the order of the
    forward pass, so that a network that ends earlier is a slice of this one.

    Raises:
        KeyError: the backbone is unknown.
    """
    network = (
        mobilenet_v2(classes) if backbone == "mobilenet_v2" else resnet(*RESNETS[backbone], classes)
    )
    # Drawn once more in torchvision's order, so that the same seed gives the same weights. Batch
    # norm's weight is 1 and its bias 0 already.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and backbone == "mobilenet_v2":
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
    return network


def resnet(blocks: Sequence[int], width: int, bottleneck: bool, classes: int) -> nn.Sequential:
    """Return a ResNet; its four stages have 64, 128, 256, 512 channels, four times that with
    bottlenecks."""
    network = nn.Sequential()
    network.add_module("conv1", convolution(3, 64, 7, stride=2))
    network.add_module("bn1", nn.BatchNorm2d(64))
    network.add_module("relu", nn.ReLU(inplace=True))
    network.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
    inputs = 64
    for stage, count in enumerate(blocks):
        inner, outputs = width * 2**stage, 64 * 2**stage * (4 if bottleneck else 1)
        channels = (inner, inner, outputs) if bottleneck else (inner, outputs)
        layer = nn.Sequential()
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            layer.append(ResidualBlock(inputs, channels, stride))
            inputs = outputs
        network.add_module(f"layer{stage + 1}", layer)
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(inputs, classes))
    return network


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck: 1x1, 3x3, 1x1 with the stride at the 3x3."""

    def __init__(self, inputs: int, channels: Sequence[int], stride: int):
        super().__init__()
        sizes = (3, 3) if len(channels) == 2 else (1, 3, 1)
        # Made first and registered last, as in torchvision: what a module draws when it is made
        # moves the random generator on, and so changes the weights that are drawn later.
        downsample = None
        if stride != 1 or inputs != channels[-1]:
            downsample = nn.Sequential(
                convolution(inputs, channels[-1], 1, stride), nn.BatchNorm2d(channels[-1])
            )
        for index, (size, outputs) in enumerate(zip(sizes, channels, strict=True)):
            step = stride if index == sizes.index(3) else 1
            self.add_module(f"conv{index + 1}", convolution(inputs, outputs, size, step))
            self.add_module(f"bn{index + 1}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        result = self.relu(self.bn1(self.conv1(features)))
        result = self.bn2(self.conv2(result))
        if hasattr(self, "conv3"):
            result = self.bn3(self.conv3(self.relu(result)))
        result += features if self.downsample is None else self.downsample(features)
        return self.relu(result)


def mobilenet_v2(classes: int) -> nn.Sequential:
    """Return a MobileNetV2 of width 1."""
    features = nn.Sequential(activated(3, 32, 3, stride=2))
    inputs = 32
    for expansion, outputs, count, first_stride in MOBILENET_V2:
        for block in range(count):
            stride = first_stride if block == 0 else 1
            features.append(InvertedResidual(inputs, outputs, expansion, stride))
            inputs = outputs
    features.append(activated(inputs, 1280, 1))
    network = nn.Sequential()
    network.add_module("features", features)
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes)))
    return network


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 within each channel, 1x1 back; added to the input if shapes fit."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        inner = inputs * expansion
        self.adds_input = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([activated(inputs, inner, 1)] if expansion > 1 else []),
            activated(inner, inner, 3, stride, groups=inner),
            convolution(inner, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        result = self.conv(features)
        return features + result if self.adds_input else result


def activated(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
    """Return a convolution with batch norm and ReLU6."""
    return nn.Sequential(
        convolution(inputs, outputs, size, stride, groups),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
    """Return a convolution without bias that keeps the image's size, up to its stride."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
