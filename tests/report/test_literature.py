import numpy as np
import pandas as pd
import pytest

from builders import cells_of, random_table
from stpm_bench import audit, grid
from stpm_bench.datasets import mvtec
from stpm_bench.errors import InputError
from stpm_bench.report import literature, tables, typeset

LITERATURE = literature.read()


def value(table, metric, category, column):
    rows = table[(table["metric"] == metric) & (table["category"] == category)]
    return rows[column].item()


def methods(categories, printed=LITERATURE):
    long = random_table(categories)
    table = tables.study_table(long, cells_of(long), literature.paper(printed))
    return long, literature.methods(printed, table)


def test_literature_numbers_have_sources():
    assert LITERATURE["value"].between(0, 1).all()
    assert LITERATURE["source"].notna().all()
    assert literature.paper(LITERATURE)["mean", "pro"] == 0.921


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("me,t,M,bottle,pro,95,one", "line 3: value 95.0; expected a number from 0 to 1"),
        ("me,t,M,bottle,pro,n/a.,one", "line 3: value 'n/a.'; expected a number from 0 to 1"),
        ("me,t,M,bottle,pro,,one", "line 3: value nan; expected a number from 0 to 1"),
        ("me,t,M,bottle,aupro,0.9,one", "line 3: metric 'aupro' is unknown; allowed: image_auroc"),
        (",t,M,bottle,pro,0.9,one", "line 3: has no source; every number needs one"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path, line, message):
    path = tmp_path / "literature.csv"
    good = "me,t,M,screw,pro,0.65,one"
    path.write_text("\n".join([",".join(literature.COLUMNS), good, line, ""]))
    with pytest.raises(InputError, match=str(path)) as error:
        literature.read(path)
    assert message in str(error.value)
    path.write_text("source,value\nme,1\n")
    with pytest.raises(InputError, match="lacks the columns table, method, category, metric, che"):
        literature.read(path)


def test_whole_numbers_are_values(tmp_path):
    path = tmp_path / "literature.csv"
    rows = ["me,t,M,bottle,image_auroc,1,one", "me,t,M,screw,image_auroc,0,one"]
    path.write_text("\n".join([",".join(literature.COLUMNS), *rows, ""]))
    assert literature.read(path)["value"].tolist() == [1.0, 0.0]


def test_literature_methods_are_compared_with_ours():
    long, table = methods(mvtec.CATEGORIES)
    assert value(table, "pro", "carpet", "SPADE") == 0.947
    assert np.isnan(value(table, "pro", "carpet", "Cut-Paste"))  # pixel AUROC alone
    of_textures = LITERATURE[
        (LITERATURE["method"] == "SPADE")
        & (LITERATURE["metric"] == "pro")
        & LITERATURE["category"].isin(mvtec.TEXTURES)
    ]
    assert value(table, "pro", "textures", "SPADE") == pytest.approx(of_textures["value"].mean())
    # The paper's own entries do not average to what it prints: both are shown.
    assert value(table, "pro", "mean", "STPM (paper)") == pytest.approx(0.9242, abs=1e-4)
    assert value(table, "pro", "mean, as printed", "STPM (paper)") == 0.921
    assert value(table, "image_auroc", "mean", "Geom") == 0.672  # printed as a mean alone
    ours = long[(long["metric"] == "pro") & (long["category"] == "bottle")]["value"].mean()
    assert value(table, "pro", "bottle", "ours") == pytest.approx(ours)
    assert value(table, "pro", "bottle", "difference") == pytest.approx(ours - 0.951)
    text = typeset.markdown(literature.methods_sections("main", table, "45 of 45 cells"), "main")
    assert "| category         | SSIM-AE " in text
    assert "**0.9" in text
    assert "| n/a" in text


def test_no_other_definition_of_pro_is_compared_with_the_exact_one():
    table = methods(mvtec.CATEGORIES)[1]
    assert set(table["metric"]) == set(tables.METRICS)
    authors = LITERATURE[
        (LITERATURE["metric"] == "pro_rescaled") & (LITERATURE["category"] == "transistor")
    ]["value"].item()
    shown = table[(table["metric"] == "pro") & (table["category"] == "transistor")]
    assert authors not in shown.select_dtypes("number").to_numpy()


def test_a_row_that_a_user_adds_appears():
    rows = [
        ("a thesis", "t", "PatchCore", "bottle", "pro", 0.96, "one"),
        ("a thesis", "t", "STFPM", "bottle", "pro", 0.5, "one"),
        ("a thesis", "t", "SPADE", "bottle", "pro", 0.4, "one"),
    ]
    printed = pd.concat([LITERATURE, pd.DataFrame(rows, columns=literature.COLUMNS)])
    table = methods(["bottle"], printed)[1]
    assert value(table, "pro", "bottle", "PatchCore") == 0.96
    assert value(table, "pro", "bottle", "SPADE (a thesis)") == 0.4
    assert value(table, "pro", "bottle", "STPM (paper)") == 0.951
    together = literature.reproductions(printed, {})
    assert value(together, "pro", "bottle", "a thesis") == 0.5


def test_categories_of_which_nothing_is_published_have_no_competitors():
    table = methods(["brick", "gravel"])[1]
    assert table.empty
    assert literature.methods_sections("main", table, "") == []


def test_reproductions_show_the_disagreement_and_ours():
    long = random_table(["bottle", "cable"], metrics=[*tables.METRICS, "pixel_ap"])
    audited = pd.DataFrame(
        [
            (*cell, definition, masks, pro, np.nan)
            for cell in grid.cells(long)
            for definition, masks, pro in (
                ("mvtec", "nearest", 0.1),
                ("linear_4000_both_rescaled", "nearest", 0.2),
                ("linear_4000_both_rescaled", "bilinear_any", 0.75),
            )
        ],
        columns=[*grid.AXES, *audit.COLUMNS],
    )
    own = literature.ours(long, audited, cells_of(long))
    table = literature.reproductions(LITERATURE, own)
    assert value(table, "pro_rescaled", "bottle", "ours") == 0.75
    bottle = long[(long["metric"] == "image_auroc") & (long["category"] == "bottle")]["value"]
    assert value(table, "image_auroc", "bottle", "ours") == pytest.approx(bottle.mean())
    assert value(table, "image_auroc", "bottle", "ours sd") == pytest.approx(bottle.std())
    assert np.isnan(value(table, "image_auroc", "mean", "ours"))  # two categories are no 15
    sources = LITERATURE[
        (LITERATURE["method"] == "STFPM")
        & (LITERATURE["metric"] == "pixel_auroc")
        & (LITERATURE["category"] == "screw")
    ]["value"]
    assert value(table, "pixel_auroc", "screw", "range") == pytest.approx(
        sources.max() - sources.min()
    )
    sections = literature.reproductions_sections(table, "")
    assert [s.title.split(": ")[1] for s in sections] == list(literature.METRIC_NAMES.values())
    assert "of 2 of 15 categories" in sections[0].caption
    rescaled = next(s for s in sections if "authors' own" in s.title)
    assert "This is not the PRO of the other tables" in rescaled.caption


def test_other_sets_do_not_enter_the_means_of_mvtec_ad():
    every = [*mvtec.CATEGORIES, "visa.candle"]
    long, table = methods(every)
    assert value(table, "pro", "mvtec_ad", "STPM (paper)") == pytest.approx(0.9242, abs=1e-4)
    assert np.isnan(value(table, "pro", "mean", "STPM (paper)"))
    of_mvtec = long[(long["metric"] == "pro") & (long["category"] != "visa.candle")]["value"]
    own = literature.ours(long, pd.DataFrame(columns=[*grid.AXES, *audit.COLUMNS]), cells_of(long))
    own |= {(category, metric): (0, 0) for category in every for metric in literature.METRIC_NAMES}
    together = literature.reproductions(LITERATURE, own)
    assert value(together, "pro", "mean", "ours") == pytest.approx(of_mvtec.mean())


def with_baselines(categories, runs, teacher="t"):
    """The long table of STPM, of which 'runs' adds (method, layers, seed, categories)."""
    long = random_table(categories)
    parts = [long]
    for method, layers, seed, of in runs:
        rows = long[(long["seed"] == seed) & long["category"].isin(of)]
        parts.append(rows.assign(method=method, layers=layers, teacher=teacher))
    both = pd.concat(parts, ignore_index=True)
    config = {
        "methods": {},
        "training": {},
        "teachers": {"t": {"backbone": "resnet18"}, "u": {"backbone": "resnet18"}},
    }
    main = cells_of(long)
    ran = literature.baselines(both, cells_of(both), config, main)
    table = tables.study_table(long, main, literature.paper(LITERATURE))
    return both, ran, literature.methods(LITERATURE, table, (), ran)


def test_our_runs_of_published_methods_are_compared_with_the_printed_values():
    every = mvtec.CATEGORIES
    runs = [("padim", "1+2+3", seed, every) for seed in (0, 1, 2)]
    runs += [("spade", "1+2+3", 0, ["bottle", "carpet"]), ("patchcore", "2+3", 0, every)]
    long, ran, table = with_baselines(every, runs)
    assert [one.title for one in ran] == ["PaDiM", "SPADE", "PatchCore"]

    def ours(method, category, metric="pro"):
        rows = long[(long["method"] == method) & (long["metric"] == metric)]
        return rows.loc[rows["category"] == category, "value"]

    printed = LITERATURE[(LITERATURE["method"] == "PaDiM-R18") & (LITERATURE["metric"] == "pro")]
    of_bottle = printed.set_index("category")["value"]["bottle"]
    bottle = ours("padim", "bottle")
    assert value(table, "pro", "bottle", "ours: PaDiM") == pytest.approx(bottle.mean())
    assert value(table, "pro", "bottle", "ours: PaDiM sd") == pytest.approx(bottle.std())
    less = value(table, "pro", "bottle", "ours: PaDiM less printed")
    assert less == pytest.approx(bottle.mean() - of_bottle)
    entries = printed[printed["category"].isin(every)]["value"].mean()
    mean = long[(long["method"] == "padim") & (long["metric"] == "pro")]["value"].mean()
    assert value(table, "pro", "mean", "ours: PaDiM less printed") == pytest.approx(mean - entries)
    # SPADE was run on two categories: the others and the means are gaps.
    assert value(table, "pro", "carpet", "ours: SPADE") == ours("spade", "carpet").item()
    assert np.isnan(value(table, "pro", "cable", "ours: SPADE"))
    assert np.isnan(value(table, "pro", "mean", "ours: SPADE"))
    # The paper prints no image AUROC of a category of PaDiM, and nothing of PatchCore.
    assert np.isnan(value(table, "image_auroc", "bottle", "ours: PaDiM less printed"))
    assert table["ours: PatchCore less printed"].isna().all()
    sections = literature.methods_sections("main", table, "all cells", ran)
    pro = next(section for section in sections if section.title.startswith("PRO"))
    assert [c for c in pro.body if "ours" in c] == [
        "ours",
        "ours: PaDiM",
        "ours: SPADE",
        "ours: PatchCore",
        "ours less paper",
        "PaDiM, ours less printed",
        "SPADE, ours less printed",
    ]
    assert "PaDiM on 3 seeds, SPADE on 1 seed, PatchCore on 1 seed" in pro.caption
    assert "values of SPADE are from a Wide-ResNet-50" in pro.caption


@pytest.mark.parametrize(
    ("layers", "teacher"), [("1", "t"), ("1+2+3", "u")], ids=["other levels", "another teacher"]
)
def test_a_baseline_at_another_setting_is_not_compared(layers, teacher):
    _, ran, table = with_baselines(["bottle"], [("padim", layers, 0, ["bottle"])], teacher)
    assert ran == []
    assert not [column for column in table if "PaDiM" in column and "ours" in column]
    (text, *_) = literature.methods_sections("main", table, "", ran)
    assert "Run here too" not in text.caption


def test_other_readings_are_compared_with_the_authors_numbers():
    long = random_table(["bottle", "cable"])
    parts = {"stpm": long}
    for name, shift in (("stpm_authors", 0.1), ("stpm_authors_200", 0.2), ("stpm_l2", 0.3)):
        parts[name] = long.assign(method=name, value=long["value"] / 2 + shift)
    every = pd.concat(parts.values(), ignore_index=True)
    config = {
        "training": {},
        "methods": {
            "stpm_authors_200": {"like": "stpm_authors", "epochs": 200},
            "stpm_l2": {"distance": "l2"},
        },
    }
    found = literature.readings(cells_of(every), config, cells_of(long))
    assert list(found) == ["stpm_authors", "stpm_authors_200"]
    nothing = pd.DataFrame(columns=[*grid.AXES, *audit.COLUMNS])
    own = literature.ours(long, nothing, cells_of(long))
    values = {name: literature.ours(every, nothing, rows) for name, rows in found.items()}
    table = literature.reproductions(LITERATURE, own, values)
    of_bottle = parts["stpm_authors_200"].query("category == 'bottle' and metric == 'pixel_auroc'")
    shown = value(table, "pixel_auroc", "bottle", "ours: stpm_authors_200")
    assert shown == pytest.approx(of_bottle["value"].mean())
    assert value(table, "pixel_auroc", "bottle", "authors' repository README") == 0.987894
    plain = literature.reproductions(LITERATURE, own)
    assert plain["range"].equals(table["range"])
    sections = literature.reproductions_sections(table, "basis")
    assert "ours: stpm_authors_200" in sections[0].body
    assert "±" in sections[0].body.set_index("category").loc["bottle", "ours: stpm_authors"]
