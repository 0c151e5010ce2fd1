import io
import json
import logging
from types import SimpleNamespace

import pytest

from stpm_bench.grid import Cell
from stpm_bench.run import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A made-up run of four cells, one of them done: a function that finishes one, the stream."""
    cells = [Cell("bottle", "1+2+3", "imagenet", 1.0, seed, "stpm") for seed in range(4)]
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def start(stream):
        monkeypatch.setattr(progress.sys, "stderr", stream)
        logger = logging.Logger("run")
        logger.addHandler(logging.StreamHandler(stream))
        images = {cell.folder: 3000 for cell in cells[1:]}
        progress.follow(logger, tmp_path, images, len(cells), 1)

        def log(text, event, **values):
            logger.info(text, extra={"event": SimpleNamespace(value=event)} | values)

        def finish(seed, seconds, **metrics):
            cell = cells[seed]
            (tmp_path / cell.folder).mkdir()
            (tmp_path / cell.folder / "metrics.json").write_text(json.dumps(metrics))
            axes = {name: str(value) for name, value in cell._asdict().items()}
            for job, rule in enumerate(("fit", "score", "evaluate"), 10 * seed):
                log(f"rule {rule}:", "job_info", jobid=job, rule_name=rule, wildcards=axes)
                clock[0] += seconds / 3
                log(f"Finished job {job}.", "job_finished", job_id=job)

        return finish

    return start, cells


def test_a_log_has_a_line_after_each_student(run):
    start, cells = run
    stream = io.StringIO()
    finish = start(stream)
    finish(1, 60, pro=0.9214, pixel_auroc=0.9)
    finish(2, 60, image_auroc=0.5)
    finish(3, 30, failure="the loss is not finite at epoch 2")
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("cells")]
    # 3000 images in a minute, 50 a second: 6000 are left, two minutes.
    assert lines == [
        f"cells 2 of 4, 50 images/s, about 2 minutes left, last: {cells[1].folder}: PRO 0.921",
        f"cells 3 of 4, 50 images/s, about 60 seconds left, last: {cells[2].folder}: "
        "image AUROC 0.500",
        f"cells 4 of 4, 60 images/s, about 0 seconds left, last: {cells[3].folder}: "
        "the fit failed: the loss is not finite at epoch 2",
    ]


def test_a_terminal_has_a_bar_below_the_lines(run):
    start, _ = run
    stream = Terminal()
    start(stream)(1, 60, pro=0.9214)
    shown = stream.getvalue()
    assert "cells 2 of 4" in shown
    assert "50 images/s" in shown
    # No line of Snakemake's is written behind a bar.
    for line in shown.split("\n"):
        if "Finished job" in line:
            assert "cells" not in line.rpartition("\r")[2]


def test_metrics_that_cannot_be_read_do_not_stop_a_run(tmp_path):
    assert progress.outcome(tmp_path) == "its metrics cannot be read"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7200, "2 hours"),
        (3e5, "3 days"),
    ],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
