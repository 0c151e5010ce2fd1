"""Step of speed.smk: the methods' frames per second, compared on one machine."""

import json
import sys
from typing import Annotated

from stpm_bench.files import forget_hashes, record_hashes, write_csv, write_json
from stpm_bench.results import failure_of, fit_folder, load_array
from stpm_bench.steps.options import Device, Results, TeacherFile, TestFolder, Threads


def speed(
    *,
    results: Results,
    test: TestFolder,
    teacher: TeacherFile,
    timed: Annotated[str, "JSON: method -> fit (name of its folder), layers and settings"],
    frames: Annotated[int, "how many frames each method scores"] = 20,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Time methods frame by frame, in turns, with their models loaded: speed.csv.

    speed.json records the machine, the fits and the number of frames.
    """
    from stpm_bench import config, predict, provenance, speed
    from stpm_bench.benchmarks.record import record
    from stpm_bench.device import choose_device, set_up

    set_up(threads)
    torch_device = choose_device(device)
    predictors, fits = {}, {}
    for method, entry in json.loads(timed).items():
        folder = fit_folder(results, entry["fit"])
        if failure := failure_of(folder):
            print(f"warning: {entry['fit']}: not timed: the fit failed: {failure}", file=sys.stderr)
            continue
        settings = config.settings(json.dumps(entry["settings"]))
        predictors[method] = predict.load(folder, teacher, entry["layers"], settings, torch_device)
        fits[method] = entry["fit"]
    images = load_array(test / "images.npy")[: speed.WARM + frames]
    seconds = speed.frame_seconds(predictors, images, frames)
    found = speed.table(seconds, provenance.environment(torch_device)["device"])
    forget_hashes(results / "speed.sha256")
    write_csv(results / "speed.csv", found)
    basis = {"image_size": images.shape[1], "batch": 1, "frames": frames, "fits": fits}
    write_json(results / "speed.json", record("speed", found, torch_device, 1, basis))
    record_hashes(results / "speed.sha256", "speed.csv", "speed.json")
