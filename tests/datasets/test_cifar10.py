"""One-class CIFAR-10, on small batches in the published files' format."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from builders import small_config
from conftest import snakemake
from stpm_bench.__main__ import main
from stpm_bench.config import complete, sources
from stpm_bench.datasets import cifar10, layouts, pretraining
from stpm_bench.datasets.check import check_folder
from stpm_bench.datasets.prepare import check_no_leak, prepare
from stpm_bench.errors import InputError


class Python2(pickle._Pickler):
    """Pickles as Python 2 did, which did not separate text from bytes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)

    dispatch[str] = dispatch[bytes] = save_string


def dump(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Python2(file, protocol=2).dump(content)
    # As an old NumPy wrote it.
    path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))


def write_cifar10(root: Path, batch: int = 20, test: int = 40) -> None:
    """Write CIFAR-10's files, `batch` images per training batch; labels cycle through classes."""
    rng = np.random.default_rng(0)
    for name in cifar10.PUBLISHED:
        count = batch if name.startswith("data") else test
        labels = [i % 10 for i in range(count)]
        # A class is a range of brightness, so that a student can tell its own from the others.
        noise = rng.integers(0, 30, (count, 3 * 32 * 32))
        data = (noise + 22 * np.array(labels)[:, None]).astype(np.uint8)
        names = [f"{cifar10.CLASSES[label]}_s_{i:06}.png" for i, label in enumerate(labels)]
        content = {b"data": data, b"labels": labels, b"filenames": names, b"batch_label": name}
        dump(root / cifar10.FOLDER / name, content)
    dump(root / cifar10.FOLDER / "batches.meta", {b"label_names": list(cifar10.CLASSES)})


def test_names_and_hashes_are_torchvisions():
    from torchvision.datasets import CIFAR10

    assert {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list)} == cifar10.PUBLISHED
    assert CIFAR10.base_folder == cifar10.FOLDER


def test_the_same_pixels_and_labels_as_torchvision_reads(tmp_path, monkeypatch):
    from torchvision.datasets import cifar

    write_cifar10(tmp_path)
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: Path(path).exists())
    theirs = pretraining.load("cifar10", tmp_path)
    assert theirs.classes == list(cifar10.CLASSES)
    batches = [tmp_path / cifar10.FOLDER / name for name in cifar10.BATCHES["train"]]
    ours = [cifar10.read_batch(path) for path in batches]
    assert np.array_equal(np.concatenate([pixels for pixels, _ in ours]), theirs.train_images)
    assert [label for _, labels in ours for label in labels] == theirs.train_labels.tolist()

    pixels, masks, table = prepare(
        tmp_path, "cat", "test", 32, progress=False, layout="cifar10_oneclass"
    )
    assert np.array_equal(pixels, theirs.test_images)
    names = [theirs.classes[label] for label in theirs.test_labels]
    assert table["defect"].tolist() == ["good" if name == "cat" else name for name in names]
    assert masks.pop("own") == []
    assert [array.shape for array in masks.values()] == [(0, 32, 32)] * 2
    assert "defect_pixels" not in table

    pixels, masks, table = prepare(
        tmp_path, "cat", "train", 32, progress=False, layout="cifar10_oneclass"
    )
    assert masks is None
    assert np.array_equal(pixels, theirs.train_images[theirs.train_labels == 3])
    assert table["file"].tolist()[:3] == [
        "data_batch_1#00003",
        "data_batch_1#00013",
        "data_batch_2#00003",
    ]
    assert table["sha256"].nunique() == 10


def test_a_copy_that_python_3_wrote_is_read(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / cifar10.FOLDER / "test_batch"
    before, labels = cifar10.read_batch(path)
    planes = before.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    for protocol in (2, 4, 5):
        for planes_key, labels_key in (("data", "labels"), (b"data", b"labels")):
            content = {planes_key: planes, labels_key: labels}
            path.write_bytes(pickle.dumps(content, protocol=protocol))
            after, again = cifar10.read_batch(path)
            assert np.array_equal(before, after)
            assert labels == again


def test_one_image_in_three_of_each_batch(tmp_path):
    write_cifar10(tmp_path)
    options = {"layout": "cifar10_oneclass", "every": 3}
    train = layouts.list_images(tmp_path, "bird", "train", **options)
    # Two of each class in a batch: the first is taken.
    assert train["file"].tolist() == [f"data_batch_{k}#00002" for k in range(1, 6)]
    test = layouts.list_images(tmp_path, "bird", "test", **options)
    assert test["file"].tolist() == [f"test_batch#{i:05}" for i in range(0, 40, 3)]
    with pytest.raises(InputError, match=r"test images of bird.* one in 10 .*every_test"):
        layouts.list_images(tmp_path, "bird", "test", "cifar10_oneclass", every=10)


def test_check_data_warns_of_batches_that_are_not_the_published_ones(tmp_path, capsys):
    write_cifar10(tmp_path)
    assert main(["check-data", str(tmp_path), "--layout", "cifar10_oneclass"]) == 0
    printed = capsys.readouterr().out
    assert "0 errors, 6 warnings" in printed
    assert "test_batch: is not the published batch, by its MD5. Expected 40351d58" in printed
    assert "500 images and 0 masks in 10 categories" in printed  # each test image ten times


class Evil:
    def __reduce__(self):
        return (print, ("run by a pickle",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "cannot be read"),
        (lambda path: path.write_bytes(b""), r"cannot be read \(EOFError"),
        (lambda path: path.unlink(), r"cannot be read \(No such file"),
        (lambda path: dump(path, {b"labels": [1]}), r"cannot be read \(KeyError: 'data'"),
        (
            lambda path: dump(path, {b"data": np.zeros((2, 7), np.uint8), b"labels": [0, 1]}),
            r"holds uint8 data of shape \(2, 7\) and 2 labels\. Expected uint8 of \(N, 3072\)",
        ),
        (
            lambda path: dump(path, {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}),
            r"N labels from 0 to 9; unpack",
        ),
        (lambda path: path.write_bytes(pickle.dumps(Evil())), r"builtins\.print"),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_2", "test_batch"])
def test_damaged_batches_are_named(tmp_path, capsys, name, damage, message):
    write_cifar10(tmp_path)
    damage(tmp_path / cifar10.FOLDER / name)
    split = "test" if name == "test_batch" else "train"
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        prepare(tmp_path, "cat", split, 32, layout="cifar10_oneclass")
    _, problems = check_folder(tmp_path, "cifar10_oneclass", progress=False)
    assert (
        pd.Series([p.text for p in problems if p.severity == "error"]).str.contains(message).any()
    )
    assert "run by a pickle" not in capsys.readouterr().out


def test_a_test_image_that_trains_is_a_warning(tmp_path):
    """It cannot be removed from the published files."""
    write_cifar10(tmp_path)
    content = (tmp_path / cifar10.FOLDER / "data_batch_1").read_bytes()
    (tmp_path / cifar10.FOLDER / "test_batch").write_bytes(content)
    options = {"layout": "cifar10_oneclass", "progress": False}
    train, test = (prepare(tmp_path, "dog", s, 32, **options)[2] for s in ("train", "test"))
    with pytest.warns(UserWarning, match=r"^2 test images; the first: .*test_batch#00005: is the"):
        check_no_leak(train, test, tmp_path, "dog", "cifar10_oneclass")
    table, problems = check_folder(tmp_path, "cifar10_oneclass", progress=False)
    assert {p.severity for p in problems} == {"warning"}
    assert sum("2 images are the same as an earlier one" in p.text for p in problems) == 10
    assert len(table) == 110


# --- configs ---


def cifar10_config(folder: Path, part: dict) -> dict:
    sets = {"cifar10_oneclass": {"layout": "cifar10_oneclass"} | part}
    config = small_config(folder, data={"sets": sets, "folder": str(folder / "data")})
    return config | {"image_size": 32}


def test_ten_categories_in_torchvisions_order(tmp_path):
    write_cifar10(tmp_path / "own")
    part = {"path": str(tmp_path / "own"), "every_test": 2}
    config = complete(cifar10_config(tmp_path, part))
    names = [f"cifar10_oneclass.{name}" for name in cifar10.CLASSES]
    assert config["data"]["categories"] == names
    found = sources(config)["cifar10_oneclass.cat"]
    assert found[:4] == (str(tmp_path / "own"), "cat", "cifar10_oneclass", None)
    assert found.every == {"train": 1, "test": 2}
    assert complete(config) == config


def test_without_a_path_it_is_the_teachers_download(tmp_path):
    found = sources(complete(cifar10_config(tmp_path, {})))["cifar10_oneclass.ship"]
    assert found.root == str(tmp_path / "data")
    assert found.marker == str(tmp_path / "results" / "pretraining" / "cifar10.npz")


def test_a_path_that_does_not_hold_it(tmp_path):
    write_cifar10(tmp_path / "own")
    for path, reason in (
        (tmp_path / "absent", "There is no such folder"),
        (tmp_path / "own" / cifar10.FOLDER, "It contains no category"),
    ):
        message = rf"data\.sets\.cifar10_oneclass\.path': {path}: no category\. {reason}\. Expected"
        with pytest.raises(InputError, match=f"{message} cifar-10-batches-py/ with data_batch_1"):
            complete(cifar10_config(tmp_path, {"path": str(path)}))


def test_a_run_of_two_classes_alone(tmp_path):
    """From the batches to every table, figure and notebook; there is no pixel metric."""
    write_cifar10(tmp_path / "own")
    config = cifar10_config(tmp_path, {"path": str(tmp_path / "own")})
    config["studies"]["main"]["category"] = [
        f"cifar10_oneclass.{name}" for name in ("cat", "truck")
    ]
    run = snakemake(config)
    assert run.returncode == 0, run.stderr
    results = tmp_path / "results"
    long = pd.read_csv(results / "metrics.csv")
    assert set(long["metric"]) == {"image_auroc"}
    assert len(long) == 2
    cell = next((results / "cells").glob("category-cifar10_oneclass.cat_*"))
    scores = pd.read_csv(cell / "image_scores.csv")
    assert scores["defect"].value_counts().to_dict() == {
        name if name != "cat" else "good": 4 for name in cifar10.CLASSES
    }
    expected = roc_auc_score(scores["defect"] != "good", scores["score"])
    values = json.loads((cell / "metrics.json").read_text())
    assert values["image_auroc"] == pytest.approx(expected)
    for name in ("pro_curve.csv", "pro_definitions.csv"):
        assert pd.read_csv(cell / name).empty
    table = (results / "tables" / "main.md").read_text()
    assert "## Study: main, cifar10_oneclass" in table
    assert re.search(r"\| category +\| image AUROC +\|\n", table)
    for text in (table, (results / "tables" / "main.tex").read_text()):
        assert "n/a" not in text
        assert "PRO" not in text
    header = (results / "tables" / "main.csv").read_text().splitlines()[0].split(",")
    assert not {"pro", "pixel_auroc"} & set(header)
    assert (results / "notebooks" / "05_pro_definitions.html").exists()
    assert "Nothing to be done" in snakemake(config).stderr


def test_without_a_path_the_run_makes_the_pretraining_set_first(tmp_path):
    run = snakemake(cifar10_config(tmp_path, {}), "--dry-run")
    assert run.returncode == 0, run.stderr
    assert re.search(r"^pretraining_set +1$", run.stdout, re.M)
    assert re.search(r"^prepare_test +10$", run.stdout, re.M)
