"""Reading folders in MVTec AD's layout, whole and damaged."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import SIZE, defect_mask, picture, save, write_nut
from conftest import SHARED_DATA
from stpm_bench.datasets import layouts, mvtec
from stpm_bench.datasets import prepare as module
from stpm_bench.datasets.check import check_folder
from stpm_bench.datasets.masks import nearest
from stpm_bench.datasets.regions import count_regions
from stpm_bench.errors import InputError

REAL = SHARED_DATA / "mvtec_ad"


def prepare(folder: Path, split: str = "test", size: int = SIZE, **options):
    images, masks, table = module.prepare(
        folder.parent, folder.name, split, size, progress=False, **options
    )
    return images, masks and masks["nearest"], table


def prepare_first(folder: Path, pixels_or_image, name: str = "000.png", **options) -> np.ndarray:
    """Replace the first training image by another; return it as prepared, at its own size."""
    image = pixels_or_image
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    (folder / "train" / "good" / "000.png").unlink()
    image.save(folder / "train" / "good" / name, **options)
    return prepare(folder, "train")[0][0]


# --- constants and lists ---


def test_published_counts():
    assert len(mvtec.TEXTURES) == 5
    assert len(mvtec.OBJECTS) == 10
    assert tuple(mvtec.COUNTS) == mvtec.CATEGORIES
    assert sum(train for train, _ in mvtec.COUNTS.values()) == 3629
    assert sum(test for _, test in mvtec.COUNTS.values()) == 1725


def test_list_categories(tmp_path):
    write_nut(tmp_path, "zeta")
    (tmp_path / "alpha" / "test").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden" / "train").mkdir(parents=True)
    (tmp_path / "license.txt").write_text("text")
    assert layouts.list_categories(tmp_path) == ["alpha", "zeta"]
    assert layouts.list_categories(tmp_path / "absent") == []


def test_count_images(nut):
    assert layouts.count_images(nut.parent, "nut") == (3, 6)
    assert layouts.count_images(nut.parent, "absent") == (0, 0)


def test_list_train(nut):
    table = layouts.list_images(nut.parent, "nut", "train")
    assert table.columns.tolist() == ["file", "defect", "mask"]
    assert table["file"].tolist() == [f"train/good/00{i}.png" for i in range(3)]
    assert set(table["defect"]) == {"good"}
    assert set(table["mask"]) == {""}


def test_list_test(nut):
    table = layouts.list_images(nut.parent, "nut", "test")
    assert table.to_dict("list") == {
        "file": [f"test/{d}/00{i}.png" for d in ("bent", "good", "scratch") for i in (0, 1)],
        "defect": ["bent", "bent", "good", "good", "scratch", "scratch"],
        "mask": [
            f"ground_truth/{d}/00{i}_mask.png" if d else ""
            for d in ("bent", "", "scratch")
            for i in (0, 1)
        ],
    }


def test_train_split_never_reads_test_files(nut):
    """Training images do not depend on the test set, even if it is missing or broken."""
    before = layouts.list_images(nut.parent, "nut", "train")
    (nut / "test" / "bent" / "000.png").write_bytes(b"")
    (nut / "ground_truth" / "scratch" / "000_mask.png").unlink()
    save(nut / "train" / "bad" / "000.png", picture(0))
    images, masks, table = prepare(nut, "train")
    assert table["file"].tolist() == before["file"].tolist()
    assert images.shape == (3, SIZE, SIZE, 3)
    assert masks is None


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".TIFF"])
def test_suffixes_of_images_and_masks_may_differ(nut, suffix):
    for path in (nut / "ground_truth" / "bent").iterdir():
        Image.open(path).save(path.with_suffix(suffix))
        if suffix != ".png":
            path.unlink()
    for path in (nut / "test" / "bent").iterdir():
        Image.open(path).save(path.with_suffix(".JPG"))
        path.unlink()
    images, masks, table = prepare(nut)
    assert table["file"][0] == "test/bent/000.JPG"
    assert table["mask"][0] == f"ground_truth/bent/000_mask{suffix}"
    assert (masks[0] == (defect_mask() > 0)).all()
    assert len(images) == 6


def test_masks_without_the_ending_mask(nut):
    for path in (nut / "ground_truth" / "bent").iterdir():
        path.rename(path.with_name(path.name.replace("_mask", "")))
    assert layouts.list_images(nut.parent, "nut", "test")["mask"][0] == "ground_truth/bent/000.png"


def test_an_image_may_be_called_mask(nut):
    save(nut / "test" / "bent" / "000_mask.png", picture(1))
    save(nut / "ground_truth" / "bent" / "000_mask_mask.png", defect_mask())
    table = layouts.list_images(nut.parent, "nut", "test")
    assert table["mask"][:2].tolist() == [
        "ground_truth/bent/000_mask.png",
        "ground_truth/bent/000_mask_mask.png",
    ]


def test_other_files_are_ignored(nut):
    good = nut / "train" / "good"
    (good / "Thumbs.db").write_bytes(b"x")
    (good / "._000.png").write_bytes(b"x")
    (good / ".DS_Store").write_bytes(b"x")
    (nut / "test" / "notes.txt").write_text("x")
    (nut / "test" / ".ipynb_checkpoints").mkdir()
    save(nut / "ground_truth" / "good" / "000_mask.png", np.zeros((SIZE, SIZE), np.uint8))
    assert len(layouts.list_images(nut.parent, "nut", "train")) == 3
    assert len(layouts.list_images(nut.parent, "nut", "test")) == 6


def test_unicode_and_spaces_in_names(tmp_path):
    folder = write_nut(tmp_path / "meine Prüfung", "große Mutter")
    (folder / "test" / "bent").rename(folder / "test" / "verbogen – links")
    (folder / "ground_truth" / "bent").rename(folder / "ground_truth" / "verbogen – links")
    (folder / "train" / "good" / "000.png").rename(folder / "train" / "good" / "a b é.png")
    assert prepare(folder)[1].sum() == 4 * 8 * 12
    assert prepare(folder, "train")[2]["file"][2] == "train/good/a b é.png"


# --- pixels ---


def test_prepare_at_the_images_own_size_changes_nothing(nut):
    images, masks, table = prepare(nut)
    assert images.dtype == np.uint8
    assert masks.dtype == bool
    assert (images[0] == picture(200)).all()
    assert (images[3] == picture(101)).all()
    for mask, defect in zip(masks, table["defect"], strict=True):
        assert (mask == (defect_mask() > 0) & (defect != "good")).all()
    assert table["defect_pixels"].tolist() == [96, 96, 0, 0, 96, 96]
    for file, digest in zip(table["file"], table["sha256"], strict=True):
        assert digest == hashlib.sha256((nut / file).read_bytes()).hexdigest()


def test_images_are_antialiased_and_masks_nearest(nut):
    """Halved, a fine chequerboard is even grey; aliased it would be black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for path in [*nut.glob("test/*/*.png")]:
        save(path, board)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 20:41] = 255
    for path in nut.glob("ground_truth/*/*.png"):
        save(path, mask)
    images, masks, _ = prepare(nut)
    assert np.abs(images[:, 2:-2, 2:-2].astype(int) - 127.5).max() <= 2
    # The centre of the output's pixel i lies in the input's pixel 2i + 1.
    assert (masks[0] == (mask[1::2, 1::2] > 0)).all()


def test_other_shapes_are_squashed(nut):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 30:] = 200
    image = prepare_first(nut, wide)
    assert image.shape == (SIZE, SIZE, 3)
    assert (image[:, : SIZE // 2 - 1] == 0).all()
    assert (image[:, SIZE // 2 + 1 :] == 200).all()


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_do_not_change_the_result(tmp_path, workers):
    folder = write_nut(tmp_path, train=20)
    images, _, table = prepare(folder, "train", 16, workers=workers)
    again, _, table_again = prepare(folder, "train", 16)
    assert (images == again).all()
    assert table.equals(table_again)


def test_a_vanished_defect_stays_a_defect(nut):
    speck = np.zeros((SIZE, SIZE), np.uint8)
    speck[0, 0] = 255
    save(nut / "ground_truth" / "bent" / "001_mask.png", speck)
    with pytest.warns(UserWarning, match=r"nut: at 8 x 8 .* 1 of 4 .*bent/001_mask\.png"):
        _, masks, table = prepare(nut, size=8)
    assert table["defect"][1] == "bent"
    assert table["defect_pixels"][1] == 0
    assert not masks[1].any()


def test_a_region_that_vanishes_from_a_mask_with_others_is_counted_and_named(nut):
    two = defect_mask()
    two[30, 30] = 255  # a speck that no sample falls on at half the size
    save(nut / "ground_truth" / "bent" / "001_mask.png", two)
    with pytest.warns(UserWarning, match=r"nut: at 16 x 16 1 of 5 regions.*bent/001_mask\.png"):
        _, _, table = prepare(nut, size=16)
    assert table["regions"].tolist() == [1, 2, 0, 0, 1, 1]
    assert table["regions_left"].tolist() == [1, 1, 0, 0, 1, 1]
    _, problems = check_folder(nut.parent, progress=False, image_size=16)
    (warning,) = [p for p in problems if "regions" in p.text]
    assert warning.severity == "warning"
    assert "1 of 5 regions" in warning.text
    assert "bent/001_mask.png" in warning.text
    assert not [p for p in check_folder(nut.parent, progress=False)[1] if "regions" in p.text]


def test_regions_that_come_to_touch_are_both_left():
    mask = np.zeros((8, 8), bool)
    mask[1:3, 0:3] = mask[1:3, 4:7] = True
    assert count_regions(mask, 4) == (2, 2)
    assert count_regions(np.zeros((8, 8), bool), 4) == (0, 0)


# --- image modes ---


def test_greyscale(nut):
    grey = picture(7)[..., 0]
    assert (prepare_first(nut, grey) == grey[..., None]).all()


def test_greyscale_resized_equals_rgb_resized(nut):
    grey = picture(7, 100)[..., 0]
    image = prepare_first(nut, grey)
    save(nut / "train" / "good" / "000.png", np.repeat(grey[..., None], 3, axis=2))
    assert (image == prepare(nut, "train")[0][0]).all()


def test_one_bit(nut):
    bits = picture(7)[..., 0] > 127
    assert (prepare_first(nut, bits) == bits[..., None] * 255).all()


def test_greyscale_with_alpha(nut):
    pixels = picture(7)[..., :2].copy()
    assert (prepare_first(nut, Image.fromarray(pixels, "LA")) == pixels[..., :1]).all()


def test_palette(nut):
    colours = Image.fromarray(picture(7)).quantize(16)
    assert (prepare_first(nut, colours) == np.asarray(colours.convert("RGB"))).all()


def test_palette_is_interpolated_by_colour(nut):
    """Indices 0 and 2 are red and black; their mean index 1 is a blue that must not appear."""
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 2).astype(np.uint8), "P")
    board.putpalette([255, 0, 0, 0, 0, 255, 0, 0, 0])
    image = prepare_first(nut, board, transparency=b"\x00\xff\x80")
    assert np.abs(image[2:-2, 2:-2].astype(int) - [127.5, 0, 0]).max() <= 2


def test_rgba_drops_transparency(nut):
    rgba = np.dstack([picture(7), picture(8)[..., 0]])
    assert (prepare_first(nut, rgba) == rgba[..., :3]).all()


def test_cmyk(nut):
    red = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))
    image = prepare_first(nut, red, "000.jpg", quality=100)
    assert np.abs(image.astype(int) - [255, 0, 0]).max() <= 3


def test_16_bit_is_scaled_not_clipped(nut):
    levels = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    image = prepare_first(nut, levels)
    assert (image == np.round(levels / 257).astype(int)[..., None]).all()
    assert image.min() == 0
    assert image.max() == 255


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_tiff_in_either_byte_order(nut, mode):
    levels = np.full((SIZE, SIZE), 0x8040, np.dtype("<u2" if mode == "I;16" else ">u2"))
    grey = Image.frombytes(mode, (SIZE, SIZE), levels.tobytes())
    assert (prepare_first(nut, grey, "000.tif") == round(0x8040 / 257)).all()


def test_a_mode_that_pillow_cannot_convert_is_an_error(nut, monkeypatch):
    """Which these are depends on Pillow's version (LAB, once)."""

    def convert(image, mode):
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(InputError, match=r"000\.png: mode RGB cannot be converted"):
        prepare(nut, "train")


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("name", ["000.png", "000.tif"])
def test_exif_rotation(nut, orientation, turns, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = prepare_first(nut, picture(7), name, exif=exif)
    assert (image == np.rot90(picture(7), turns)).all()


def test_exif_rotation_comes_before_sizes_are_compared(nut):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(nut / "test" / "bent" / "000.png", picture(7)[:20], exif=exif)  # upright: 20 x 32
    save(nut / "ground_truth" / "bent" / "000_mask.png", defect_mask()[:, :20])
    assert prepare(nut)[1][0].any()


# --- kinds of mask ---


def first_mask(folder: Path, mask, **options) -> np.ndarray:
    image = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
    image.save(folder / "ground_truth" / "bent" / "000_mask.png", **options)
    return prepare(folder)[1][0]


@pytest.mark.parametrize(
    "mask",
    [
        defect_mask() // 255,
        defect_mask() > 0,
        defect_mask().astype(np.uint16),
        defect_mask().astype(np.uint16) * 257,
        np.repeat(defect_mask()[..., None], 3, axis=2),
        np.dstack([defect_mask()] * 3 + [np.full((SIZE, SIZE), 255, np.uint8)]),
        np.dstack([defect_mask(), np.zeros((SIZE, SIZE, 2), np.uint8)]),
    ],
    ids=["0 and 1", "1 bit", "16 bit 255", "16 bit 65535", "RGB", "RGBA", "red"],
)
def test_kinds_of_mask(nut, mask):
    assert (first_mask(nut, mask) == (defect_mask() > 0)).all()


def test_palette_mask(nut):
    """The colours count, not the indices: here 1 is the background."""
    image = Image.fromarray((defect_mask() == 0).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    assert (first_mask(nut, image) == (defect_mask() > 0)).all()


def test_mask_all_defect(nut):
    assert first_mask(nut, np.full((SIZE, SIZE), 255, np.uint8)).all()


# --- bad input ---


IMAGE = "test/bent/000.png"
MASK = "ground_truth/bent/000_mask.png"


def removed(*patterns):
    def damage(folder: Path) -> None:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return damage


def moved(old: str, new: str):
    def damage(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)

    return damage


def pixels(file: str, values: np.ndarray):
    return lambda folder: save(folder / file, values)


def content(file: str, change):
    """Change a file's bytes by a function."""

    def damage(folder: Path) -> None:
        (folder / file).write_bytes(change((folder / file).read_bytes()))

    return damage


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def to_jpeg(file: str, change):
    """Replace an image by a damaged JPEG."""

    def damage(folder: Path) -> None:
        jpeg = (folder / file).with_suffix(".jpg")
        Image.open(folder / file).save(jpeg)
        (folder / file).unlink()
        jpeg.write_bytes(change(jpeg.read_bytes()))

    return damage


def dead_link(folder: Path) -> None:
    os.symlink(folder / "absent", folder / "train" / "good" / "link.png")


grey_edge = np.where(np.arange(SIZE) == 7, 128, defect_mask())
half_clear = np.dstack([np.full((SIZE, SIZE, 3), 255, np.uint8), defect_mask()])

DAMAGE = {
    # name: (split, damage, what the message says)
    "train/good missing": ("train", moved("train/good", "train/ok"), r"train.good: no such folder"),
    "train/good empty": ("train", removed("train/good/*"), r"train.good: contains no image"),
    "train/good nested": (
        "train",
        moved("train/good/000.png", "train/good/more/000.png"),
        r"more.000\.png: is in a subfolder",
    ),
    "train image zero bytes": (
        "train",
        content("train/good/001.png", lambda data: b""),
        r"001\.png: is empty \(0 bytes\)",
    ),
    "train image is text": (
        "train",
        content("train/good/001.png", lambda data: b"version https://git-lfs"),
        r"001\.png: is not a complete image \(unknown format\)",
    ),
    "train image truncated": (
        "train",
        content("train/good/001.png", lambda data: data[: len(data) // 2]),
        r"001\.png: is not a complete image",
    ),
    "train image without its end": (
        "train",
        content("train/good/001.png", lambda data: data[:-12]),
        r"001\.png: is not a complete image",
    ),
    "train image with a flipped bit": (
        "train",
        content("train/good/001.png", flip_a_bit),
        r"001\.png: is not a complete image",
    ),
    "train image header only": (
        "train",
        content("train/good/001.png", lambda data: data[:20]),
        r"001\.png: is not a complete image",
    ),
    "train JPEG truncated": (
        "train",
        to_jpeg("train/good/001.png", lambda data: data[: len(data) // 2]),
        r"001\.jpg: is not a complete image",
    ),
    "train image a dead link": ("train", dead_link, r"link\.png: cannot be read"),
    "test missing": ("test", moved("test", "tests"), r"test: contains no image"),
    "test empty": ("test", removed("test/*/*"), r"test: contains no image"),
    "names alike but for case": (
        "train",
        pixels("train/good/000.PNG", picture(0)),
        r"good.000\.png: differs from 000\.PNG only in case",
    ),
    "defects alike but for case": (
        "test",
        pixels("test/Bent/000.png", picture(0)),
        r"test.bent: differs from Bent only in case",
    ),
    "categories alike but for case": (
        "test",
        pixels("../Nut/test/good/000.png", picture(0)),
        r"nut: differs from Nut only in case",
    ),
    "test without good": (
        "test",
        removed("test/good/*"),
        r"test: has no good images \(found only bent, scratch\)",
    ),
    "test without defects": (
        "test",
        removed("test/bent/*", "test/scratch/*", "ground_truth/*/*"),
        r"test: has good images only",
    ),
    "test image outside a defect": (
        "test",
        moved(IMAGE, "test/000.png"),
        r"test.000\.png: is directly in test/",
    ),
    "test image nested": (
        "test",
        moved(IMAGE, "test/bent/more/000.png"),
        r"more.000\.png: is in a subfolder",
    ),
    "test image truncated": (
        "test",
        content(IMAGE, lambda data: data[:-200]),
        r"bent.000\.png: is not a complete image",
    ),
    "mask missing": ("test", removed(MASK), r"bent.000\.png: the mask is missing"),
    "all masks missing": (
        "test",
        removed("ground_truth/*/*"),
        r"scratch.001\.png: the mask is missing",
    ),
    "mask without an image": (
        "test",
        removed(IMAGE),
        r"000_mask\.png: a mask without an image",
    ),
    "masks without any image": (
        "test",
        removed("test/bent/*"),
        r"bent.001_mask\.png: a mask without an image",
    ),
    "two masks": ("test", pixels("ground_truth/bent/000.png", defect_mask()), r"two masks for .*"),
    "two images with one name": (
        "test",
        pixels("test/bent/000.bmp", picture(0)),
        r"000\.bmp and 000\.png: two images",
    ),
    "mask of another size": (
        "test",
        pixels(MASK, defect_mask(40)),
        r"000_mask\.png: is 40 x 40 pixels, its image 32 x 32",
    ),
    "mask empty": ("test", pixels(MASK, defect_mask() * 0), r"000_mask\.png: marks no defect"),
    "mask zero bytes": ("test", content(MASK, lambda data: b""), r"000_mask\.png: is empty"),
    "mask truncated": (
        "test",
        content(MASK, lambda data: data[:-20]),
        r"000_mask\.png: is not a complete image",
    ),
    "mask not binary": (
        "test",
        pixels(MASK, grey_edge.astype(np.uint8)),
        r"000_mask\.png: is not binary \(.*3 values, from 0 to 255\)",
    ),
    "mask one grey": ("test", pixels(MASK, defect_mask() // 2), r"000_mask\.png: is not binary"),
    "mask transparent": ("test", pixels(MASK, half_clear), r"000_mask\.png: is partly transparent"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(nut, damage):
    split, apply, message = DAMAGE[damage]
    apply(nut)
    with pytest.raises(InputError, match=message) as caught:
        prepare(nut, split)
    assert str(nut) in str(caught.value)
    _, problems = check_folder(nut.parent, progress=False)
    assert set(str(caught.value).splitlines()) <= {p.text for p in problems if p[0] == "error"}


def test_all_damaged_files_are_named_in_one_message(tmp_path):
    folder = write_nut(tmp_path, train=14)
    for i in range(12):
        (folder / "train" / "good" / f"{i:03}.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        prepare(folder, "train")
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert "000.png" in lines[0]
    assert "009.png" in lines[9]
    assert lines[10] == "... and 2 more."


@pytest.mark.parametrize(
    ("root", "category", "message"),
    [
        (".", "screw", r"no category 'screw'\. Its categories are: bolt, nut\."),
        ("absent", "nut", r"no category 'nut'\. There is no such folder\."),
        ("nut", "nut", r"looks like a category itself: name the folder above it"),
        ("..", "nut", r"no category.* but .*data does: name that folder"),
        ("empty", "nut", r"empty: no category"),
    ],
)
def test_no_such_category(tmp_path, root, category, message):
    data = tmp_path / "data"
    write_nut(data, "nut")
    write_nut(data, "bolt")
    (data / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        layouts.list_images((data / root).resolve(), category, "train")


def test_unknown_split(nut):
    with pytest.raises(InputError, match=r"'validation'.*Expected 'train' or 'test'"):
        layouts.list_images(nut.parent, "nut", "validation")


# --- real data ---


@pytest.mark.skipif(not (REAL / "bottle").is_dir(), reason=f"needs MVTec AD's bottle in {REAL}")
def test_real_bottle():
    assert layouts.count_images(REAL, "bottle") == mvtec.COUNTS["bottle"]
    images, masks, table = module.prepare(REAL, "bottle", "test", progress=False)
    assert images.shape == (83, 256, 256, 3)
    assert masks["nearest"].shape == (83, 256, 256)
    assert table["defect"].value_counts().to_dict() == {
        "broken_small": 22,
        "contamination": 21,
        "broken_large": 20,
        "good": 20,
    }
    assert ((table["defect_pixels"] > 0) == (table["defect"] != "good")).all()
    assert len(layouts.list_images(REAL, "bottle", "train")) == 209


def test_masks_at_their_own_size_are_those_that_prepare_samples(nut):
    save(nut / "test" / "bent" / "000.png", picture(7, size=48))
    save(nut / "ground_truth" / "bent" / "000_mask.png", defect_mask(48))
    _, masks, table = module.prepare(nut.parent, "nut", "test", 16)
    own, sampled = masks["own"], masks["nearest"]
    assert [mask.shape for mask in own] == [(48, 48)] + [(32, 32)] * 5
    assert all(np.array_equal(nearest(o, 16), m) for o, m in zip(own, sampled, strict=True))
    assert [mask.any() for mask in own] == list(table["defect"] != "good")


def test_training_images_do_not_depend_on_any_test_file(nut):
    before, _, _ = prepare(nut, "train")
    shutil.rmtree(nut / "test")
    (nut / "ground_truth" / "bent" / "000_mask.png").write_bytes(b"poison")
    after, masks, _ = prepare(nut, "train")
    assert np.array_equal(before, after)
    assert masks is None
