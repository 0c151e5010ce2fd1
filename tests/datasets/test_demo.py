import hashlib
import socket

import numpy as np
import pytest
import skimage.data
from PIL import Image

from stpm_bench.datasets import demo
from stpm_bench.errors import InputError


def everything(size=128, seed=0):
    return [crop for category in demo.CATEGORIES for crop in demo.crops(category, size, seed)]


def is_defect(crop):
    return crop.defect != "good"


@pytest.fixture(scope="module")
def samples():
    return [(crop, demo.render(crop)) for crop in everything()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new" / "set"
    demo.write(folder)
    return folder


def test_layout_is_mvtec_ads(written):
    assert sorted(entry.name for entry in written.iterdir()) == list(demo.CATEGORIES)
    assert len(demo.DEFECTS) >= 4
    for category in demo.CATEGORIES:
        names = {
            str(file.relative_to(written / category))
            for file in (written / category).rglob("*")
            if file.is_file()
        }
        expected = {f"train/good/{index:03d}.png" for index in range(demo.TRAIN_GOOD)}
        expected |= {f"test/good/{index:03d}.png" for index in range(demo.TEST_GOOD)}
        for defect in demo.DEFECTS:
            for index in range(demo.PER_DEFECT):
                expected.add(f"test/{defect}/{index:03d}.png")
                expected.add(f"ground_truth/{defect}/{index:03d}_mask.png")
        assert names == expected


def test_files_are_greyscale_and_masks_binary(written):
    for file in written.rglob("*.png"):
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("L", (128, 128)), file
            levels = set(np.unique(image))
        if "ground_truth" in file.parts:
            assert levels == {0, 255}, file
        else:
            assert len(levels) > 30, file


def test_files_hold_what_draw_returns(written, samples):
    for crop, sample in samples:
        folder = written / crop.category
        name = f"{crop.index:03d}"
        image = np.asarray(Image.open(folder / crop.split / crop.defect / f"{name}.png"))
        np.testing.assert_array_equal(image, sample.image)
        if is_defect(crop):
            mask = Image.open(folder / "ground_truth" / crop.defect / f"{name}_mask.png")
            np.testing.assert_array_equal(np.asarray(mask) == 255, sample.mask)


def test_pixels_are_the_same_on_every_machine(samples):
    # Pinned: numbers of the demo can only be compared while this stands.
    digest = hashlib.sha256()
    for crop, sample in samples:
        digest.update("/".join(map(str, crop)).encode())
        digest.update(sample.image.tobytes() + sample.mask.tobytes())
    assert digest.hexdigest() == "1e0960b58e10bc23f3a579c4f6e08ac0931ee099fee2908b082a47f3792085e2"


def test_another_seed_gives_other_images():
    one, other = (demo.render(demo.crops("grass", seed=seed)[0], seed) for seed in (0, 1))
    assert (one.image != other.image).mean() > 0.5


def test_another_count_leaves_the_other_images_as_they_were(monkeypatch, samples):
    monkeypatch.setattr(demo, "TRAIN_GOOD", 3)
    monkeypatch.setattr(demo, "TEST_GOOD", 2)
    monkeypatch.setattr(demo, "PER_DEFECT", 7)
    before = {crop[:4]: (crop, sample.image) for crop, sample in samples}
    shared = [crop for crop in demo.crops("gravel") if crop[:4] in before]
    assert len(shared) == 3 + 2 + 5 * len(demo.DEFECTS)
    for crop in shared:
        assert crop == before[crop[:4]][0]
        np.testing.assert_array_equal(demo.render(crop).image, before[crop[:4]][1])


@pytest.mark.parametrize("size", [64, 100, 128])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_train_and_test_crops_do_not_overlap(size, seed):
    for category in demo.CATEGORIES:
        side = len(demo._photograph(category))
        seen = {split: np.zeros((side, side), bool) for split in ("train", "test")}
        for crop in demo.crops(category, size, seed):
            assert 0 <= crop.left < crop.right <= side
            assert 0 <= crop.top < crop.bottom <= side
            assert crop.right - crop.left == crop.bottom - crop.top == size
            seen[crop.split][crop.top : crop.bottom, crop.left : crop.right] = True
        assert not (seen["train"] & seen["test"]).any()


def test_images_are_made_of_their_crop_alone(monkeypatch, samples):
    # Without this the boxes would prove nothing.
    photograph = demo._photograph
    for crop, sample in samples:
        if crop.index > 3 or is_defect(crop):
            continue
        alone = np.zeros_like(photograph(crop.category))
        box = np.s_[crop.top : crop.bottom, crop.left : crop.right]
        alone[box] = photograph(crop.category)[box]
        with monkeypatch.context() as patch:
            patch.setattr(demo, "_photograph", lambda category, alone=alone: alone)
            np.testing.assert_array_equal(demo.render(crop).image, sample.image)


def test_masks_are_exact(samples):
    for crop, sample in samples:
        assert sample.mask.any() == is_defect(crop), crop
        changed = np.abs(sample.image.astype(int) - sample.clean) >= 2
        assert not changed[~sample.mask].any(), crop
        if is_defect(crop):
            # Not 1: a smear leaves a plain brick as it is.
            assert changed[sample.mask].mean() > 0.3, crop
            assert sample.mask.mean() < 0.2, crop


def test_defects_stand_out(samples):
    """By the mean change of grey level in a mask."""
    for category in demo.CATEGORIES:
        for defect in demo.DEFECTS:
            changes = [
                np.abs(sample.image.astype(float) - sample.clean)[sample.mask].mean()
                for crop, sample in samples
                if (crop.category, crop.defect) == (category, defect)
            ]
            assert min(changes) > 5, (category, defect)
            assert np.median(changes) > (10 if defect == "smear" else 25), (category, defect)


def test_defects_are_of_several_sizes(samples):
    for category in demo.CATEGORIES:
        for defect in demo.DEFECTS:
            areas = [
                int(sample.mask.sum())
                for crop, sample in samples
                if (crop.category, crop.defect) == (category, defect)
            ]
            assert max(areas) > 1.5 * min(areas), (category, defect, areas)


def test_images_differ_from_each_other(samples):
    images = {sample.image.tobytes() for _, sample in samples}
    assert len(images) == len(samples)
    means = [sample.image.mean() for crop, sample in samples if crop.split == "train"]
    assert np.std(means) > 2  # a line's exposure varies


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the demo reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for category in demo.CATEGORIES:
        fresh = demo._photograph.__wrapped__(category)
        expected = getattr(skimage.data, category)().astype(float)
        assert expected.shape == (512, 512)
        if category != "brick":  # halved
            corners = [expected[row::2, column::2] for row in (0, 1) for column in (0, 1)]
            expected = sum(corners) / 4
        np.testing.assert_array_equal(fresh, expected)


@pytest.mark.parametrize("size", [64, 96])
def test_other_sizes(size):
    for crop in demo.crops("brick", size):
        sample = demo.render(crop)
        assert sample.image.shape == sample.mask.shape == (size, size)
        assert sample.mask.any() == is_defect(crop)


@pytest.mark.parametrize("size", [0, 63, 129, 256])
def test_a_size_out_of_range_is_named(size):
    with pytest.raises(InputError, match=rf"size {size}: expected 64 to 128"):
        demo.crops("brick", size)


def test_a_negative_seed_is_named():
    with pytest.raises(InputError, match="seed -1: expected 0 or above"):
        demo.crops("brick", seed=-1)


def test_an_unknown_category_is_named():
    with pytest.raises(InputError, match=r"'bottle' is unknown\. Allowed: brick, grass, gravel"):
        demo.crops("bottle")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        demo.write(tmp_path / "file" / "set")
