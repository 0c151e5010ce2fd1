"""Tables, claims and figures of every combination of categories, sets, metrics, seeds and gaps."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from builders import cells_of, long_table
from stpm_bench import grid, results
from stpm_bench.audit import COLUMNS
from stpm_bench.datasets import mvtec
from stpm_bench.metrics.definitions import DEFINITIONS
from stpm_bench.report import (
    audit_table,
    claims,
    claims_table,
    cost,
    figures,
    literature,
    tables,
    typeset,
)

LITERATURE = literature.read()
LACKING = {"cifar": ("pixel_auroc", "pro"), "frames": ("pro",)}  # set -> metrics that it has not
# Name -> categories, and those that only have the name of one of MVTec AD's.
MIXTURES = {
    "one of the paper's": (["screw"], {}),
    "one of the paper's, one of the user's": (["screw", "part"], {}),
    "several of the paper's, one of the user's": (["bottle", "screw", "carpet", "part"], {}),
    "one of the user's": (["part"], {}),
    "several of the user's": (["part", "piece"], {}),
    "all of the paper's": (list(mvtec.CATEGORIES), {}),
    "all of the paper's, one of the user's": ([*mvtec.CATEGORIES, "part"], {}),
    "one of the paper's, another set": (["screw", "visa.a", "visa.b"], {}),
    "one category of a set": (["visa.a"], {}),
    "two sets": (["visa.a", "own.b"], {}),
    "images alone": (["cifar.cat", "cifar.dog"], {}),
    "the paper's, images alone, frames": (["bottle", "cable", "cifar.cat", "frames.all"], {}),
    "the paper's name alone": (["tile"], {"tile": (4, 2)}),
    "the paper's name beside the paper's": (["tile", "carpet", "screw"], {"tile": (4, 2)}),
    "all of the paper's names": (list(mvtec.CATEGORIES), {"tile": (4, 2)}),
}


def made_up(categories, seeds, layers):
    """A long table; each set has the metrics that it has."""
    rng = np.random.default_rng(0)

    def value(setting, category, seed, metric):
        lacks = metric in LACKING.get(grid.set_of(category), ())
        return None if lacks else rng.uniform(0.5, 1)

    settings = [(subset, "t", 1.0, claims.STPM) for subset in layers]
    return long_table(settings, categories, value, seeds, (*tables.METRICS, "pixel_ap"))


def audited(long):
    rows = [
        (*cell, name, "nearest", 0.5, np.nan)
        for cell in grid.cells(long[long["metric"] == "pro"])
        for name in DEFINITIONS
    ]
    return pd.DataFrame(rows, columns=[*grid.AXES, *COLUMNS])


def gaps(long):
    """Yield the long table whole, without each end's category, without a seed, and empty."""
    yield long
    for place in (0, -1):
        yield long[long["category"] != long["category"].iloc[place]]
    yield long[(long["seed"] > 0) | (long["category"] != long["category"].iloc[0])]
    yield long.iloc[:0]


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_has_its_tables_claims_and_figures(name):
    categories, others = MIXTURES[name]
    for seeds, layers in (((0, 1, 2), ["1+2+3"]), ((0,), ["1+2+3", "1"])):
        whole = made_up(categories, seeds, layers)
        for place, long in enumerate(gaps(whole)):
            drawn = place < 2 and len(seeds) > 1  # slow
            make(cells_of(whole), long, others, drawn)


def make(cells, long, others, drawn):
    """Make what the steps tables, claims and figures make of one study."""
    printed = literature.without(LITERATURE, others)
    names = tables.metrics_of(cells.merge(long))
    table = tables.study_table(long, cells, literature.paper(printed), names, others)
    basis = tables.coverage(cells, long, pd.DataFrame(columns=cost.COLUMNS), others)
    sections = tables.study_sections("main", table, basis, {})
    methods = literature.methods(printed, table, others)
    sections += literature.methods_sections("main", methods, basis)
    if grid.varying(cells):
        sections += tables.by_category_sections("main", table, basis)
        differences = tables.differences(long, cells)
        sections += tables.differences_sections("main", differences, cells, basis)
    own = literature.ours(long, audited(long), cells, others)
    together = literature.reproductions(printed, own)
    sections += literature.reproductions_sections(together, basis)
    definitions = audit_table.summary(audited(long), cells)
    sections += audit_table.sections(definitions)
    typeset.markdown(sections, "main")

    for other in others:
        compared = [column for column in table if column.endswith(("_paper", "_difference"))]
        assert table.loc[table["category"] == other, compared].isna().all(axis=None)
        assert (methods["category"] != "mean, as printed").all()
        assert own.keys().isdisjoint((other, metric) for metric in literature.METRIC_NAMES)
        assert f"{other}, of 4 training and 2 test images, is not MVTec AD's" in basis
    if "tile" in others and "textures" in set(table["category"]):
        rows = long[long["category"].isin(set(mvtec.TEXTURES) - {"tile"})]
        rows = rows[(rows["metric"] == "pro") & (rows["layers"] == "1+2+3")]
        found = table[(table["category"] == "textures") & (table["layers"] == "1+2+3")]
        if rows.groupby("category")["seed"].nunique().nunique() == 1:
            by_category = rows.groupby("category")["value"].mean()
            assert len(by_category) < 4 or found["pro"].item() == pytest.approx(by_category.mean())

    config = {
        "data": {"demo": False},
        "image_size": 256,
        "teachers": {"t": {"backbone": "resnet18", "weights": "IMAGENET1K_V1"}},
        "training": {},
    }
    scoring = pd.DataFrame({"cell": [], "device": [], "images_per_second": []})
    main = cells[list(grid.SETTING)].iloc[0]
    found = claims.claims(long, cells, main, config, LITERATURE, scoring, others=others)
    scope = claims.scope(long, config, others)
    typeset.markdown(claims_table.sections(found, scope, []), "claims")
    if others:
        verdicts = claims_table.table(found).set_index("claim")["verdict"]
        assert set(verdicts[["4a", "4b", "4c", "6a.3"]]) == {"not tested"}

    if not drawn:
        return
    try:
        figures.study(table, {})
        if literature.has_paper_values(LITERATURE, cells):
            figure = figures.difference_to_paper(table)
            labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
            with_value = set(long.loc[long["metric"].isin(["pro", "pixel_auroc"]), "category"])
            assert set(labels) >= (with_value & set(mvtec.CATEGORIES)) - set(others)
            assert not set(labels) & set(others)
        curves = pd.DataFrame(
            [(c, 0, x, x) for c in set(long["category"]) for x in (0.0, 0.3)],
            columns=["category", "seed", "fpr", "overlap"],
        )
        figures.pro_curves(curves, dict.fromkeys(curves["category"], 0.5))
        figures.definitions(definitions)
    finally:
        plt.close("all")


def test_a_folder_with_other_numbers_of_images_than_published_is_the_users(tmp_path):
    counts = {"tile": (4, 2), "screw": mvtec.COUNTS["screw"], "part": (4, 2)}
    for category, numbers in counts.items():
        for split, number in zip(("train", "test"), numbers, strict=True):
            folder = tmp_path / "prepared" / category / split
            folder.mkdir(parents=True)
            manifest = pd.DataFrame({"file": [f"{i}.png" for i in range(number)]})
            manifest.to_csv(folder / "images.csv", index=False)
    data = {"demo": False, "mvtec_ad": str(tmp_path), "sets": {}, "categories": list(counts)}
    assert results.categories_with_other_images(tmp_path, {"data": data}) == {"tile": (4, 2)}
    # What is downloaded here was counted when it was unpacked.
    assert results.categories_with_other_images(tmp_path, {"data": data | {"mvtec_ad": None}}) == {}
