"""Checks that a run that is killed repeatedly gives the same bytes as an undisturbed one.

`python tests/soak.py` runs a config twice: undisturbed, and killed (SIGKILL to the whole process
group) at random moments that are spread over the work, continuing each time as
docs/interruptions.md says. Then all files of the two runs are compared. The exit status is 1 if
they differ.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import psutil
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # this checkout's, wherever the package is installed from

from stpm_bench import worker
from stpm_bench.errors import InputError
from stpm_bench.files import verified

PATIENCE = 600  # seconds without a new file after which a run is aborted
MEASURED = {"seconds", "training_seconds", "images_per_second"}
MEASURED |= {"peak_memory", "host_bytes", "gpu_bytes"}
MEASURED |= {"frames_per_second", "p50", "p95", "load"}
MEASURED |= {"git_commit"}  # the checkout may change during the test


def json_without(text: str) -> object:
    """Return what JSON says but for its measured values, at any depth."""

    def without(value):
        if isinstance(value, dict):
            return {key: without(v) for key, v in value.items() if key not in MEASURED}
        return [without(v) for v in value] if isinstance(value, list) else value

    return without(json.loads(text))


def csv_without(text: str) -> list[list[str]]:
    """Return a CSV's rows but for its measured columns; no field of these holds a comma."""
    rows = [line.split(",") for line in text.splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if name not in MEASURED]
    return [[row[i] for i in kept] for row in rows]


def text_without(number: str) -> Callable[[str], str]:
    """Return a function that blanks the numbers of a text, and what pads a column to fit them."""
    return lambda text: re.sub("[ -]+", " ", re.sub(number, "#", text))


def config_without(text: str) -> dict:
    """Return a config without the folder of the results, which differs between the two runs."""
    return {key: value for key, value in yaml.safe_load(text).items() if key != "results"}


def names_of(text: str) -> list[str]:
    """Return the files of a record without their hashes; each is compared with its own."""
    return [line.split("  ", 1)[1] for line in text.splitlines()]


# The files that differ between any two runs, why, and what of each must be the same. All others
# must be the same to the byte.
DIFFERENT = (
    ("*.log", "how far a step was, with seconds", lambda text: ""),
    ("*.sha256", "hashes of the files below", names_of),
    ("config.yaml", "names the folder of the results", config_without),
    (".held", "the process that last held the folder", lambda text: ""),
    ("*/fit.json", "seconds, memory", json_without),
    ("*/score.json", "seconds, memory", json_without),
    ("*/evaluation.json", "seconds, memory", json_without),
    ("teachers/*.json", "seconds, memory", json_without),
    ("*/history.csv", "seconds of each epoch", csv_without),
    ("tables/cost.csv", "seconds, memory", csv_without),
    ("tables/cost.*", "seconds, memory", text_without(r"[\d.,]+")),
    ("speed.csv", "seconds of a frame", csv_without),
    ("speed.json", "seconds of a frame", json_without),
    ("claims.*", "frames per second", text_without(r"\d+(?= images per second)")),
    ("notebooks/*", "they show the claims", text_without(r"\d+(?= images per second)")),
)


def kind_of(name: str) -> Callable[[str], object] | None:
    """Return how a file that differs between any two runs is compared; None of all others."""
    return next((compared for pattern, _, compared in DIFFERENT if fnmatch(name, pattern)), None)


def files_of(results: Path) -> dict[str, Path]:
    """Return every file of the results, hidden ones too, by its name below them."""
    files = (path for path in results.rglob("*") if path.is_file())
    return {str(path.relative_to(results)): path for path in files}


def differences(one: Path, other: Path, among: Sequence[str] = ("*",)) -> list[str]:
    """Return the files that are not in both folders of results, not the same, or damaged.

    Args:
        among: patterns of the files to compare.
    """
    names = [
        {name for name in files_of(folder) if any(fnmatch(name, pattern) for pattern in among)}
        for folder in (one, other)
    ]
    found = [f"{name}: in one of the two runs alone" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        a, b, compared = (one / name).read_bytes(), (other / name).read_bytes(), kind_of(name)
        if a != b and not (compared and compared(a.decode()) == compared(b.decode())):
            found.append(f"{name}: differs")
        try:
            verified(other / name)
        except InputError as error:
            found.append(str(error))
    return found


def snakemake(config: Path, *options: str) -> subprocess.Popen:
    """Start the workflow in a process group of its own; what it prints goes beside the config."""
    command = [sys.executable, "-m", "snakemake", *options, "--cores", "2"]
    with config.with_suffix(".printed").open("a") as printed:
        return subprocess.Popen(
            [*command, "--configfile", str(config)],
            cwd=REPOSITORY,
            start_new_session=True,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )


def finish(config: Path, *options: str) -> None:
    """Run the workflow to its end."""
    if status := snakemake(config, *options).wait():
        printed = config.with_suffix(".printed")
        sys.exit(f"snakemake ended with {status}:\n{printed.read_text()[-4000:]}")


def made(results: Path) -> int:
    """Return how far a run is: how many of its files are there, but for the demo's images."""
    return sum(
        not name.startswith("demo_data") and not name.endswith(".log") for name in files_of(results)
    )


def kill(process: subprocess.Popen) -> tuple[list[str], list[str]]:
    """Kill a run's process group; return the steps that ran, and what outlived it by 5 seconds."""
    below = psutil.Process(process.pid).children(recursive=True)
    below += [other for other in psutil.process_iter() if works_for(other, process.pid)]
    names = {child: step_of(child) for child in below}
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # A notebook's kernel is in a group of its own; it writes no file, and ends within a second or
    # two of the step that started it.
    deadline = time.monotonic() + 5
    while (left := [child for child in below if lives(child)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    steps = sorted({name for name in names.values() if name})
    return steps, [names[child] or str(child) for child in left]


def works_for(process: psutil.Process, snakemake: int) -> bool:
    """Return whether a process executes a step for a run's worker, whose child it is."""
    try:
        mine = process.environ().get(worker.VARIABLE, "").startswith(f"{snakemake}:")
        parent = process.parent()
        return mine and parent is not None and "import serve" in " ".join(parent.cmdline())
    except psutil.Error:
        return False


def lives(process: psutil.Process) -> bool:
    """Return whether a process still runs; one that nobody has waited for does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def step_of(process: psutil.Process) -> str:
    """Return the step that a process runs, '' where it runs none."""
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return ""
    return command[3] if command[1:3] == ["-m", "stpm_bench"] else ""


def disturb(config: Path, results: Path, files: int, kills: int, seed: int, *targets: str) -> list:
    """Make the results of a config, killed `kills` times; return what went wrong.

    Args:
        files: how many the finished run has, as `made` counts them.
        targets: what Snakemake is asked for; by default everything.
    """
    rng = random.Random(seed)
    problems, start, finished = [], time.monotonic(), {}
    for number, share in enumerate(sorted(rng.uniform(0, 0.95) for _ in range(kills)), 1):
        process = snakemake(config, *targets, "--rerun-incomplete")
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and made(results) < share * files:
            if time.monotonic() > deadline:
                problems.append(f"kill {number}: nothing happened for {PATIENCE} s")
                break
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 4))
        if process.poll() is not None:
            problems.append(f"kill {number}: the run had ended with {process.returncode}")
            break
        steps, left = kill(process)
        problems += [f"kill {number}: {name} went on" for name in left]
        before, finished = finished, students(results)
        again = sum(finished.get(path, 0) != time_ns for path, time_ns in before.items())
        if again > 2:  # no more than ran at once, on two cores
            problems.append(f"kill {number}: {again} students were trained again")
        print(
            f"kill {number:2}, second {time.monotonic() - start:4.0f}, {len(finished):2} students, "
            f"{made(results)} of {files} files, {again} students again; "
            f"ran: {', '.join(steps) or 'snakemake alone'}",
            flush=True,
        )
        # What docs/interruptions.md says.
        finish(config, "--unlock")
    finish(config, *targets, "--rerun-incomplete")
    return problems


def students(results: Path) -> dict[Path, int]:
    """Return the students that are there, with the time at which each was written."""
    return {path: path.stat().st_mtime_ns for path in results.glob("fits/*/model.pt")}


def write_config(source: Path, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a config whose results go to `folder`/`name`; return its path and the results'."""
    config = yaml.safe_load(source.read_text()) | {"results": str(folder / name)}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path, folder / name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "workflow/config/demo.yaml")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, undisturbed = write_config(options.config, Path(folder), "undisturbed")
        start = time.monotonic()
        finish(config)
        files = made(undisturbed)
        print(f"undisturbed: {files} files in {time.monotonic() - start:.0f} s", flush=True)
        config, killed = write_config(options.config, Path(folder), "killed")
        problems = disturb(config, killed, files, options.kills, options.seed)
        problems += differences(undisturbed, killed)
        names = files_of(undisturbed)
    for problem in problems:
        print(problem)
    measured = sum(kind_of(name) is not None for name in names)
    print(
        f"{len(names) - measured} files compared to the byte, {measured} without what they "
        f"measured: {len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
