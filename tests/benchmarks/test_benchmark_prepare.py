import numpy as np

from stpm_bench.__main__ import main
from stpm_bench.benchmarks import prepare as benchmark
from stpm_bench.datasets.prepare import prepare


def test_the_plain_loop_gives_the_images_that_prepare_gives(tmp_path):
    good = tmp_path / "nut" / "train" / "good"
    benchmark.write(good, 10, 96, seed=0)
    prepared, _, table = prepare(tmp_path, "nut", "train", 32, progress=False)
    assert np.array_equal(benchmark.plain_loop(good, 32), prepared)
    assert len(table) == 10
    assert prepared.std() > 10  # no flat images, which would decode too fast


def test_the_table(monkeypatch):
    monkeypatch.setattr(benchmark.os, "cpu_count", lambda: 2)
    table = benchmark.run(images=4, size=64, runs=2)
    assert list(zip(table["method"], table["threads"], strict=True)) == [
        ("plain Pillow loop", 1),
        ("stpm_bench prepare", 1),
        ("stpm_bench prepare", 2),
    ]
    assert np.allclose(table["images/s"], 4 / table["seconds"])


def test_the_step(capsys, monkeypatch):
    run = benchmark.run
    monkeypatch.setattr(benchmark, "run", lambda runs: run(images=2, size=64, runs=runs))
    assert main(["benchmark", "prepare", "--runs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| stpm_bench prepare |" in printed
    assert "1024 x 1024 to 256 x 256" in printed
