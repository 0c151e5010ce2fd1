from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from conftest import SHARED_DATA
from stpm_bench import backbone, teacher
from stpm_bench.errors import InputError
from stpm_bench.seeds import stream

SETTINGS = {
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 0.02,
    "input_size": 32,
    "seed": 0,
    "device": torch.device("cpu"),
    "precision": torch.float32,
}


def test_an_untrained_teacher_is_not_where_a_student_of_its_seed_starts():
    weights = teacher.untrained("resnet18", seed=0)
    student = backbone.state(backbone.create("resnet18", [1], stream(0, "student")))
    assert not torch.equal(weights["conv1.weight"], student["conv1.weight"])
    assert torch.equal(weights["conv1.weight"], teacher.untrained("resnet18", 0)["conv1.weight"])


def test_a_file_of_torchvisions_weights(tmp_path):
    network = torchvision.models.mobilenet_v2()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    weights = teacher.from_file("mobilenet_v2", tmp_path / "weights.pth")
    assert torch.equal(weights["features.17.conv.2.weight"], network.features[17].conv[2].weight)
    assert not any(key.startswith("classifier") for key in weights)


def test_files_that_are_no_weights(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(InputError, match=r"weights.pth: no such file; expected the weights of res"):
        teacher.from_file("resnet18", path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(InputError, match=r"weights.pth: cannot be read as a file of tensors"):
        teacher.from_file("resnet18", path)
    torch.save(torchvision.models.resnet18(), path)  # code as well as tensors
    with pytest.raises(InputError, match=r"weights.pth: cannot be read as a file of tensors"):
        teacher.from_file("resnet18", path)
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(InputError, match=r"weights.pth: holds more than tensors by name"):
        teacher.from_file("resnet18", path)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(InputError, match=r"weights.pth: does not fit .*'features.0.0.weight'"):
        teacher.from_file("mobilenet_v2", path)


def test_published_weights_without_a_network(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"resnet18-f37072fd.pth: cannot be .*Put the file at "):
        teacher.from_torchvision("resnet18", tmp_path)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])  # the second draws dropout
def test_pretraining_repeats_and_a_last_batch_of_one_image_is_passed_over(name):
    rng = np.random.default_rng(0)
    data = {
        "train_images": rng.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8),
        "train_labels": np.arange(17) % 2,
        "test_images": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "test_labels": np.arange(4) % 2,
        "classes": np.array(["even", "odd"]),
    }
    first, other = (
        teacher.pretrain(name, "digits", data, **SETTINGS | {"epochs": 1})[0] for _ in range(2)
    )
    assert all(torch.equal(first[key], other[key]) for key in first)


def test_pretraining_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 96)
    images = rng.integers(0, 128, (96, 32, 32, 3), dtype=np.uint8) + (labels * 120)[
        :, None, None, None
    ].astype(np.uint8)
    data = {
        "train_images": images[:64],
        "train_labels": labels[:64],
        "test_images": images[64:],
        "test_labels": labels[64:],
        "classes": np.array(["dark", "bright"]),
    }
    weights, report = teacher.pretrain("resnet18", "photos", data, **SETTINGS)
    assert report["test_accuracy"] > 0.9
    assert report["classes"] == ["dark", "bright"]
    backbone.load(backbone.create("resnet18", [1, 2, 3, 4], seed=0), weights, "")


def test_the_real_imagenet_backbone_loads():
    path = SHARED_DATA / "weights" / "mobilenet_v2-imagenet1k-backbone.pth"
    if not path.is_file():
        pytest.skip(f"the ImageNet weights are not at {path}")
    assert len(teacher.from_file("mobilenet_v2", path)) == 306
