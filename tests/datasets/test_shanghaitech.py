"""ShanghaiTech Campus, on small videos, frames and masks in the set's own layout."""

import re
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from builders import picture, save, small_config, write_category
from conftest import snakemake
from stpm_bench.__main__ import main
from stpm_bench.config import complete, sources
from stpm_bench.datasets import layouts
from stpm_bench.datasets import prepare as module
from stpm_bench.datasets.check import check_folder
from stpm_bench.errors import InputError
from stpm_bench.results import anomaly_maps_of

HEIGHT, WIDTH = 48, 64


def write_video(path: Path, frames: int = 12) -> None:
    """Write a video whose frame i is grey, with the value 10 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_clip(root: Path, name: str, frames: int, anomalous: range, seed: int) -> None:
    """Write a test clip: noise, with a bright square in the frames `anomalous`."""
    masks = np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    masks[anomalous, 8:24, 16:40] = 1
    for i in range(frames):
        pixels = picture(seed + i, WIDTH)[:HEIGHT] // 2
        pixels[masks[i] > 0] = 250
        save(root / "testing" / "frames" / name / f"{i:03}.jpg", pixels)
    for folder, array in (
        ("test_pixel_mask", masks),
        ("test_frame_mask", masks.any(axis=(1, 2)).astype(np.int8)),
    ):
        (root / "testing" / folder).mkdir(exist_ok=True)
        np.save(root / "testing" / folder / f"{name}.npy", array)


def write_shanghaitech(root: Path) -> None:
    for name in ("01_001", "02_001"):
        write_video(root / "training" / "videos" / f"{name}.avi")
    write_clip(root, "01_0014", 6, range(2, 4), seed=0)
    write_clip(root, "02_0003", 5, range(0), seed=50)


@pytest.fixture
def campus(tmp_path):
    write_shanghaitech(tmp_path)
    return tmp_path


def prepare(root: Path, split: str, every: int = 1):
    return module.prepare(
        root, "all", split, WIDTH, progress=False, layout="shanghaitech", every=every
    )


def test_training_images_are_every_so_manyth_frame_of_each_video(campus):
    pixels, masks, table = prepare(campus, "train", every=4)
    assert masks is None
    assert table["file"].tolist() == [
        f"training/videos/{name}.avi#{i:06}" for name in ("01_001", "02_001") for i in (0, 4, 8)
    ]
    brightness = pixels.mean(axis=(1, 2, 3))
    assert brightness == pytest.approx([0, 40, 80] * 2, abs=3)
    assert table["sha256"].nunique() == 3  # both videos are the same
    # The last frame that the header promises is left out.
    assert len(prepare(campus, "train")[2]) == 2 * 11


def test_training_frames_do_not_depend_on_workers_or_on_test_files(campus):
    before = prepare(campus, "train")[0]
    (campus / "testing" / "test_pixel_mask" / "01_0014.npy").unlink()
    after = module.prepare(
        campus, "all", "train", WIDTH, workers=1, progress=False, layout="shanghaitech"
    )[0]
    assert np.array_equal(before, after)


def test_a_frame_is_anomalous_where_its_mask_has_a_pixel(campus):
    pixels, masks, table = prepare(campus, "test")
    names = [f"01_0014/{i:03}" for i in range(6)] + [f"02_0003/{i:03}" for i in range(5)]
    assert table["file"].tolist() == [f"testing/frames/{name}.jpg" for name in names]
    anomalous = np.isin(np.arange(11), [2, 3])
    assert (table["defect"] == np.where(anomalous, "anomaly", "good")).all()
    assert table["mask"].tolist()[2] == "testing/test_pixel_mask/01_0014.npy#000002"
    assert np.array_equal(masks["nearest"].any(axis=(1, 2)), anomalous)
    # At twice the height, squashed to a square; the mask as the image.
    wide = masks["nearest"][2]
    assert wide[11:31, 17:39].all()
    assert not wide[:9].any()
    assert not wide[34:].any()
    assert pixels[2][wide].mean() > 230
    assert masks["own"] == []
    subsampled = prepare(campus, "test", every=2)[1]["nearest"]
    assert subsampled.any(axis=(1, 2)).tolist() == [False, True, False, False, False, False]


def test_frames_beyond_999_come_after_it(tmp_path):
    write_shanghaitech(tmp_path)
    frames = tmp_path / "testing" / "frames" / "01_0014"
    for i in range(6):
        (frames / f"{i:03}.jpg").rename(frames / f"{996 + i}.jpg")
    table = layouts.list_images(tmp_path, "all", "test", "shanghaitech")
    shown = table.loc[table["defect"] == "anomaly", "file"]
    assert sorted(Path(file).name for file in shown) == ["998.jpg", "999.jpg"]
    table = layouts.list_images(tmp_path, "all", "test", "shanghaitech", every=2)
    of_clip = [Path(file).name for file in table["file"] if "01_0014" in file]
    assert sorted(of_clip) == ["1000.jpg", "996.jpg", "998.jpg"]


def test_check_data_reads_it_and_is_clean_but_for_frames_that_are_the_same(campus, capsys):
    arguments = ["check-data", str(campus), "--layout", "shanghaitech", "--every", "4"]
    assert main([*arguments, "--every-test", "2"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^all +train +good +6 +0 +64 x 48 +RGB", printed, re.M)
    assert re.search(r"^all +test +anomaly +1 +1 ", printed, re.M)
    assert "3 images are the same as an earlier one" in printed  # the two videos
    assert "0 errors, 1 warnings" in printed


def masks_file(root):
    return root / "testing" / "test_pixel_mask" / "01_0014.npy"


def cut_video(root):
    path = root / "training" / "videos" / "01_001.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def values_of(root, value, dtype):
    masks = np.load(masks_file(root)).astype(dtype)
    np.save(masks_file(root), masks * value)


@pytest.mark.parametrize(
    ("damage", "split", "message"),
    [
        (cut_video, "train", r"01_001\.avi: cannot be decoded \("),
        (
            lambda root: (root / "training/videos/02_001.avi").write_bytes(b"no video"),
            "train",
            r"02_001\.avi: cannot be decoded \(",
        ),
        (
            lambda root: [p.unlink() for p in (root / "training" / "videos").iterdir()],
            "train",
            r"videos: contains no video",
        ),
        (
            lambda root: (root / "testing/frames/01_0014/005.jpg").unlink(),
            "test",
            r"01_0014\.npy: has the shape \(6, 48, 64\)\. Expected 5 masks, \(5, H, W\)",
        ),
        (
            lambda root: (root / "testing/frames/01_0014").rename(root / "away"),
            "test",
            r"01_0014\.npy: masks without a clip",
        ),
        (lambda root: masks_file(root).unlink(), "test", r"01_0014\.npy: cannot be read \(No such"),
        (
            lambda root: masks_file(root).write_bytes(b"no array"),
            "test",
            r"01_0014\.npy: cannot be read \(.*Expected the clip's masks, \(frames, H, W\)",
        ),
        (
            lambda root: np.save(masks_file(root), np.zeros((6, 48), np.uint8)),
            "test",
            r"01_0014\.npy: has the shape \(6, 48\)",
        ),
        (
            lambda root: np.save(masks_file(root), np.ones((6, 24, 64), np.uint8)),
            "test",
            r"01_0014\.npy#00000\d: is 64 x 24 pixels, its image 64 x 48",
        ),
        (
            lambda root: values_of(root, 7, np.uint8),
            "test",
            r"#000002: is not binary \(it contains 2",
        ),
        (lambda root: values_of(root, 0, np.uint8), "test", r"frames: has good images only"),
        (
            lambda root: (root / "testing/frames/02_0003/001.jpg").write_bytes(b"x"),
            "test",
            r"001\.jpg: is not a complete image",
        ),
    ],
)
def test_what_is_wrong_is_named_by_prepare_and_by_check_data(campus, damage, split, message):
    damage(campus)
    with pytest.raises(InputError, match=message):
        prepare(campus, split)
    _, problems = check_folder(campus, "shanghaitech", progress=False)
    errors = pd.Series([p.text for p in problems if p.severity == "error"])
    assert errors.str.contains(message).any()
    other = {"train": "test", "test": "train"}[split]
    assert len(prepare(campus, other)[2])


@pytest.mark.parametrize("dtype", [bool, np.int64])
def test_masks_of_other_types(campus, dtype):
    values_of(campus, 1, dtype)
    assert prepare(campus, "test")[1]["nearest"].any(axis=(1, 2)).sum() == 2


def test_frame_masks_that_disagree_are_a_warning(campus):
    path = campus / "testing" / "test_frame_mask" / "01_0014.npy"
    for array, message in (
        (np.array([0, 1, 1, 1, 1, 0]), r"differs from the pixel masks in 2 of 6 frames"),
        (np.zeros(7), r"has the shape \(7,\), the clip 6 frames"),
    ):
        np.save(path, array)
        _, problems = layouts.scan(campus, "all", "test", "shanghaitech")
        assert [p.severity for p in problems] == ["warning"]
        assert pd.Series([p.text for p in problems]).str.contains(message).all()
        assert (prepare(campus, "test")[2]["defect"] == "anomaly").sum() == 2


def test_without_pyav_the_error_says_what_to_install(campus, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        InputError, match=r"PyAV.* is not installed.*pip install 'av>=12'.*conda install"
    ):
        prepare(campus, "train")
    assert len(prepare(campus, "test")[2]) == 11


# --- configs ---


def shanghaitech_config(folder: Path, **part) -> dict:
    part = {"path": str(folder / "campus"), "layout": "shanghaitech"} | part
    return small_config(folder, data={"sets": {"shanghaitech": part}})


def test_one_category_of_all_scenes(tmp_path):
    write_shanghaitech(tmp_path / "campus")
    config = shanghaitech_config(tmp_path, every=4)
    for category in ("all", ["shanghaitech.all"]):
        config["studies"]["main"]["category"] = category
        completed = complete(config)
        assert completed["studies"]["main"]["category"] == ["shanghaitech.all"]
    assert sources(completed)["shanghaitech.all"].every == {"train": 4, "test": 1}


def test_videos_need_the_key_every(tmp_path):
    with pytest.raises(InputError, match=r"'data\.sets\.shanghaitech' lacks 'every'"):
        complete(shanghaitech_config(tmp_path))
    with pytest.raises(InputError, match=r"campus: no category\. .*Expected training/videos/\*\.a"):
        complete(shanghaitech_config(tmp_path, every=4))


def test_a_run_has_pixel_and_frame_auroc_and_no_pro(tmp_path):
    """In a study with a set that has PRO, each of the two has a separate table."""
    write_shanghaitech(tmp_path / "campus")
    write_category(tmp_path / "own", "nut", train=4)
    config = shanghaitech_config(tmp_path, every=2, every_test=1)
    config["data"]["mvtec_ad"] = str(tmp_path / "own")
    results = tmp_path / "results"
    names = (
        "figures/failures.png",
        "figures/main.png",
        "figures/anomaly_maps/shanghaitech.all.pdf",
    )
    run = snakemake(config, *(str(results / name) for name in names))
    assert run.returncode == 0, run.stderr
    long = pd.read_csv(results / "metrics.csv").set_index(["category", "metric"])["value"]
    kept = [name for name in long["shanghaitech.all"].index if not name.startswith("last_epoch_")]
    assert kept == ["image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1_max"]
    assert "pro" in long["nut"].index
    cell = next((results / "cells").glob("category-shanghaitech.all_*"))
    masks = np.load(results / "prepared/shanghaitech.all/test/masks.npy")
    _, maps = anomaly_maps_of(cell)
    assert long["shanghaitech.all", "pixel_auroc"] == pytest.approx(
        roc_auc_score(masks.ravel(), maps.ravel())
    )
    assert long["shanghaitech.all", "image_auroc"] == pytest.approx(
        roc_auc_score(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)))
    )
    first, second = (results / "tables" / "main.md").read_text().split("## Study: main, ")
    assert "| nut " in first
    assert "shanghaitech" not in first
    assert "| frame AUROC" in second
    assert "PRO" not in second
    audited = pd.read_csv(results / "pro_definitions.csv")
    assert set(audited["category"]) == {"nut"}
    assert (results / "figures/anomaly_maps/shanghaitech.all.pdf").exists()
    failures = pd.read_csv(results / "tables/failures.csv")
    assert set(failures["category"]) == {"nut", "shanghaitech.all"}
