import json
import subprocess
import sys

import numpy as np
import pytest

from builders import small_config
from stpm_bench.benchmarks import grid as benchmark
from stpm_bench.config import complete
from stpm_bench.files import verified
from stpm_bench.metrics import evaluate_arrays
from stpm_bench.steps.evaluate import collect
from stpm_bench.steps.report import tables


@pytest.fixture
def config(small_set):
    path = small_set / "small.yaml"
    path.write_text(json.dumps(small_config(small_set)))
    return path


def test_each_command_is_timed(config, small_set):
    main = small_config(small_set)["studies"]["main"] | {"category": ["bottle", "cable"]}
    data = {"folder": str(small_set / "downloads")}
    paper = small_set / "paper.yaml"
    paper.write_text(json.dumps(small_config(small_set, data=data, studies={"main": main})))
    table = benchmark.run(runs=1, full=config, paper=paper).set_index("command")
    assert table["cells"].unique() == [2]
    assert (table["ms a cell"] * 2 / 1000).to_list() == pytest.approx(table["seconds"].to_list())
    assert table["seconds"].between(0.1, 60).all()
    assert (table["GB"] > 0.05).all()  # no less; of a large process that starts it, it may be more
    # The configs' own folders are left alone.
    assert not (small_set / "results").exists()
    assert not (small_set / "downloads").exists()


def test_the_made_up_cells_are_what_the_tables_read(config, small_set):
    made_up = json.loads(config.read_text()) | {"results": str(small_set / "made_up")}
    assert benchmark.write_random_results(complete(made_up), seed=0) == 2
    for path in (small_set / "made_up" / "cells").glob("*/*"):
        assert verified(path) == path
    made_up = json.loads(next((small_set / "made_up").glob("cells/*/metrics.json")).read_text())
    masks = np.eye(8, dtype=bool)[None].repeat(2, 0)
    masks[0] = False
    real = evaluate_arrays(
        np.array([0, 1]), np.array([0.1, 0.9]), masks, np.random.default_rng(0).random((2, 8, 8))
    )
    assert {name for name in real if not name.startswith("pro_curve")} == set(made_up)
    collect(results=small_set / "made_up")
    tables(results=small_set / "made_up", main="main")
    assert "2 of 2 cells" in (small_set / "made_up" / "tables" / "main.md").read_text()


def test_the_stand_in_makes_every_file_that_the_rules_want(config, small_set):
    """Else Snakemake would stop: `timing` raises where a command fails."""
    idle = benchmark.write_fake_python(small_set / "bin")
    (idle / "python").write_text((idle / "python").read_text().replace(" metrics.json", ""))
    command = [sys.executable, "-m", "snakemake", str(small_set / "results" / "metrics.csv")]
    command += ["--nolock", "--cores", "2", "--configfile"]
    with pytest.raises(subprocess.CalledProcessError):
        benchmark.timing([*command, benchmark.redirect_config(config, small_set)], idle)
    assert list((small_set / "results").glob("fits/*/level_maps.npz"))
