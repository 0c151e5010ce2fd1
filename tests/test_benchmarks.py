"""The benchmarks' tables; nothing here depends on how fast anything is."""

import numpy as np

from stpm_bench.benchmarks import pretraining


def test_pretraining_has_one_row_a_way():
    table = pretraining.run(batches=1, batch_size=4, runs=1)
    assert list(table.columns) == ["way", "images/s", "ratio", "runs"]
    assert len(table) == 2
    assert table["ratio"][0] == 1
    np.testing.assert_allclose(table["ratio"], table["images/s"] / table["images/s"][0])
