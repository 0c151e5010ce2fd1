"""Level maps to anomaly maps, against scipy and torch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from stpm_bench import backbone
from stpm_bench.anomaly_map import anomaly_maps, enlarge, fuse, image_scores
from stpm_bench.methods.interface import Teacher
from stpm_bench.methods.stpm import METHODS, level_maps
from stpm_bench.methods.stpm import score as score_of

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def torchs(maps, size):
    tensor = torch.from_numpy(maps)[:, None]
    return torch.nn.functional.interpolate(tensor, (size, size), mode="bilinear")[:, 0].numpy()


@pytest.mark.parametrize(
    ("old", "new"), [(64, 256), (16, 64), (1, 8), (24, 96), (7, 64), (45, 160), (8, 8), (9, 5)]
)
def test_enlarging_is_torchs(old, new):
    maps = RNG.random((3, old, old), dtype=np.float32)
    found = enlarge(maps, new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torchs(maps, new), atol=2e-6)


@pytest.mark.parametrize(("fusion", "combine"), [("product", np.prod), ("sum", np.sum)])
def test_fuse_combines_bilinear_enlargements(fusion, combine):
    rng = np.random.default_rng(0)
    maps = [rng.random((2, size, size), dtype=np.float32) for size in (16, 8, 4)]
    expected = []
    for level in maps:
        size = level.shape[1]
        # Pixel centres, clamped at the border: bilinear with align_corners=False.
        at = np.clip((np.arange(32) + 0.5) * size / 32 - 0.5, 0, size - 1)
        grid = np.meshgrid(at, at, indexing="ij")
        expected.append([map_coordinates(image.astype(float), grid, order=1) for image in level])
    result = fuse(maps, 32, fusion)
    np.testing.assert_allclose(result, combine(expected, axis=0), rtol=1e-5)


def test_maps_fused_at_the_finest_level_are_enlarged_afterwards():
    maps = [RNG.random((2, size, size), dtype=np.float32) for size in (16, 8)]
    expected = torchs(maps[0] * torchs(maps[1], 16), 64)
    found = anomaly_maps(maps, 64, map_resolution="finest")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    at_image = torchs(maps[0], 64) * torchs(maps[1], 64)
    np.testing.assert_allclose(anomaly_maps(maps, 64), at_image, rtol=1e-5)


@pytest.mark.parametrize("size", [64, 256])
def test_smoothing_is_scipys_gaussian_scaled_with_the_size(size):
    maps = [RNG.random((2, 16, 16), dtype=np.float32)]
    found = anomaly_maps(maps, size, smoothing=4.0)
    for smoothed, enlarged in zip(found, torchs(maps[0], size), strict=True):
        expected = gaussian_filter(enlarged.astype(float), 4 * size / 256)
        np.testing.assert_allclose(smoothed, expected, rtol=1e-4)


def test_image_scores_are_the_methods_own_or_the_maxima():
    maps = RNG.random((3, 4, 4))
    assert image_scores(maps, None).tolist() == [image.max() for image in maps]
    own = np.array([1.0, 2.0, 3.0])
    assert image_scores(maps, own) is own


def networks():
    return [backbone.create("resnet18", [1, 2], seed) for seed in (0, 1)]


def test_stpm_scores_a_network_against_itself_with_zero_and_batches_do_not_matter():
    images = RNG.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    one, other = networks()
    same = level_maps(one, one, images, METHODS["stpm"], CPU)
    assert [level.shape for level in same] == [(5, 16, 16), (5, 8, 8)]
    assert max(level.max() for level in same) == 0
    at_once = level_maps(one, other, images, METHODS["stpm"], CPU, batch_size=5)
    parts = level_maps(one, other, images, METHODS["stpm"], CPU, batch_size=2)
    for first, second in zip(at_once, parts, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-7)
        assert first.dtype == np.float32
        assert first.min() > 0


def test_stpm_scores_with_the_weights_of_its_model_and_its_factor():
    images = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    one, other = networks()
    model = {"weights": backbone.state(other), "last_epoch_weights": backbone.state(one)}
    arguments = Teacher("resnet18", one), model, images
    settings = {"levels": [1, 2], "device": CPU}
    found = score_of(*arguments, **settings, settings=METHODS["stpm"])
    expected = level_maps(one, other, images, METHODS["stpm"], CPU)
    assert list(found.level_maps) == ["1", "2"]
    assert found.image_scores is None
    for maps, level in zip(found.level_maps.values(), expected, strict=True):
        assert np.array_equal(maps, level)
    assert max(maps.max() for maps in found.variants["last_epoch"].values()) == 0
    doubled = score_of(*arguments, **settings, settings=METHODS["stpm_authors"])  # no factor 1/2
    np.testing.assert_allclose(doubled.level_maps["1"], 2 * expected[0])
