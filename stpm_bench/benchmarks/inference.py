"""Frames per second of teacher and student, the time of a single frame, and their limit."""

import numpy as np
import pandas as pd
import torch

from stpm_bench import backbone
from stpm_bench.anomaly_map import anomaly_maps
from stpm_bench.benchmarks.training import LEVELS, counted, note, product, timed
from stpm_bench.device import choose_device, set_up
from stpm_bench.methods.stpm import METHODS, level_maps

__all__ = ["note", "run"]

# STPM v1 (arXiv 2103.04257v1) claims 100 frames per second at 256 x 256, on a GPU.
CLAIM = 100
LATENCIES = 20


def run(
    runs: int = 5,
    batches: tuple[int, ...] = (1, 8, 32),
    size: int = 256,
    matrix: int = 2048,
    name: str = "resnet18",
) -> pd.DataFrame:
    """Time teacher, student and anomaly map together, in float32, and return one table.

    A frame starts as uint8 pixels on the host and ends as an anomaly map on the host. The batch
    sizes and a product of matrices take turns; a first round warms up and is not counted. The limit
    is the rate of that product: a frame cannot take less than the operations of two networks at it.

    Args:
        runs: how often each batch size is timed, batches of 1 `LATENCIES` times as often.
        batches: the batch sizes.
        size: side of a frame in pixels.
        matrix: side of the square matrices whose product measures the limit.
        name: the backbone's name.

    Returns:
        One row per batch size: `batch`, `frames/s` (from the median), `lowest`, `highest` (of
        the slowest and the fastest pass), `p50 ms`, `p95 ms`, `p99 ms` (for a batch of 1; NaN
        elsewhere), `limit, frames/s`, `share of limit`, `the paper's claim, frames/s`. A share
        above 1 says that the convolutions are faster than the product of large matrices.
    """
    set_up()
    device = choose_device("auto")
    teacher, student = (backbone.create(name, LEVELS, seed).to(device).eval() for seed in (0, 1))
    frames = torch.randint(0, 256, (max(batches), size, size, 3), dtype=torch.uint8).numpy()

    def score(batch: int) -> None:
        maps = level_maps(teacher, student, frames[:batch], METHODS["stpm"], device, batch)
        anomaly_maps(maps, size)

    operations = counted(lambda: score(1))
    multiply = product(matrix, torch.float32, device)
    seconds: dict[int, list[float]] = {batch: [] for batch in batches}
    products = []
    for round_ in range(1 + runs):
        for batch in batches:
            for _ in range(LATENCIES if batch == 1 and round_ else 1):
                seconds[batch].append(timed(lambda batch=batch: score(batch), device))
        products.append(timed(multiply, device))
    limit = 2 * matrix**3 / np.median(products[1:]) / operations
    rows = []
    for batch, values in seconds.items():
        passes = np.array(values[1:])
        rates = batch / np.array([np.median(passes), passes.max(), passes.min()])
        latency = np.percentile(passes * 1000, [50, 95, 99]) if batch == 1 else [np.nan] * 3
        rows.append((batch, *rates, *latency, limit, rates[0] / limit, CLAIM))
    names = ["batch", "frames/s", "lowest", "highest", "p50 ms", "p95 ms", "p99 ms"]
    names += ["limit, frames/s", "share of limit", "the paper's claim, frames/s"]
    return pd.DataFrame(rows, columns=names)
