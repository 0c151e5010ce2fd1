import json
import subprocess
import sys

import pytest

from conftest import small_config
from stpm_bench import steps
from stpm_bench.benchmarks import grid as benchmark
from stpm_bench.config import complete
from stpm_bench.files import checked


@pytest.fixture
def config(small_set):
    path = small_set / "small.yaml"
    path.write_text(json.dumps(small_config(small_set)))
    return path


def test_each_command_is_timed(config, small_set):
    table = benchmark.run(runs=1, full=config, paper=config).set_index("command")
    assert table["cells"].unique() == [2]
    assert (table["ms a cell"] * 2 / 1000).to_list() == pytest.approx(table["seconds"].to_list())
    assert table["seconds"].between(0.1, 60).all()
    assert table["GB"].between(0.05, 2).all()
    assert not (small_set / "results").exists()  # the configs' own results are left alone


def test_the_made_up_cells_are_what_the_tables_read(config, small_set):
    made_up = json.loads(config.read_text()) | {"results": str(small_set / "made_up")}
    assert benchmark.make_up(complete(made_up), seed=0) == 2
    for path in (small_set / "made_up" / "cells").glob("*/*"):
        assert checked(path) == path
    steps.collect(results=small_set / "made_up")
    steps.tables(results=small_set / "made_up", main="main")
    assert "2 of 2 cells" in (small_set / "made_up" / "tables" / "main.md").read_text()


def test_the_stand_in_makes_every_file_that_the_rules_want(config, small_set):
    """Else Snakemake would stop: `timing` raises where a command fails."""
    idle = benchmark.stand_in(small_set / "bin")
    (idle / "python").write_text((idle / "python").read_text().replace(" metrics.json", ""))
    command = [sys.executable, "-m", "snakemake", str(small_set / "results" / "metrics.csv")]
    command += ["--nolock", "--cores", "2", "--configfile"]
    with pytest.raises(subprocess.CalledProcessError):
        benchmark.timing([*command, benchmark.redirected(config, small_set)], idle)
    assert list((small_set / "results").glob("cells/*/anomaly_maps.npy"))
