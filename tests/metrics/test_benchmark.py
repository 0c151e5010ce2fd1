"""The benchmark's table has its rows and columns; nothing here depends on how fast it is."""

import sys
import types

import numpy as np
import pytest

from stpm_bench.benchmarks import metrics as benchmark

COLUMNS = ["method", "computes", "seconds", "ratio to np.sort", "runs", "note"]


@pytest.fixture
def without_anomalib(monkeypatch):
    monkeypatch.setattr(benchmark, "anomalib_aupro", lambda: None)


@pytest.mark.usefixtures("without_anomalib")
def test_one_row_a_method():
    table = benchmark.run(images=6, size=64, runs=1)
    assert list(table.columns) == COLUMNS
    assert len(table) == 4
    assert (table["seconds"] > 0).all()
    ratio = table["seconds"] / table["seconds"][table["method"] == benchmark.SORT].item()
    np.testing.assert_allclose(table["ratio to np.sort"], ratio)
    loop = table[table["method"].str.contains("loop")]
    assert loop["note"].item() == "2 of 4000 thresholds timed, the rest scaled"


def test_anomalib_is_timed_where_it_is_importable(monkeypatch):
    torch = pytest.importorskip("torch")
    calls = []

    class Metric:
        def update(self, maps, masks):
            calls.append((tuple(maps.shape), masks.dtype))

        def compute(self):
            return 0.5

    module = types.ModuleType("anomalib.metrics.aupro")
    module._AUPRO = Metric
    for name in ("anomalib", "anomalib.metrics"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "anomalib.metrics.aupro", module)
    monkeypatch.setattr(benchmark.importlib.metadata, "version", lambda name: "9.9")
    table = benchmark.run(images=6, size=64, runs=1)
    assert table["method"].tolist()[-1] == "anomalib 9.9 AUPRO"
    assert calls == [((6, 64, 64), torch.int64)]


def test_the_maps_are_heavy_tailed_and_the_masks_blobs():
    masks, maps = benchmark.synthetic(12, 64, seed=0)
    assert masks.shape == maps.shape == (12, 64, 64)
    assert maps.dtype == np.float32
    assert masks.dtype == bool
    assert maps.min() > 0
    assert maps.max() > 50 * np.median(maps)
    assert maps[masks].mean() > 2 * maps[~masks].mean()
    assert masks.any(axis=(1, 2)).sum() == 10
    again = benchmark.synthetic(12, 64, seed=0)
    np.testing.assert_array_equal(maps, again[1])


def test_the_loop_measures_what_pro_measures():
    masks, maps = benchmark.synthetic(6, 64, seed=1)
    points = benchmark.threshold_loop(masks, maps)
    assert len(points) == benchmark.LOOP_TIMED
    assert points[0][0] > points[-1][0]
    assert points[0][1] > points[-1][1]
