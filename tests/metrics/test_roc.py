"""ROC metrics against scikit-learn, closed forms and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from metric_references import increasing, labelled_scores
from sklearn import metrics as sklearn_metrics

from stpm_bench.metrics import auroc, average_precision, f1_max, roc_curve

EXACT = {"rel": 0, "abs": 1e-9}
METRICS = [auroc, average_precision, f1_max]
several = settings(deadline=None, max_examples=150)


@several
@given(labelled_scores())
def test_auroc_and_average_precision_equal_scikit_learn(data):
    labels, scores = data
    assert auroc(labels, scores) == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores), **EXACT
    )
    assert average_precision(labels, scores) == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), **EXACT
    )


@several
@given(labelled_scores())
def test_f1_max_equals_a_loop_over_thresholds(data):
    labels, scores = data
    best = max(sklearn_metrics.f1_score(labels, scores >= threshold) for threshold in set(scores))
    assert f1_max(labels, scores) == pytest.approx(best, **EXACT)


@several
@given(labelled_scores())
def test_roc_curve_equals_scikit_learn(data):
    labels, scores = data
    expected = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for ours, theirs in zip(roc_curve(labels, scores), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@several
@given(labelled_scores())
def test_area_under_the_curve_is_the_auroc(data):
    labels, scores = data
    fpr, tpr, _ = roc_curve(labels, scores)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auroc(labels, scores), **EXACT)


@several
@given(labelled_scores())
def test_auroc_is_symmetric_under_reversal(data):
    labels, scores = data
    assert auroc(1 - labels.astype(int), -scores) == auroc(labels, scores)


@several
@given(labelled_scores())
def test_only_the_order_of_the_scores_counts(data):
    labels, scores = data
    for metric in METRICS:
        assert metric(labels, increasing(scores)) == metric(labels, scores)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_random_input_equals_scikit_learn(dtype):
    rng = np.random.default_rng(1)
    labels = rng.random((20, 50, 50)) < 0.1
    scores = (rng.standard_normal(labels.shape) + labels).astype(dtype).round(3)
    flat = labels.ravel(), scores.ravel()
    assert auroc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(*flat), **EXACT)
    assert average_precision(labels, scores) == pytest.approx(
        sklearn_metrics.average_precision_score(*flat), **EXACT
    )
    precision, recall, _ = sklearn_metrics.precision_recall_curve(*flat)
    assert f1_max(labels, scores) == pytest.approx(
        np.nanmax(2 * precision * recall / (precision + recall)), **EXACT
    )


def test_closed_forms():
    labels = [0, 0, 0, 1]
    assert auroc(labels, [1, 2, 3, 4]) == 1
    assert auroc(labels, [2, 3, 4, 1]) == 0
    assert auroc(labels, [0, 1, 2, 1]) == 0.5
    assert auroc(labels, [5, 5, 5, 5]) == 0.5
    assert average_precision(labels, [5, 5, 5, 5]) == 0.25
    assert f1_max(labels, [5, 5, 5, 5]) == 0.4
    assert average_precision(labels, [1, 2, 3, 4]) == 1
    assert f1_max(labels, [1, 2, 3, 4]) == 1
    # One background above the defect: precision 1/2 at full recall.
    assert average_precision(labels, [1, 2, 4, 3]) == 0.5
    assert f1_max(labels, [1, 2, 4, 3]) == pytest.approx(2 / 3)


def test_the_last_bit_counts():
    one = np.float32(1)
    above = np.nextafter(one, np.float32(2))
    assert auroc([0, 1], np.array([one, above])) == 1
    assert auroc([0, 1], np.array([one, one])) == 0.5


def test_zeros_of_both_signs_tie():
    assert auroc([0, 1], [-0.0, 0.0]) == 0.5
    assert auroc([0, 1], [0.0, -0.0]) == 0.5
    assert len(roc_curve([0, 1], [-0.0, 0.0])[0]) == 2


def test_inputs_are_left_as_they_were():
    labels, scores = np.array([0, 1, 0, 1]), np.array([3.0, 1.0, 2.0, 0.0])
    for function in [*METRICS, roc_curve]:
        function(labels, scores)
    assert labels.tolist() == [0, 1, 0, 1]
    assert scores.tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("function", [*METRICS, roc_curve])
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "labels: expected at least one value, found an empty array"),
        ([0, 1], [], "scores: expected at least one value, found an empty array"),
        ([0, 1], [1.0, 2.0, 3.0], r"labels and scores: expected the same shape, found \(2,\)"),
        ([0, 2], [1.0, 2.0], "labels: expected bool or only 0 and 1, found the value 2"),
        ([0, np.nan], [1.0, 2.0], "labels: expected bool or only 0 and 1, found the value nan"),
        ([0, 0], [1.0, 2.0], "labels: expected at least one defect"),
        ([1, 1], [1.0, 2.0], "labels: expected at least one background"),
        ([0, 1], [1.0, np.nan], "scores: expected finite scores, found NaN or infinity"),
        ([0, 1], [np.nan, 1.0], "scores: expected finite scores, found NaN or infinity"),
        ([0, 1], [1.0, np.inf], "scores: expected finite scores, found NaN or infinity"),
        ([0, 1], [-np.inf, 1.0], "scores: expected finite scores, found NaN or infinity"),
        ([0, 1], [1j, 1.0], "scores: expected float32 or float64, found complex128"),
    ],
)
def test_errors_say_what_is_wrong(function, labels, scores, message):
    with pytest.raises(ValueError, match=message):
        function(labels, scores)
