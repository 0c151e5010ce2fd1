import numpy as np
import pytest
import torch

from stpm_bench import backbone
from stpm_bench.anomaly_map import distance, unit
from stpm_bench.device import choose_device, choose_precision, set_deterministic
from stpm_bench.errors import InputError
from stpm_bench.student import train

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)


def run(levels=(1, 2), precision=torch.float32, **changes):
    set_deterministic(threads=1)
    teacher = backbone.create("resnet18", levels, seed=1)
    student = backbone.create("resnet18", levels, seed=2)
    settings = {
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "seed": 0,
        "device": CPU,
        "precision": precision,
    } | changes
    return train(teacher, student, IMAGES, range(8), [8, 9], **settings), teacher


def loss(weights, teacher, rows, levels=(1, 2)):
    """The loss of METHOD: half squared distance of unit vectors, mean, summed over levels."""
    student = backbone.create("resnet18", levels, seed=0)
    backbone.load(student, weights, "")
    images = backbone.normalise(torch.from_numpy(IMAGES[rows]))
    with torch.no_grad():
        pairs = zip(teacher.eval()(images), student.eval()(images), strict=True)
        return sum(distance(unit(t), s).mean().item() for t, s in pairs)


def test_training_lowers_the_loss_and_the_best_epoch_is_kept():
    (weights, history), teacher = run(epochs=6)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    kept = history.loc[history["kept"]]
    assert len(kept) == 1
    assert kept["validation_loss"].item() == history["validation_loss"].min()
    # The weights returned are those of that epoch: their loss is the one in the history.
    assert loss(weights, teacher, [8, 9]) == pytest.approx(kept["validation_loss"].item(), rel=1e-4)


def test_three_steps_are_those_of_a_plain_loop():
    # One batch an epoch, in whatever order; the later steps show the momentum.
    (weights, history), teacher = run(epochs=3, batch_size=8, weight_decay=0.01)
    student = backbone.create("resnet18", (1, 2), seed=2).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    images = backbone.normalise(torch.from_numpy(IMAGES[:8]))
    with torch.no_grad():
        targets = teacher.eval()(images)
    states = []
    for epoch in range(3):
        total = 0
        for t, s in zip(targets, student(images), strict=True):
            t, s = t / t.norm(dim=1, keepdim=True), s / s.norm(dim=1, keepdim=True)
            total = total + (0.5 * (t - s).pow(2).sum(1)).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert history["train_loss"][epoch] == pytest.approx(total.item(), rel=1e-4)
        states.append({key: value.clone() for key, value in backbone.state(student).items()})
    for key, value in states[history["kept"].idxmax()].items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    (first, history), _ = run()
    (second, again), _ = run()
    (other, _), _ = run(seed=1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    timeless = ["epoch", "train_loss", "validation_loss", "kept"]
    assert history[timeless].equals(again[timeless])
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_bfloat16_trains_alike():
    (_, full), _ = run(epochs=5)
    (_, half), _ = run(epochs=5, precision=torch.bfloat16)
    np.testing.assert_allclose(half["train_loss"], full["train_loss"], rtol=0.05)
    assert half["train_loss"].tolist() != full["train_loss"].tolist()  # it was bfloat16 at all


def test_a_loss_that_is_not_finite_is_named_with_its_epoch():
    with pytest.raises(
        InputError, match=r"not finite at epoch \d+ .*lower 'training.learning_rate"
    ):
        run(epochs=20, learning_rate=1e20)


def test_device_and_precision_are_chosen_by_looking(monkeypatch):
    assert choose_device("cpu") == CPU
    assert choose_precision("float32", CPU) is torch.float32
    assert choose_precision("bfloat16", CPU) is torch.bfloat16
    for found, expected in (
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
    ):
        monkeypatch.setattr("stpm_bench.device.cpu_capabilities", lambda found=found: found)
        assert choose_precision("auto", CPU) is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none():
    with pytest.raises(InputError, match="config key 'device': 'cuda' was asked for"):
        choose_device("cuda")


def test_no_epochs():
    with pytest.raises(InputError, match=r"'training\.epochs' is 0; expected at least 1"):
        run(epochs=0)
