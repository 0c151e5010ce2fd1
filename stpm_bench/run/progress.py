"""The progress of a run after each cell: a bar in a terminal, lines in a log."""

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from stpm_bench.grid import CELL

# The metric that a line shows: the first of these that the cell's set has.
SHOWN = {"pro": "PRO", "pixel_auroc": "pixel AUROC", "image_auroc": "image AUROC"}


RULES = ("fit", "fit_temporary", "evaluate")


class Progress(logging.Handler):
    """Follows Snakemake's events; after each evaluated cell it prints how far the run is.

    Args:
        cells: folder of the cells.
        images: name of a fit that is still to do -> how many images it processes, counting every
            epoch.
        total, done: how many cells there are, and how many of them are finished.
    """

    def __init__(self, cells: Path, images: Mapping[str, int], total: int, done: int):
        super().__init__()
        self.cells, self.images = cells, images
        self.start, self.fitted, self.jobs = time.monotonic(), 0, {}
        self.total, self.done = total, done
        self.bar = None
        # This runs in Snakemake's environment, which may lack tqdm; then it prints lines.
        if sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            form = "{desc} {n_fmt} of {total_fmt} |{bar:20}| {postfix}"
            self.bar = tqdm(total=total, initial=self.done, desc="cells", bar_format=form)

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one event; print the progress if it finishes a cell."""
        event = getattr(getattr(record, "event", None), "value", None)
        if event == "job_info" and record.rule_name in RULES:
            self.jobs[record.jobid] = record.rule_name, CELL.format(**record.wildcards)
        if event == "job_finished" and record.job_id in self.jobs:
            rule, cell = self.jobs.pop(record.job_id)
            if rule != "evaluate":
                self.fitted += self.images.get(cell, 0)
            else:
                self.done += 1
                self.say(cell)
        if self.bar is not None:
            self.bar.refresh()

    def say(self, cell: str) -> None:
        """Print a line or advance the bar."""
        elapsed = time.monotonic() - self.start
        rate = self.fitted / elapsed
        left = sum(self.images.values()) - self.fitted
        parts = [f"{rate:,.0f} images/s"]
        parts += [f"about {duration(left / rate)} left"] if rate else []
        text = ", ".join([*parts, f"last: {cell}: {outcome(self.cells / cell)}"])
        if self.bar is None:
            print(f"cells {self.done} of {self.total}, {text}", file=sys.stderr)
        else:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()


def outcome(cell: Path) -> str:
    """Return the metric of a finished cell as text for a line."""
    try:
        values = json.loads((cell / "metrics.json").read_text())
    except (OSError, ValueError):
        return "its metrics cannot be read"  # the step that reads them next says why
    if "failure" in values:
        return f"the fit failed: {values['failure']}"
    return next(f"{name} {values[key]:.3f}" for key, name in SHOWN.items() if key in values)


def duration(seconds: float) -> str:
    """Return a duration in a suitable unit."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def follow(
    logger: logging.Logger, cells: Path, images: Mapping[str, int], total: int, done: int
) -> None:
    """Attach a `Progress` to Snakemake's logger; its bar stays below other log lines."""
    progress = Progress(cells, images, total, done)
    if progress.bar is not None:
        before = logging.Handler()
        before.emit = lambda record: progress.bar.clear()
        logger.handlers.insert(0, before)
    logger.addHandler(progress)
