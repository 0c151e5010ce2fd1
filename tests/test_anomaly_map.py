from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from stpm_bench import backbone
from stpm_bench.anomaly_map import distance, fuse, score, unit
from stpm_bench.protocols import PAPER


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


@pytest.mark.parametrize(
    ("kind", "factor", "expected"), [("normalised_l2", 0.5, 1e-8 / 2), ("angle", 1.0, 1e-4)]
)
def test_small_distances_survive(kind, factor, expected):
    angle = 1e-4
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[np.cos(angle), np.sin(angle)]]).float()
    result = distance(unit(x[..., None, None]), y[..., None, None], kind, factor).item()
    assert abs(result / expected - 1) < 1e-2


def test_the_angle_is_that_of_the_vectors_whatever_their_length():
    angles = torch.linspace(0.01, 3.1, 50)
    x = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 50)
    y = 3 * torch.stack([angles.cos(), angles.sin()])[None, :, None]
    found = distance(unit(x), y, "angle", 1.0).flatten()
    torch.testing.assert_close(found, angles, rtol=1e-3, atol=1e-4)
    # Another function of the error than the squared distance, times whatever factor.
    ratio = found / distance(unit(x), y, "normalised_l2", 1.0).flatten()
    assert ratio.max() > 50 * ratio.min()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_angles_gradient_is_finite_where_vectors_are_equal_or_opposite(sign):
    x = torch.randn(1, 4, 2, 2)
    y = (sign * x).requires_grad_()
    distance(unit(x), y, "angle", 1.0).sum().backward()
    assert y.grad.isfinite().all()


def test_the_distance_of_features_that_are_not_normalised():
    teacher, student = torch.randn(2, 3, 8, 5, 6)
    expected = (teacher - student).square().sum(1)
    torch.testing.assert_close(distance(teacher, student, "l2", 2.0), 2 * expected)


def test_the_gradient_distance_sees_an_edge_that_the_others_see_as_an_offset():
    # Both students differ from the teacher by as much at as many places; one of them in stripes.
    teacher = torch.zeros(1, 2, 6, 6)
    teacher[:, 0] = 1
    flat, striped = teacher.clone(), teacher.clone()
    flat[:, 1, :, :3], striped[:, 1, :, ::2] = 1, 1
    plain = [distance(teacher, s, "normalised_l2", 1.0) for s in (flat, striped)]
    assert plain[0].mean() == plain[1].mean()
    edges = [distance(teacher, s, "gradient", 1.0) for s in (flat, striped)]
    for edge, without in zip(edges, plain, strict=True):
        assert (edge >= without).all()
    # An edge adds the squared size of its jump at the pixel before it, and no other pixel.
    jump = plain[0][0, 0, 0]
    added = edges[0] - plain[0]
    torch.testing.assert_close(added[0, :, 2], jump.expand(6))
    assert added.count_nonzero() == 6
    assert (edges[1] - plain[1]).count_nonzero() == 6 * 5


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
    result = fuse([torch.from_numpy(level) for level in maps], 32, fusion)
    np.testing.assert_allclose(result, combine(expected, axis=0), rtol=1e-5)


def test_maps_fused_at_the_finest_level_are_enlarged_afterwards():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    one, other = (backbone.create("resnet18", [1, 2], seed) for seed in (0, 1))
    protocol = replace(PAPER, map_resolution="finest", factor=1.0)
    maps, levels, scores = score(one, other, images, torch.device("cpu"), protocol)
    _, halves, _ = score(one, other, images, torch.device("cpu"))
    for level, half in zip(levels, halves, strict=True):
        np.testing.assert_allclose(level, 2 * half)

    def enlarged(array, size):
        tensor = torch.from_numpy(array)[:, None]
        return torch.nn.functional.interpolate(tensor, (size, size), mode="bilinear")[:, 0].numpy()

    expected = enlarged(levels[0] * enlarged(levels[1], 16), 64)
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    assert np.array_equal(scores, maps.max(axis=(1, 2)))


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
