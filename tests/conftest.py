"""What several test files share: small data sets, and the way to the real ones."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before torch starts: the tensors here are small, and spinning threads slow each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def write_category(
    root: Path, category: str, train: int = 8, test: int = 3, size: int = 64
) -> None:
    """Write a small category in MVTec's layout: noise, with a bright square as its defect."""
    rng = np.random.default_rng(len(category))

    def save(name: str, array: np.ndarray) -> None:
        path = root / category / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    def noise() -> np.ndarray:
        return rng.integers(80, 160, (size, size, 3), dtype=np.uint8)

    for i in range(train):
        save(f"train/good/{i:03}.png", noise())
    for i in range(test):
        save(f"test/good/{i:03}.png", noise())
        image, mask = noise(), np.zeros((size, size), np.uint8)
        mask[10 + 5 * i : 26 + 5 * i, 20:40] = 255
        image[mask > 0] = 250
        save(f"test/square/{i:03}.png", image)
        save(f"ground_truth/square/{i:03}_mask.png", mask)


def small_config(folder: Path, **changes) -> dict:
    """Return a config of two cells that trains for seconds; data under `folder`, which has it."""
    return {
        "results": str(folder / "results"),
        "data": {"mvtec_ad": str(folder / "data")},
        "image_size": 64,
        "teachers": {"random": {"backbone": "resnet18", "draws": 1}},
        "training": {"epochs": 2, "batch_size": 4},
        "precision": "float32",
        "studies": {
            "main": {
                "category": "all",
                "layers": [[1, 2]],
                "teacher": ["random"],
                "fraction": [1.0],
                "seed": [0],
            }
        },
    } | changes


def snakemake(config: dict | Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the workflow on a config (a dict is written beside its results); output is captured."""
    if isinstance(config, dict):
        folder = Path(config["results"]).parent
        path = folder / "config.yaml"
        text = json.dumps(config)  # JSON is YAML
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    else:
        folder, path = config.parent, config
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--nolock"]
    return subprocess.run(
        [*command, "--configfile", str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=540,
    )


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` fills, once for all the processes that tests run in.

    Nothing may change what lies there: another process may be reading it.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """A folder whose `data/` holds the categories alpha and beta in MVTec's layout."""
    write_category(tmp_path / "data", "alpha")
    write_category(tmp_path / "data", "beta")
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with a small set and the results of a whole run on it."""

    def make(folder: Path) -> None:
        for category in ("alpha", "beta"):
            write_category(folder / "data", category)
        run = snakemake(small_config(folder))
        assert run.returncode == 0, run.stderr

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def bottle() -> Path:
    """MVTec AD's category bottle, where the real data are at hand."""
    folder = SHARED_DATA / "mvtec_ad"
    if not (folder / "bottle").is_dir():
        pytest.skip(f"the real MVTec AD category bottle is not at {folder}")
    return folder
