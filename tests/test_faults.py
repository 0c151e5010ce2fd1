"""Faults of users' data sets: each is reported, with its file, before anything is trained."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import SIZE, defect_mask, picture, save, write_nut
from stpm_bench.__main__ import main
from stpm_bench.datasets.check import check_folder
from stpm_bench.datasets.interface import ReadOptions
from stpm_bench.datasets.prepare import prepare
from stpm_bench.errors import InputError
from stpm_bench.evaluation import evaluate_cell
from stpm_bench.methods import built_in
from stpm_bench.methods.interface import Scores

MASK = "ground_truth/bent/000_mask.png"
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def said(folder: Path, split: str = "test", size: int = SIZE, **read_options) -> list[str]:
    """Return the errors and warnings that the workflow's step gives, after checking that
    `check-data` gives each of them too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            prepare(
                folder.parent,
                folder.name,
                split,
                size,
                progress=False,
                read_options=ReadOptions(**read_options),
            )
            texts = [str(warning.message) for warning in caught]
        except InputError as error:
            texts = str(error).splitlines()
    _, problems = check_folder(
        folder.parent, progress=False, image_size=size, read_options=ReadOptions(**read_options)
    )
    assert set(texts) <= {problem.text for problem in problems}
    return texts


def prepared(folder: Path, split: str = "test", **read_options) -> tuple:
    """Return a split's images, its nearest masks and its table, at the images' own size."""
    pixels, masks, table = prepare(
        folder.parent,
        folder.name,
        split,
        SIZE,
        progress=False,
        read_options=ReadOptions(**read_options),
    )
    return pixels, masks and masks["nearest"], table


def coloured(defect: tuple, background: tuple, marked: np.ndarray | None = None) -> np.ndarray:
    """A mask (SIZE, SIZE, 3) of two colours."""
    marked = defect_mask() > 0 if marked is None else marked
    return np.where(marked[..., None], np.uint8(defect), np.uint8(background))


# --- masks ---


def test_red_on_white_is_refused_with_the_colours_and_their_shares(nut):
    one_cell = np.zeros((SIZE, SIZE), bool)
    one_cell[8:16, 8:16] = True  # 6.25 %
    save(nut / MASK, coloured(RED, WHITE, one_cell))
    [text] = said(nut)
    assert text.startswith(f"{nut / MASK}: ")
    assert "(255, 255, 255) 94%, (255, 0, 0) 6.2%" in text
    assert "mask_colour: [255, 0, 0]" in text


@pytest.mark.parametrize(
    ("defect", "background", "colour"),
    [
        (RED, BLACK, None),
        ((128, 0, 0), BLACK, None),
        (RED, WHITE, RED),
        (BLACK, WHITE, BLACK),
        (WHITE, BLACK, WHITE),
        ((1, 2, 3), (200, 200, 0), (1, 2, 3)),
    ],
)
def test_what_marks_the_defect_is_certain(nut, defect, background, colour):
    save(nut / MASK, coloured(defect, background))
    read_options = {"mask_colour": colour} if colour else {}
    if colour:  # the other masks are of the same set
        for path in nut.glob("ground_truth/*/*.png"):
            save(path, coloured(defect, background))
    assert (prepared(nut, **read_options)[1][0] == (defect_mask() > 0)).all()
    assert said(nut, **read_options) == []


@pytest.mark.parametrize(
    ("mask", "colour", "found"),
    [
        (coloured(RED, WHITE), (0, 255, 0), "(255, 255, 255) 91%, (255, 0, 0) 9.4%"),
        (np.full((SIZE, SIZE, 3), RED, np.uint8), None, "(255, 0, 0) 100%"),
        (np.full((SIZE, SIZE, 3), WHITE, np.uint8), RED, r"marks no defect"),
        (picture(1), None, "more. Expected black and one other colour"),
    ],
    ids=["another colour", "one colour", "not the defect's", "a photograph"],
)
def test_masks_that_stay_uncertain(nut, mask, colour, found):
    save(nut / MASK, mask)
    text = said(nut, mask_colour=colour)[0]
    assert text.startswith(f"{nut / MASK}: ")
    assert found in text


def test_a_bilevel_inverted_mask_with_its_colour(nut):
    for path in nut.glob("ground_truth/*/*.png"):
        Image.fromarray(defect_mask() == 0).save(path)
    assert (prepared(nut, mask_colour=BLACK)[1][0] == (defect_mask() > 0)).all()


def test_masks_that_cover_most_of_their_images_are_a_warning(nut):
    """Inverted masks are valid files: only how much they cover gives them away."""
    for path in nut.glob("ground_truth/bent/*.png"):
        save(path, 255 - defect_mask())
    [text] = said(nut)
    assert text.startswith(f"{nut / MASK}: marks 91% of its image")
    assert "2 of 4 masks" in text
    assert "mask_colour: [0, 0, 0]" in text


def test_a_mask_that_marks_a_good_image(nut):
    good = nut / "ground_truth" / "good"
    save(good / "000_mask.png", np.zeros((SIZE, SIZE), np.uint8))
    assert said(nut) == []
    save(good / "001_mask.png", defect_mask())
    [text] = said(nut)
    assert text.startswith(f"{good / '001_mask.png'}: marks a defect")


def test_defects_that_vanish_are_named_before_training(nut):
    speck = np.zeros((SIZE, SIZE), np.uint8)
    speck[0, 0] = 255
    for path in nut.glob("ground_truth/*/*.png"):
        save(path, speck)
    [text] = said(nut, size=8)
    assert text.startswith(f"{nut}: at 8 x 8 no defect is visible in its mask (4 masks)")
    assert "'image_size'" in text
    assert main(["check-data", str(nut.parent), "--image-size", "8"]) == 0


def test_image_auroc_is_given_where_only_pixels_are_lost():
    """No defect is visible in a mask: the images are still good or defective."""
    rng = np.random.default_rng(0)
    nothing = np.zeros((4, 32, 32), bool)
    maps = {"1": np.sort(rng.random((4, 8, 8), np.float32), axis=0)}
    scores, defects = Scores(maps, variants={"other": maps}), ["good", "good", "bent", "bent"]
    masks = {"nearest": nothing, "bilinear_any": nothing}
    settings = built_in()["stpm"].evaluation_part()
    found = evaluate_cell(scores, defects, masks, list(nothing), settings, "regions", 32)
    assert found.metrics == {"image_auroc": 1.0, "other_image_auroc": 1.0}
    assert len(found.definitions) == len(found.curve) == 0

    shown = nothing.copy()
    shown[2:, 2:4, 2:4] = True  # by the other treatment they show
    masks["bilinear_any"] = shown
    settings |= {"masks": "bilinear_any"}
    found = evaluate_cell(scores, defects, masks, list(shown), settings, "regions", 32)
    assert {"image_auroc", "pixel_auroc", "pro"} <= set(found.metrics)


# --- files in other places ---


def moved(folder: Path, old: str, new: str) -> None:
    (folder / new).parent.mkdir(parents=True, exist_ok=True)
    (folder / old).rename(folder / new)


def test_training_images_two_folders_deep(nut):
    """One of three is left in place: the others must not be ignored."""
    moved(nut, "train/good/001.png", "train/good/2024/cam1/001.png")
    moved(nut, "train/good/002.png", "train/good/2024/cam1/002.png")
    texts = said(nut, "train")
    assert f"{nut}/train/good/2024/cam1/001.png: is in a subfolder" in texts[0]
    assert "1 more like it" in texts[0]


def test_a_linked_folder_that_leads_back_ends(nut):
    os.symlink(nut / "train", nut / "train" / "good" / "loop", target_is_directory=True)
    save(nut / "train" / "rejected" / "000.png", picture(9))
    assert any(
        "good/loop/rejected/000.png: is in a subfolder" in text for text in said(nut, "train")
    )


@pytest.mark.parametrize(
    ("split", "old", "new", "message"),
    [
        ("test", "test/bent/000.png", "test/bent/a/b/000.png", "a/b/000.png: is in a subfolder"),
        ("test", MASK, "ground_truth/bent/000/000.png", "bent/000/000.png: is in a subfolder"),
        ("test", MASK, "ground_truth/000_mask.png", "truth/000_mask.png: is directly in ground_"),
        ("test", MASK, "test/bent/000_mask.png", "bent/000_mask.png: has the name of a mask"),
        ("test", MASK, "test/bent/000_gt.png", "bent/000_gt.png: has the name of a mask"),
        ("test", MASK, "test/good/000_mask.png", "good/000_mask.png: has the name of a mask"),
        ("train", MASK, "train/good/000_mask.png", "good/000_mask.png: has the name of a mask"),
        ("train", "train/good/000.png", "train/000.png", "train/000.png: is directly in train/"),
    ],
)
def test_files_in_other_places_are_errors(nut, split, old, new, message):
    moved(nut, old, new)
    with pytest.raises(InputError):
        prepared(nut, split)
    assert any(message in text for text in said(nut, split))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("validation/good/000.png", "validation: 1 image(s) are ignored"),
        ("rejected/a/b/000.png", "rejected: 1 image(s) are ignored"),
        ("train/bad/deep/000.png", "train/bad: 1 image(s) are ignored"),
        ("000.png", "nut/000.png: is ignored"),
    ],
)
def test_images_that_nothing_reads_are_a_warning(nut, file, message):
    save(nut / file, picture(7))
    [text] = said(nut, "train")
    assert message in text
    assert str(nut) in text


def test_a_folder_of_images_that_is_no_category_is_a_warning(nut):
    save(nut.parent / "bolt" / "good" / "000.png", picture(7))
    [problem] = check_folder(nut.parent, progress=False)[1]
    assert problem.severity == "warning"
    assert f"{nut.parent / 'bolt'}: 1 image(s) are ignored" in problem.text


def test_a_single_training_image(nut):
    for name in ("001.png", "002.png"):
        (nut / "train" / "good" / name).unlink()
    [text] = said(nut, "train")
    assert text.startswith(f"{nut}/train/good/000.png: is the only training image.")
    with pytest.raises(InputError, match=r"only training image of 3, by the config key .*every'"):
        prepare(write_nut(nut.parent, "bolt").parent, "bolt", "train", 8, every=3)


# --- more than 8 bits ---


def deep(seed: int, high: int, size: int = SIZE) -> np.ndarray:
    """Grey levels (size, size) uint16 that use 0 to `high`."""
    levels = np.random.default_rng(seed).integers(0, high + 1, (size, size), dtype=np.uint16)
    levels[0, :2] = 0, high
    return levels


def deepen(folder: Path, high: int = 4095, suffix: str = ".png") -> None:
    """Make every image of a category a grey one whose 16 bits hold `high` at most."""
    for seed, path in enumerate(sorted(folder.glob("t*/*/*.png"))):
        path.unlink()
        save(path.with_suffix(suffix), deep(seed, high))


def png_16(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 2 to 4) with 16 bits per channel, which Pillow cannot write."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bits_in_16_keep_their_levels(nut, suffix):
    deepen(nut, suffix=suffix)
    train, _, _ = prepared(nut, "train")
    assert len(np.unique(train)) > 200  # 17, where 65535 becomes 255
    test, _, table = prepared(nut)
    assert (train.min(), train.max()) == (0, 255)
    seed = sorted(nut.glob(f"t*/*/*{suffix}")).index(nut / table["file"][0])
    assert (test[0, ..., 0] == np.round(deep(seed, 4095) * (255 / 4095))).all()
    [text] = said(nut, "train")
    assert text.startswith(f"{nut}: 3 training images have more than 8 bits")
    assert "0 to 4095" in text
    assert "intensity: [0, 4095]" in text


def test_no_test_image_has_a_say_in_the_range(nut):
    deepen(nut)
    before, _, _ = prepared(nut, "train")
    save(nut / "test" / "bent" / "000.png", deep(1, 60000))
    after, _, _ = prepared(nut, "train")
    assert (before == after).all()
    test, _, _ = prepared(nut)
    assert (test[0, ..., 0] == np.round(deep(1, 60000).clip(0, 4095) * (255 / 4095))).all()
    [text] = said(nut)
    assert text.startswith(f"{nut}/test/bent/000.png: has values outside 0 to 4095")
    assert "1 of 6 test images (from 0 to 60000)" in text


def test_the_range_of_the_config_is_that_of_every_split(nut):
    deepen(nut, high=1000)
    train, _, _ = prepared(nut, "train", intensity=(0, 4000))
    assert train.max() == round(255 / 4)
    assert said(nut, "train", intensity=(0, 4000)) == []
    [text] = said(nut, "train", intensity=(0, 500))
    assert "has values outside 0 to 500, like 3 of 3 train images (from 0 to 1000)" in text


def test_deep_test_images_of_shallow_training_images(nut):
    save(nut / "test" / "bent" / "000.png", deep(1, 4095))
    [text] = said(nut)
    assert text.startswith(f"{nut}/test/bent/000.png: has more than 8 bits")
    assert "no training image has" in text
    assert "1 of 6" in said(nut, intensity=(0, 4095))[0]  # a warning of the mixture


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_of_a_png(nut, channels):
    """Pillow reads the high byte alone, of which 12 bits use 16 values."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 4096, (SIZE, SIZE, channels), dtype=np.uint16)
    levels[0, 0, :3], levels[0, 1, :3] = 0, 4095
    (nut / "train" / "good" / "000.png").write_bytes(png_16(levels))
    train, _, _ = prepared(nut, "train")
    assert (train[0] == np.round(levels[..., :3] * (255 / 4095))).all()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_colours_of_a_tiff(nut, compression, order):
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 4096, (SIZE, SIZE, 3), dtype=np.uint16)
    levels[0, 0], levels[0, 1] = 0, 4095
    path = nut / "train" / "good" / "000.tif"
    path.with_suffix(".png").unlink()
    options = {"compression": compression, "photometric": "rgb", "byteorder": order[0]}
    tifffile.imwrite(path, levels.astype(order), **options)
    train, _, table = prepared(nut, "train")
    assert table["file"][0].endswith("000.tif")
    assert (train[0] == np.round(levels * (255 / 4095))).all()


def test_16_bits_that_would_be_lost_are_an_error(nut):
    path = nut / "train" / "good" / "000.png"
    path.write_bytes(png_16(np.full((SIZE, SIZE, 2), 4000, np.uint16)))
    [text] = said(nut, "train")
    assert text.startswith(f"{path}: has 16 bits per channel (mode RGBA)")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_scaled_by_the_training_images(nut, dtype):
    for seed, path in enumerate(sorted(nut.glob("t*/*/*.png"))):
        path.unlink()
        save(path.with_suffix(".tif"), deep(seed, 4095).astype(dtype))
    train, _, _ = prepared(nut, "train")
    first = sorted(nut.glob("t*/*/*.tif")).index(nut / "train/good/000.tif")
    assert (train[0, ..., 0] == np.round(deep(first, 4095) * (255 / 4095))).all()
    if dtype is np.float32:
        save(nut / "train/good/000.tif", np.full((SIZE, SIZE), np.nan, np.float32))
        [text] = said(nut, "train")
        assert text.startswith(f"{nut}/train/good/000.tif: contains NaN")


# --- several images in a file, other files, sizes ---


def several(kind: str) -> bytes:
    first, *others = (Image.fromarray(picture(seed)) for seed in range(3))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "suffix"), [("TIFF", ".tif"), ("PNG", ".png"), ("GIF", ".png")])
@pytest.mark.parametrize("file", ["train/good/000", "ground_truth/bent/000_mask"])
def test_a_file_of_several_images(nut, kind, suffix, file):
    (nut / file).with_suffix(".png").unlink()
    path = (nut / file).with_suffix(suffix)
    path.write_bytes(several(kind))
    [text] = said(nut, "train" if file.startswith("train") else "test")
    assert text.startswith(f"{path}: contains 3 images")


def test_a_tiff_with_a_small_copy_of_its_image_is_one_image(nut):
    tifffile = pytest.importorskip("tifffile")
    path = nut / "train" / "good" / "000.tif"
    path.with_suffix(".png").unlink()
    with tifffile.TiffWriter(path) as file:
        file.write(picture(0), photometric="rgb")
        file.write(picture(0)[::2, ::2], photometric="rgb", subfiletype=1)
    assert (prepared(nut, "train")[0][0] == picture(0)).all()


def test_a_photograph_with_its_cameras_preview_is_one_image(nut):
    first, preview = (Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue"))
    path = nut / "train" / "good" / "000.jpg"
    path.with_suffix(".png").unlink()
    first.save(path, "MPO", save_all=True, append_images=[preview])
    assert Image.open(path).n_frames == 2
    assert (np.abs(prepared(nut, "train")[0][0].astype(int) - [255, 0, 0]) < 5).all()


@pytest.mark.parametrize("file", ["train/good/pipe.png", "test/bent/pipe.png"])
def test_a_named_pipe_is_not_waited_for(nut, file):
    os.mkfifo(nut / file)
    save(nut / "ground_truth/bent/pipe_mask.png", defect_mask())
    split = file.partition("/")[0]
    (nut / "ground_truth/bent/pipe_mask.png").unlink() if split == "train" else None
    [text] = said(nut, split)
    assert text.startswith(f"{nut / file}: is not a regular file")


def test_an_image_of_400_megapixels_names_the_limit_and_the_key(nut):
    path = nut / "train" / "good" / "000.png"
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    data = path.read_bytes()
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(data[:16] + header + crc + data[33:])
    [text] = said(nut, "train")
    assert text.startswith(f"{path}: has 20000 x 20000 pixels, 400 million")
    assert "at most 179 million" in text
    assert "max_megapixels: 401" in text


def test_an_image_above_pillows_limit_is_read_where_the_key_allows_it(nut):
    path = nut / "train" / "good" / "000.png"
    Image.new("1", (20_000, 10_000)).save(path)
    train, _, _ = prepared(nut, "train", max_megapixels=200)
    assert not train[0].any()


# --- the table ---


def test_the_table_fits_a_terminal(tmp_path, capsys):
    """533 sizes once made a column of thousands of characters."""
    folder = write_nut(tmp_path, "a category with quite a long name", train=30)
    for i, path in enumerate(sorted(folder.glob("train/good/*.png"))):
        save(path, picture(i)[: 10 + i // 2])
    assert main(["check-data", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    table = printed[: printed.index("")]
    assert max(map(len, table)) <= 80
    assert "a category with quite a long" in table[2]
    assert "name" in table[3]
    [warning] = [line for line in printed if line.startswith("warning: ")]
    assert "16 sizes, from 32 x 10 to 32 x 32; 17% of the images" in warning
