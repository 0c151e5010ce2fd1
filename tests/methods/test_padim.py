"""PaDiM against numpy.cov and SciPy's Mahalanobis distance, position by position."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from small_teacher import fit, maps_of, nan_teacher, noise, repeated, score, small_teacher

from stpm_bench import backbone
from stpm_bench.methods import padim
from stpm_bench.methods.interface import HISTORY, Split, Teacher

PADIM = padim.METHODS["padim"]
ALL = dataclasses.replace(PADIM, channels=1000)


def kill(level, weight):
    """Make the first channel of every level constant."""
    weight[0] = 0


def distance_at(train, test, row, column, regularisation=0.01):
    """SciPy's distance of each test vector (N, H, W, C) at one position."""
    at = train[:, row, column]
    covariance = np.atleast_2d(np.cov(at, rowvar=False)) + regularisation * np.eye(at.shape[1])
    inverse = np.linalg.inv(covariance)
    return [mahalanobis(vector, at.mean(0), inverse) for vector in test[:, row, column]]


@pytest.mark.parametrize(
    ("count", "channels", "seed"),
    [(60, 1000, 0), (25, 1000, 1), (40, 6, 2), (5, 1000, 3), (2, 9, 4), (18, 1, 5), (17, 4, 6)],
)
def test_distances_are_scipys(count, channels, seed):
    settings = dataclasses.replace(PADIM, channels=channels)
    images, tests, teacher = noise(count, seed), noise(19, 100 + seed), small_teacher()
    fitted = fit(padim, images, settings, seed=seed)
    assert (fitted.failure, fitted.images, len(fitted.history)) == (None, count, 0)
    assert list(fitted.history) == HISTORY
    assert fitted.seconds > 0
    scores = score(padim, fitted.model, tests, settings)
    assert (list(scores.level_maps), scores.image_scores) == (["1+2+3"], None)
    found = scores.level_maps["1+2+3"]
    assert (found.shape, found.dtype) == ((19, 8, 8), np.float32)
    chosen = fitted.model["channels"].numpy()
    assert len(set(chosen)) == min(channels, 18) == len(chosen)
    train, test = (repeated(maps_of(teacher, x))[..., chosen] for x in (images, tests))
    for row, column in [(0, 0), (3, 5), (7, 7), (6, 1)]:
        expected = distance_at(train, test, row, column)
        np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-4)


def test_the_covariance_divides_by_one_less_than_the_images():
    """Two images: numpy's covariance is twice that of the population."""
    images = noise(2, 3)
    model = fit(padim, images, ALL).model
    at = repeated(maps_of(small_teacher(), images))[:, 2, 2]
    whitening = model["whitening"][2 * 8 + 2].double().numpy()
    covariance = np.linalg.inv(whitening @ whitening.T)
    np.testing.assert_allclose(covariance, np.cov(at, rowvar=False) + 0.01 * np.eye(18), atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "wanted", "drawn"),
    [(448, 0, 100), (1792, 0, 550), (64, 0, 14), (3, 0, 1), (448, 7, 7), (64, 100, 64)],
)
def test_how_many_channels_are_drawn(channels, wanted, drawn):
    assert padim.count_chosen(channels, wanted) == drawn


def test_of_resnet18_100_channels_are_drawn():
    network = backbone.create("resnet18", (1, 2, 3), seed=0).eval()
    model = fit(padim, noise(3), PADIM, teacher=Teacher("resnet18", network)).model
    assert model["whitening"].shape == (64, 100, 100)
    channels = model["channels"]
    assert channels.unique().shape == (100,)
    assert channels.max() < 448
    # of all three levels: 64, 128 and 256 channels
    assert all(((channels >= a) & (channels < b)).any() for a, b in [(0, 64), (64, 192)])
    assert (channels >= 192).sum() > 30


def test_the_same_seed_gives_the_same_bits():
    images, settings = noise(8), dataclasses.replace(PADIM, channels=9)
    one, again, other = (fit(padim, images, settings, seed=s).model for s in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["channels"], other["channels"])
    maps = [score(padim, one, images, settings).level_maps["1+2+3"] for _ in range(2)]
    assert np.array_equal(*maps)


def test_other_images_than_the_splits_change_nothing():
    images = noise(9)
    split = Split([4, 1, 7], [], 9)
    model = fit(padim, images, ALL, split=split).model
    changed = images.copy()
    changed[[0, 2, 3, 5, 6, 8]] = 0
    again = fit(padim, changed, ALL, split=split).model
    assert all(torch.equal(model[name], again[name]) for name in model)
    reference = fit(padim, images[[4, 1, 7]], ALL).model
    assert all(torch.equal(model[name], reference[name]) for name in model)


def test_levels_apart_from_the_first():
    images, teacher = noise(9), small_teacher((2, 3))
    fitted = fit(padim, images, ALL, levels=(2, 3))
    found = score(padim, fitted.model, images, ALL, levels=(2, 3)).level_maps["2+3"]
    train = repeated(maps_of(teacher, images))
    np.testing.assert_allclose(found[:, 1, 2], distance_at(train, train, 1, 2), rtol=1e-4)


def test_one_image_leaves_the_regularisation_alone():
    images, tests, teacher = noise(1), noise(3, 5), small_teacher()
    model = fit(padim, images, ALL).model
    found = score(padim, model, tests, ALL).level_maps["1+2+3"]
    apart = repeated(maps_of(teacher, tests)) - repeated(maps_of(teacher, images))
    np.testing.assert_allclose(found, np.linalg.norm(apart, axis=3) / 0.1, rtol=1e-4)


def test_a_constant_image_and_a_dead_channel():
    teacher = small_teacher(change=kill)
    images = np.full((4, 32, 32, 3), 77, np.uint8)
    model = fit(padim, images, ALL, teacher=teacher).model
    found = score(padim, model, noise(2), ALL, teacher=teacher).level_maps["1+2+3"]
    assert np.isfinite(found).all()
    assert found.max() > 1
    same = score(padim, model, images, ALL, teacher=teacher).level_maps["1+2+3"]
    assert same.max() < 1e-3


UNREGULARISED = dataclasses.replace(ALL, regularisation=0.0)


@pytest.mark.parametrize("count", [1, 2, 10, 18])  # of 18 channels; the mean takes one direction
def test_without_regularisation_few_images_are_singular(count):
    failed = fit(padim, noise(count), UNREGULARISED)
    assert failed.model == {}
    assert "singular" in failed.failure
    assert f"18 channels over {count} images" in failed.failure
    assert "regularisation 0" in failed.failure


def test_without_regularisation_a_dead_channel_is_singular():
    failed = fit(padim, noise(60), UNREGULARISED, teacher=small_teacher(change=kill))
    assert "singular" in failed.failure
    assert fit(padim, noise(60), ALL, teacher=small_teacher(change=kill)).failure is None


def test_without_regularisation_many_images_are_enough():
    images, tests, teacher = noise(60), noise(4, 9), small_teacher()
    fitted = fit(padim, images, UNREGULARISED)
    assert fitted.failure is None
    found = score(padim, fitted.model, tests, UNREGULARISED).level_maps["1+2+3"]
    train, test = repeated(maps_of(teacher, images)), repeated(maps_of(teacher, tests))
    expected = distance_at(train, test, 5, 2, regularisation=0)
    np.testing.assert_allclose(found[:, 5, 2], expected, rtol=1e-3)


def test_features_that_are_not_finite_fail():
    failed = fit(padim, noise(4), ALL, teacher=nan_teacher())
    assert failed.model == {}
    assert "not finite" in failed.failure
    assert failed.images == 4


def test_the_bar_is_shown_on_request(capfd):
    fit(padim, noise(3), PADIM)
    assert capfd.readouterr().err == ""
    fit(padim, noise(3), PADIM, progress=True)
    assert "cell" in capfd.readouterr().err
