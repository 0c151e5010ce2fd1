"""The training of a teacher as a classifier: repeatable, resumable, and it learns."""

import numpy as np
import pytest
import torch

from stpm_bench import backbone, pretrain
from stpm_bench.pretrain import train_classifier

SETTINGS = {
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 0.02,
    "input_size": 32,
    "flip": False,
    "seed": 0,
    "device": torch.device("cpu"),
    "precision": torch.float32,
}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])  # the second draws dropout
def test_pretraining_repeats_and_a_last_batch_of_one_image_is_skipped(name):
    rng = np.random.default_rng(0)
    data = {
        "train_images": rng.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8),
        "train_labels": np.arange(17) % 2,
        "test_images": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "test_labels": np.arange(4) % 2,
        "classes": np.array(["even", "odd"]),
    }
    first, other = (
        train_classifier(name, "digits", data, **SETTINGS | {"epochs": 1})[0] for _ in range(2)
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
    weights, report = train_classifier("resnet18", "digits", data, **SETTINGS)
    assert report["test_accuracy"] > 0.9
    assert report["classes"] == ["dark", "bright"]
    backbone.load(backbone.create("resnet18", [1, 2, 3, 4], seed=0), weights, "")


def small_data(seed: int = 0, count: int = 24) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "train_images": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "train_labels": np.arange(count) % 2,
        "test_images": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "test_labels": np.arange(4) % 2,
        "classes": np.array(["even", "odd"]),
    }


class Killed(BaseException):
    """Raised in place of a kill: nothing catches it."""


def killed_at(epoch: int, monkeypatch) -> None:
    """Interrupt the training before the test accuracy of `epoch` is computed."""
    accuracy, calls = pretrain.accuracy, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == epoch:
            raise Killed
        return accuracy(*arguments)

    monkeypatch.setattr(pretrain, "accuracy", dying)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])  # the second draws dropout
def test_interrupted_pretraining_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    data, settings = small_data(), SETTINGS | {"epochs": 3, "flip": True}
    expected, report = train_classifier(name, "digits", data, **settings)
    unfinished = tmp_path / "teacher.unfinished"
    with monkeypatch.context() as patch:
        killed_at(3, patch)
        with pytest.raises(Killed):
            train_classifier(name, "digits", data, **settings, unfinished_file=unfinished)
    torch.manual_seed(123)  # another process would start from another state
    weights, resumed = train_classifier(
        name, "digits", data, **settings, unfinished_file=unfinished
    )
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    for row, other in zip(resumed["history"], report["history"], strict=True):
        assert row["test_accuracy"] == other["test_accuracy"]
        assert row["train_accuracy"] == other["train_accuracy"]


@pytest.mark.parametrize("changed", ["settings", "data", "damaged"])
def test_an_unfinished_state_of_another_training_is_ignored(changed, tmp_path, monkeypatch):
    data, settings = small_data(), SETTINGS | {"epochs": 2}
    unfinished = tmp_path / "teacher.unfinished"
    with monkeypatch.context() as patch:
        killed_at(2, patch)
        with pytest.raises(Killed):
            train_classifier("resnet18", "digits", data, **settings, unfinished_file=unfinished)
    if changed == "settings":
        settings = settings | {"learning_rate": 0.01}
    elif changed == "data":
        data = small_data(seed=1)
    else:
        content = bytearray(unfinished.read_bytes())
        content[len(content) // 2] ^= 1  # in the weights: PyTorch would read them
        unfinished.write_bytes(content)
    expected, _ = train_classifier("resnet18", "digits", data, **settings)
    weights, _ = train_classifier(
        "resnet18", "digits", data, **settings, unfinished_file=unfinished
    )
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_flips_draw_and_change_the_result():
    data, settings = small_data(), SETTINGS | {"epochs": 1}
    straight, report = train_classifier("resnet18", "digits", data, **settings)
    flipped, other = train_classifier("resnet18", "digits", data, **settings | {"flip": True})
    assert (report["flip"], other["flip"]) == (False, True)
    assert not torch.equal(straight["conv1.weight"], flipped["conv1.weight"])
