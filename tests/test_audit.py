import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from stpm_bench import audit, grid
from stpm_bench.datasets.masks import bilinear_any
from stpm_bench.metrics import auroc, pro
from stpm_bench.metrics.definitions import DEFINITIONS
from stpm_bench.report import audit_table, figures, typeset

RNG = np.random.default_rng(0)
ORIGINAL = np.zeros((4, 40, 40), bool)
ORIGINAL[1, 5:21, 8:30] = ORIGINAL[2, 30:, :13] = ORIGINAL[2, 3, 3] = ORIGINAL[3, 18, 0:37] = True
SMALL = ORIGINAL[:, 1::2, 1::2]
MASKS = {"nearest": SMALL}
MASKS["bilinear_any"] = np.stack([bilinear_any(mask, 20) for mask in ORIGINAL])
MAPS = (RNG.random((4, 20, 20)) ** 4 + SMALL * 0.3).astype(np.float32)


def bilinear(image, size):
    """Bilinear resize by its definition: pixel centres, clamped at the border."""
    result = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y, x = (
                np.clip((k + 0.5) * n / size - 0.5, 0, n - 1)
                for k, n in zip((i, j), image.shape, strict=True)
            )
            (top, left), share = (int(y), int(x)), (y % 1, x % 1)
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            above = image[top, left] * (1 - share[1]) + image[top, right] * share[1]
            below = image[bottom, left] * (1 - share[1]) + image[bottom, right] * share[1]
            result[i, j] = above * (1 - share[0]) + below * share[0]
    return result


@pytest.mark.parametrize(("height", "width", "size"), [(40, 40, 20), (35, 50, 16), (9, 9, 9)])
def test_bilinear_any_marks_every_pixel_that_a_defect_touches(height, width, size):
    for _ in range(10):
        mask = RNG.random((height, width)) < 0.05
        grey = bilinear(mask * 255.0, size)
        assert np.array_equal(bilinear_any(mask, size), np.rint(grey) > 0)


def test_resized_is_bilinear():
    expected = F.interpolate(torch.from_numpy(MAPS)[:, None], (50, 37), mode="bilinear")[:, 0]
    np.testing.assert_allclose(audit.resized(MAPS, (50, 37)), expected, rtol=1e-3, atol=1e-5)


def test_every_definition_is_paired_with_every_treatment_of_the_masks():
    table = audit.audit(MASKS, list(ORIGINAL), MAPS).set_index(["definition", "masks"])
    assert len(table) == 3 * len(DEFINITIONS)
    thick = np.stack([bilinear_any(mask, 20) for mask in ORIGINAL])
    large = audit.resized(MAPS, (40, 40))
    for treatment, masks, maps in (
        ("nearest", SMALL, MAPS),
        ("bilinear_any", thick, MAPS),
        ("own", ORIGINAL, large),
    ):
        for name, definition in DEFINITIONS.items():
            expected = definition(masks, maps)
            assert table.loc[(name, treatment), "pro"] == pytest.approx(expected, nan_ok=True)
        row = table.loc[("mvtec", treatment)]
        assert row["pro"] == pytest.approx(pro(masks, maps))
        assert row["pixel_auroc"] == pytest.approx(auroc(masks, maps))
    values = table.loc[[("linear_4000_both_rescaled", t) for t in audit_table.TREATMENTS], "pro"]
    assert values.nunique() == 3


def test_a_definition_without_a_value_for_one_cell_has_no_mean():
    cells = [grid.Cell("a", "1", "t", 1.0, seed, "stpm") for seed in (0, 1)]
    rows = [
        (*cell, definition, "nearest", value, np.nan)
        for cell, values in zip(cells, ([0.9, 0.5], [0.1, np.nan]), strict=True)
        for definition, value in zip(("mvtec", "bins_50"), values, strict=True)
    ]
    audited = pd.DataFrame(rows, columns=[*grid.AXES, *audit.COLUMNS])
    table = audit_table.summary(audited, pd.DataFrame(cells)).set_index(["category", "definition"])
    for category in ("a", "mean"):
        assert table.loc[(category, "mvtec"), "pro"] == 0.5
        assert np.isnan(table.loc[(category, "bins_50"), ["pro", "difference"]].astype(float)).all()


def test_images_of_several_sizes_have_no_resolution_of_their_own():
    masks = [ORIGINAL[0], ORIGINAL[1][:30], *ORIGINAL[2:]]
    table = audit.audit(MASKS, masks, MAPS).set_index(["definition", "masks"])
    own = table.xs("own", level="masks")["pro"]
    assert own.isna().all()
    assert len(own) == len(DEFINITIONS)
    assert table["pro"].notna().sum() == len(table) - len(own)


def test_summary_averages_the_cells_of_a_study_and_differs_from_the_exact_value():
    cells = [grid.Cell(c, "1+2", "t", 1.0, s, "stpm") for c in ("a", "b") for s in (0, 1, 2)]
    values = {("mvtec", "nearest"): 0.5, ("bins_50", "nearest"): 0.25, ("mvtec", "own"): 0.75}
    audited = pd.DataFrame(
        [
            (*cell, definition, masks, value + cell.seed / 8 + (cell.category == "b"), np.nan)
            for cell in cells
            for (definition, masks), value in values.items()
        ],
        columns=[*grid.AXES, *audit.COLUMNS],
    )
    study = pd.DataFrame([cell for cell in cells if cell.seed < 2], columns=list(grid.AXES))
    table = audit_table.summary(audited, study)
    rows = table.set_index(["category", "definition", "masks"])
    assert rows.loc[("a", "bins_50", "nearest"), "pro"] == 0.25 + 1 / 16
    assert rows.loc[("a", "bins_50", "nearest"), "difference"] == -0.25
    assert rows.loc[("mean", "mvtec", "own"), "pro"] == 0.75 + 1 / 16 + 0.5
    assert rows.loc[("mean", "mvtec", "own"), "difference"] == 0.25
    assert rows.loc[("mean", "mvtec", "own"), "cells"] == 4
    text = typeset.markdown(audit_table.sections(table), "pro_definitions")
    assert "| a          | 0.562   | 0.312 (-0.250) |" in text
    assert "| a          | 0.812 (+0.250) |" in text
    assert "definitions, masks own" in text
    figure = figures.definitions(table)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["bins_50", "mvtec, masks own"]
