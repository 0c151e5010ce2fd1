"""PatchCore against scikit-learn's brute force, a literal k-centre loop and the paper's formula."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from small_teacher import bilinear, fit, maps_of, nan_teacher, noise, score, small_teacher

from stpm_bench.methods import patchcore
from stpm_bench.methods.interface import HISTORY, Split

PATCHCORE = patchcore.METHODS["patchcore"]
WHOLE = dataclasses.replace(PATCHCORE, coreset=1.0)
UNPROJECTED = dataclasses.replace(PATCHCORE, projection=0)
LEVELS = (2, 3)  # 4 x 4 positions of 13 channels


def patches(teacher, images, neighbourhood=3):
    """(N, H, W, C) float64: local averages, zeros beyond the border, joined."""
    size = (1, neighbourhood, neighbourhood, 1)
    return bilinear([uniform_filter(m, size, mode="constant") for m in maps_of(teacher, images)])


def reweighted(queries, bank, neighbours):
    """The image score of patches (P, C), step by step as section 3.3 has it."""
    every = cdist(queries, bank)
    patch = every.min(1).argmax()
    largest = every[patch].min()
    nearest = bank[every[patch].argmin()]
    around = bank[np.argsort(cdist([nearest], bank)[0], kind="stable")[:neighbours]]
    to_around = cdist([queries[patch]], around)[0]
    return (1 - np.exp(largest) / np.exp(to_around).sum()) * largest


def run(images, tests, settings, levels=LEVELS, **options):
    fitted = fit(patchcore, images, settings, levels=levels, **options)
    assert fitted.failure is None
    return fitted, score(patchcore, fitted.model, tests, settings, levels=levels)


@pytest.mark.parametrize(
    ("count", "tests", "neighbourhood", "levels", "neighbours", "seed"),
    [
        (9, 5, 3, (2, 3), 9, 0),
        (9, 18, 3, (2, 3), 4, 1),  # more than a batch
        (20, 4, 1, (2, 3), 9, 2),
        (9, 4, 5, (1, 2, 3), 2, 3),
        (9, 4, 3, (1,), 30, 4),
        (3, 4, 3, (1, 3), 9, 5),
    ],
)
def test_maps_and_scores_are_those_of_brute_force(
    count, tests, neighbourhood, levels, neighbours, seed
):
    images, tests, teacher = noise(count, seed), noise(tests, 50 + seed), small_teacher(levels)
    settings = dataclasses.replace(WHOLE, neighbourhood=neighbourhood, neighbours=neighbours)
    fitted, scores = run(images, tests, settings, levels)
    assert (fitted.images, len(fitted.history), list(fitted.history)) == (count, 0, HISTORY)
    bank = patches(teacher, images, neighbourhood)
    bank = bank.reshape(-1, bank.shape[3])
    queries = patches(teacher, tests, neighbourhood)
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank)
    expected = search.kneighbors(queries.reshape(-1, bank.shape[1]))[0].reshape(queries.shape[:3])
    (found,) = scores.level_maps.values()
    assert list(scores.level_maps) == ["+".join(map(str, levels))]
    assert (found.dtype, scores.image_scores.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    expected = [reweighted(q.reshape(-1, q.shape[2]), bank, neighbours) for q in queries]
    np.testing.assert_allclose(scores.image_scores, expected, rtol=1e-3)


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.01, 1), (0.5, 2), (0.3, 3), (0.99, 4)])
def test_the_bank_is_that_of_a_literal_loop(share, seed):
    images, teacher = noise(15, seed), small_teacher(LEVELS)
    model = fit(
        patchcore,
        images,
        dataclasses.replace(UNPROJECTED, coreset=share),
        levels=LEVELS,
        seed=seed,
    ).model
    every = patches(teacher, images).reshape(-1, 13)
    bank = (model["bank"] + model["centre"]).double().numpy()
    assert len(bank) == max(1, round(share * 15 * 16))
    # The first is drawn; each further one is the farthest from those before it.
    chosen = [int(cdist(bank[:1], every)[0].argmin())]
    while len(chosen) < len(bank):
        chosen.append(int(cdist(every, every[chosen]).min(1).argmax()))
    np.testing.assert_allclose(bank, every[chosen], atol=1e-5)


def test_the_bank_covers_more_than_a_random_choice_of_the_same_size():
    images, teacher = noise(30), small_teacher(LEVELS)
    every = patches(teacher, images).reshape(-1, 13)
    for settings in (UNPROJECTED, dataclasses.replace(PATCHCORE, projection=6)):
        model = fit(patchcore, images, settings, levels=LEVELS).model
        bank = (model["bank"] + model["centre"]).double().numpy()
        radius = cdist(every, bank).min(1).max()
        rng = np.random.default_rng(0)
        drawn = [
            cdist(every, every[rng.choice(len(every), len(bank), replace=False)]).min(1).max()
            for _ in range(20)
        ]
        assert radius < min(drawn)


def test_the_projection_chooses_and_is_not_searched_in():
    images, teacher = noise(10), small_teacher(LEVELS)
    every = patches(teacher, images).reshape(-1, 13)
    banks = {}
    for projection in (0, 2, 13, 128):
        settings = dataclasses.replace(PATCHCORE, projection=projection)
        model = fit(patchcore, images, settings, levels=LEVELS).model
        banks[projection] = (model["bank"] + model["centre"]).double().numpy()
        assert banks[projection].shape == (16, 13)
        assert cdist(banks[projection], every).min(1).max() < 1e-5
    # No fewer dimensions than a patch has: nothing is projected.
    assert np.array_equal(banks[0], banks[13])
    assert np.array_equal(banks[0], banks[128])
    assert not np.array_equal(banks[0], banks[2])


def test_the_same_seed_gives_the_same_bits():
    images, settings = noise(12), dataclasses.replace(PATCHCORE, projection=5)
    one, again, other = (
        fit(patchcore, images, settings, levels=LEVELS, seed=s).model for s in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["bank"], other["bank"])
    assert torch.equal(one["centre"], other["centre"])


def test_one_neighbour_leaves_the_score_as_it_is():
    settings = dataclasses.replace(WHOLE, neighbours=1)
    _, scores = run(noise(4), noise(3, 7), settings)
    np.testing.assert_array_equal(scores.image_scores, scores.level_maps["2+3"].max((1, 2)))


def test_a_bank_of_fewer_entries_than_neighbours_takes_all():
    images, tests = noise(1), noise(3, 7)
    settings = dataclasses.replace(UNPROJECTED, coreset=0.3)  # 5 of 16
    fitted, scores = run(images, tests, settings)
    bank = (fitted.model["bank"] + fitted.model["centre"]).double().numpy()
    assert len(bank) == 5
    queries = patches(small_teacher(LEVELS), tests)
    expected = [reweighted(q.reshape(-1, 13), bank, 9) for q in queries]
    np.testing.assert_allclose(scores.image_scores, expected, rtol=1e-3)


def test_a_bank_of_one_entry():
    settings = dataclasses.replace(PATCHCORE, coreset=0.01)
    fitted, scores = run(noise(1), noise(3, 7), settings)
    assert fitted.model["bank"].shape == (1, 13)
    np.testing.assert_array_equal(scores.image_scores, scores.level_maps["2+3"].max((1, 2)))


def test_large_distances_do_not_overflow_the_softmax():
    class Large(torch.nn.Module):
        def forward(self, images):
            return tuple(1e3 * m for m in small_teacher(LEVELS).network(images))

    teacher = small_teacher(LEVELS)._replace(network=Large())
    fitted = fit(patchcore, noise(5), WHOLE, teacher=teacher, levels=LEVELS)
    scores = score(patchcore, fitted.model, noise(3, 7), WHOLE, teacher=teacher, levels=LEVELS)
    assert scores.level_maps["2+3"].max() > 200  # exp of it is infinite in float32
    assert np.isfinite(scores.image_scores).all()
    assert (scores.image_scores > 0).all()


def test_constant_images_and_a_dead_channel():
    def kill(level, weight):
        weight[0] = 0

    teacher = small_teacher(LEVELS, change=kill)
    images = np.full((4, 32, 32, 3), 77, np.uint8)
    fitted = fit(patchcore, images, PATCHCORE, teacher=teacher, levels=LEVELS)
    assert fitted.model["bank"].shape == (6, 13)
    same = score(patchcore, fitted.model, images, WHOLE, teacher=teacher, levels=LEVELS)
    assert np.isfinite(same.image_scores).all()
    other = score(patchcore, fitted.model, noise(2), WHOLE, teacher=teacher, levels=LEVELS)
    assert other.image_scores.min() > same.image_scores.max()


def test_a_training_image_is_at_distance_zero():
    images = noise(17)
    _, scores = run(images, images, WHOLE)
    assert scores.level_maps["2+3"].max() == 0
    assert scores.image_scores.max() == 0


def test_the_split_alone_is_seen():
    images, split = noise(9), Split([4, 1, 7], [], 9)
    model = fit(patchcore, images, PATCHCORE, split=split, levels=LEVELS).model
    changed = images.copy()
    changed[[0, 2, 3, 5, 6, 8]] = 0
    again = fit(patchcore, changed, PATCHCORE, split=split, levels=LEVELS).model
    assert all(torch.equal(model[name], again[name]) for name in model)


def test_features_that_are_not_finite_fail():
    failed = fit(patchcore, noise(4), PATCHCORE, teacher=nan_teacher(LEVELS), levels=LEVELS)
    assert failed.model == {}
    assert "not finite" in failed.failure


def test_the_bar_is_shown_on_request(capfd):
    fit(patchcore, noise(3), PATCHCORE, levels=LEVELS)
    assert capfd.readouterr().err == ""
    fit(patchcore, noise(3), PATCHCORE, levels=LEVELS, progress=True)
    shown = capfd.readouterr().err
    assert "batch" in shown
    assert "centre" in shown
