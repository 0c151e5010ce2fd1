"""A teacher trained on a user's images, through Snakemake."""

import json

import numpy as np
from PIL import Image

from builders import small_config
from conftest import snakemake


def test_a_teacher_of_a_folder_of_images(small_set):
    folder = small_set / "my images"
    rng = np.random.default_rng(0)
    for name, mode in (("bolt", "L"), ("nut", "RGBA")):  # of mixed modes and sizes
        for i in range(12):
            path = folder / "train" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(path)
    teachers = {
        "random": {
            "backbone": "resnet18",
            "pretrain": {"folder": str(folder)},
            "pretraining": {"epochs": 2, "batch_size": 8},
            "seed": 3,
        }
    }
    target = small_set / "results" / "teachers" / "random.json"
    config = small_config(small_set, teachers=teachers)
    run = snakemake(config, str(target))
    assert run.returncode == 0, run.stderr
    report = json.loads(target.read_text())
    assert report["classes"] == ["bolt", "nut"]
    assert report["source"].startswith("my images-")
    assert (report["train_images"], report["test_images"], report["epochs"]) == (22, 2, 2)
    assert (report["flip"], report["seed"]) == (True, 3)
    assert [row["epoch"] for row in report["history"]] == [1, 2]
    assert [row["level"] for row in report["levels"]] == [1, 2, 3, 4]
    assert {"sha256", "data_sha256", "seconds", "packages", "device"} <= set(report)
    made = {path.name for path in target.parent.iterdir()}
    assert made == {"random.json", "random.pt", "random.sha256"}  # the unfinished state is gone

    assert "Nothing to be done" in snakemake(config, str(target)).stderr
    Image.new("L", (9, 9), 128).save(folder / "train" / "nut" / "new.png")
    planned = snakemake(config, str(target), "--dry-run").stdout
    assert "pretraining_set" in planned  # a new image reruns the set and the teacher
    assert "rule teacher" in planned
