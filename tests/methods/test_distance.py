import numpy as np
import pytest
import torch

from stpm_bench.methods.distance import distance, unit


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
