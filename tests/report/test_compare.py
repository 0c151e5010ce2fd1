"""The comparison of two runs: its rule on simulated runs, and its output for two folders."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from stpm_bench import config, grid
from stpm_bench.__main__ import main
from stpm_bench.report.compare import (
    ALPHA,
    BEYOND,
    REPRODUCED,
    UNTOLD,
    WITHIN,
    compare,
)

SPREAD = 0.005


def normal(rng, shape):
    """Draws of seeds, SPREAD wide; the three metrics of a cell are related (correlation 0.5)."""
    shared = rng.normal(0, 1, (1, *shape[1:]))
    return SPREAD * (np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(0, 1, shape))


def unrelated(rng, shape):
    return rng.normal(0, SPREAD, shape)


def unequal(rng, shape):
    """Categories of very different noise: the noisiest has 20 times the spread of the quietest."""
    scale = np.geomspace(0.001, 0.02, shape[1])[:, None]
    return scale * normal(rng, shape) / SPREAD


def drawn_teacher(rng, shape):
    """The teacher of a seed shifts all categories together, by more than the student does."""
    return normal(rng, shape) + rng.normal(0, 3 * SPREAD, (*shape[:1], 1, shape[2]))


def near_the_ceiling(rng, shape):
    """Skewed, and rounded to the steps of an AUROC of 20 good and 63 defective images."""
    return -np.round(rng.exponential(SPREAD, shape) * 1260) / 1260


def collapsing(rng, shape):
    """One training in five collapses to a much lower value."""
    return normal(rng, shape) - 0.3 * (rng.random(shape) < 0.2)


def rate(noise, shift, groups, worlds, metrics=3, seeds=(3, 3), pairing=0.0) -> float:
    """Return in how many worlds, as a share, the study has a verdict 'beyond noise'.

    Args:
        noise: draws the seeds' deviations. pairing: how far the same seed deviates alike in both.
    """
    rng = np.random.default_rng(19)
    count = 0
    for _ in range(worlds):
        level = rng.uniform(0.8, 0.98, (metrics, groups, 1))
        runs = np.full((2, metrics, groups, max(seeds)), np.nan)
        common = noise(rng, (metrics, groups, max(seeds)))
        for run, n in zip(runs, seeds, strict=True):
            own = noise(rng, (metrics, groups, n))
            run[..., :n] = level + np.sqrt(pairing) * common[..., :n] + np.sqrt(1 - pairing) * own
        runs[1] += shift
        count += any(c.verdict == BEYOND for c in compare(*runs))
    return count / worlds


@pytest.mark.parametrize("groups", [1, 2, 15])
@pytest.mark.parametrize("noise", [normal, unrelated])
def test_a_shift_of_four_spreads_is_beyond_noise(noise, groups):
    assert rate(noise, 0.02, groups, 500) >= 0.95


def test_the_power_for_one_metric_of_one_category_is_the_largest_possible():
    """The power of Student's test of the same level, by its noncentral distribution."""
    limit = stats.t.ppf(1 - ALPHA / 2, 4)
    best = stats.nct.sf(limit, 4, 0.02 / (SPREAD * np.sqrt(2 / 3)))
    assert 0.947 < best < 0.95
    assert rate(normal, 0.02, 1, 2000, metrics=1) == pytest.approx(best, abs=0.015)
    assert rate(normal, 0.02, 2, 500, metrics=1) >= 0.95


@pytest.mark.parametrize("groups", [2, 15])
@pytest.mark.parametrize("noise", [normal, unrelated, unequal, drawn_teacher, near_the_ceiling])
def test_without_a_shift_few_studies_are_beyond_noise(noise, groups):
    assert rate(noise, 0, groups, 1000) <= ALPHA


@pytest.mark.parametrize(
    ("noise", "options"),
    [
        (normal, {}),
        (normal, {"metrics": 1}),
        (normal, {"seeds": (1, 3)}),
        (normal, {"seeds": (5, 2)}),
        (normal, {"pairing": 0.8}),
        (near_the_ceiling, {}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_without_a_shift_one_category_is_seldom_beyond_noise(noise, options):
    """The test has exactly its level here, so that by chance the count may exceed 5 in 100."""
    worlds = 1500
    count = round(rate(noise, 0, 1, worlds, **options) * worlds)
    assert stats.binomtest(count, worlds, ALPHA, alternative="greater").pvalue > 0.001


def test_without_a_shift_collapses_are_seldom_beyond_noise():
    assert rate(collapsing, 0, 15, 1000) <= ALPHA


def test_one_category_that_moved_is_found_among_many():
    shift = np.zeros((15, 1))
    shift[4] = 0.08
    assert rate(normal, shift, 15, 200) >= 0.95
    rng = np.random.default_rng(0)
    runs = [0.9 + normal(rng, (3, 15, 3)) for _ in range(2)]
    for found in compare(runs[0], runs[1] + shift):
        assert (found.verdict, found.group) == (BEYOND, 4)
        assert found.largest == pytest.approx(0.08, abs=0.02)
        assert found.spread == pytest.approx(SPREAD, rel=0.3)


def test_the_interval_contains_the_shift_in_95_of_100_runs():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(500):
        runs = [drawn_teacher(rng, (1, 6, 3)) for _ in range(2)]
        (found,) = compare(runs[0], runs[1] + 0.01)
        held += found.low <= 0.01 <= found.high
    assert held / 500 == pytest.approx(0.95, abs=0.03)


def values(*rows):
    return np.array([rows], float)


def test_one_seed_per_run_cannot_tell_unless_the_values_are_equal():
    (found,) = compare(values([0.95]), values([0.99]))
    assert (found.verdict, found.untold, found.groups) == (UNTOLD, 1, 1)
    assert found.largest == pytest.approx(0.04)
    assert np.isnan([found.p, found.low, found.high]).all()
    assert compare(values([0.95]), values([0.95]))[0].verdict == REPRODUCED
    assert compare(values([0.95]), values([0.9504]))[0].verdict == REPRODUCED
    assert compare(values([0.95]), values([0.9506]))[0].verdict == UNTOLD


def test_equal_values_are_reproduced_even_if_a_run_has_others():
    gap = np.nan
    one, other = [0.95, gap, gap], [0.95, 0.5, 0.4]
    assert compare(values(one), values(other))[0].verdict == REPRODUCED
    # A seed that differs: then the others count as well.
    one, other = [0.950, 0.951, 0.952], [0.950, 0.951, 0.955]
    assert compare(values(one), values(other))[0].verdict == WITHIN


def test_nothing_in_common_cannot_tell():
    gap = np.nan
    (found,) = compare(values([0.9, 0.9], [gap, gap]), values([gap, gap], [0.9, 0.9]))
    assert (found.verdict, found.groups, found.group) == (UNTOLD, 0, -1)


def test_other_seeds_are_compared_too():
    gap = np.nan
    one = [0.950, 0.955, 0.945, gap, gap, gap]
    other = [gap, gap, gap, 0.851, 0.856, 0.846]
    assert compare(values(one), values(other))[0].verdict == BEYOND
    assert compare(values(one), values(one[::-1]))[0].verdict == WITHIN


def test_a_method_with_a_single_seed_is_no_noise_for_the_others():
    gap = np.nan
    drawing, single = [0.95, 0.96, 0.94], [0.9, gap, gap]
    moved = [0.955, 0.953, 0.945]
    (found,) = compare(values(drawing, single), values(moved, [0.9001, gap, gap]))
    assert (found.verdict, found.untold) == (WITHIN, 0)
    (found,) = compare(values(drawing, single), values(moved, [0.8, gap, gap]))
    assert (found.verdict, found.untold) == (UNTOLD, 1)
    # A verdict 'beyond noise' stays, even if other groups cannot be decided.
    (found,) = compare(values(drawing, single), values([0.5, 0.51, 0.49], [0.8, gap, gap]))
    assert (found.verdict, found.untold) == (BEYOND, 1)


def test_a_gap_affects_only_its_group():
    rng = np.random.default_rng(5)
    runs = 0.9 + rng.normal(0, SPREAD, (2, 1, 15, 3))
    whole = compare(runs[0], runs[1] + 0.01)[0]
    runs[0, 0, 7, 1] = np.nan  # a training that failed
    with_gap = compare(runs[0], runs[1] + 0.01)[0]
    assert with_gap.groups == 15
    assert with_gap.difference == pytest.approx(whole.difference, abs=SPREAD / 3)
    assert with_gap.high - with_gap.low < 2 * (whole.high - whole.low)


def test_a_metric_in_steps_without_a_spread_is_not_beyond_noise_for_one_step():
    step = 1 / 1260
    (found,) = compare(values([1.0] * 3), values([1 - step] * 3))
    assert found.verdict == WITHIN
    (found,) = compare(values([1.0] * 3), values([0.99] * 3))
    assert found.verdict == BEYOND


CATEGORIES = ("brick", "gravel")


def folder_of(
    path: Path, shift: float = 0.0, seeds=(0, 1, 2), categories=CATEGORIES, noise=1, **changes
) -> Path:
    """Write the config and the metrics of a run: a study of two categories, seeds SPREAD wide.

    Args:
        noise: of the draws. changes: of the config.
    """
    study = {"category": list(CATEGORIES), "layers": [[1, 2, 3]], "teacher": ["random"]}
    given = {
        "results": str(path),
        "data": {"demo": True},
        "teachers": {"random": {"backbone": "resnet18"}},
        "training": {"epochs": 10, "batch_size": 8},
        "studies": {"main": study | {"fraction": [1.0], "seed": [0, 1, 2]}},
    } | changes
    path.mkdir()
    completed = config.complete(given)
    (path / "config.yaml").write_text(yaml.safe_dump(completed))
    rng, rows = np.random.default_rng(noise), []
    for cell in grid.cells(grid.studies(completed)):
        for metric in ("image_auroc", "pixel_auroc", "pro", "pixel_ap"):
            value = 0.9 + rng.normal(0, SPREAD) + shift
            if cell.seed in seeds and cell.category in categories:
                rows.append((*cell, metric, value))
    columns = [*grid.AXES, "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(path / "metrics.csv", index=False)
    return path


def compared(capsys, *folders: Path) -> tuple[int, list[list[str]], str]:
    """Return the exit status, the texts of the rows of the study main, and all that was said."""
    status = main(["compare", *map(str, folders)])
    said = capsys.readouterr()
    rows = [line.strip("|").split("|") for line in said.out.splitlines() if "| main" in line]
    return status, [[text.strip(" *") for text in row] for row in rows], said.out + said.err


@pytest.mark.parametrize(
    ("other", "verdict", "status"),
    [
        ({}, REPRODUCED, 0),
        ({"noise": 2}, WITHIN, 0),
        ({"noise": 2, "shift": 0.05}, BEYOND, 1),
    ],
    ids=str,
)
def test_three_seeds_per_run(tmp_path, capsys, other, verdict, status):
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two", **other)
    found, rows, said = compared(capsys, one, two)
    assert found == status
    assert [row[:3] for row in rows[:3]] == [
        ["main", label, verdict] for label in ("image AUROC", "pixel AUROC", "PRO")
    ]
    assert float(rows[0][3]) == pytest.approx(other.get("shift", 0), abs=0.01)
    equal = "6 of 6" if verdict == REPRODUCED else "0 of 6"
    assert rows[3] == ["main", "6", "0", "0", equal, "n/a"]
    assert "THE CONFIGS DIFFER" not in said


def test_one_seed_per_run_is_exit_status_2(tmp_path, capsys):
    one = folder_of(tmp_path / "one", seeds=(0,))
    two = folder_of(tmp_path / "two", seeds=(0,), noise=2)
    status, rows, _ = compared(capsys, one, two)
    assert status == 2
    assert [row[2] for row in rows[:3]] == [UNTOLD] * 3
    assert compared(capsys, one, one)[0] == 0


def test_one_seed_against_three_is_compared(tmp_path, capsys):
    one = folder_of(tmp_path / "one")
    two = folder_of(tmp_path / "two", seeds=(0,), noise=2, shift=0.2)
    status, rows, _ = compared(capsys, one, two)
    assert (status, rows[0][2]) == (1, BEYOND)
    assert rows[3][1:4] == ["2", "4", "0"]


def test_cells_of_only_one_run_are_counted_and_named(tmp_path, capsys):
    one = folder_of(tmp_path / "one")
    two = folder_of(tmp_path / "two", noise=2, categories=["gravel"])
    _, rows, said = compared(capsys, one, two)
    assert rows[0][8] == "1 of 2"  # groups
    assert rows[3][1:4] == ["3", "3", "0"]
    assert "Only in the first: category-brick_layers-1+2+3_teacher-random" in said
    status, rows, _ = compared(capsys, folder_of(tmp_path / "none", categories=["brick"]), two)
    assert (status, rows[0][2], rows[0][7]) == (2, UNTOLD, "n/a")


def test_the_largest_difference_is_named(tmp_path, capsys):
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two", noise=2)
    table = pd.read_csv(two / "metrics.csv")
    table.loc[table["category"] == "gravel", "value"] -= 0.3
    table.to_csv(two / "metrics.csv", index=False)
    _, rows, _ = compared(capsys, one, two)
    assert re.fullmatch(r"-0\.(29|30)\d \(gravel\)", rows[0][7])


def test_differences_between_configs_are_named(tmp_path, capsys):
    one = folder_of(tmp_path / "one")
    two = folder_of(tmp_path / "two", training={"epochs": 20, "batch_size": 8}, precision="float32")
    _, _, said = compared(capsys, one, two)
    assert "THE CONFIGS DIFFER: training.epochs 10 and 20." in said


def test_level_maps_of_the_same_bytes_are_counted(tmp_path, capsys):
    folders = [folder_of(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        studies = grid.studies(yaml.safe_load((folder / "config.yaml").read_text()))
        for i, fit in enumerate(grid.fit_names(studies).values()):
            (folder / "fits" / fit).mkdir(parents=True)
            digest = f"{i + (folder.name == 'two' and i < 2):064}"
            record = folder / "fits" / fit / "score.sha256"
            record.write_text(f"{digest}  level_maps.npz\n{'0' * 64}  score.json\n")
    _, rows, _ = compared(capsys, *folders)
    assert rows[3][5] == "4 of 6"
    # Against a folder without fits, as a published one is, nothing is known of them.
    published = folder_of(tmp_path / "published")
    assert compared(capsys, folders[0], published)[1][3][4:] == ["6 of 6", "n/a"]


def test_the_tables_are_written(tmp_path):
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two", noise=2)
    assert main(["compare", str(one), str(two), "--out", str(tmp_path / "out")]) == 0
    assert WITHIN in (tmp_path / "out" / "compare.md").read_text()
    assert f"<b>{WITHIN}</b>" in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize("file", ["config.yaml", "metrics.csv"])
def test_a_folder_without_a_run_is_refused(tmp_path, capsys, file):
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two")
    (two / file).unlink()
    status, _, said = compared(capsys, one, two)
    assert status == 1
    assert f"error: {two / file}: no such file" in said
