"""What a run survives: a full disk, one that turns read-only, damaged files, SIGKILL."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from conftest import REPOSITORY, small_config, snakemake, write_category
from stpm_bench.errors import InputError
from stpm_bench.files import whole, write_array, write_arrays, write_csv, write_json, write_tensors
from stpm_bench.style import save

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
        with whole(small_disk / "x.csv") as temporary:
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
