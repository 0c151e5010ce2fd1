"""What a GPU makes of the suite's students: their speed, their bits, and a cell's true wall time.

`python tests/gpu.py results/NAME/prepared/bottle results/NAME/teachers/imagenet.pt` trains students
of one category one after the other, some at once, and once more for the same bits, with and without
deterministic kernels, and times the processes of one cell. It prints one table; `--output` writes
it as JSON, as a benchmark does. Everything runs in a temporary folder. Without a GPU it runs on the
processor, as a rehearsal (`--epochs 2`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # this checkout's, wherever the package is installed from

from stpm_bench.benchmarks.record import record
from stpm_bench.device import choose_device
from stpm_bench.files import read_json, write_json
from stpm_bench.methods import built_in

STEP = "import sys; from stpm_bench.__main__ import main; sys.exit(main(sys.argv[1:]))"
# The steps look the function up in its module when they run.
FREE_KERNELS = (
    "import stpm_bench.device as device; "
    "device.set_deterministic = lambda threads=None: None; " + STEP
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path, help="a prepared category: train/ and test/ in it")
    parser.add_argument("teacher", type=Path, help="a teacher's .pt")
    parser.add_argument("--layers", default="1+2+3")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--at-once", type=int, nargs="*", default=[2, 4], help="students")
    parser.add_argument("--students", type=int, default=45, help="for the extrapolated time")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measured(options, Path(folder))
    print(table.to_markdown(index=False, floatfmt=".4g"))
    if options.output:
        settings = {"epochs": options.epochs, "layers": options.layers}
        settings |= {"category": options.prepared.name}
        write_json(options.output, record("gpu", table, choose_device("auto"), 1, settings))
    same = table.set_index("what")["value"]
    return 0 if same["the same seed gives the same bits"] else 1


def measured(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Run the processes; return columns `what` and `value`."""
    settings = json.dumps({"file": "stpm", "epochs": options.epochs})
    common = ["--teacher", str(options.teacher), "--layers", options.layers]
    common += ["--settings", settings]

    def fit(name: str, seed: int, code: str = STEP) -> subprocess.Popen:
        train, output = str(options.prepared / "train"), str(folder / name)
        arguments = ["fit", *common, "--train", train, "--seed", str(seed), "--output", output]
        return start(code, arguments)

    def seconds_of(*processes_of) -> float:
        begun = time.perf_counter()
        wait([start() for start in processes_of])
        return time.perf_counter() - begun

    def said(name: str, key: str):
        return read_json(folder / name / "fit.json")[key]

    rows = []
    # The first reads PyTorch from the disk.
    rows.append(("the first fit, wall s", seconds_of(lambda: fit("first", 0))))
    alone = seconds_of(lambda: fit("alone", 0))
    rows += [
        ("a fit, wall s", alone),
        ("its training, images/s", said("alone", "images_per_second")),
    ]
    bits = said("alone", "model_sha256") == said("first", "model_sha256")
    rows.append(("the same seed gives the same bits", float(bits)))
    for count in options.at_once:
        several = [lambda n=n: fit(f"one of several {n}", n) for n in range(count)]
        together = seconds_of(*several)
        rows.append((f"{count} fits at once, wall s", together))
        rows.append(("their gain over one by one", count * alone / together))
    rows.append(
        ("a fit with free kernels, wall s", seconds_of(lambda: fit("free", 0, FREE_KERNELS)))
    )
    free = said("free", "images_per_second") / said("alone", "images_per_second")
    rows.append(("free kernels, images/s as a ratio to deterministic ones", free))
    score = ["score", *common, "--test", str(options.prepared / "test")]
    score = seconds_of(lambda: start(STEP, [*score, "--fit", str(folder / "alone")]))
    evaluate = ["evaluate", "--test", str(options.prepared / "test"), "--settings"]
    evaluate.append(json.dumps(built_in()["stpm"].evaluation_part()))
    evaluate += ["--fit", str(folder / "alone"), "--cell", str(folder / "cell")]
    evaluate = seconds_of(lambda: start(STEP, evaluate))
    rows += [("scoring, wall s", score), ("evaluation, wall s", evaluate)]
    cell = alone + score + evaluate
    rows.append(("a cell, wall s", cell))
    training = said("alone", "images") / said("alone", "images_per_second")
    rows.append(("of it not training, s", cell - training))
    rows.append((f"{options.students} cells one by one, minutes", options.students * cell / 60))
    metrics = read_json(folder / "cell" / "metrics.json")  # without numbers if the fit failed
    rows += [(f"the cell's {name}", v) for name, v in metrics.items() if isinstance(v, float)]
    return pd.DataFrame(rows, columns=["what", "value"])


def start(code: str, arguments: Sequence[str]) -> subprocess.Popen:
    """Start a step in a process of its own, as a rule does."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=REPOSITORY)


def wait(processes: Sequence[subprocess.Popen]) -> None:
    """Wait for processes.

    Raises:
        RuntimeError: one failed; its message is on the standard error.
    """
    if any([process.wait() for process in processes]):
        raise RuntimeError("a step failed: see above")


if __name__ == "__main__":
    sys.exit(main())
