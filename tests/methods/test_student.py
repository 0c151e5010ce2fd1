import functools
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from stpm_bench import backbone
from stpm_bench.device import choose_device, choose_precision, set_deterministic
from stpm_bench.errors import InputError
from stpm_bench.methods import student as module
from stpm_bench.methods.distance import distance, unit
from stpm_bench.methods.interface import Split
from stpm_bench.methods.stpm import METHODS, level_maps
from stpm_bench.methods.student import train, within_memory

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
PAPER = METHODS["stpm"]
SMALL = replace(PAPER, epochs=3, batch_size=4, learning_rate=0.1)


def run(
    levels=(1, 2),
    precision=torch.float32,
    seed=0,
    training=range(8),
    full=None,
    unfinished_file=None,
    **changes,
):
    """Return what a training gives: a dict of the model, and `history`, `failure`; the networks."""
    set_deterministic(threads=1)
    teacher = backbone.create("resnet18", levels, seed=1)
    student = backbone.create("resnet18", levels, seed=2)
    trained = train(
        teacher,
        student,
        IMAGES,
        Split(training, [8, 9], full or len(training)),
        replace(SMALL, **changes),
        levels=levels,
        seed=seed,
        device=CPU,
        precision=precision,
        progress=False,
        unfinished_file=unfinished_file,
    )
    return trained, teacher, student


def weights_of(**changes):
    """Return the weights that a training keeps."""
    return run(**changes)[0].model["weights"]


def loss(weights, teacher, rows, levels=(1, 2)):
    """The loss of METHOD: half squared distance of unit vectors, mean, summed over levels."""
    student = backbone.create("resnet18", levels, seed=0)
    backbone.load(student, weights, "")
    images = backbone.normalise(torch.from_numpy(IMAGES[rows]))
    with torch.no_grad():
        pairs = zip(teacher.eval()(images), student.eval()(images), strict=True)
        return sum(distance(unit(t), s).mean().item() for t, s in pairs)


def test_training_lowers_the_loss_and_the_best_epoch_is_kept():
    trained, teacher, _ = run(epochs=6)
    weights, history = trained.model["weights"], trained.history
    assert trained.failure is None
    assert set(trained.model) == {"weights"}
    assert trained.images == 6 * 8
    assert trained.steps == 6 * 2
    assert trained.seconds == pytest.approx(history["seconds"][1:].sum())
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]
    kept = history.loc[history["kept"]]
    assert len(kept) == 1
    assert kept["validation_loss"].item() == history["validation_loss"].min()
    # The weights returned are those of that epoch: their loss is the one in the history.
    assert loss(weights, teacher, [8, 9]) == pytest.approx(kept["validation_loss"].item(), rel=1e-4)
    untrained = backbone.state(backbone.create("resnet18", (1, 2), seed=2))
    assert loss(untrained, teacher, [8, 9]) == pytest.approx(history["validation_loss"][0])


pairs = functools.partial(zip, strict=True)


def plain_loop(distances, epochs=3, **options):
    """The weights after each epoch of one batch of eight images, and the losses."""
    teacher, student = (backbone.create("resnet18", (1, 2), seed) for seed in (1, 2))
    optimizer = torch.optim.SGD(student.train().parameters(), lr=0.1, momentum=0.9, **options)
    images = backbone.normalise(torch.from_numpy(IMAGES[:8]))
    with torch.no_grad():
        targets = teacher.eval()(images)
    states, losses = [], []
    for _ in range(epochs):
        total = distances(targets, student(images))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
        states.append({key: value.clone() for key, value in backbone.state(student).items()})
    return states, losses


def half_squared_distance(target, student):
    t, s = (x / x.norm(dim=1, keepdim=True) for x in (target, student))
    return 0.5 * (t - s).pow(2).sum(1)


def gradient_distance(target, student):
    t, s = (torch.nn.functional.normalize(x, dim=1) for x in (target, student))
    total = (t - s).pow(2).sum(1)
    total[:, :-1] += ((t[:, :, 1:] - t[:, :, :-1]) - (s[:, :, 1:] - s[:, :, :-1])).pow(2).sum(1)
    total[:, :, :-1] += ((t[..., 1:] - t[..., :-1]) - (s[..., 1:] - s[..., :-1])).pow(2).sum(1)
    return total


@pytest.mark.parametrize(
    ("changes", "loss_of"),
    [
        ({}, lambda t, s: sum(half_squared_distance(*pair).mean() for pair in pairs(t, s))),
        (
            {"reduction": "sum", "learning_rate": 0.1 / 8},
            lambda t, s: sum(half_squared_distance(*pair).mean() for pair in pairs(t, s)),
        ),
        (
            {"distance": "angle", "factor": 1.0, "level_weights": (0.5, 2.0, 1.0, 1.0)},
            lambda t, s: sum(
                weight * torch.arccos(torch.nn.functional.cosine_similarity(*pair, dim=1)).mean()
                for weight, pair in pairs((0.5, 2.0), pairs(t, s))
            ),
        ),
        (
            {"distance": "l2", "learning_rate": 0.001, "factor": 0.01},
            lambda t, s: sum(((a - b) ** 2).sum(1).mean() for a, b in pairs(t, s)) * 1e-4,
        ),
        (
            {"distance": "gradient", "factor": 1.0},
            lambda t, s: sum(gradient_distance(*pair).mean() for pair in pairs(t, s)),
        ),
    ],
    ids=["paper", "sum over the batch", "angle and weights", "l2", "gradient"],
)
def test_three_steps_are_those_of_a_plain_loop(changes, loss_of):
    # One batch an epoch, in whatever order; the later steps show the momentum.
    changes = {"batch_size": 8, "weight_decay": 0.0} | changes
    trained, _, student = run(**changes)
    history = trained.history
    states, losses = plain_loop(loss_of)
    scale = 0.1 / changes.get("learning_rate", 0.1) if changes.get("distance") == "l2" else 1
    np.testing.assert_allclose(history["train_loss"][1:], np.array(losses) * scale, rtol=1e-4)
    last = backbone.state(student)
    for key, value in states[-1].items():
        torch.testing.assert_close(last[key], value, rtol=1e-3, atol=5e-5)


def test_weight_decay_is_sgds():
    _, _, student = run(batch_size=8, weight_decay=0.01)
    states, _ = plain_loop(
        lambda t, s: sum(half_squared_distance(*pair).mean() for pair in pairs(t, s)),
        weight_decay=0.01,
    )
    last, expected = student.network.conv1.weight, states[-1]["conv1.weight"]
    torch.testing.assert_close(last, expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("resolution", ["image", "finest"])
def test_the_epoch_of_the_lowest_validation_map_is_kept(resolution):
    trained, teacher, _ = run(
        epochs=4, checkpoint="validation_map", map_resolution=resolution, fusion="sum"
    )
    weights, history = trained.model["weights"], trained.history
    means = history["validation_map"]
    assert history["kept"].idxmax() == means[1:].idxmin()
    student = backbone.create("resnet18", (1, 2), seed=0)
    backbone.load(student, weights, "")
    levels = level_maps(teacher, student, IMAGES[8:], PAPER, CPU)
    # The mean of a sum of bilinear enlargements is that of its levels, but for the borders.
    expected = sum(level.mean() for level in levels)
    assert means[history["kept"]].item() == pytest.approx(expected, rel=0.05)


def test_the_last_epoch_is_kept_in_addition_to_the_best():
    changes = {"learning_rate": 30}
    trained, *_ = run(last_epoch=True, **changes)
    weights, last = (trained.model[name] for name in ("weights", "last_epoch_weights"))
    assert not trained.history["kept"].iloc[-1], "the test needs a training that goes astray"
    at_end, *_ = run(checkpoint="last", last_epoch=True, **changes)
    again, same = (at_end.model[name] for name in ("weights", "last_epoch_weights"))
    assert all(torch.equal(last[key], again[key]) for key in last)
    assert not torch.equal(weights["conv1.weight"], last["conv1.weight"])
    assert again is same  # a file then holds it once


def test_steps_make_up_for_few_images():
    """3 images in one batch take as many steps as 10 in three: 3 epochs of 3 steps are 9 epochs."""
    trained, *_ = run(training=range(3), full=10, schedule="steps")
    assert trained.history["epoch"].max() == 9
    # Two steps per epoch of 5 images: the fifth epoch has one step left.
    trained, *_ = run(training=range(5), full=10, schedule="steps", checkpoint="last")
    assert trained.history["epoch"].max() == 5
    assert trained.model["weights"]["bn1.num_batches_tracked"] == 9


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    one, two = run()[0], run()[0]
    first, second, other = one.model["weights"], two.model["weights"], weights_of(seed=1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    timeless = ["epoch", "train_loss", "validation_loss", "kept"]
    assert one.history[timeless].equals(two.history[timeless])
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


class Killed(Exception):
    pass


@pytest.mark.parametrize("checkpoint", ["validation_loss", "validation_map"])
def test_a_training_goes_on_after_a_kill_to_the_same_bits(monkeypatch, tmp_path, checkpoint):
    changes = {"epochs": 6, "checkpoint": checkpoint, "last_epoch": True}
    expected, *_ = run(**changes)
    monkeypatch.setattr(module.unfinished, "SAVE_SECONDS", 0)
    save, file = module.unfinished.save, tmp_path / "unfinished.pt"

    def killed(*arguments):
        save(*arguments)
        if len(arguments[-1]["history"]) == 4:  # the untrained student and three epochs
            raise Killed

    monkeypatch.setattr(module.unfinished, "save", killed)
    with pytest.raises(Killed):
        run(**changes, unfinished_file=file)
    monkeypatch.setattr(module.unfinished, "save", save)
    epochs = []
    monkeypatch.setattr(module, "tqdm", lambda rest, **_: epochs.append(list(rest)) or Bar(rest))
    trained, *_ = run(**changes, unfinished_file=file)
    assert epochs == [[4, 5, 6]]
    for name, weights in expected.model.items():
        assert all(torch.equal(trained.model[name][key], weights[key]) for key in weights)
    timeless = ["epoch", "train_loss", "validation_loss", "validation_map", "kept"]
    assert trained.history[timeless].equals(expected.history[timeless])
    # Other settings, another seed or a damaged file begin again.
    for other in ({"weight_decay": 0.01}, {"seed": 1}, {"training": range(7)}):
        run(**changes | other, unfinished_file=file)
        assert epochs[-1] == [1, 2, 3, 4, 5, 6]


class Bar(list):
    def set_postfix(self, **_):
        pass


@pytest.mark.parametrize(
    "changes",
    [{"levels": (1, 2, 3)}, {"factor": 1.0, "weight_decay": 0.1}, {"precision": torch.bfloat16}],
    ids=["levels", "settings", "precision"],
)
def test_cells_that_differ_in_one_axis_see_the_same_images_in_the_same_order(monkeypatch, changes):
    normalise, seen = backbone.normalise, []

    def recorded(pixels):
        seen[-1].append(pixels.sum(dim=(1, 2, 3)).tolist())
        return normalise(pixels)

    monkeypatch.setattr(backbone, "normalise", recorded)
    for change in ({}, changes):
        seen.append([])
        run(**change)
    # Teacher (3), then validation and, each epoch, 2 batches and validation.
    assert len(seen[0]) == 3 + 1 + 3 * 3
    assert seen[0] == seen[1]
    first, second = seen[0][4] + seen[0][5], seen[0][7] + seen[0][8]
    assert sorted(first) == sorted(second)
    assert first != second


def test_bfloat16_trains_alike():
    full = run(epochs=5)[0].history
    half = run(epochs=5, precision=torch.bfloat16)[0].history
    np.testing.assert_allclose(half["train_loss"], full["train_loss"], rtol=0.05)
    assert half["train_loss"].tolist() != full["train_loss"].tolist()  # it was bfloat16 at all


def test_a_loss_that_is_not_finite_is_a_failure_that_names_its_epoch():
    trained, *_ = run(epochs=20, learning_rate=1e20)
    history = trained.history
    epoch = history["epoch"].max()
    assert epoch < 20
    assert trained.failure.startswith(f"the loss is not finite at epoch {epoch} (training ")
    assert trained.model == {}
    assert not history["kept"].any()


def test_a_student_that_ends_no_better_than_it_began_is_a_failure():
    trained, *_ = run(epochs=1, learning_rate=1e-12)
    began, ended = trained.history["validation_loss"]
    assert ended >= began
    assert trained.failure.startswith("the student is no better than an untrained one")
    assert f"{ended:.4g} at the kept epoch 1" in trained.failure
    assert f"{began:.4g} before training" in trained.failure
    assert trained.model == {}


SHORT_OF_MEMORY = """
import functools
import resource
import numpy as np
import torch
from stpm_bench import backbone
from stpm_bench.device import set_deterministic
from stpm_bench.methods import student as module
from stpm_bench.methods.distance import distance, unit
from stpm_bench.methods.interface import Split
from stpm_bench.methods.stpm import METHODS, level_maps
from stpm_bench.methods.student import train, within_memory

set_deterministic(threads=1)
images = np.zeros((40, 128, 128, 3), np.uint8)
images[:] = np.random.default_rng(0).integers(0, 256, images.shape)
teacher, student = (backbone.create("resnet18", [1], seed=seed) for seed in (1, 2))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
cpu = torch.device("cpu")
training = functools.partial(
    train, teacher, student, images, Split(range(32), range(32, 40), 32),
    levels=[1], seed=0, device=cpu, precision=torch.float32,
)
within_memory(training, METHODS["stpm"], cpu)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of memory is set as on Linux")
def test_memory_that_runs_out_names_a_batch_size_that_fits():
    run = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True)
    error = run.stderr.splitlines()[-1]
    assert "InputError: config key 'training.batch_size': a batch of 32 does not fit" in error
    size = int(re.search(r"A batch of (\d+) fits: set the config key", error)[1])
    assert size in (2, 4, 8, 16)


def test_memory_that_does_not_suffice_for_one_image_and_other_errors():
    def failing(error):
        def training(settings):
            raise error

        return training

    with pytest.raises(InputError, match=r"a batch of 4 does not fit .* Not even a batch of 1"):
        within_memory(failing(torch.OutOfMemoryError("CUDA out of memory")), SMALL, CPU)
    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(failing(RuntimeError("shapes cannot be multiplied")), SMALL, CPU)


HOLD = """
import sys
from pathlib import Path
from stpm_bench.device import reserve
print(reserve(["first", "second"], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_processes_share_out_the_cards_and_a_dead_one_holds_none(tmp_path):
    def hold() -> tuple[subprocess.Popen, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "cards")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return process, int(process.stdout.readline())

    started = [hold() for _ in range(3)]
    try:
        assert [card for _, card in started] == [0, 1, 0]
        started[1][0].kill()
        started[1][0].wait()
        started.append(hold())
        assert started[-1][1] == 1
    finally:
        for process, _ in started:
            process.kill()
            process.communicate()


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


def test_a_processor_held_to_avx2_has_no_bfloat16():
    code = (
        "from stpm_bench import device, provenance; import torch; cpu = torch.device('cpu'); "
        "print(device.choose_precision('auto', cpu), provenance.capability(cpu))"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["torch.float32", "AVX2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none():
    with pytest.raises(InputError, match="config key 'device' is 'cuda'"):
        choose_device("cuda")
