"""The examples in the docstrings of the metrics are run, and each public metric has one."""

import doctest
import importlib

import pytest

from stpm_bench import metrics


@pytest.mark.parametrize("name", ["evaluate", "pro", "roc"])
def test_the_examples_are_true(name):
    module = importlib.import_module(f"stpm_bench.metrics.{name}")
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", metrics.__all__)
def test_each_metric_has_an_example(name):
    assert ">>> " in getattr(metrics, name).__doc__
