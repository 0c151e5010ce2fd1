"""Nearest neighbours against brute force and scikit-learn; k-centre against a literal loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from stpm_bench import neighbours
from stpm_bench.neighbours import k_centre, nearest


def tensor(array) -> torch.Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)


@pytest.fixture(params=[(2, 3), (1, 1), (1024, 4096)])
def blocks(request, monkeypatch):
    """Block sizes of the search and of the selection."""
    monkeypatch.setattr(neighbours, "QUERIES", request.param[0])
    monkeypatch.setattr(neighbours, "BANK", request.param[1])


@pytest.mark.parametrize("seed", range(5))
def test_nearest_is_that_of_scikit_learn(seed, blocks):
    rng = np.random.default_rng(seed)
    queries, bank = rng.normal(size=(17, 6)), rng.normal(size=(23, 6))
    found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank).kneighbors(queries)
    distances, indices = nearest(tensor(queries), tensor(bank))
    np.testing.assert_allclose(distances, found[0][:, 0], rtol=1e-5)
    np.testing.assert_array_equal(indices, found[1][:, 0])


# Small integers: every product is exact in float32, and many rows tie.
integers = st.integers(0, 2**31).flatmap(
    lambda seed: st.tuples(
        st.just(seed), st.integers(1, 12), st.integers(1, 30), st.integers(1, 4), st.integers(1, 5)
    )
)


@settings(max_examples=150, deadline=None)
@given(integers, st.integers(1, 9), st.integers(1, 9))
def test_of_ties_the_first_is_nearest(drawn, at_once, block):
    seed, queries, rows, width, spread = drawn
    rng = np.random.default_rng(seed)
    queries = rng.integers(-spread, spread + 1, (queries, width))
    bank = rng.integers(-spread, spread + 1, (rows, width))
    every = cdist(queries, bank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERIES", at_once)
        patch.setattr(neighbours, "BANK", block)
        distances, indices = nearest(tensor(queries), tensor(bank))
    np.testing.assert_array_equal(indices, every.argmin(1))
    np.testing.assert_allclose(distances, every.min(1), rtol=1e-6)


def test_small_distances_are_not_rounded_away():
    """||a||^2 - 2ab + ||b||^2 in float32 gives 0 or 5e-4 here, of features around 4."""
    rng = np.random.default_rng(0)
    bank = tensor(rng.normal(size=(50, 448)) * 4)
    queries = bank[:20] + tensor(rng.normal(size=(20, 448)) * 1e-5)
    distances, indices = nearest(queries, bank)
    exact = (queries.double() - bank[:20].double()).norm(dim=1)
    np.testing.assert_array_equal(indices, np.arange(20))
    np.testing.assert_allclose(distances, exact, rtol=1e-5)
    assert 0 < distances.max() < 1e-3
    assert nearest(bank, bank)[0].max() == 0


def literal(points, count, first):
    """Greedy k-centre, literally."""
    chosen = [first]
    while len(chosen) < count:
        far = cdist(points, points[chosen], "sqeuclidean").min(1)
        far[chosen] = -np.inf
        chosen.append(int(far.argmax()))
    return chosen


@settings(max_examples=200, deadline=None)
@given(integers, st.integers(1, 40), st.integers(1, 9), st.data())
def test_k_centre_is_the_literal_loop(drawn, shortlist, block, data):
    seed, _, rows, width, spread = drawn
    points = np.random.default_rng(seed).integers(-spread, spread + 1, (rows, width))
    count = data.draw(st.integers(1, rows))
    first = data.draw(st.integers(0, rows - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "SHORTLIST", shortlist)
        patch.setattr(neighbours, "BANK", block)
        chosen = k_centre(tensor(points), count, first)
    assert chosen.tolist() == literal(points.astype(float), count, first)


@pytest.mark.parametrize("shortlist", [5, 50, 4096])
def test_k_centre_of_real_numbers(shortlist, monkeypatch):
    monkeypatch.setattr(neighbours, "SHORTLIST", shortlist)
    points = np.random.default_rng(shortlist).normal(size=(300, 8))
    assert k_centre(tensor(points), 60, 7).tolist() == literal(points, 60, 7)


def test_equal_points_are_each_chosen_once():
    chosen = k_centre(torch.full((9, 3), 1.5), 9, 4)
    assert sorted(chosen.tolist()) == list(range(9))


def test_the_bar_is_shown_on_request(capfd):
    points = tensor(np.random.default_rng(0).normal(size=(40, 3)))
    k_centre(points, 10, 0, "bottle", progress=False)
    assert capfd.readouterr().err == ""
    k_centre(points, 10, 0, "bottle", progress=True)
    shown = capfd.readouterr().err
    assert "bottle" in shown
    assert "10/10" in shown
