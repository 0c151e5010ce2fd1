"""Images prepared per second, compared with a plain loop of Pillow's own calls."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stpm_bench.datasets.prepare import prepare


def run(images: int = 480, size: int = 1024, runs: int = 5, seed: int = 0) -> pd.DataFrame:
    """Time the preparation of generated PNG files and return one table.

    480 images of 1024 x 1024 are about the size of MVTec AD's largest categories, hazelnut and
    screw. The methods take turns, so that a slow phase of the machine affects all of them.

    Args:
        images: number of files.
        size: their height and width in pixels.
        runs: how often each is timed; the table gives medians.
        seed: of the generated images.

    Returns:
        One row per method with the columns `method`, `threads`, `seconds`, `images/s`, `runs`.
    """
    cores = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "generated" / "train" / "good"
        write(good, images, size, seed)
        methods = {("plain Pillow loop", 1): lambda: plain_loop(good, 256)}
        for threads in sorted({1, cores}):
            methods["stpm_bench prepare", threads] = lambda threads=threads: prepare(
                folder, "generated", "train", 256, threads, progress=False
            )
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in methods}
        for _ in range(runs):
            for key, call in methods.items():
                start = time.perf_counter()
                call()
                seconds[key].append(time.perf_counter() - start)
    return pd.DataFrame(
        {
            "method": name,
            "threads": threads,
            "seconds": (median := float(np.median(seconds[name, threads]))),
            "images/s": images / median,
            "runs": runs,
        }
        for name, threads in methods
    )


def note() -> str:
    """Return how the table was measured, besides the processor."""
    return "generated RGB PNG files of 1024 x 1024 to 256 x 256, from the page cache"


def write(folder: Path, images: int, size: int, seed: int) -> None:
    """Write RGB PNG files that compress as photographs do: smooth fields with sensor noise.

    Eight of them are generated, the others are copies of their bytes: decoding takes as long.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    contents = []
    for i in range(min(images, 8)):
        coarse = Image.fromarray(rng.integers(40, 216, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
        noise = np.rint(rng.normal(0, 2, smooth.shape)).astype(np.int16)
        path = folder / f"{i:03}.png"
        Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(path)
        contents.append(path.read_bytes())
    for i in range(len(contents), images):
        (folder / f"{i:03}.png").write_bytes(contents[i % len(contents)])


def plain_loop(folder: Path, size: int) -> np.ndarray:
    """Return the images of a folder as (N, size, size, 3) uint8, one after the other, unchecked."""
    return np.stack(
        [
            np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.BILINEAR))
            for path in sorted(folder.iterdir())
        ]
    )
