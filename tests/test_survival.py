"""What a run survives: a full disk, one that turns read-only, damaged files, SIGKILL."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import soak
from builders import small_config, write_category
from conftest import REPOSITORY, snakemake
from stpm_bench.__main__ import main
from stpm_bench.errors import InputError
from stpm_bench.files import (
    atomic_write,
    forget_hashes,
    read_json,
    record_hashes,
    verified,
    write_array,
    write_arrays,
    write_csv,
    write_json,
    write_tensors,
)
from stpm_bench.report.style import save

NOISE = np.random.default_rng(0).integers(0, 256, 3 << 20, dtype=np.uint8)


def figure(path: Path) -> None:
    canvas = plt.figure(figsize=(5, 5))
    canvas.add_subplot().imshow(NOISE.reshape(1024, 1024, 3), interpolation="none")
    save(canvas, path)


# Every way in which a step writes a file, each of a file that is larger than the small disk.
WRITERS = {
    "x.json": lambda path: write_json(path, {"noise": NOISE.tobytes().hex()}),
    "x.csv": lambda path: write_csv(path, pd.DataFrame({"noise": NOISE})),
    "x.npy": lambda path: write_array(path, NOISE),
    "x.npz": lambda path: write_arrays(path, {"noise": NOISE}),
    "x.pt": lambda path: write_tensors(path, {"noise": torch.from_numpy(NOISE)}),
    "x.png": figure,
    "x.pdf": figure,
}


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A folder on a disk of its own, of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted: {getattr(error, 'stderr', error)}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> bool:
    """Change the disk of a folder; False where it cannot be done now.

    Read-only it must be by its mount: permissions do not bind root, who alone may mount.
    """
    return subprocess.run(["mount", "-o", f"remount,{options}", str(folder)]).returncode == 0


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_keeps_the_old_file(small_disk, name):
    path = small_disk / name
    path.write_text("old")
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(.*(No space|a full disk)"):
        WRITERS[name](path)
    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


def test_a_disk_that_turns_read_only_is_named_and_the_write_goes_on_afterwards(small_disk):
    def write(text, read_only_after=False):
        with atomic_write(small_disk / "x.csv") as temporary:
            temporary.write_text(text)
            if read_only_after:
                remount(small_disk, "ro")

    write("old")
    for _ in range(2):  # it turns while a file is written, and is so before one is begun
        with pytest.raises(InputError, match=r"x.csv: cannot be written \(Read-only file system"):
            write("new", read_only_after=True)
        assert (small_disk / "x.csv").read_text() == "old"
    remount(small_disk, "rw")
    write("new")
    assert [path.read_text() for path in small_disk.iterdir()] == ["new"]


def test_a_step_whose_log_finds_no_space_says_so_in_one_line(small_disk):
    room = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(room))
    step = [sys.executable, "-m", "stpm_bench", "demo-data", "--output", str(small_disk / "demo")]
    options = ["--marker", str(small_disk / "made.json"), "--log", str(small_disk / "demo.log")]
    run = subprocess.run([*step, *options], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: {small_disk}/")
    assert "No space left on device" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_run_that_filled_its_disk_goes_on_when_there_is_room(small_disk, tmp_path):
    write_category(tmp_path / "data", "alpha")
    results = small_disk / "results"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(small_config(tmp_path, results=str(results))))
    target = str(results / "teachers" / "random.json")
    run = snakemake(config, target)
    assert run.returncode != 0
    assert f"error: {results}/teachers/random.pt: cannot be written (No space left on" in run.stderr
    assert "Traceback" not in run.stderr
    assert [path for path in results.rglob("*.pt")] == []
    remount(small_disk, "size=200m")
    assert snakemake(config, target).returncode == 0


CELL = "cells/category-alpha_layers-1+2_teacher-random_fraction-1.0_seed-0_method-stpm"
FIT = CELL.replace("cells/", "fits/")
SCORE = ["score", "--test", "prepared/alpha/test", "--teacher", "teachers/random.pt"]
SCORE += ["--fit", FIT, "--layers", "1+2"]
TRAIN = ["fit", "--train", "prepared/alpha/train", "--teacher", "teachers/random.pt"]
TRAIN += ["--layers", "1+2", "--output", FIT]
EVALUATE = ["evaluate", "--test", "prepared/alpha/test", "--fit", FIT, "--cell", CELL]
EVALUATE += ["--settings", '{"masks": "nearest"}']
COLLECT = ["collect", "--results", "."]
ALL = ["--results", ".", "--main", "main"]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("prepared/alpha/train/images.npy", TRAIN),
        ("prepared/alpha/train/images.csv", TRAIN),
        ("teachers/random.pt", TRAIN),
        ("teachers/random.pt", SCORE),
        ("prepared/alpha/test/images.npy", SCORE),
        (f"{FIT}/model.pt", SCORE),
        (f"{FIT}/fit.json", SCORE),
        ("prepared/alpha/test/masks.npy", EVALUATE),
        ("prepared/alpha/test/masks_own.npz", EVALUATE),
        ("prepared/alpha/test/images.csv", EVALUATE),
        (f"{FIT}/level_maps.npz", EVALUATE),
        (f"{FIT}/fit.json", EVALUATE),
        (f"{FIT}/score.json", EVALUATE),
        (f"{CELL}/metrics.json", COLLECT),
        ("studies.csv", COLLECT),
        ("metrics.csv", ["tables", *ALL]),
        (f"{CELL}/pro_definitions.csv", COLLECT),
        ("pro_definitions.csv", ["tables", *ALL]),
        (f"{CELL}/evaluation.json", ["tables", *ALL]),
        ("teachers/random.json", ["tables", *ALL]),
        ("config.yaml", ["claims", *ALL]),
        ("tables/cost.csv", ["claims", *ALL]),
        ("tables/main.csv", ["figures", *ALL]),
        (f"{FIT}/history.csv", ["figures", *ALL]),
        (f"{CELL}/pro_curve.csv", ["figures", *ALL]),
        (f"{FIT}/level_maps.npz", ["failures", *ALL]),
        (f"{CELL}/image_scores.csv", ["failures", *ALL]),
    ],
)
def test_a_flipped_bit_in_any_file_that_a_step_reads_is_named(
    finished, name, step, tmp_path, monkeypatch, capsys
):
    # Hard links suffice: a step replaces a file, it never changes one in place.
    shutil.copytree(finished / "results", tmp_path / "results", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "results")
    damaged = bytearray(Path(name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path(name).unlink()
    Path(name).write_bytes(damaged)
    assert main(step) == 1
    assert capsys.readouterr().err.startswith(f"error: {name}: is not what was written (expected")


def test_anybody_can_check_the_files(finished):
    for record in (finished / "results").rglob("*.sha256"):
        check = ["sha256sum", "--check", "--quiet", record.name]
        assert subprocess.run(check, cwd=record.parent).returncode == 0, record


def test_a_pretraining_set_that_is_damaged_is_named(tmp_path, capsys):
    output = tmp_path / "digits.npz"
    assert main(["pretraining-set", "--source", "digits", "--output", str(output)]) == 0
    content = bytearray(output.read_bytes())
    content[-100] ^= 1
    output.write_bytes(content)
    pretrain = ["--pretrain", "digits", "--data", str(output), "--epochs", "1"]
    step = ["teacher", "--backbone", "resnet18", *pretrain, "--output", str(tmp_path / "x.pt")]
    assert main(step) == 1
    assert f"error: {output}: is not what was written" in capsys.readouterr().err
    assert not (tmp_path / "x.pt").exists()


def test_an_old_record_is_removed_before_a_new_file_is_written(tmp_path):
    """However far a step that writes again comes, what it leaves can be read."""
    path, record = tmp_path / "x.json", tmp_path / "x.sha256"
    for run in (1, 2):
        forget_hashes(record)
        write_json(path, {"run": run})
        assert read_json(path) == {"run": run}  # a step that is killed here leaves no record
        record_hashes(record, path.name)
        assert read_json(path) == {"run": run}
    write_json(path, {"run": 3})
    with pytest.raises(InputError, match=r"x.json: is not what was written .*x.sha256.*Delete it"):
        read_json(path)
    record.unlink()  # as of another method's file
    assert read_json(path) == {"run": 3}


@pytest.mark.parametrize("name", ["history.csv", "metrics.json", "level_maps.npz"])
def test_a_step_that_is_killed_while_it_writes_leaves_files_that_can_be_read(
    finished, name, tmp_path, monkeypatch
):
    """A cell's steps run again, each killed after it has written this file."""
    shutil.copytree(finished / "results", tmp_path / "results", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "results")
    replace = os.replace

    def killed(source, target):
        replace(source, target)
        if Path(target).name == name:
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    step = {"history.csv": TRAIN, "metrics.json": EVALUATE, "level_maps.npz": SCORE}[name]
    folder = CELL if step is EVALUATE else FIT
    before = Path(folder, name).stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        main(step)
    assert Path(folder, name).stat().st_mtime_ns > before
    for path in Path(folder).iterdir():
        assert verified(path) == path


def test_a_run_that_is_killed_gives_the_same_bytes(finished, tmp_path):
    """A small version of tests/soak.py, which kills the demo twenty times."""
    config, results = soak.write_config(finished / "config.yaml", tmp_path, "killed")
    among = ("cells/*", "fits/*", "prepared/*", "teachers/*")
    among += ("config.yaml", "studies.csv", "metrics.csv")
    assert soak.disturb(config, results, 45, 1, 0, str(results / "metrics.csv")) == []
    assert soak.differences(finished / "results", results, among) == []


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("history.csv", ("0.5", "0.6"), []),
        ("history.csv", ("0.25", "0.26"), ["fits/a/history.csv: differs"]),
        ("fit.json", ("7", "8"), []),
        ("fit.json", ("cpu", "gpu"), ["fits/a/fit.json: differs"]),
        ("metrics.json", ("0.9", "0.8"), ["fits/a/metrics.json: differs"]),
    ],
)
def test_the_soak_test_finds_what_differs_and_ignores_seconds(tmp_path, name, change, found):
    for run in ("one", "other"):
        cell = tmp_path / run / "fits" / "a"
        cell.mkdir(parents=True)
        (cell / "history.csv").write_text("epoch,train_loss,seconds\n1,0.25,0.5\n")
        (cell / "fit.json").write_text('{"device": "cpu", "history": [{"seconds": 7}]}')
        (cell / "metrics.json").write_text('{"pro": 0.9}')
    path = tmp_path / "other" / "fits" / "a" / name
    path.write_text(path.read_text().replace(*change))
    assert soak.differences(tmp_path / "one", tmp_path / "other") == found
    (tmp_path / "other" / "more").write_text("")
    left = [*found, "more: in one of the two runs alone"]
    assert sorted(soak.differences(tmp_path / "one", tmp_path / "other")) == sorted(left)
