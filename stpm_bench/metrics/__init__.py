"""Metrics: arrays in, a float or a curve out; no torch, no files."""

from stpm_bench.metrics.evaluate import evaluate_arrays
from stpm_bench.metrics.pro import pro, pro_curve
from stpm_bench.metrics.roc import auroc, average_precision, f1_max, roc_curve

__all__ = [
    "auroc",
    "average_precision",
    "evaluate_arrays",
    "f1_max",
    "pro",
    "pro_curve",
    "roc_curve",
]
