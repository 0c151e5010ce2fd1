import pytest

from stpm_bench.errors import InputError
from stpm_bench.split import split

FILES = [f"train/good/{i:03}.png" for i in range(209)]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_fractions_are_nested(seed):
    chosen = [set(split(FILES, f, 0.2, seed)["file"]) for f in (0.05, 0.1, 0.5, 1.0)]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3] == set(FILES)
    assert [len(c) for c in chosen] == [10, 21, 104, 209]


def test_choice_is_the_same_on_every_machine_and_for_every_order_of_files():
    table = split(FILES[::-1], 0.05, 0.2, seed=0)
    assert table.equals(split(FILES, 0.05, 0.2, seed=0))
    # Written down: a change of the hash would silently change every few-shot number.
    assert table["file"].str[-7:-4].tolist() == EXPECTED
    assert table["role"].tolist() == ["training"] * 8 + ["validation"] * 2


EXPECTED = ["025", "090", "007", "143", "060", "064", "150", "139", "163", "128"]


def test_seeds_choose_differently():
    assert set(split(FILES, 0.1, 0.2, 0)["file"]) != set(split(FILES, 0.1, 0.2, 1)["file"])


@pytest.mark.parametrize(
    ("images", "fraction", "validation", "expected"),
    [
        (60, 0.05, 0.2, (2, 1)),  # the smallest MVTec category at 5%
        (60, 0.01, 0.2, (1, 1)),
        (2, 1.0, 0.2, (1, 1)),
        (2, 1.0, 0.99, (1, 1)),
        (209, 1.0, 0.2, (167, 42)),
    ],
)
def test_at_least_one_image_trains_and_one_validates(images, fraction, validation, expected):
    roles = split(FILES[:images], fraction, validation, 0)["role"].value_counts()
    assert (roles["training"], roles["validation"]) == expected


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(InputError, match=r"fraction is .*; expected above 0 and at most 1"):
        split(FILES, fraction, 0.2, 0)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5])
def test_validation_fraction_out_of_range(fraction):
    with pytest.raises(InputError, match=r"'training\.validation_fraction' is"):
        split(FILES, 1.0, fraction, 0)


def test_too_few_images():
    with pytest.raises(InputError, match=r"train/good has 1 image\(s\); expected at least 2"):
        split(FILES[:1], 1.0, 0.2, 0)
