import itertools

import numpy as np
import pandas as pd
import pytest

from stpm_bench import grid, published, tables
from stpm_bench.datasets import mvtec

SEEDS = (0, 1, 2)


def long_table(categories, layers=("1+2+3",), metrics=tables.METRICS):
    """The long table with a value that spells its axes: easy to compute by hand."""
    rng = np.random.default_rng(0)
    rows = [
        (category, subset, "t", 1.0, seed, "paper", metric, rng.random())
        for category, subset, seed, metric in itertools.product(categories, layers, SEEDS, metrics)
    ]
    return pd.DataFrame(rows, columns=[*grid.AXES, "metric", "value"])


def cells(long):
    return long[list(grid.AXES)].drop_duplicates()


def row(table, category):
    return table[table["category"] == category].iloc[0]


def test_mean_and_sd_are_over_seeds():
    long = long_table(["bottle", "carpet", "tile"])
    table = tables.study_table(long, cells(long), {})
    assert table["category"].tolist() == ["bottle", "carpet", "tile", "textures", "objects", "mean"]
    bottle = long[(long["category"] == "bottle") & (long["metric"] == "pro")]["value"]
    assert row(table, "bottle")["pro"] == pytest.approx(bottle.mean())
    assert row(table, "bottle")["pro_sd"] == pytest.approx(bottle.std())
    textures = long[long["category"].isin(["carpet", "tile"]) & (long["metric"] == "pro")]
    by_seed = textures.groupby("seed")["value"].mean()
    assert row(table, "textures")["pro"] == pytest.approx(by_seed.mean())
    assert row(table, "textures")["pro_sd"] == pytest.approx(by_seed.std())
    assert (table["seeds"] == 3).all()


def test_each_setting_has_its_rows():
    long = long_table(["bottle"], layers=("1", "1+2"))
    table = tables.study_table(long, cells(long), {})
    assert table[["layers", "category"]].to_numpy().tolist() == [
        ["1", "bottle"],
        ["1", "objects"],
        ["1", "mean"],
        ["1+2", "bottle"],
        ["1+2", "objects"],
        ["1+2", "mean"],
    ]
    value = long[(long["layers"] == "1+2") & (long["metric"] == "pro")]["value"].mean()
    assert table["pro"].iloc[-1] == pytest.approx(value)


def test_a_missing_cell_is_a_gap_and_is_counted():
    long = long_table(["bottle", "cable"])
    gone = (long["category"] == "cable") & (long["seed"] == 2)
    table = tables.study_table(long[~gone], cells(long), {})
    assert row(table, "cable")["seeds"] == 2
    assert row(table, "mean")["seeds"] == 2
    both = long[(long["metric"] == "pro") & (long["seed"] < 2)]["value"].mean()
    assert row(table, "mean")["pro"] == pytest.approx(both)
    empty = tables.study_table(long[long["category"] != "cable"], cells(long), {})
    assert np.isnan(row(empty, "cable")["pro"])
    assert row(empty, "cable")["seeds"] == 0
    text = tables.markdown(empty, "Study: main", cells=6, missing=3)
    assert "| n/a" in text
    assert "6 cells; 3 of them are missing and leave gaps" in text


def test_the_papers_values_stand_beside_ours():
    paper = published.paper(published.read())
    long = long_table(["bottle", "cable"])
    table = tables.study_table(long, cells(long), paper)
    assert row(table, "bottle")["pro_paper"] == 0.951
    assert row(table, "mean")["pro_paper"] == pytest.approx((0.951 + 0.877) / 2)
    assert row(table, "bottle")["pro_difference"] == pytest.approx(
        row(table, "bottle")["pro"] - 0.951
    )
    # The paper prints image AUROC as a mean of 15 alone.
    assert np.isnan(row(table, "mean")["image_auroc_paper"])
    every = long_table(mvtec.CATEGORIES)
    table = tables.study_table(every, cells(every), paper)
    assert row(table, "mean")["image_auroc_paper"] == 0.955
    assert row(table, "mean")["pro_paper"] == pytest.approx(0.9242, abs=1e-4)
    text = tables.markdown(table, "Study: main", 45, 0)
    assert "PRO, paper" in text
    assert "0.951" in text


def test_the_papers_values_are_of_its_own_setting():
    paper = published.paper(published.read())
    long = long_table(["bottle"], layers=("1", "1+2+3"))
    table = tables.study_table(long, cells(long), paper)
    values = table[table["category"] == "bottle"].set_index("layers")["pro_paper"]
    assert np.isnan(values["1"])
    assert values["1+2+3"] == 0.951


def test_one_seed_has_no_spread():
    long = long_table(["bottle"])
    long = long[long["seed"] == 0]
    table = tables.study_table(long, cells(long), {})
    assert np.isnan(row(table, "bottle")["pro_sd"])
    assert "±" not in tables.markdown(table, "t", 1, 0).split("Mean")[0]


def test_published_numbers_have_sources():
    table = published.read()
    assert table["value"].between(0, 1).all()
    assert table["source"].notna().all()
    assert published.paper(table)["mean", "pro"] == 0.921


def test_several_sets_have_a_row_each():
    long = long_table(["bottle", "visa.candle", "visa.pcb1", "own.nut"])
    table = tables.study_table(long, cells(long), {})
    assert table["category"].tolist() == [
        *["bottle", "visa.candle", "visa.pcb1", "own.nut"],
        *["objects", "mvtec_ad", "visa", "own", "mean"],
    ]
    visa = long[long["category"].str.startswith("visa.") & (long["metric"] == "pro")]
    by_seed = visa.groupby("seed")["value"].mean()
    assert row(table, "visa")["pro"] == pytest.approx(by_seed.mean())
    assert row(table, "visa")["pro_sd"] == pytest.approx(by_seed.std())
    assert row(table, "own")["pro"] == row(table, "own.nut")["pro"]
    one = long_table(["visa.candle", "visa.pcb1"])
    assert "visa" not in set(tables.study_table(one, cells(one), {})["category"])
