"""SPADE against scikit-learn's brute force, of images and of positions."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from small_teacher import bilinear, fit, maps_of, nan_teacher, noise, score, small_teacher

from stpm_bench.errors import InputError
from stpm_bench.methods import spade
from stpm_bench.methods.interface import HISTORY, Split

SPADE = spade.METHODS["spade"]


def with_neighbours(count, **changes):
    return dataclasses.replace(SPADE, neighbours=count, **changes)


def reference(train, test, neighbours, deepest=-1):
    """Maps and scores of test images, from maps (N, H_l, W_l, C_l) of all levels."""
    vectors = [maps[deepest].mean((1, 2)) for maps in (train, test)]
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(vectors[0])
    distances, retrieved = search.kneighbors(vectors[1])
    gallery, queries = bilinear(train), bilinear(test)
    maps = []
    for query, images in zip(queries, retrieved, strict=True):
        positions = gallery[images].reshape(-1, gallery.shape[3])
        nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(positions)
        found = nearest.kneighbors(query.reshape(-1, gallery.shape[3]))[0]
        maps.append(found.reshape(query.shape[:2]))
    return np.stack(maps), distances.mean(1)


@pytest.mark.parametrize(
    ("count", "tests", "neighbours", "levels", "seed"),
    [
        (12, 5, 4, (1, 2, 3), 0),
        (12, 18, 1, (1, 2, 3), 1),  # more than a batch
        (33, 3, 12, (1, 2, 3), 2),
        (9, 4, 9, (2, 3), 3),
        (7, 4, 3, (1,), 4),
        (7, 4, 3, (1, 3), 5),
    ],
)
def test_maps_and_scores_are_those_of_brute_force(count, tests, neighbours, levels, seed):
    images, tests, settings = (
        noise(count, seed),
        noise(tests, 50 + seed),
        with_neighbours(neighbours),
    )
    fitted = fit(spade, images, settings, levels=levels)
    assert (fitted.failure, fitted.images, len(fitted.history)) == (None, count, 0)
    assert list(fitted.history) == HISTORY
    scores = score(spade, fitted.model, tests, settings, levels=levels)
    teacher = small_teacher(levels)
    maps, of_images = reference(maps_of(teacher, images), maps_of(teacher, tests), neighbours)
    (found,) = scores.level_maps.values()
    assert list(scores.level_maps) == ["+".join(map(str, levels))]
    assert (found.dtype, scores.image_scores.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.image_scores, of_images, rtol=1e-4)
    # Its own: not the map's maximum.
    assert not np.allclose(scores.image_scores, maps.max((1, 2)), rtol=0.01)


def test_the_level_of_retrieval_is_chosen():
    images, tests, teacher = noise(12, 1), noise(4, 2), small_teacher()
    train, test = maps_of(teacher, images), maps_of(teacher, tests)
    found = {}
    for retrieval, index in [(0, 2), (1, 0), (2, 1), (3, 2)]:
        settings = with_neighbours(3, retrieval=retrieval)
        scores = score(spade, fit(spade, images, settings).model, tests, settings)
        maps, of_images = reference(train, test, 3, index)
        np.testing.assert_allclose(scores.level_maps["1+2+3"], maps, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scores.image_scores, of_images, rtol=1e-4)
        found[retrieval] = scores.image_scores
    assert np.array_equal(found[0], found[3])
    assert not np.allclose(found[0], found[1])


def test_a_level_of_retrieval_that_is_not_there():
    with pytest.raises(InputError, match="retrieval") as raised:
        fit(spade, noise(3), with_neighbours(3, retrieval=1), levels=(2, 3))
    assert "is 1" in str(raised.value)
    assert "2, 3" in str(raised.value)


def test_fewer_images_than_neighbours_are_all_retrieved():
    images, tests = noise(6), noise(4, 1)
    model = fit(spade, images, SPADE).model
    many, six = (score(spade, model, tests, s) for s in (SPADE, with_neighbours(6)))
    assert SPADE.neighbours == 50
    assert np.array_equal(many.level_maps["1+2+3"], six.level_maps["1+2+3"])
    assert np.array_equal(many.image_scores, six.image_scores)


def test_one_training_image():
    images, tests, teacher = noise(1), noise(3, 4), small_teacher()
    fitted = fit(spade, images, SPADE)
    scores = score(spade, fitted.model, tests, SPADE)
    maps, of_images = reference(maps_of(teacher, images), maps_of(teacher, tests), 1)
    np.testing.assert_allclose(scores.level_maps["1+2+3"], maps, rtol=1e-4)
    np.testing.assert_allclose(scores.image_scores, of_images, rtol=1e-4)


def test_a_training_image_is_at_distance_zero_from_itself():
    images = noise(17)
    settings = with_neighbours(1)
    scores = score(spade, fit(spade, images, settings).model, images, settings)
    assert scores.level_maps["1+2+3"].max() == 0
    assert scores.image_scores.max() == 0


def test_constant_images_and_a_dead_channel():
    def kill(level, weight):
        weight[0] = 0

    teacher = small_teacher(change=kill)
    images = np.full((4, 32, 32, 3), 77, np.uint8)
    model = fit(spade, images, SPADE, teacher=teacher).model
    same = score(spade, model, images, SPADE, teacher=teacher)
    assert same.level_maps["1+2+3"].max() < 1e-5
    other = score(spade, model, noise(2), SPADE, teacher=teacher)
    assert np.isfinite(other.level_maps["1+2+3"]).all()
    assert other.image_scores.min() > 0.01


def test_equal_training_images_tie():
    images = np.repeat(noise(2), [3, 2], axis=0)
    tests, settings = noise(3, 8), with_neighbours(2)
    scores = score(spade, fit(spade, images, settings).model, tests, settings)
    # The two nearest are of one picture, twice there: as if each were there once.
    once = with_neighbours(1)
    expected = score(spade, fit(spade, noise(2), once).model, tests, once)
    np.testing.assert_allclose(
        scores.level_maps["1+2+3"], expected.level_maps["1+2+3"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(scores.image_scores, expected.image_scores, rtol=1e-4)


def test_nothing_is_drawn_and_the_split_alone_is_seen():
    images, split = noise(9), Split([4, 1, 7], [], 9)
    model = fit(spade, images, SPADE, split=split, seed=1).model
    changed = images.copy()
    changed[[0, 2, 3, 5, 6, 8]] = 0
    again = fit(spade, changed, SPADE, split=split, seed=2).model
    assert sorted(model) == sorted(
        f"{kind}_{level}" for kind in ("centre", "features") for level in (1, 2, 3)
    )
    assert all(torch.equal(model[name], again[name]) for name in model)
    assert SPADE.depends_on_seed is False


def test_the_model_holds_each_level_once_at_its_own_resolution():
    model = fit(spade, noise(10), SPADE).model
    values = sum(tensor.numel() for tensor in model.values())
    assert values == 10 * (64 * 5 + 16 * 7 + 4 * 6) + 18


def test_features_that_are_not_finite_fail():
    failed = fit(spade, noise(4), SPADE, teacher=nan_teacher())
    assert failed.model == {}
    assert "not finite" in failed.failure


def test_the_bar_is_shown_on_request(capfd):
    fit(spade, noise(3), SPADE)
    assert capfd.readouterr().err == ""
    fit(spade, noise(3), SPADE, progress=True)
    assert "cell" in capfd.readouterr().err
