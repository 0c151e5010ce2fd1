"""Shared by several test files: small data sets, the real ones, and runs of Snakemake."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType

# Before torch starts: the tensors here are small, and spinning threads slow each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Images of containers set it: each of the hundreds of processes would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from filelock import FileLock

from builders import small_config, write_category, write_nut

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def snakemake(config: dict | Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the workflow on a config (a dict is written next to its results); output is captured."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start Snakemake: `pytest -m "not workflow"` runs the others."""
    for item in items:
        if "finished" in item.fixturenames or starts_snakemake(item.function):
            item.add_marker("workflow")


def starts_snakemake(test: FunctionType) -> bool:
    """Return whether a test, or a function of its file that it calls, runs Snakemake."""
    known, codes = set(), [test.__code__]
    for code in codes:
        names = {text for text in (*code.co_names, *code.co_consts) if isinstance(text, str)}
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in names - known:
            other = test.__globals__.get(name)
            if isinstance(other, FunctionType) and other.__module__ == test.__module__:
                codes.append(other.__code__)
        known |= names
    return "snakemake" in known


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
def nut(tmp_path: Path) -> Path:
    """The folder of a category 'nut' in MVTec's layout: 3 training images, 6 test images."""
    return write_nut(tmp_path)


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
    """MVTec AD's category bottle, if the real data are available."""
    folder = SHARED_DATA / "mvtec_ad"
    if not (folder / "bottle").is_dir():
        pytest.skip(f"the real MVTec AD category bottle is not at {folder}")
    return folder
