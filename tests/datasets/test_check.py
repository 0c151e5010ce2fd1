"""`check-data`: the table, and what is found across files. Damaged files: test_prepare.py."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from builders import SIZE, defect_mask, picture, save, write_nut
from conftest import SHARED_DATA
from stpm_bench.__main__ import main
from stpm_bench.datasets.check import check_folder
from stpm_bench.datasets.prepare import check_no_leak, prepare
from stpm_bench.errors import InputError

REAL = SHARED_DATA / "mvtec_ad"


def problems(root) -> list[tuple[str, str]]:
    return [tuple(problem) for problem in check_folder(root, progress=False)[1]]


def test_a_clean_set(nut, capsys):
    assert main(["check-data", str(nut.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split("  +", line) for line in lines[2:6]] == [
        ["nut", "train", "good", "3", "0", "32 x 32", "RGB"],
        ["nut", "test", "bent", "2", "2", "32 x 32", "RGB"],
        ["nut", "test", "good", "2", "0", "32 x 32", "RGB"],
        ["nut", "test", "scratch", "2", "2", "32 x 32", "RGB"],
    ]
    assert lines[-2:] == ["9 images and 4 masks in 1 categories", "0 errors, 0 warnings"]


def test_errors_are_all_printed_and_the_status_is_1(nut, capsys):
    for name in ("000.png", "001.png"):
        (nut / "train" / "good" / name).write_bytes(b"")
    (nut / "ground_truth" / "bent" / "000_mask.png").unlink()
    assert main(["check-data", str(nut.parent)]) == 1
    printed = capsys.readouterr()
    assert f"error: {nut / 'train' / 'good' / '000.png'}: is empty (0 bytes)" in printed.out
    assert f"error: {nut / 'train' / 'good' / '001.png'}: is empty (0 bytes)" in printed.out
    assert f"error: {nut / 'test' / 'bent' / '000.png'}: the mask is missing" in printed.out
    assert "3 errors, 0 warnings" in printed.out
    assert printed.err.startswith(f"error: {nut.parent}: 3 errors")


def test_a_warning_alone_is_status_0(nut, capsys):
    save(nut / "train" / "good" / "003.png", picture(3, 40))
    assert main(["check-data", str(nut.parent)]) == 0
    assert "0 errors, 1 warnings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("absent", "absent: no category. There is no such folder."),
        ("data/nut", "nut: no category. It looks like a category itself: name the folder above"),
        (".", r"data does: name that folder."),
        ("empty", "empty: no category."),
    ],
)
def test_a_folder_without_a_category(tmp_path, root, message):
    write_nut(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    [(severity, text)] = problems(tmp_path / root)
    assert severity == "error"
    assert message in text


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_test_image_that_is_a_training_image_by_content(nut, suffix):
    """The same pixels in another format and under another name."""
    save(nut / "test" / "good" / f"other{suffix}", picture(1))
    [(severity, text)] = problems(nut.parent)
    assert severity == "error"
    assert f"good/other{suffix}: is the same image as {nut}/train/good/001.png" in text


def test_prepare_refuses_a_test_image_that_is_a_training_image(nut):
    """By the bytes of the files; among those that only share a name there is none."""
    train, test = (prepare(nut.parent, "nut", split, 8)[2] for split in ("train", "test"))
    check_no_leak(train, test, nut.parent, "nut")
    save(nut / "test" / "bent" / "000.png", picture(1))
    test = prepare(nut.parent, "nut", "test", 8)[2]
    with pytest.raises(
        InputError, match=r"bent/000.png: is the same image as .*train/good/001\.png\. Exp"
    ):
        check_no_leak(train, test, nut.parent, "nut")


def test_the_step_prepare_compares_with_the_training_images(nut, tmp_path, capsys):
    save(nut / "test" / "good" / "000.png", picture(1))
    common = ["prepare", "--root", str(nut.parent), "--category", "nut", "--image-size", "8"]
    train, test = tmp_path / "train", tmp_path / "test"
    assert main([*common, "--split", "train", "--output", str(train)]) == 0
    options = ["--split", "test", "--train", str(train), "--output", str(test)]
    assert main([*common, *options]) == 1
    assert "test/good/000.png: is the same image as" in capsys.readouterr().err
    assert not test.exists()


def test_an_image_that_is_both_good_and_defective(nut):
    save(nut / "test" / "scratch" / "000.png", picture(101))
    [(severity, text)] = problems(nut.parent)
    assert severity == "error"
    assert "scratch/000.png: is the same image as" in text
    assert "test/good/001.png, " in text
    assert "another label" in text


def test_an_image_twice_is_a_warning(nut):
    save(nut / "train" / "good" / "003.png", picture(1))
    [(severity, text)] = problems(nut.parent)
    assert severity == "warning"
    assert "003.png: is the same image as" in text


def test_mixed_sizes_are_a_warning(nut):
    save(nut / "test" / "good" / "000.png", picture(1, 40))
    [(severity, text)] = problems(nut.parent)
    assert severity == "warning"
    assert "000.png: has 40 x 40 pixels. Its category has 2 sizes, from 32 x 32 to 40 x 40" in text
    assert "89% of the images have the most common one, 32 x 32" in text
    table, _ = check_folder(nut.parent, progress=False)
    assert list(table["sizes"]) == ["32 x 32", "32 x 32", "2 sizes", "32 x 32"]


def test_ignored_files_are_a_warning(nut):
    save(nut / "train" / "bad" / "000.png", picture(1))
    (nut / "train" / "good" / "000.webp").write_bytes(b"x")
    (nut / "train" / "good" / "Thumbs.db").write_bytes(b"x")
    (passed, image) = problems(nut.parent)
    assert passed[0] == image[0] == "warning"
    assert "good/000.webp: is ignored" in passed[1]
    assert "train/bad: 1 image(s) are ignored" in image[1]


def test_modes_and_sizes_as_they_are_upright(nut):
    exif = Image.Exif()
    exif[0x0112] = 6
    good = nut / "train" / "good"
    save(good / "000.png", picture(0)[:20], exif=exif)
    save(good / "001.png", picture(0)[..., 0])
    Image.fromarray(picture(5)).convert("CMYK").save(good / "002.jpg")
    (good / "002.png").unlink()
    table, _ = check_folder(nut.parent, progress=False)
    row = table.iloc[0]
    assert row["sizes"] == "2 sizes"
    assert sorted(row["modes"].split(", ")) == ["CMYK (1)", "L (1)", "RGB (1)"]


def test_a_name_that_is_not_utf_8(nut):
    good = os.fsencode(nut / "train" / "good")
    try:
        os.rename(os.path.join(good, b"000.png"), os.path.join(good, b"gr\xfcn.png"))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    [(severity, text)] = problems(nut.parent)
    assert severity == "error"
    assert "nut: the name 'train/good/gr\\udcfcn.png' is not UTF-8" in text
    text.encode()


def test_an_accent_in_one_or_in_two_characters(nut):
    """As in an archive made on macOS: the names look the same, but their Unicode differs."""
    composed, apart = "pr\u00fcf", "pru\u0308f"
    (nut / "test/bent/000.png").rename(nut / f"test/bent/{composed}.png")
    (nut / "ground_truth/bent/000_mask.png").rename(nut / f"ground_truth/bent/{apart}_mask.png")
    assert problems(nut.parent) == []


def test_two_categories_do_not_mix(tmp_path):
    write_nut(tmp_path, "nut")
    write_nut(tmp_path, "bolt")  # the same pixels
    table, found = check_folder(tmp_path, workers=3, progress=False)
    assert found == []
    assert list(table["category"]) == ["bolt"] * 4 + ["nut"] * 4


def test_every_problem_is_found_once_whatever_the_workers(nut):
    (nut / "train" / "good" / "000.png").write_bytes(b"")
    save(nut / "ground_truth" / "bent" / "000_mask.png", defect_mask(40))
    save(nut / "test" / "Bent" / "000.png", np.zeros((SIZE, SIZE), np.uint8))
    found = [check_folder(nut.parent, workers=n, progress=False) for n in (1, 4)]
    assert found[0][0].equals(found[1][0])
    assert found[0][1] == found[1][1]
    texts = [problem.text for problem in found[0][1]]
    assert len(texts) == len(set(texts)) == 4


@pytest.mark.skipif(not (REAL / "bottle").is_dir(), reason=f"needs MVTec AD's bottle in {REAL}")
def test_real_categories_are_clean(capsys):
    assert main(["check-data", str(REAL)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"bottle +train +good +209 +0 +448 x 448 +RGB\n", printed)
    assert printed.endswith("\n0 errors, 0 warnings\n")
