"""Small sets in the real layouts of VisA, BTAD and MPDD, and configs with several sets."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_cifar10 import write_cifar10
from test_shanghaitech import write_shanghaitech

from builders import picture, save, small_config, write_nut
from conftest import REPOSITORY, snakemake
from stpm_bench.config import complete, sources
from stpm_bench.datasets import layouts, mvtec
from stpm_bench.datasets.check import check_folder
from stpm_bench.datasets.prepare import prepare
from stpm_bench.errors import InputError
from stpm_bench.grid import cells, studies

SIZE = 64


def numbers_mask(*values: int) -> np.ndarray:
    """A mask with a band of each value."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for i, value in enumerate(values):
        mask[10 + 20 * i : 20 + 20 * i, 5:40] = value
    return mask


def write_visa(root, *objects: str):
    """VisA as unpacked: JPEGs, masks that hold kinds of defect, normal images in one folder."""
    lines = ["object,split,label,image,mask"]
    for k, name in enumerate(objects):
        data = root / name / "Data"
        for i in range(6):
            file = data / "Images" / "Normal" / f"{i:04}.JPG"
            save(file, picture(100 * k + i, SIZE))
            split = "train" if i < 4 else "test"
            lines.append(f"{name},{split},normal,{file.relative_to(root).as_posix()},")
        for i in range(2):
            file, mask = (data / part / "Anomaly" / f"{i:03}" for part in ("Images", "Masks"))
            image = picture(100 * k + 50 + i, SIZE)
            image[numbers_mask(1, 5) > 0] = 250
            save(file.with_suffix(".JPG"), image)
            save(mask.with_suffix(".png"), numbers_mask(1, 5))
            image, mask = (p.relative_to(root).as_posix() for p in (file, mask))
            lines.append(f"{name},test,anomaly,{image}.JPG,{mask}.png")
        (root / name / "image_anno.csv").write_text("image,label,mask\n")
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines) + "\n")
    return table


def write_btad(root):
    """BTAD as unpacked: 01 and 03 are BMP, 02 PNG; the masks of 03 are BMP, the others' PNG."""
    for k, (name, image, mask) in enumerate(
        [("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")]
    ):
        for i in range(3):
            save(root / name / "train" / "ok" / f"{i:04}.{image}", picture(100 * k + i, SIZE))
        for i in range(2):
            seed = 100 * k + 50 + i
            save(root / name / "test" / "ok" / f"{i:04}.{image}", picture(seed, SIZE))
            save(root / name / "test" / "ko" / f"{i:04}.{image}", picture(seed + 20, SIZE))
            save(root / name / "ground_truth" / "ko" / f"{i:04}.{mask}", numbers_mask(255))


def write_mpdd(root):
    """MPDD: MVTec AD's layout; one category has a single kind of defect."""
    write_nut(root, "bracket_black")
    folder = write_nut(root, "metal_plate")
    for part in ("test", "ground_truth"):
        for path in (folder / part / "scratch").iterdir():
            path.unlink()
        (folder / part / "bent").rename(folder / part / "major_rust")


def prepare_test(root, category: str, layout: str):
    """Return the nearest masks and the table of a test split, at the images' own size."""
    _, masks, table = prepare(root, category, "test", SIZE, layout=layout)
    return masks["nearest"], table


# --- what each layout lists ---


def test_visa(tmp_path):
    write_visa(tmp_path, "candle", "pcb1")
    assert layouts.list_categories(tmp_path, "visa") == ["candle", "pcb1"]
    assert layouts.count_images(tmp_path, "pcb1", "visa") == (4, 4)
    train = layouts.list_images(tmp_path, "candle", "train", "visa")
    assert train["file"].tolist() == [f"Data/Images/Normal/000{i}.JPG" for i in range(4)]
    test = layouts.list_images(tmp_path, "candle", "test", "visa")
    assert [tuple(row) for row in test.to_numpy()] == [
        ("Data/Images/Anomaly/000.JPG", "anomaly", "Data/Masks/Anomaly/000.png"),
        ("Data/Images/Anomaly/001.JPG", "anomaly", "Data/Masks/Anomaly/001.png"),
        ("Data/Images/Normal/0004.JPG", "good", ""),
        ("Data/Images/Normal/0005.JPG", "good", ""),
    ]
    masks, table = prepare_test(tmp_path, "candle", "visa")
    assert np.array_equal(masks[0], numbers_mask(1, 5) > 0)
    assert list(table["defect_pixels"]) == [700, 700, 0, 0]
    _, every, _ = prepare(tmp_path, "candle", "test", 8, layout="visa")
    assert np.array_equal(every["own"][1], masks[1])


def test_visa_masks_with_a_palette_count_by_number(tmp_path):
    """All colours of this palette are black."""
    write_visa(tmp_path, "candle")
    mask = Image.fromarray(numbers_mask(3), "P")
    mask.putpalette([0] * 768)
    mask.save(tmp_path / "candle/Data/Masks/Anomaly/000.png")
    masks, _ = prepare_test(tmp_path, "candle", "visa")
    assert np.array_equal(masks[0], numbers_mask(3) > 0)


def test_numbers_in_a_mask_are_an_error_in_the_other_layouts(tmp_path):
    write_mpdd(tmp_path)
    mask = numbers_mask(1, 5)[:32, :32]
    save(tmp_path / "bracket_black/ground_truth/bent/000_mask.png", mask // 255 + mask)
    with pytest.raises(InputError, match=r"000_mask\.png: is not binary"):
        prepare(tmp_path, "bracket_black", "test", 32, layout="mpdd")


def test_btad(tmp_path):
    write_btad(tmp_path)
    assert layouts.list_categories(tmp_path, "btad") == ["01", "02", "03"]
    assert layouts.count_images(tmp_path, "03", "btad") == (3, 4)
    train = layouts.list_images(tmp_path, "01", "train", "btad")
    assert train["file"].tolist() == [f"train/ok/000{i}.bmp" for i in range(3)]
    assert set(train["defect"]) == {"good"}
    for name, image, mask in (("01", "bmp", "png"), ("03", "bmp", "bmp")):
        test = layouts.list_images(tmp_path, name, "test", "btad")
        assert [tuple(row) for row in test.to_numpy()] == [
            (f"test/ko/0000.{image}", "ko", f"ground_truth/ko/0000.{mask}"),
            (f"test/ko/0001.{image}", "ko", f"ground_truth/ko/0001.{mask}"),
            (f"test/ok/0000.{image}", "good", ""),
            (f"test/ok/0001.{image}", "good", ""),
        ]
    masks, _ = prepare_test(tmp_path, "03", "btad")
    assert np.array_equal(masks.any(axis=(1, 2)), [True, True, False, False])


def test_mpdd(tmp_path):
    write_mpdd(tmp_path)
    test = layouts.list_images(tmp_path, "metal_plate", "test", "mpdd")
    assert set(test["defect"]) == {"good", "major_rust"}
    assert layouts.count_images(tmp_path, "bracket_black", "mpdd") == (3, 6)


@pytest.mark.parametrize("layout", ["visa", "btad", "mpdd"])
def test_each_is_clean_when_checked(tmp_path, layout):
    {"visa": lambda root: write_visa(root, "candle"), "btad": write_btad, "mpdd": write_mpdd}[
        layout
    ](tmp_path)
    table, problems = check_folder(tmp_path, layout, progress=False)
    assert problems == []
    assert list(table["category"].unique()) == layouts.list_categories(tmp_path, layout)


@pytest.mark.parametrize("layout", list(layouts.LAYOUTS))
def test_training_sources_hold_no_test_image(tmp_path, layout):
    {
        "visa": lambda root: write_visa(root, "nut"),
        "btad": write_btad,
        "cifar10_oneclass": write_cifar10,
        "shanghaitech": write_shanghaitech,
    }.get(layout, write_mpdd)(tmp_path)
    category = layouts.list_categories(tmp_path, layout)[0]
    folder = layouts.LAYOUTS[layout].folder(tmp_path, category)
    rows = {
        split: layouts.scan(tmp_path, category, split, layout)[0] for split in ("train", "test")
    }
    for split, other in (("train", "test"), ("test", "train")):
        found = layouts.LAYOUTS[layout].sources(tmp_path, category, split)
        files = {f for path in found for f in ([path] if path.is_file() else path.rglob("*"))}
        of_split, of_other = (
            {folder / (layouts.container_of(row.file, layout) or row.file) for row in rows[part]}
            for part in (split, other)
        )
        assert of_split <= files
        assert not of_other & files


# --- what is wrong with them ---


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("object,split", "thing,split", r"1cls\.csv: lacks the columns object"),
        ("candle,train,normal,candle/Data/Images/Normal/0000.JPG,", "", "no"),
        ("Normal/0000.JPG", "Normal/9999.JPG", r"9999\.JPG: cannot be read \(No such file"),
        ("candle,train", "candle,trian", r"its split is 'trian'\. Expected train or test"),
        ("test,anomaly", "test,bad", r"its label is 'bad'\. Expected normal or anomaly"),
        ("test,anomaly", "train,anomaly", r"JPG: is an anomaly in the split train"),
        ("normal,candle/Data", "normal,../candle/Data", r"JPG: is not in the folder of its object"),
        ("normal,candle/Data", "normal,/candle/Data", r"JPG: is not in the folder of its object"),
        ("Normal/0005.JPG", "Normal/0000.JPG", r"0000\.JPG: is listed twice"),
        ("Masks/Anomaly/000.png", "Masks/Anomaly/9.png", r"Anomaly.9\.png: cannot be read"),
        (",candle/Data/Masks/Anomaly/000.png", ",", r"000\.JPG: its mask is missing"),
        ("test,anomaly", "test,normal", r"1cls\.csv: has good images only"),
        ("test,normal", "train,normal", r"1cls\.csv: has no good images \(found only anomaly\)"),
        ("test,", "train,", r"1cls\.csv: has no test images of candle"),
    ],
)
def test_a_damaged_table_of_visa(tmp_path, old, new, message):
    table = write_visa(tmp_path, "candle")
    table.write_text(table.read_text().replace(old, new))
    _, problems = check_folder(tmp_path, "visa", progress=False)
    if message == "no":
        assert problems == []
        return
    assert any(pd.Series([p.text for p in problems]).str.contains(message))
    refused = []
    for split in ("train", "test"):
        try:
            prepare(tmp_path, "candle", split, 8, layout="visa")
        except InputError as error:
            refused.append(str(error))
    assert re.search(message, "\n".join(refused))


def test_a_mask_of_visa_that_marks_a_normal_image(tmp_path):
    table = write_visa(tmp_path, "candle")
    line = "candle,test,normal,candle/Data/Images/Normal/0004.JPG,"
    assert line in table.read_text()
    mask = "candle/Data/Masks/Normal/0004.png"
    table.write_text(table.read_text().replace(line, line + mask))
    save(tmp_path / mask, numbers_mask())
    assert check_folder(tmp_path, "visa", progress=False)[1] == []
    save(tmp_path / mask, numbers_mask(3))
    message = "0004.png: marks a defect in an image that counts as anomaly-free"
    [problem] = check_folder(tmp_path, "visa", progress=False)[1]
    assert message in problem.text
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, "candle", "test", 8, layout="visa")


def test_visa_without_its_table(tmp_path):
    table = write_visa(tmp_path, "candle")
    for content in (b"\xff\xfe\x00", None):
        table.unlink() if content is None else table.write_bytes(content)
        with pytest.raises(InputError, match=r"1cls\.csv: cannot be read \(.*Expected VisA's tab"):
            layouts.list_images(tmp_path, "candle", "train", "visa")


def test_a_good_folder_in_btad_is_an_error(tmp_path):
    write_btad(tmp_path)
    os.rename(tmp_path / "01/test/ok", tmp_path / "01/test/good")
    with pytest.raises(InputError, match=r"test.good: expected anomaly-free images in test/ok"):
        layouts.list_images(tmp_path, "01", "test", "btad")


def test_a_set_in_another_layout_is_named(tmp_path):
    write_visa(tmp_path, "candle")
    text = layouts.no_category(tmp_path, "mvtec")
    assert "in this layout, but some in visa." in text


# --- configs with several sets ---


def sets_config(folder, **changes) -> dict:
    """VisA, BTAD and a user's folder; their categories share the name 01."""
    write_visa(folder / "visa", "01", "candle")
    write_btad(folder / "btad")
    write_nut(folder / "own", "01")
    sets = {
        "visa": {"path": str(folder / "visa"), "layout": "visa"},
        "btad": {"path": str(folder / "btad"), "layout": "btad"},
    }
    return small_config(folder, data={"sets": sets}) | changes


def test_categories_of_sets_have_their_set_as_prefix(tmp_path):
    config = complete(sets_config(tmp_path))
    assert config["data"]["categories"] == [
        "visa.01",
        "visa.candle",
        "btad.01",
        "btad.02",
        "btad.03",
    ]
    assert sources(config)["btad.01"][:4] == (str(tmp_path / "btad"), "01", "btad", None)
    assert complete(config) == config


def test_a_folder_in_addition_to_sets_keeps_its_names(tmp_path):
    config = sets_config(tmp_path)
    config["data"]["mvtec_ad"] = str(tmp_path / "own")
    config["data"]["categories"] = ["01", "visa.all", "btad.02", "btad.all"]
    config["studies"]["main"]["category"] = ["btad.all", "01"]
    config = complete(config)
    assert config["data"]["categories"] == [
        "01",
        "visa.01",
        "visa.candle",
        "btad.02",
        "btad.01",
        "btad.03",
    ]
    assert config["studies"]["main"]["category"] == ["btad.02", "btad.01", "btad.03", "01"]
    assert cells(studies(config))[-1].folder.startswith("category-01_layers-1+2_teacher-random")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sets": {"a b": {"path": "x", "layout": "visa"}}}, "data.sets.*found the name 'a b'"),
        ({"sets": {"mean": {"path": "x", "layout": "visa"}}}, "found the name 'mean'"),
        ({"sets": {"a": {"path": "x"}}}, r"'data\.sets\.a' lacks 'layout'"),
        ({"sets": {"a": {"path": "x", "layout": "loco"}}}, "'loco'; allowed: mvtec, visa, btad, m"),
        ({"sets": {"a": {"path": "x", "layout": "btad"}}}, r"data\.sets\.a\.path': x: no category"),
        ({"sets": {"a": {"path": "x", "layout": "btad"}}, "demo": True}, "'demo: true' and 'sets'"),
        (
            {"sets": {"a": {"path": "x", "layout": "visa"}}},
            r"data\.sets\.a\.path': x: no category\. There is no such folder\.",
        ),
    ],
)
def test_sets_that_are_wrong(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        complete(small_config(tmp_path, data=data))


def test_a_set_may_not_have_the_name_of_a_category(tmp_path):
    config = sets_config(tmp_path)
    config["data"] = {
        "mvtec_ad": str(tmp_path / "own"),
        "sets": {"01": {"path": str(tmp_path / "btad"), "layout": "btad"}},
    }
    with pytest.raises(InputError, match=r"data\.sets\.01': a category of data\.mvtec_ad has"):
        complete(config)


def test_an_unknown_category_of_a_set(tmp_path):
    config = sets_config(tmp_path)
    config["studies"]["main"]["category"] = ["visa.pcb1", "mpdd.all"]
    with pytest.raises(InputError) as caught:
        complete(config)
    assert "'visa.pcb1' is unknown; allowed: all, visa.01, visa.candle" in str(caught.value)
    assert "'mpdd.all' is unknown" in str(caught.value)


def test_an_archive_is_unpacked_and_nothing_is_downloaded(tmp_path):
    archive = tmp_path / "mvtec.tar.xz"
    archive.write_bytes(b"")
    config = small_config(tmp_path, data={"mvtec_ad": str(archive), "folder": "store"})
    found = sources(complete(config))
    assert len(found) == 15
    assert found["bottle"].root == "store/mvtec_ad"
    assert found["bottle"].marker == "store/mvtec_ad/download.json"


def test_an_archive_that_is_not_the_published_one_stops_the_run(tmp_path):
    archive = tmp_path / "my archive.tar.xz"
    archive.write_bytes(b"no archive")
    data = {"mvtec_ad": str(archive), "folder": str(tmp_path / "store")}
    run = snakemake(small_config(tmp_path, data=data), f"{tmp_path}/store/mvtec_ad/download.json")
    assert run.returncode != 0
    assert f"error: {archive}: is not the published archive. Expected sha256 cf4313b1" in run.stderr
    assert "CC BY-NC-SA 4.0" in run.stderr
    assert "To download" not in run.stderr
    assert "Traceback" not in run.stderr


def test_the_record_of_a_download_survives_another_run_of_its_rule(tmp_path):
    """Without it the unpacked categories would be taken for the user's own."""
    folder = tmp_path / "store" / "mvtec_ad"
    for category, numbers in mvtec.COUNTS.items():
        for split, count in zip(("train", "test"), numbers, strict=True):
            (folder / category / split / "good").mkdir(parents=True)
            for i in range(count):
                (folder / category / split / "good" / f"{i:03}.png").touch()
    record = json.dumps({"dataset": "mvtec_ad", "url": "file:///a.tar.xz", "own": ["bottle"]})
    (folder / "download.json").write_text(record)
    config = small_config(tmp_path, data={"folder": str(tmp_path / "store")})
    run = snakemake(config, f"{folder}/download.json", "--forcerun", "download")
    assert run.returncode == 0, run.stderr
    assert "1 of 1 steps" in run.stderr
    assert (folder / "download.json").read_text() == record


def test_two_sets_in_one_run(tmp_path):
    """Each is prepared by its own layout; an image of one set is that set's alone."""
    config = sets_config(tmp_path)
    config["studies"]["main"]["category"] = ["visa.01", "btad.01"]
    prepared = tmp_path / "results" / "prepared"
    targets = [f"{prepared}/{name}/test/images.npy" for name in ("visa.01", "btad.01")]
    run = snakemake(config, *targets)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in prepared.iterdir()} == {"visa.01", "btad.01"}
    assert np.load(prepared / "visa.01/test/masks.npy").sum() == 2 * 700
    manifest = pd.read_csv(prepared / "btad.01/train/images.csv")
    assert manifest["file"].tolist() == [f"train/ok/000{i}.bmp" for i in range(3)]

    save(tmp_path / "visa/01/Data/Images/Normal/0000.JPG", picture(77, SIZE))
    run = snakemake(config, "--dry-run")
    cell = "category-visa.01_layers-1+2_teacher-random_fraction-1.0_seed-0_method-stpm"
    assert f"{tmp_path}/results/fits/{cell}/model.pt" in run.stdout
    jobs = [line.split() for line in run.stdout.splitlines()]
    for job in (["fit", "2"], ["prepare_train", "1"], ["prepare_test", "1"]):
        assert job in jobs  # prepare_test too: it is compared with the training images


def test_the_schema_and_the_steps_know_every_layout():
    import typing

    import yaml

    from stpm_bench.steps.options import Layout

    schema = yaml.safe_load((REPOSITORY / "stpm_bench/config.schema.yaml").read_text())
    sets = schema["properties"]["data"]["properties"]["sets"]
    allowed = sets["additionalProperties"]["properties"]["layout"]["enum"]
    assert allowed == list(layouts.LAYOUTS)
    assert list(typing.get_args(typing.get_args(Layout)[0])) == allowed
