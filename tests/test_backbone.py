import pytest
import torch
import torchvision

from stpm_bench import backbone
from stpm_bench.errors import InputError
from stpm_bench.levels import LEVELS, level_names


@pytest.mark.parametrize("name", LEVELS)
def test_levels_are_at_strides_4_to_32(name):
    network = backbone.create(name, [1, 2, 3, 4], seed=0).eval()
    maps = network(torch.zeros(2, 3, 96, 64))
    assert [tuple(m.shape[2:]) for m in maps] == [(24, 16), (12, 8), (6, 4), (3, 2)]


def test_the_network_is_cut_at_the_deepest_level_and_keeps_torchvisions_names():
    whole = torchvision.models.resnet18()
    cut = backbone.state(backbone.create("resnet18", [2], seed=0))
    assert set(cut) == {
        k for k in whole.state_dict() if not k.startswith(("layer3", "layer4", "fc"))
    }


def test_maps_are_those_of_torchvisions_network():
    network = backbone.create("resnet18", [3, 1], seed=0).eval()
    whole = torchvision.models.resnet18().eval()
    whole.load_state_dict(backbone.state(network), strict=False)
    images = torch.randn(2, 3, 64, 64)
    x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(images))))
    first = whole.layer1(x)
    third = whole.layer3(whole.layer2(first))
    torch.testing.assert_close(network(images), (third, first))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second, other = (
        backbone.state(backbone.create("resnet18", levels, seed))
        for levels, seed in (([1], 5), ([1, 2, 3], 5), ([1], 6))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_weights_load_with_more_than_is_needed_and_without_counters():
    weights = torchvision.models.resnet18().state_dict()
    weights = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    network = backbone.create("resnet18", [2], seed=0)
    backbone.load(network, weights, "file")
    assert torch.equal(backbone.state(network)["conv1.weight"], weights["conv1.weight"])


def test_the_first_key_that_differs_is_named():
    network = backbone.create("resnet18", [1], seed=0)
    weights = backbone.state(network)
    with pytest.raises(InputError, match=r"x.pth: .*differs is 'conv1.weight': .*is missing"):
        backbone.load(network, torchvision.models.mobilenet_v2().state_dict(), "x.pth")
    weights["bn1.bias"] = torch.zeros(3)
    with pytest.raises(InputError, match=r"'bn1.bias': expected \(64,\), it has \(3,\)"):
        backbone.load(network, weights, "x.pth")


def test_unknown_backbone_and_level():
    with pytest.raises(InputError, match="backbone 'vgg' is unknown; allowed: resnet18, "):
        level_names("vgg", [1])
    with pytest.raises(InputError, match="level 0 does not exist in backbone 'mobilenet_v2'"):
        backbone.create("mobilenet_v2", [0], seed=0)


def test_normalise_is_imagenets():
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    expected = torchvision.transforms.functional.normalize(
        images.permute(0, 3, 1, 2) / 255, backbone.IMAGENET_MEAN, backbone.IMAGENET_STD
    )
    result = backbone.normalise(images)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    assert result.is_contiguous(memory_format=torch.channels_last)
