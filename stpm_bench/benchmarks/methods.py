"""The cost of each method: its fit, frames per second, memory and model size on disk.

Fits and scores run in separate processes, as in the workflow, so that the peak memory of each can
be measured.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from stpm_bench import methods
from stpm_bench.benchmarks.record import spread
from stpm_bench.methods.interface import Settings

BACKBONE = "resnet18"
FIRST = methods.DEFAULT  # the others are given as a ratio to it
QUANTITIES = ("fit, s", "frames/s", "p50, ms", "p95, ms", "memory of the fit, MB")
QUANTITIES += ("memory of scoring, MB", "model on disk, MB")


def run(
    runs: int = 3, size: int = 128, train: int = 50, frames: int = 20, epochs: int = 0
) -> pd.DataFrame:
    """Fit each method and score frames one by one, and return one table.

    The methods take turns: each run fits and scores with every method before the next run begins.
    The teacher is an untrained ResNet-18, which takes as long as a trained one; the images are
    crops of one photograph. A fit is timed from when teacher and images are in memory, and a frame
    as in `speed.frame_seconds`: models loaded, the first frames not counted.

    Args:
        runs: how often each method is fitted and scores; the table gives medians.
        size: side of the images in pixels.
        train: the number of images for a fit. SPADE compares a frame with 50 images; with fewer
            than that it would be faster than it is on a whole category.
        frames: how many are scored in a run.
        epochs: of a student; 0 for the method's setting.

    Returns:
        One row per quantity and method: `quantity`, `method`, `median`, `lowest`, `highest` of the
        runs, `ratio to stpm` (of the medians).
    """
    chosen = {}
    for file in methods.FILES:
        name, settings = next(iter(methods.module_of(file).METHODS.items()))
        chosen[name] = methods.differing(settings, {"epochs": epochs} if epochs else {}, skip=True)
    measured = {(quantity, name): [] for quantity in QUANTITIES for name in chosen}
    for _ in range(runs):
        for name, settings in chosen.items():
            with tempfile.TemporaryDirectory() as folder:
                model = Path(folder, "model.pt")
                found = in_its_own_process(fit, settings, model, size, train)
                found |= in_its_own_process(score, settings, model, size, frames)
            for quantity, value in found.items():
                measured[quantity, name].append(value)
    rows = [
        {"quantity": quantity, "method": name} | spread(values)
        for (quantity, name), values in measured.items()
    ]
    table = pd.DataFrame(rows)
    reference = table[table["method"] == FIRST].set_index("quantity")["median"]
    table[f"ratio to {FIRST}"] = table["median"] / table["quantity"].map(reference)
    return table


def note() -> str:
    """Return how the table was measured, besides the processor."""
    from stpm_bench.benchmarks.training import note as device

    return (
        f"{device()}; untrained {BACKBONE}, crops of one photograph; --output FILE writes their "
        "number and size, machine, versions and spread as JSON"
    )


def in_its_own_process(function: Callable, *arguments) -> dict[str, float]:
    """Call a function in a separate process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def fit(settings: Settings, model: Path, size: int, train: int) -> dict[str, float]:
    """Fit a method and write its model; return the cost, for `QUANTITIES`.

    Raises:
        RuntimeError: the fit failed.
    """
    from stpm_bench.device import choose_precision
    from stpm_bench.files import write_tensors
    from stpm_bench.provenance import host_bytes
    from stpm_bench.split import divide

    teacher, device = teacher_of(settings)
    images = crops(size, train, seed=0)
    names = [f"{i:03}.png" for i in range(train)]
    split, _ = divide(names, 1.0, settings.validation_share(), seed=0)
    start = time.perf_counter()
    fitted = methods.module_of(settings.module).fit(
        teacher,
        images,
        split,
        levels=settings.levels,
        settings=settings,
        seed=0,
        device=device,
        precision=choose_precision("auto" if settings.reads_precision else "float32", device),
        progress=False,
    )
    seconds = time.perf_counter() - start
    if fitted.failure:
        raise RuntimeError(f"{settings.module}: {fitted.failure}")
    memory = host_bytes()
    write_tensors(model, fitted.model)
    return {
        "fit, s": seconds,
        "memory of the fit, MB": memory / 1e6,
        "model on disk, MB": model.stat().st_size / 1e6,
    }


def score(settings: Settings, model: Path, size: int, frames: int) -> dict[str, float]:
    """Score frames one by one; return the cost, for `QUANTITIES`."""
    import torch

    from stpm_bench.predict import predictor
    from stpm_bench.provenance import host_bytes
    from stpm_bench.speed import frame_seconds, summary

    teacher, device = teacher_of(settings)
    fitted = torch.load(model, map_location="cpu", weights_only=True)
    scores_of = methods.scorer(
        teacher, fitted, levels=settings.levels, settings=settings, device=device
    )
    images = crops(size, frames, seed=1)
    seconds = frame_seconds({"": predictor(scores_of, settings)}, images, frames)[""]
    found = summary(seconds)
    return {
        "frames/s": found["frames_per_second"],
        "p50, ms": 1000 * found["p50"],
        "p95, ms": 1000 * found["p95"],
        "memory of scoring, MB": host_bytes() / 1e6,
    }


def teacher_of(settings: Settings):
    """Return an untrained teacher with the levels of a method, on the device, and the device."""
    from stpm_bench import backbone
    from stpm_bench.device import choose_device, set_up
    from stpm_bench.methods.interface import Teacher

    set_up()
    device = choose_device("auto")
    network = backbone.create(BACKBONE, settings.levels, seed=0)
    return Teacher(BACKBONE, network.eval().to(device)), device


def crops(size: int, count: int, seed: int) -> np.ndarray:
    """Return square crops at random places of a photograph: (count, size, size, 3) uint8.

    Real structure rather than noise: the time of PatchCore's selection depends on the patches.
    """
    from PIL import Image
    from skimage.data import brick

    side = round(1.5 * size)
    photograph = np.asarray(Image.fromarray(brick()).resize((side, side)).convert("RGB"))
    rng = np.random.default_rng(seed)
    places = rng.integers(0, side - size, (count, 2), endpoint=True)
    return np.stack([photograph[y : y + size, x : x + size] for y, x in places])
