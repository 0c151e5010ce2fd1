"""Frames per second of each method, one frame at a time: models loaded, warm, taking turns."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stpm_bench import config as configs
from stpm_bench import grid, methods
from stpm_bench.methods.interface import Settings
from stpm_bench.predict import Predictor
from stpm_bench.report.claims import SPEED_COLUMNS

# The paper's claim compares these two (5b in `report.claims`): without both nothing is timed.
COMPARED = (methods.DEFAULT, "spade")
WARM = 2  # frames that each method scores before any is counted


def timed_cells(config: dict, main: str) -> list[grid.Cell]:
    """Return the cells whose fits are timed: one for each method that a study compares with STPM.

    They come from the first study that has all of `COMPARED` at the main study's teacher and
    fraction: every method of it, at its first category, layers and seed. If there is no such study,
    there are no cells.

    Args:
        config: completed. main: name of the main study.
    """
    known, teachers, studies = configs.methods(config), config["teachers"], config["studies"]
    reference = grid.cells_of(studies[main], known, teachers)[0]
    for study in studies.values():
        if (
            set(COMPARED) <= set(study["method"])
            and reference.teacher in study["teacher"]
            and reference.fraction in study["fraction"]
        ):
            first = {axis: study[axis][:1] for axis in ("category", "layers", "seed")}
            first |= {"teacher": [reference.teacher], "fraction": [reference.fraction]}
            return grid.cells_of(study | first, known, teachers)
    return []


def step_input(cells: Sequence[grid.Cell], known: Mapping[str, Settings]) -> dict[str, dict]:
    """Return the input of the step 'speed': method -> `fit`, `layers` and `settings`.

    Args:
        cells: what `timed_cells` returns. known: every method of the config by name.
    """
    fits = grid.fits_of(cells, known)
    return {
        cell.method: {
            "fit": fits[cell].folder,
            "layers": cell.layers,
            "settings": methods.to_dict(known[cell.method]),
        }
        for cell in cells
    }


def frame_seconds(
    predictors: Mapping[str, Predictor], images: np.ndarray, frames: int
) -> dict[str, list[float]]:
    """Return the seconds that each method takes for each of some frames, one frame at a time.

    A frame starts as uint8 pixels on the host and ends as an anomaly map and a score on the host.
    The methods take turns: each scores one frame before any scores the next. The first `WARM`
    frames are not counted.

    Args:
        predictors: method -> what `predict.predictor` returns.
        images: (N, S, S, 3) uint8; used in order, starting over after the last.
        frames: how many are counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(WARM + frames):
        row = turn % len(images)
        for name, predict in predictors.items():
            start = time.perf_counter()
            predict(images[row : row + 1])
            seconds[name].append(time.perf_counter() - start)
    return {name: values[WARM:] for name, values in seconds.items()}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return `frames_per_second` (from the median) and the median (`p50`) and 95th percentile
    (`p95`) of the seconds per frame."""
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"frames_per_second": float(1 / p50), "p50": float(p50), "p95": float(p95)}


def table(seconds: Mapping[str, Sequence[float]], device: str) -> pd.DataFrame:
    """Return columns `claims.SPEED_COLUMNS`, one row per method.

    Args:
        seconds: what `frame_seconds` returns. device: its name.
    """
    rows = [{"method": n, "device": device} | summary(values) for n, values in seconds.items()]
    return pd.DataFrame(rows, columns=SPEED_COLUMNS)
