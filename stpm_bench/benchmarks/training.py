"""Images per second in the training of a student, and the effect of each optimisation."""

import functools
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from stpm_bench import backbone
from stpm_bench.device import (
    autocast,
    choose_device,
    choose_precision,
    set_up,
)
from stpm_bench.methods import student
from stpm_bench.methods.distance import distance, unit
from stpm_bench.methods.interface import Split
from stpm_bench.methods.stpm import METHODS

LEVELS = (1, 2, 3)
PAPER = METHODS["stpm"]
PLAIN = "plain loop in the authors' manner"
OURS = "stpm_bench student"
# Each row does the same as the row above it, plus one more thing.
LADDER = (
    (PLAIN, {}),
    ("+ freed memory is kept, repeatable kernels", {}),
    ("+ both networks cut at the deepest level", {"cut": True}),
    ("+ the teacher's features computed once", {"cached": True}),
    ("+ channels_last", {"channels_last": True}),
    ("+ the distance of stpm_bench", {"suite_distance": True}),
    ("+ bfloat16", {"precision": torch.bfloat16}),
)
START = {
    "cut": False,
    "cached": False,
    "channels_last": False,
    "suite_distance": False,
    "precision": torch.float32,
}


def run(
    runs: int = 5, batch_size: int = 32, size: int = 256, matrix: int = 2048, name: str = "resnet18"
) -> pd.DataFrame:
    """Time a training step, from the authors' way to ours, and return one table.

    The rows take turns, so that a slow phase of the machine affects all of them; a first round
    warms up and is not counted. The authors' way: both networks up to their last stage, in float32
    and contiguous, the teacher in every step. 'stpm_bench student' is `student.train` as the suite
    calls it, an epoch of as many batches as the other rows take steps in one go
    (`steps_in_one_go`): it also validates (one image) and copies the weights that it keeps; it does
    not include the teacher's pass, which is made once per student. bfloat16 is left out if the
    hardware does not support it natively. The first row runs in a process of its own, with the C
    library's own handling of memory and PyTorch's own choice of kernels (on a GPU TF32 in
    convolutions); all others keep freed memory and repeat their bits (`device.set_up`), since
    memory kept by one row would serve the next in any case.

    Args:
        runs: how often each row is timed; the table gives medians.
        batch_size, size: images per step, and their side in pixels.
        matrix: side of the square matrices whose product measures the peak.
        name: the backbone's name.

    Returns:
        Columns `step`, `images/s` (of the median), `ratio to the row above`, `ratio to the plain
        loop`, `lowest`, `highest` (images/s of the slowest and of the fastest run), `GFLOP/s` (of
        the convolutions, as executed) and `share of peak` (of the row's precision), then a row
        each for the matrix products: their GFLOP/s. A share above 1 says that PyTorch's matrix
        product is slower on this processor than its convolutions.
    """
    set_up()
    device = choose_device("auto")
    native = choose_precision("auto", device)
    times = steps_in_one_go(device)
    pixels = frames(times * batch_size + 1, size)
    settings, ladder = START, {}
    for label, change in LADDER:
        if change.get("precision", native) is native:
            settings = settings | change
            call = step_of(name, pixels[:batch_size], device, **settings)
            ladder[label] = (call, settings["precision"])
    calls = {label: call for label, (call, _) in ladder.items()}
    flops = {label: counted(call) for label, call in calls.items()}
    del calls[PLAIN]
    flops[OURS] = list(flops.values())[-1]
    precisions = {label: precision for label, (_, precision) in ladder.items()} | {OURS: native}
    products = {
        dtype: product(matrix, dtype, device) for dtype in dict.fromkeys(precisions.values())
    }

    seconds: dict = {key: [] for key in [PLAIN, *calls, OURS, *products]}
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        for _ in range(1 + runs):
            seconds[PLAIN].append(other.submit(plain_seconds, name, batch_size, size).result())
            for label, call in calls.items():
                seconds[label].append(timed(call, device, times))
            epoch = epoch_seconds(name, pixels, batch_size, device, native)
            seconds[OURS].append(epoch / times)
            for dtype, call in products.items():
                seconds[dtype].append(timed(call, device, times))
    median = {key: float(np.median(values[1:])) for key, values in seconds.items()}

    peak = {dtype: 2 * matrix**3 / median[dtype] / 1e9 for dtype in products}
    rows = []
    for label in [PLAIN, *calls, OURS]:
        rate, speed = batch_size / median[label], flops[label] / median[label] / 1e9
        of_runs = [batch_size / value for value in seconds[label][1:]]
        share = speed / peak[precisions[label]]
        rows.append((label, rate, min(of_runs), max(of_runs), speed, share))
    columns = ["step", "images/s", "lowest", "highest", "GFLOP/s", "share of peak"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(2, "ratio to the row above", table["images/s"] / table["images/s"].shift())
    table.insert(3, "ratio to the plain loop", table["images/s"] / table["images/s"][0])
    peaks = [(f"a product of {str(d)[6:]} matrices", peak[d]) for d in products]
    return pd.concat([table, pd.DataFrame(peaks, columns=["step", "GFLOP/s"])], ignore_index=True)


def note() -> str:
    """Return how the table was measured, besides the processor."""
    return where(choose_device("auto"))


def where(device: torch.device) -> str:
    """Return the device's name, or how many threads of the processor PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"threads: {torch.get_num_threads()}"


def step_of(
    name: str,
    images: np.ndarray,
    device: torch.device,
    *,
    cut: bool,
    cached: bool,
    channels_last: bool,
    suite_distance: bool,
    precision: torch.dtype,
) -> Callable[[], None]:
    """Return a function that takes one training step on a batch of images (N, S, S, 3) uint8."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    levels = LEVELS if cut else (*LEVELS, 4)  # the authors run the last stage without using it
    teacher, network = (
        backbone.create(name, levels, seed).to(device, memory_format=layout) for seed in (0, 1)
    )
    teacher.eval()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.4, momentum=0.9, weight_decay=1e-4)
    pixels = torch.from_numpy(images).to(device)
    measure = distance if suite_distance else whole_batch

    def forward(model: torch.nn.Module) -> tuple[torch.Tensor, ...]:
        batch = backbone.normalise(pixels)
        with autocast(device, precision):
            return model(batch if channels_last else batch.contiguous())[: len(LEVELS)]

    @torch.no_grad()
    def targets() -> list[torch.Tensor]:
        return [unit(features).to(precision) for features in forward(teacher)]

    kept = targets() if cached else None

    def step() -> None:
        wanted = kept if cached else targets()
        loss = sum(measure(t, s).mean() for t, s in zip(wanted, forward(network), strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def frames(count: int, size: int) -> np.ndarray:
    """Return random images: (count, size, size, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@functools.cache
def plain_step(name: str, batch_size: int, size: int) -> tuple[Callable[[], None], torch.device]:
    """Return the plain loop's step, and its device, in a process with PyTorch's own settings."""
    device = choose_device("auto")
    return step_of(name, frames(batch_size, size), device, **START), device


def plain_seconds(name: str, batch_size: int, size: int) -> float:
    """Return the seconds of one step of the plain loop."""
    step, device = plain_step(name, batch_size, size)
    return timed(step, device, steps_in_one_go(device))


def steps_in_one_go(device: torch.device) -> int:
    """Return how many steps are timed in one go: on a GPU six, an epoch of bottle, since the
    processor prepares the next step while the GPU computes; 1 elsewhere."""
    return 6 if device.type == "cuda" else 1


def whole_batch(target: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Squared distance of unit vectors, all images at once, as in a plain loop."""
    return torch.sum((target - F.normalize(student.float(), dim=1)) ** 2, 1)


def epoch_seconds(
    name: str, images: np.ndarray, batch_size: int, device: torch.device, precision: torch.dtype
) -> float:
    """Return the seconds of the second epoch of `student.train`; the last image validates."""
    teacher, network = (backbone.create(name, LEVELS, seed) for seed in (0, 1))
    used = len(images) - 1
    trained = student.train(
        teacher,
        network,
        images,
        Split(range(used), [used], used),
        replace(PAPER, epochs=2, batch_size=batch_size),
        levels=LEVELS,
        seed=0,
        device=device,
        precision=precision,
        progress=False,
    )
    return trained.history["seconds"].iloc[-1]


def product(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Return a function that multiplies two square matrices."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    return lambda: left @ right


def counted(call: Callable[[], None]) -> int:
    """Return how many floating-point operations of convolutions and products `call` executes."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def timed(call: Callable[[], None], device: torch.device, times: int = 1) -> float:
    """Return how many seconds a call takes, the mean of `times` in a row, a GPU's work included."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / times
