"""The backbones against torchvision's, which are an independent implementation."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from stpm_bench import backbone, networks
from stpm_bench.levels import LEVELS


def pair(name, classes=1000, seed=3):
    torch.manual_seed(seed)
    ours = networks.classifier(name, classes)
    torch.manual_seed(seed)
    return ours, torchvision.models.get_model(name, weights=None, num_classes=classes)


@pytest.mark.parametrize("name", LEVELS)
def test_names_and_initial_weights_are_torchvisions(name):
    ours, theirs = pair(name, classes=7)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_the_random_state_afterwards_is_torchvisions():
    states = []
    for build in (networks.classifier, torchvision.models.get_model):
        torch.manual_seed(0)
        build("resnet18")
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("training", [False, True])
def test_logits_and_statistics_are_the_same_bits(name, training):
    ours, theirs = (network.train(training) for network in pair(name, classes=5))
    images = torch.randn(2, 3, 64, 96)
    results = []
    for network in (ours, theirs):
        torch.manual_seed(1)  # MobileNetV2 has a dropout
        results.append(network(images))
    assert torch.equal(*results)
    for value, expected in zip(
        ours.state_dict().values(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2", "mobilenet_v2"])
@pytest.mark.parametrize("levels", [[1], [3, 1], [1, 2, 3], [2, 4]])
def test_levels_and_their_gradients_are_the_same_bits(name, levels):
    network = backbone.create(name, levels, seed=2)
    torch.manual_seed(2)
    whole = torchvision.models.get_model(name, weights=None)
    nodes = [LEVELS[name][level - 1] for level in levels]
    theirs = create_feature_extractor(whole, {node: node for node in nodes})
    images = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    maps, expected = network(images), theirs(images)
    for level, node in zip(maps, nodes, strict=True):
        assert torch.equal(level, expected[node])
    sum(level.square().mean() for level in maps).backward()
    sum(expected[node].square().mean() for node in nodes).backward()
    gradients = {key: value.grad for key, value in network.network.named_parameters()}
    assert list(gradients) == list(dict(theirs.named_parameters()))
    assert all(torch.equal(gradients[k], v.grad) for k, v in theirs.named_parameters())


def test_an_unknown_backbone_is_a_key_error():
    with pytest.raises(KeyError, match="vgg"):
        networks.classifier("vgg")


def test_fit_and_score_do_not_import_torchvision(nut, tmp_path):
    """It takes as long as torch itself, since PyTorch 2.15 half of it for torch._dynamo."""
    common = ["--root", str(nut.parent), "--category", "nut", "--image-size", "32"]
    train, test, teacher, fit = (str(tmp_path / name) for name in ("train", "test", "t.pt", "fit"))
    cell = ["--teacher", teacher, "--layers", "1"]
    settings = ["--settings", '{"file": "stpm", "epochs": 1}']
    steps = [
        ["prepare", *common, "--split", "train", "--output", train],
        ["prepare", *common, "--split", "test", "--train", train, "--output", test],
        ["teacher", "--backbone", "resnet18", "--output", teacher],
        ["fit", *cell, "--train", train, "--output", fit, *settings],
        ["score", *cell, "--test", test, "--fit", fit],
    ]
    code = (
        "import sys; from stpm_bench.__main__ import main; "
        f"assert not any(map(main, {steps!r})); "
        "sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
