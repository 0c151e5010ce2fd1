"""The table that compares the methods' costs, and its JSON with machine and versions."""

import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from stpm_bench.__main__ import main
from stpm_bench.benchmarks import methods as benchmark
from stpm_bench.benchmarks import prepare
from stpm_bench.benchmarks.record import record, spread
from stpm_bench.methods import FILES

TINY = {"train": 6, "frames": 2, "epochs": 1}


def test_each_method_has_its_costs_and_a_json_says_on_what(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "run", functools.partial(benchmark.run, **TINY))
    file = tmp_path / "methods.json"
    options = ["--runs", "1", "--size", "64", "--output", str(file)]
    assert main(["benchmark", "methods", *options]) == 0
    printed = capsys.readouterr().out
    assert "| frames/s" in printed
    found = json.loads(file.read_text())
    assert found["benchmark"] == "methods"
    assert found["runs"] == 1
    assert found["settings"] == TINY | {"size": 64}
    assert found["threads"] == torch.get_num_threads()
    assert {"processor", "cores", "load", "device"} <= found["machine"].keys()
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    table = pd.DataFrame(found["results"])
    rows = table.set_index(["quantity", "method"])
    assert list(rows.index) == [(q, m) for q in benchmark.QUANTITIES for m in FILES]
    assert (rows["median"] > 0).all()
    assert (rows.xs("stpm", level="method")["ratio to stpm"] == 1).all()
    size = rows.loc["model on disk, MB", "median"]
    # SPADE keeps the levels 1 to 3 of all 6 images in float32; a student has the network's weights.
    values = 6 * (64 * 16**2 + 128 * 8**2 + 256 * 4**2)
    assert size["spade"] == pytest.approx(4 * values / 1e6, rel=0.05)
    ratio = rows.loc[("model on disk, MB", "spade"), "ratio to stpm"]
    assert ratio == pytest.approx(size["spade"] / size["stpm"])
    # A process of its own: the memory is not the sum of those before it.
    assert (rows.loc["memory of scoring, MB", "median"] < 1500).all()
    p50, p95, frames = (rows.loc[q, "median"]["stpm"] for q in ("p50, ms", "p95, ms", "frames/s"))
    assert p50 <= p95
    assert frames == pytest.approx(1000 / p50, rel=1e-3)


def test_the_methods_take_turns_and_a_row_has_the_median_of_the_runs(monkeypatch):
    calls = []

    def made_up(function, settings, *arguments):
        calls.append((settings.module, function.__name__))
        run = (len(calls) - 1) // (2 * len(FILES))
        value = (3.0, 1.0, 2.0)[run] * (1 + FILES.index(settings.module))
        ours = benchmark.QUANTITIES[:1] if function is benchmark.fit else benchmark.QUANTITIES[1:]
        return dict.fromkeys(ours, value)

    monkeypatch.setattr(benchmark, "in_its_own_process", made_up)
    rows = benchmark.run(runs=3).set_index(["quantity", "method"])
    assert calls == [(file, step) for file in FILES for step in ("fit", "score")] * 3
    for position, file in enumerate(FILES, 1):
        for quantity in benchmark.QUANTITIES:
            row = rows.loc[(quantity, file)]
            assert row[["median", "lowest", "highest"]].tolist() == [
                2 * position,
                position,
                3 * position,
            ]
            assert row["ratio to stpm"] == position / (1 + FILES.index("stpm"))


def test_crops_are_of_a_photograph_and_differ():
    images = benchmark.crops(64, 5, seed=0)
    assert (images.shape, images.dtype) == ((5, 64, 64, 3), np.uint8)
    assert images.std() > 10
    assert len({image.tobytes() for image in images}) == 5
    assert not np.array_equal(images, benchmark.crops(64, 5, seed=1))


def test_a_record_is_json_whatever_the_table_holds():
    table = pd.DataFrame({"way": ["a", "b"], "images/s": [np.float32(2), np.nan], "n": [1, 2]})
    found = json.loads(json.dumps(record("x", table, None, 3, {"size": 64})))
    assert found["results"] == [
        {"way": "a", "images/s": 2.0, "n": 1},
        {"way": "b", "images/s": None, "n": 2},
    ]
    assert found["machine"]["device"] == "cpu"
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


def test_a_benchmark_without_a_size_refuses_one(monkeypatch, capsys):
    monkeypatch.setattr(prepare, "run", lambda runs: pytest.fail("it ran"))
    assert main(["benchmark", "prepare", "--size", "64"]) == 1
    said = capsys.readouterr().err
    assert "--size is 64" in said
    assert "'prepare'" in said
