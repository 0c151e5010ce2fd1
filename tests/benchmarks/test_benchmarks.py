"""The tables of the benchmarks have their rows and columns; nothing depends on how fast it is."""

import numpy as np
import pytest
import torch

from stpm_bench.__main__ import main
from stpm_bench.benchmarks import inference, pretraining, training

SMALL = {"runs": 1, "batch_size": 2, "size": 64, "matrix": 64}


@pytest.mark.parametrize("native", [True, False])
def test_training_has_a_row_for_each_step_from_the_authors_manner_to_ours(monkeypatch, native):
    monkeypatch.setattr("stpm_bench.device.cpu_capabilities", lambda: {"amx_bf16": native})
    monkeypatch.setattr(training, "choose_device", lambda name: torch.device("cpu"))
    table = training.run(**SMALL).set_index("step")
    labels = [label for label, _ in training.LADDER]
    assert len(table) == len(labels) + 1 + 2 - 2 * (not native)
    assert ("+ bfloat16" in table.index) == native
    rows = table.dropna()
    assert rows.index[-1] == training.OURS
    rates, ratios = rows["images/s"], table["ratio to the plain loop"]
    np.testing.assert_allclose(ratios[rows.index], rates / table["images/s"][training.PLAIN])
    np.testing.assert_allclose(
        rows["ratio to the row above"].cumprod(), rates / table["images/s"][training.PLAIN]
    )
    kind = "bfloat16" if native else "float32"
    peak = table["GFLOP/s"][f"a product of {kind} matrices"]
    ours = table.loc[training.OURS]
    np.testing.assert_allclose(ours["share of peak"], ours["GFLOP/s"] / peak)


def test_operations_are_those_of_convolutions_and_products():
    left, right = torch.zeros(3, 5), torch.zeros(5, 7)
    assert training.counted(lambda: left @ right) == 2 * 3 * 5 * 7
    images = np.zeros((2, 64, 64, 3), np.uint8)
    settings = dict(training.START)
    cpu, counts = torch.device("cpu"), []
    for _, change in training.LADDER[:6]:
        settings |= change
        counts.append(training.counted(training.step_of("resnet18", images, cpu, **settings)))
    whole, kept, cut, cached, *others = counts
    assert whole == kept > cut > cached
    assert others == [cached, cached]  # how, not what


def test_inference_has_a_row_for_each_batch_size_and_latencies_of_one():
    table = inference.run(runs=1, batches=(1, 2), size=64, matrix=64).set_index("batch")
    assert (table["frames/s"] > 0).all()
    one = table.loc[1]
    assert one["p50 ms"] <= one["p95 ms"] <= one["p99 ms"]
    assert one["frames/s"] == pytest.approx(1000 / one["p50 ms"])
    assert table.loc[2, ["p50 ms", "p95 ms", "p99 ms"]].isna().all()
    assert (table["the paper's claim, frames/s"] == 100).all()
    assert (table["lowest"] <= table["frames/s"]).all()
    assert (table["frames/s"] <= table["highest"]).all()
    np.testing.assert_allclose(
        table["share of limit"] * table["limit, frames/s"], table["frames/s"]
    )


def test_the_limit_counts_the_operations_of_both_networks():
    images = np.zeros((1, 64, 64, 3), np.uint8)
    step = training.step_of(
        "resnet18", images, torch.device("cpu"), **training.START | {"cut": True}
    )
    # A step runs the teacher once, and the student forward and back: for its weights as for its
    # inputs, but for the images, which need no gradient.
    with torch.no_grad():
        network = inference.backbone.create("resnet18", training.LEVELS, 0)
        one = training.counted(lambda: network(torch.zeros(1, 3, 64, 64)))
    first = training.counted(lambda: network.network.conv1(torch.zeros(1, 3, 64, 64)))
    assert training.counted(step) == 4 * one - first
    maps = lambda: inference.level_maps(  # noqa: E731
        network, network, images, inference.METHODS["stpm"], torch.device("cpu")
    )
    assert training.counted(maps) == 2 * one


def test_the_step_prints_a_table_with_what_it_was_measured_on(monkeypatch, capsys):
    run = training.run
    monkeypatch.setattr(training, "run", lambda runs: run(**SMALL | {"runs": runs}))
    assert main(["benchmark", "training", "--runs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| stpm_bench student" in printed
    assert "nan" not in printed
    assert "medians of 1 runs; " in printed


def test_pretraining_has_one_row_a_way():
    table = pretraining.run(batches=1, batch_size=4, runs=1)
    assert list(table.columns) == ["way", "images/s", "ratio", "runs"]
    assert len(table) == 2
    assert table["ratio"][0] == 1
    np.testing.assert_allclose(table["ratio"], table["images/s"] / table["images/s"][0])
