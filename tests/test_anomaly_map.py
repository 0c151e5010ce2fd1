import numpy as np
import torch
from scipy.ndimage import map_coordinates

from stpm_bench import backbone
from stpm_bench.anomaly_map import distance, fuse, score, unit


def test_distance_is_one_minus_the_cosine():
    teacher, student = torch.randn(2, 3, 8, 5, 6, dtype=torch.float64).float()
    cosine = torch.nn.functional.cosine_similarity(teacher.double(), student.double(), dim=1)
    result = distance(unit(teacher), student)
    np.testing.assert_allclose(result, 1 - cosine, rtol=1e-4, atol=1e-6)


def test_distance_in_closed_form():
    x = torch.zeros(1, 2, 1, 3)
    x[0, 0] = 1.0  # the teacher points along the first channel everywhere
    y = torch.tensor([[[[2.0, -3.0, 0.0]], [[0.0, 0.0, 0.5]]]])
    assert distance(unit(x), y).flatten().tolist() == [0.0, 2.0, 1.0]


def test_small_distances_survive():
    angle = 1e-4
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[np.cos(angle), np.sin(angle)]]).float()
    result = distance(unit(x[..., None, None]), y[..., None, None]).item()
    assert abs(result / (angle**2 / 2) - 1) < 1e-2


def test_fuse_multiplies_bilinear_enlargements():
    rng = np.random.default_rng(0)
    maps = [rng.random((2, size, size), dtype=np.float32) for size in (16, 8, 4)]
    expected = np.ones((2, 32, 32))
    for level in maps:
        size = level.shape[1]
        # Pixel centres, clamped at the border: bilinear with align_corners=False.
        at = np.clip((np.arange(32) + 0.5) * size / 32 - 0.5, 0, size - 1)
        grid = np.meshgrid(at, at, indexing="ij")
        expected *= [map_coordinates(image.astype(float), grid, order=1) for image in level]
    result = fuse([torch.from_numpy(level) for level in maps], 32)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_score_of_a_network_against_itself_is_zero_and_batches_do_not_matter():
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    one, other = (backbone.create("resnet18", [1, 2], seed) for seed in (0, 1))
    cpu = torch.device("cpu")
    maps, levels, scores = score(one, one, images, cpu)
    assert maps.shape == (5, 64, 64)
    assert maps.dtype == np.float32
    assert [level.shape for level in levels] == [(5, 16, 16), (5, 8, 8)]
    assert maps.max() == 0
    whole, _, scores = score(one, other, images, cpu, batch_size=5)
    parts, _, _ = score(one, other, images, cpu, batch_size=2)
    np.testing.assert_allclose(whole, parts, rtol=1e-3, atol=1e-7)
    assert np.array_equal(scores, whole.max(axis=(1, 2)))
    assert scores.min() > 0
