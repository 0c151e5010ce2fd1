"""Functions shared by the methods without a student, and their estimates of memory."""

import numpy as np
import pytest
import torch
from small_teacher import CPU, bilinear, fit, maps_of, noise, repeated, small_teacher

from stpm_bench import backbone, levels
from stpm_bench.methods import padim, patchcore, spade
from stpm_bench.methods.features import feature_maps, join
from stpm_bench.methods.interface import Teacher


@pytest.mark.parametrize("name", levels.LEVELS)
def test_the_channels_of_each_level(name):
    with torch.device("meta"):  # shapes alone
        maps = backbone.create(name, (1, 2, 3, 4), seed=0)(torch.zeros(1, 3, 64, 64))
    assert tuple(m.shape[1] for m in maps) == levels.CHANNELS[name]


@pytest.mark.parametrize("count", [1, 16, 33])
def test_batches_are_the_requested_rows_in_float32(count):
    images, teacher = noise(40), small_teacher()
    rows = np.random.default_rng(0).permutation(40)[:count].tolist()
    expected = maps_of(teacher, images[rows])
    seen = 0
    for where, maps in feature_maps(teacher, images, rows, CPU):
        assert where.start == seen
        seen = where.stop
        for found, whole in zip(maps, expected, strict=True):
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found.permute(0, 2, 3, 1), whole[where], atol=1e-5)
    assert seen == count


@pytest.mark.parametrize("sides", [(8, 4, 2), (2, 4, 8), (8, 1), (6, 3)])
def test_levels_are_joined_at_the_finest_resolution(sides):
    rng = np.random.default_rng(len(sides))
    maps = [rng.normal(size=(2, side, side, 3 + i)) for i, side in enumerate(sides)]
    tensors = [torch.tensor(m).permute(0, 3, 1, 2) for m in maps]
    np.testing.assert_array_equal(join(tensors, "nearest"), repeated(maps))
    np.testing.assert_allclose(join(tensors, "bilinear"), bilinear(maps), atol=1e-12)


def size_mb(model) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.values()) / 1e6


def test_memory_grows_as_the_arrays_do():
    """At 64 x 64 arrays are a sixteenth of those at 256 x 256."""

    def fit_at_64(module, settings):
        network = backbone.create("resnet18", settings.levels, seed=0).eval()
        teacher = Teacher("resnet18", network)
        images = noise(10, size=64)
        return fit(module, images, settings, teacher=teacher, levels=settings.levels).model

    (s,) = spade.METHODS.values()
    model = fit_at_64(spade, s)
    of_images = s.memory_mb("resnet18", 10) - s.memory_mb("resnet18", 0)
    assert of_images == pytest.approx(16 * size_mb(model), rel=0.01)

    (s,) = padim.METHODS.values()
    model = fit_at_64(padim, s)
    matrices = s.memory_mb("resnet18", 0) - padim.BATCH_MB * 448
    assert matrices == pytest.approx(16 * size_mb(model), rel=0.02)  # the means beside them
    of_images = s.memory_mb("resnet18", 10) - s.memory_mb("resnet18", 0)
    assert of_images == pytest.approx(10 * 4096 * 100 * 4 / 1e6)

    (s,) = patchcore.METHODS.values()
    model = fit_at_64(patchcore, s)
    bank = 16 * size_mb(model)
    of_images = s.memory_mb("resnet18", 10) - s.memory_mb("resnet18", 0)
    assert of_images == pytest.approx(bank * (10 + 1 + 10 * 128 / 384), rel=0.02)


@pytest.mark.parametrize("name", levels.LEVELS)
def test_every_backbone_has_its_cost(name):
    for module in (padim, spade, patchcore):
        (settings,) = module.METHODS.values()
        assert settings.images_per_second(name) > 0
        assert settings.memory_mb(name, 209) > settings.memory_mb(name, 60) > 0
