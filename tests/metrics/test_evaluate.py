"""`evaluate_arrays` agrees with the single metrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_references import labelled_scores, masked_maps
from sklearn.metrics import roc_auc_score

from stpm_bench.metrics import auroc, average_precision, evaluate_arrays, f1_max, pro, pro_curve

FLOATS = ["image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pro", "pro_0.05"]


def heavy_tailed(shape=(6, 40, 40), seed=3):
    rng = np.random.default_rng(seed)
    masks = np.zeros(shape, dtype=bool)
    masks[1:, 5:15, 8:20] = True
    masks[2:, 30:, 30:] = True
    maps = np.exp(2 * rng.standard_normal(shape) + masks).astype(np.float32)
    return masks, maps


@settings(deadline=None, max_examples=100)
@given(masked_maps(), st.data())
def test_equals_the_single_metrics(data, more):
    masks, maps = data
    if len(masks) == 1:
        masks, maps = np.concatenate([masks, masks]), np.concatenate([maps, maps])
    labels, scores = more.draw(labelled_scores(shape=(len(masks),)))
    result = evaluate_arrays(labels, scores, masks, maps)
    assert result["image_auroc"] == auroc(labels, scores)
    assert result["pixel_auroc"] == auroc(masks, maps)
    assert result["pixel_ap"] == average_precision(masks, maps)
    assert result["pixel_f1_max"] == f1_max(masks, maps)
    assert result["pro"] == pro(masks, maps)
    assert result["pro_0.05"] == pro(masks, maps, 0.05)
    assert all(type(result[name]) is float for name in FLOATS)
    assert set(result) == {*FLOATS, "pro_curve_fpr", "pro_curve_overlap"}


def test_the_subsampled_curve_keeps_its_ends_and_its_shape():
    masks, maps = heavy_tailed()
    result = evaluate_arrays(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)), masks, maps)
    fpr, overlap = result["pro_curve_fpr"], result["pro_curve_overlap"]
    assert 100 <= len(fpr) <= 200
    assert (fpr[0], overlap[0]) == (0, 0)
    assert fpr[-1] == 0.3
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(overlap) >= 0).all()
    full_fpr, full_overlap, _ = pro_curve(masks, maps)
    corners = set(zip(full_fpr, full_overlap, strict=True))
    assert corners.issuperset(zip(fpr[:-1], overlap[:-1], strict=True))
    assert np.trapezoid(overlap, fpr) / 0.3 == pytest.approx(result["pro"], abs=0.01)


def test_without_regions_or_masks_the_other_metrics_are_the_same():
    masks, maps = heavy_tailed()
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    whole = evaluate_arrays(labels, scores, masks, maps)
    pixels = evaluate_arrays(labels, scores, masks, maps, annotation="pixels")
    assert pixels == {name: whole[name] for name in FLOATS[:4]}
    assert pixels["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    image = evaluate_arrays(labels, scores, masks[:0], maps, annotation="image")
    assert image == {"image_auroc": whole["image_auroc"]}
    assert image["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    for annotation in ("pixels", "regions"):
        with pytest.raises(ValueError, match="image_labels and masks: expected shapes"):
            evaluate_arrays(labels, scores, masks[:0], maps, annotation=annotation)


def test_a_short_curve_is_kept_whole():
    masks = np.array([[[1, 0]], [[0, 0]]])
    maps = np.array([[[2.0, 1.0]], [[0.0, 0.0]]])
    result = evaluate_arrays([1, 0], [2.0, 1.0], masks, maps)
    assert result["pro_curve_fpr"].tolist() == [0, 0, 0.3]
    assert result["pro_curve_overlap"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_labels": [0] * 6}, "image_labels: expected at least one defect"),
        ({"image_labels": [1] * 6}, "image_labels: expected at least one background"),
        ({"image_labels": [0, 1, 2, 0, 1, 0]}, "image_labels: expected bool or only 0 and 1"),
        ({"image_scores": [1.0] * 5}, "image_labels and image_scores: expected the same shape"),
        ({"image_scores": [np.nan] * 6}, "image_scores: expected finite scores"),
        (
            {"image_labels": [0, 1], "image_scores": [0.0, 1.0]},
            r"image_labels and masks: expected shapes \(N,\) and \(N, H, W\), found \(2,\)",
        ),
        ({"masks": np.zeros((6, 40, 40))}, "masks: expected at least one defect"),
        ({"anomaly_maps": np.zeros((6, 40, 41))}, "masks and anomaly_maps: expected the same"),
        ({"anomaly_maps": np.full((6, 40, 40), np.inf)}, "anomaly_maps: expected finite scores"),
    ],
)
def test_errors_name_the_input(change, message):
    masks, maps = heavy_tailed()
    inputs = {
        "image_labels": masks.any(axis=(1, 2)),
        "image_scores": maps.max(axis=(1, 2)),
        "masks": masks,
        "anomaly_maps": maps,
    }
    with pytest.raises(ValueError, match=message):
        evaluate_arrays(**(inputs | change))
