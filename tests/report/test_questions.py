"""The questions of the studies, for simulated metrics whose true effects are known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from builders import cells_of, long_table
from stpm_bench.report import claims_table, questions
from stpm_bench.report.verdict import evidence

MAIN = ("1+2+3", "t", 1.0, "a")
CATEGORIES = [f"c{i}" for i in range(8)]
CONFIG = {"teachers": {"t": {"backbone": "resnet18", "weights": "IMAGENET1K_V1"}}}


def made_up(shifts, seeds=(0, 1, 2), noise=0.002):
    """A long table: (layers, teacher, fraction, method) -> its level; noise for each cell."""
    rng = np.random.default_rng(0)
    return long_table(
        shifts, CATEGORIES, lambda setting, *_: shifts[setting] + noise * rng.normal(), seeds
    )


def ask(metrics, studies=None, config=CONFIG):
    cells = cells_of(metrics) if studies is None else studies
    cells = cells if "study" in cells else cells.assign(study="s")
    table = questions.questions(evidence(metrics, cells, MAIN, config), cells)
    return table[table["metric"] == "pro"].set_index("question")


def test_a_study_of_one_axis_shows_its_largest_difference_from_the_reference():
    levels = {"b": 0.91, "a": 0.9, "c": 0.8, "d": 0.89}
    table = ask(made_up({("1+2+3", "t", 1.0, name): level for name, level in levels.items()}))
    row = table.loc[questions.METHOD]
    assert row["setting"] == "method c"
    assert row["reference"] == "method a"  # the main study's value, not the first
    assert row["effect"] == pytest.approx(-0.1, abs=0.005)
    assert row["low"] < row["effect"] < row["high"] < 0
    assert row["p_holm"] == pytest.approx(3 * row["p"])  # the largest of three
    assert row[["comparisons", "values", "planned", "categories"]].tolist() == [3, 48, 48, 8]


def test_without_the_main_setting_the_first_is_the_reference():
    table = ask(made_up({("1", "t", 1.0, "a"): 0.5, ("2", "t", 1.0, "a"): 0.6}))
    assert table["reference"].item() == "layers 1"


def test_a_study_of_two_axes_asks_for_each_with_the_other_fixed():
    """Few-shot with both schedules: the schedule matters only at 5%."""
    levels = {(1.0, "a"): 0.9, (1.0, "steps"): 0.9, (0.05, "a"): 0.6, (0.05, "steps"): 0.85}
    table = ask(made_up({("1+2+3", "t", *setting): v for setting, v in levels.items()}))
    assert set(table.index) == {questions.WORDS["fraction"], questions.METHOD}
    row = table.loc[questions.METHOD]
    assert row["setting"] == "fraction 0.05, method steps"
    assert row["reference"] == "fraction 0.05, method a"
    assert (row["effect"], row["comparisons"]) == (pytest.approx(0.25, abs=0.005), 2)
    row = table.loc[questions.WORDS["fraction"]]
    assert row["setting"] == "fraction 0.05, method a"


def test_a_method_with_levels_of_its_own_is_compared_with_the_main_setting():
    levels = {("1+2+3", "a"): 0.9, ("1+2+3", "b"): 0.91, ("2+3", "c"): 0.97}
    table = ask(made_up({(at, "t", 1.0, name): v for (at, name), v in levels.items()}))
    assert table.index.tolist() == [questions.METHOD]
    row = table.loc[questions.METHOD]
    assert row["setting"] == "layers 2+3, method c"
    assert row["reference"] == "layers 1+2+3, method a"
    assert (row["effect"], row["comparisons"]) == (pytest.approx(0.07, abs=0.005), 2)


def test_what_is_missing_is_named_and_what_has_not_run_is_no_answer():
    metrics = made_up({("1+2+3", "t", 1.0, "a"): 0.9, ("1", "t", 1.0, "a"): 0.8})
    cells = cells_of(metrics)
    gone = (metrics["layers"] == "1") & (metrics["category"] == "c3")
    row = ask(metrics[~gone], cells).iloc[0]
    assert "layers 1 lacks 3 of 24 values (c3)" in row["note"]
    assert (row["values"], row["planned"]) == (42, 48)
    row = ask(metrics.iloc[:0], cells).iloc[0]
    assert np.isnan(row["effect"])
    section = claims_table.questions_section(ask(metrics.iloc[:0], cells).reset_index())
    assert section.body["effect"].tolist() == ["n/a"]


def test_in_a_whole_grid_only_the_main_setting_is_the_reference():
    values = itertools.product(("1+2+3", *map(str, range(8))), (1.0, 0.1, 0.05, 0.5), "ab")
    metrics = made_up({(at, "t", f, m): 0.5 + f / 10 for at, f, m in values}, seeds=(0,))
    table = ask(metrics)
    assert table["comparisons"].tolist() == [8, 3, 1]
    assert table.loc[questions.WORDS["fraction"], "reference"] == "fraction 1.0"


def test_a_study_of_one_setting_asks_nothing():
    assert ask(made_up({MAIN: 0.9})).empty


def test_a_teacher_drawn_for_each_seed_asks_for_the_spread_over_seeds():
    teachers = {
        "once": {"backbone": "resnet18", "pretrain": "mnist", "draws": 1},
        "anew": {"backbone": "resnet18", "pretrain": "mnist"},
    }
    parts = [
        made_up({("1+2+3", name, 1.0, "a"): 0.9}, noise=noise)
        for name, noise in (("once", 0.001), ("anew", 0.02))
    ]
    table = ask(pd.concat(parts), config={"teachers": CONFIG["teachers"] | teachers})
    row = table.loc[questions.SPREAD]
    assert row["setting"] == "sd over seeds, teacher anew"
    of_pro = [part[part["metric"] == "pro"] for part in parts]
    once, anew = (part.groupby("category")["value"].std().mean() for part in of_pro)
    assert row["effect"] == pytest.approx(anew - once)
    assert row["low"] > 0


def test_a_study_with_the_last_epoch_asks_whether_the_training_collapses():
    kept = made_up({MAIN: 0.9})
    last = made_up({MAIN: 0.6}).assign(metric=lambda rows: "last_epoch_" + rows["metric"])
    cells = cells_of(kept)
    row = ask(pd.concat([kept, last]), cells).loc[questions.LAST_EPOCH]
    assert row["effect"] == pytest.approx(-0.3, abs=0.005)
    assert -0.31 < row["low"] <= row["high"] < -0.29
    assert row[["values", "planned", "categories"]].tolist() == [48, 48, 8]
    assert row["reference"] == "the kept epoch"
