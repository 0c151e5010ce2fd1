"""Step of speed.smk: the methods' frames a second, side by side on one machine."""

import sys
from pathlib import Path
from typing import Annotated

from stpm_bench.errors import InputError
from stpm_bench.files import read_checked, seal, unseal, write_csv, write_json
from stpm_bench.results import failure_of, fit_folder, load_array, prepared_folder
from stpm_bench.steps.options import Device, Results, Threads


def speed(
    *,
    results: Results,
    main: Annotated[str, "name of the study whose teacher and fraction are timed"],
    frames: Annotated[int, "how many frames each method scores"] = 20,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Time the methods of a study that has STPM and SPADE, frame by frame in turns: speed.csv.

    speed.json says on what machine, with which fits and how many frames.
    """
    import yaml

    from stpm_bench import config, grid, predict, provenance, speed
    from stpm_bench.benchmarks.record import record
    from stpm_bench.device import choose_device, set_up

    made = yaml.safe_load(read_checked(results / "config.yaml"))
    cells = speed.cells(made, main)
    if not cells:
        raise InputError(
            f"{results / 'config.yaml'}: has no study with the methods "
            f"{' and '.join(speed.COMPARED)} at the teacher and the fraction of the study {main}; "
            "add one, see docs/methods.md"
        )
    set_up(threads)
    where = choose_device(device)
    known, predictors, fits = config.methods(made), {}, {}
    for cell, fit in grid.fits_of(cells, known).items():
        folder = fit_folder(results, fit)
        if failure := failure_of(folder):
            print(f"warning: {fit.folder}: not timed: the fit failed: {failure}", file=sys.stderr)
            continue
        file = grid.teacher_file(cell.teacher, made["teachers"][cell.teacher], cell.seed)
        teacher: Path = results / "teachers" / f"{file}.pt"
        settings = known[cell.method]
        predictors[cell.method] = predict.load(folder, teacher, cell.layers, settings, where)
        fits[cell.method] = fit.folder
    images = load_array(prepared_folder(results, cells[0].category, "test") / "images.npy")
    images = images[: speed.WARM + frames]
    seconds = speed.frame_seconds(predictors, images, frames)
    unseal(results / "speed.sha256")
    found = speed.table(seconds, provenance.environment(where)["device"])
    write_csv(results / "speed.csv", found)
    settings = {"image_size": images.shape[1], "batch": 1, "frames": frames, "fits": fits}
    write_json(results / "speed.json", record("speed", found, where, 1, settings))
    seal(results / "speed.sha256", "speed.csv", "speed.json")
