import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from builders import cells_of, random_table
from stpm_bench import grid
from stpm_bench.datasets import mvtec
from stpm_bench.report import (
    audit_table,
    claims_table,
    cost,
    literature,
    statistics,
    tables,
    typeset,
    verdict,
)


def markdown(sections):
    return typeset.markdown(sections, "name")


def row(table, category):
    return table[table["category"] == category].iloc[0]


def test_mean_and_sd_are_over_seeds():
    long = random_table(["bottle", "carpet", "tile"])
    table = tables.study_table(long, cells_of(long), {})
    assert table["category"].tolist() == ["bottle", "carpet", "tile", "textures", "objects", "mean"]
    assert table["kind"].tolist() == [*["category"] * 3, *["group"] * 2, "mean"]
    assert row(table, "textures")["pro_between"] == pytest.approx(
        long[long["category"].isin(["carpet", "tile"]) & (long["metric"] == "pro")]
        .groupby("category")["value"]
        .mean()
        .std()
    )
    bottle = long[(long["category"] == "bottle") & (long["metric"] == "pro")]["value"]
    assert row(table, "bottle")["pro"] == pytest.approx(bottle.mean())
    assert row(table, "bottle")["pro_sd"] == pytest.approx(bottle.std())
    textures = long[long["category"].isin(["carpet", "tile"]) & (long["metric"] == "pro")]
    by_seed = textures.groupby("seed")["value"].mean()
    assert row(table, "textures")["pro"] == pytest.approx(by_seed.mean())
    assert row(table, "textures")["pro_sd"] == pytest.approx(by_seed.std())
    assert (table["seeds"] == 3).all()


def test_each_setting_has_its_rows():
    long = random_table(["bottle"], layers=("1", "1+2"))
    table = tables.study_table(long, cells_of(long), {})
    assert table[["layers", "category"]].to_numpy().tolist() == [
        ["1", "bottle"],
        ["1", "mean"],
        ["1+2", "bottle"],
        ["1+2", "mean"],
    ]
    value = long[(long["layers"] == "1+2") & (long["metric"] == "pro")]["value"].mean()
    assert table["pro"].iloc[-1] == pytest.approx(value)


def test_a_missing_cell_is_a_gap_and_is_counted():
    long = random_table(["bottle", "cable"])
    gone = (long["category"] == "cable") & (long["seed"] == 2)
    table = tables.study_table(long[~gone], cells_of(long), {})
    assert row(table, "cable")["seeds"] == 2
    assert row(table, "mean")["seeds"] == 2
    both = long[(long["metric"] == "pro") & (long["seed"] < 2)]["value"].mean()
    assert row(table, "mean")["pro"] == pytest.approx(both)
    empty = tables.study_table(long[long["category"] != "cable"], cells_of(long), {})
    assert np.isnan(row(empty, "cable")["pro"])
    assert row(empty, "cable")["seeds"] == 0
    basis = tables.coverage(cells_of(long), long[long["category"] != "cable"], costs())
    text = markdown(tables.study_sections("main", empty, basis))
    assert "| cable      | n/a " in text
    assert "3 of 6 cells; the others failed or have not run: gaps" in text


def test_a_caption_names_the_seeds_that_the_mean_rests_on():
    long = random_table(["bottle", "cable"])
    whole = tables.study_table(long, cells_of(long), {})
    assert tables.seeds(whole) == "3 seeds"
    gone = (long["category"] == "cable") & (long["seed"] == 2)
    part = tables.study_table(long[~gone], cells_of(long), {})
    assert tables.seeds(part) == "2 to 3 seeds (the mean: 2)"
    assert "over 2 to 3 seeds (the mean: 2);" in markdown(tables.study_sections("s", part, ""))
    none = tables.study_table(long[long["category"] != "cable"], cells_of(long), {})
    assert tables.seeds(none) == "3 seeds"  # the mean has no value: it rests on none


def test_cells_of_two_versions_of_the_code_are_called_mixed():
    long = random_table(["bottle", "cable"])
    made = cells_of(long)
    same = costs(
        *({"stage": "fit", "code": "a1", "file": "stpm"} | row for row in made.to_dict("records"))
    )
    assert tables.coverage(made, long, same) == "6 of 6 cells"
    mixed = same.assign(code=["a1"] * 5 + ["b2"])
    text = tables.coverage(made, long, mixed)
    assert text == (
        "6 of 6 cells; MIXED: their step fit ran with 2 versions of its code (5 by a1, 1 by b2)"
    )
    # Of the cells that a study has: the sixth is not this one's.
    assert tables.coverage(made.iloc[:5], long, mixed) == "5 of 5 cells"


def test_methods_of_several_files_are_no_mixture_of_code():
    long = random_table(["bottle", "cable"])
    made = cells_of(long)
    files = ["stpm"] * 3 + ["padim"] * 3
    rows = [{"stage": "fit"} | row for row in made.to_dict("records")]
    both = costs(*rows).assign(file=files, code=["a1"] * 3 + ["c3"] * 3)
    assert tables.coverage(made, long, both) == "6 of 6 cells"
    mixed = both.assign(code=["a1", "a1", "b2", "c3", "c3", "c3"])
    assert "2 versions of its code (2 by a1, 1 by b2)" in tables.coverage(made, long, mixed)


def test_a_caption_names_the_precision_of_students_or_a_mixture():
    long = random_table(["bottle", "cable"])
    made = cells_of(long)
    rows = [{"stage": "fit", "file": "stpm"} | row for row in made.to_dict("records")]
    one = costs(*rows).assign(precision="bfloat16")
    assert tables.coverage(made, long, one) == "6 of 6 cells; students trained in bfloat16"
    two = one.assign(precision=["float32"] + ["bfloat16"] * 5)
    text = tables.coverage(made, long, two)
    assert "MIXED: students trained in 2 precisions (5 in bfloat16, 1 in float32)" in text


def test_cells_of_two_versions_of_torch_are_called_mixed():
    long = random_table(["bottle", "cable"])
    made = cells_of(long)
    rows = ({"stage": "fit", "code": "a1", "file": "stpm"} | row for row in made.to_dict("records"))
    packages = ["torch 2.15.0, numpy 2.4.6"] * 5
    mixed = costs(*rows).assign(packages=[*packages, "torch 2.16.0, numpy 2.4.6"])
    assert tables.coverage(made, long, mixed) == (
        "6 of 6 cells; MIXED: their step fit ran with 2 versions of torch "
        "(5 by 2.15.0, 1 by 2.16.0)"
    )
    assert tables.coverage(made.iloc[:5], long, mixed) == "5 of 5 cells"


def test_a_study_of_which_no_cell_has_run_is_all_gaps():
    long = random_table(["bottle", "carpet"], layers=("1", "2"))
    table = tables.study_table(long.iloc[:0], cells_of(long), {})
    assert table[list(tables.METRICS)].isna().all(axis=None)
    assert "0 of 12 cells" in markdown(
        tables.study_sections(
            "layers", table, tables.coverage(cells_of(long), long.iloc[:0], costs())
        )
    )
    assert "**" not in markdown(tables.by_category_sections("layers", table, ""))
    differences = tables.differences(long.iloc[:0], cells_of(long))
    assert set(differences["note"]) == {"no pairs"}


def costs(*rows) -> pd.DataFrame:
    """What `cost.collect` returns, of these rows."""
    return pd.DataFrame(list(rows), columns=cost.COLUMNS)


def test_the_papers_values_are_compared_with_ours():
    paper = literature.paper(literature.read())
    long = random_table(["bottle", "cable"])
    table = tables.study_table(long, cells_of(long), paper)
    assert row(table, "bottle")["pro_paper"] == 0.951
    assert row(table, "mean")["pro_paper"] == pytest.approx((0.951 + 0.877) / 2)
    assert row(table, "bottle")["pro_difference"] == pytest.approx(
        row(table, "bottle")["pro"] - 0.951
    )
    # The paper prints image AUROC as a mean of 15 alone.
    assert np.isnan(row(table, "mean")["image_auroc_paper"])
    every = random_table(mvtec.CATEGORIES)
    table = tables.study_table(every, cells_of(every), paper)
    assert row(table, "mean")["image_auroc_paper"] == 0.955
    assert row(table, "mean")["pro_paper"] == pytest.approx(0.9242, abs=1e-4)
    text = markdown(tables.study_sections("main", table, "45 of 45 cells"))
    assert "PRO, paper" in text
    assert "0.951" in text


def test_the_papers_values_are_of_its_own_setting():
    paper = literature.paper(literature.read())
    long = random_table(["bottle"], layers=("1", "1+2+3"))
    table = tables.study_table(long, cells_of(long), paper)
    values = table[table["category"] == "bottle"].set_index("layers")["pro_paper"]
    assert np.isnan(values["1"])
    assert values["1+2+3"] == 0.951


def test_one_seed_has_no_spread():
    long = random_table(["bottle"])
    long = long[long["seed"] == 0]
    table = tables.study_table(long, cells_of(long), {})
    assert np.isnan(row(table, "bottle")["pro_sd"])
    assert "±" not in markdown(tables.study_sections("t", table, ""))
    assert tables.spread_of(table) == "One seed, no spread"
    mixed = pd.concat(
        [table, tables.study_table(random_table(["tile"]), cells_of(random_table(["tile"])), {})]
    )
    text = tables.spread_of(mixed)
    assert text == "Mean ± standard deviation over 1 to 3 seeds; no spread if there is one seed"
    own = {("bottle", "pro"): (0.9, np.nan)}
    for spread, expected in ((np.nan, "one seed, no spread"), (0.1, "mean ± standard deviation")):
        own["bottle", "pro"] = (0.9, spread)
        rows = literature.reproductions(literature.read(), own)
        captions = [part.caption for part in literature.reproductions_sections(rows, "")]
        assert expected in captions[2]
        assert ("±" in captions[2]) is (expected != "one seed, no spread")


def test_a_study_whose_seeds_the_claims_extend_says_so():
    """As in a few-shot study of one seed, whose setting with all images the main study has too."""
    main = cells_of(random_table(["bottle"])).assign(study="main")
    few = main[main["seed"] == 0].assign(study="few")
    few = pd.concat([few, few.assign(fraction=0.1)])
    studies = pd.concat([main, few])
    text = tables.averaged_elsewhere(few, studies)
    assert "only this study's seeds are averaged (seed 0)" in text
    assert "claims.md" in text
    assert "(fraction 1.0: seeds 0, 1, 2)" in text
    assert tables.averaged_elsewhere(main, studies) == ""
    assert tables.averaged_elsewhere(few[few["fraction"] < 1], studies) == ""
    assert "(main: seeds 0, 1, 2; few: seed 0)" in tables.why_claims_differ(studies)
    assert "seeds 0" not in tables.why_claims_differ(main)


def test_several_sets_have_a_row_each():
    long = random_table(["bottle", "visa.candle", "visa.pcb1", "own.nut"])
    table = tables.study_table(long, cells_of(long), {})
    assert table["category"].tolist() == [
        *["bottle", "visa.candle", "visa.pcb1", "own.nut"],
        *["objects", "mvtec_ad", "visa", "own", "mean"],
    ]
    kinds = [*["category"] * 4, "group", *["set"] * 3, "mean"]
    assert table["kind"].tolist() == kinds  # a row's name does not say of what it is
    wide = tables.by_category(table)
    assert wide["kind"].tolist() == kinds * len(tables.METRICS)
    visa = long[long["category"].str.startswith("visa.") & (long["metric"] == "pro")]
    by_seed = visa.groupby("seed")["value"].mean()
    assert row(table, "visa")["pro"] == pytest.approx(by_seed.mean())
    assert row(table, "visa")["pro_sd"] == pytest.approx(by_seed.std())
    assert row(table, "own")["pro"] == row(table, "own.nut")["pro"]
    one = random_table(["visa.candle", "visa.pcb1"])
    assert "visa" not in set(tables.study_table(one, cells_of(one), {})["category"])


MASKLESS, FRAMES = ("image_auroc",), ("image_auroc", "pixel_auroc")


def test_sets_without_pro_have_separate_tables_and_are_not_part_of_the_mean():
    own = random_table(["bottle", "carpet"])
    classes = random_table(["c.cat", "c.dog"], metrics=MASKLESS)
    videos = random_table(["s.all"], metrics=FRAMES)
    long = pd.concat([own, classes, videos])
    table = tables.study_table(long, cells_of(long), {})
    assert table["category"].tolist() == [
        *["bottle", "carpet", "c.cat", "c.dog", "s.all"],
        *["textures", "objects", "c", "s", "mean"],
    ]
    assert (table["seeds"] == 3).all()  # no metric is missing that a set does not have
    alone = tables.study_table(own, cells_of(own), {}).set_index("category")
    both = table.set_index("category").loc[alone.index]
    pd.testing.assert_frame_equal(both[alone.columns], alone)
    assert row(table, "c")["image_auroc"] == pytest.approx(classes["value"].mean())
    assert np.isnan(row(table, "c")["pixel_auroc"])

    sections = tables.study_sections("main", table, "")
    assert [section.title for section in sections] == [
        "Study: main",
        "Study: main, c",
        "Study: main, s",
    ]
    assert [list(section.body.columns) for section in sections] == [
        ["category", "image AUROC", "pixel AUROC", "PRO"],
        ["category", "image AUROC"],
        ["category", "frame AUROC", "pixel AUROC"],
    ]
    assert [section.body["category"].tolist() for section in sections] == [
        ["bottle", "carpet", "textures", "objects", "mean"],
        ["c.cat", "c.dog", "c"],
        ["s.all", "s"],
    ]
    assert [tables.MVTEC_PRO in section.caption for section in sections] == [True, False, False]
    assert "n/a" not in markdown(sections)
    # A cell that is missing is a gap, and its seed is not counted.
    gone = long[(long["category"] != "c.dog") | (long["seed"] > 0)]
    table = tables.study_table(gone, cells_of(long), {})
    assert table.set_index("category").loc[["c.cat", "c", "mean"], "seeds"].tolist() == [3, 2, 3]


@pytest.mark.parametrize(
    ("categories", "metrics", "columns"),
    [
        (["c.cat", "c.dog"], MASKLESS, ["image AUROC"]),
        (["s.all"], FRAMES, ["frame AUROC", "pixel AUROC"]),
    ],
)
def test_a_study_of_a_set_without_pro_alone(categories, metrics, columns):
    long = random_table(categories, metrics=metrics)
    names = tables.metrics_of(long)
    assert names == list(metrics)
    table = tables.study_table(long, cells_of(long), {}, names)
    assert not {"pro", "pro_sd", "pro_paper"} & set(table)
    (section,) = tables.study_sections("main", table, "")
    assert list(section.body) == ["category", *columns]
    assert section.body["category"].tolist() == [*categories, "mean"]
    assert literature.methods(literature.read(), table).empty
    own = literature.ours(
        long, pd.DataFrame(columns=[*grid.AXES, "definition", "masks"]), cells_of(long)
    )
    reproductions = literature.reproductions(literature.read(), own)
    assert reproductions["ours"].isna().all()

    long = random_table(categories, layers=("1", "2"), metrics=metrics)
    table = tables.study_table(long, cells_of(long), {}, names)
    (section,) = tables.study_sections("layers", table, "")
    assert list(section.body)[:2] == ["layers", columns[0]]
    wide = tables.by_category(table)
    assert list(dict.fromkeys(wide["metric"])) == list(metrics)
    assert not wide[["1", "2"]].isna().any(axis=None)
    assert len(tables.by_category_sections("layers", table, "")) == len(metrics)
    assert set(tables.differences(long, cells_of(long))["metric"]) == set(metrics)


def test_a_set_of_which_no_cell_has_run_is_all_gaps():
    long = random_table(["bottle"])
    every = pd.concat([cells_of(long), cells_of(random_table(["c.cat"]))])
    table = tables.study_table(long, every, {})
    assert np.isnan(row(table, "mean")["image_auroc"])
    assert [section.title for section in tables.study_sections("m", table, "")] == ["Study: m"]


def test_the_wide_table_has_one_column_per_setting_and_marks_the_best():
    long = random_table(["bottle", "carpet"], layers=("1", "2"))
    table = tables.study_table(long, cells_of(long), {})
    wide = tables.by_category(table)
    assert list(wide.columns) == ["metric", "category", "kind", "1", "1 sd", "2", "2 sd"]
    assert wide["category"].tolist() == ["bottle", "carpet", "textures", "objects", "mean"] * 3
    of_bottle = long[(long["metric"] == "pro") & (long["category"] == "bottle")]
    means = of_bottle.groupby("layers")["value"].mean()
    line = wide[(wide["metric"] == "pro") & (wide["category"] == "bottle")].iloc[0]
    assert line[["1", "2"]].tolist() == pytest.approx(means.tolist())
    section = tables.by_category_sections("layers", table, "")[2]
    assert list(section.body) == ["category", "layers 1", "layers 2"]
    bold = [cell.startswith("**") for cell in section.body.iloc[0, 1:]]
    assert bold == (means == means.max()).tolist()


def test_every_two_settings_are_compared_and_corrected_together():
    long = random_table(mvtec.CATEGORIES, layers=("1", "2", "1+2+3"))
    long.loc[long["layers"] == "1", "value"] -= 0.3
    differences = tables.differences(long, cells_of(long), ["1+2+3", "t", 1.0, "stpm"])
    assert len(differences) == 3 * 3
    of_pro = differences[differences["metric"] == "pro"]
    pairs = of_pro[["setting", "reference"]].to_numpy().tolist()
    assert pairs == [["1", "1+2+3"], ["2", "1+2+3"], ["2", "1"]]
    wide = long[long["metric"] == "pro"].pivot_table(
        index="category", columns="layers", values="value"
    )
    difference = wide["1"] - wide["1+2+3"]
    first = of_pro.iloc[0]
    assert first["difference"] == pytest.approx(difference.mean())
    assert first["p"] == pytest.approx(scipy.stats.wilcoxon(difference).pvalue)
    assert (first["values"], first["categories"]) == (90, 15)
    np.testing.assert_allclose(differences["p_holm"], statistics.holm(differences["p"]))
    text = markdown(tables.differences_sections("layers", differences, cells_of(long), ""))
    assert "corrected for the 9 tests of the study" in text
    assert "layers 1+2+3" in text


def test_a_setting_of_two_axes_is_named_by_both():
    long = pd.concat([random_table(["bottle"], layers=("1", "2")).assign(teacher=t) for t in "ab"])
    names = tables.setting_names(cells_of(long))
    assert list(dict.fromkeys(names)) == ["1, a", "2, a", "1, b", "2, b"]


def test_latex_and_html_say_what_markdown_says():
    body = pd.DataFrame({"a_b & c": ["**0.951 ± 0.003**", "50% < x"], "n": ["`f_1`", "#"]})
    section = typeset.Section("T_1", body, "In `literature.csv`; 256 × 256.")
    text = typeset.latex([section, section], "main")
    assert r"a\_b \& c & n \\" in text
    assert r"\textbf{0.951 $\pm$ 0.003} & \texttt{f\_1} \\" in text
    assert r"50\% $<$ x & \# \\" in text
    assert r"\label{tab:main}" in text
    assert r"\label{tab:main_2}" in text
    assert typeset.heading("authors' repository README") == (
        r"\shortstack{authors'\\repository\\README}"
    )
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    page = typeset.webpage([section], "main")
    assert "<td><b>0.951 ± 0.003</b></td><td><code>f_1</code></td>" in page
    assert "50% &lt; x" in page
    assert r"a\|b" in typeset.markdown(
        [section._replace(body=pd.DataFrame({"a": ["a|b"]}))], "main"
    )


def test_a_page_gives_sentences_the_width_that_numbers_leave():
    sentence = "a note that is longer than thirty characters"
    body = pd.DataFrame({"n": ["1"], "note": [sentence], "p": ["0.5"]})
    page = typeset.webpage([typeset.Section("t", body, "c")], "claims")
    assert f'<td>1</td><td class="text">{sentence}</td><td>0.5</td>' in page
    assert '<th>n</th><th class="text">note</th>' in page
    style = page.split("<style>")[1].split("</style>")[0]
    assert "max-width" not in re.search(r"body\{[^}]*\}", style)[0]


def test_treatments_of_the_masks_with_equal_values_share_a_table():
    long = cells_of(random_table(["bottle", "tile"]))
    rng = np.random.default_rng(0)
    parts = []
    for definition in ("mvtec", "bins_50"):
        values = rng.random(len(long))
        for masks in ("nearest", "bilinear_any", "own"):
            parts.append(long.assign(definition=definition, masks=masks, pro=values))
    audited = pd.concat(parts).assign(pixel_auroc=0.9)
    (section,) = audit_table.sections(audit_table.summary(audited, long))
    assert "nearest, bilinear_any, own" in section.title
    assert "no mask is resized" in section.caption
    resized = audited["masks"] == "bilinear_any"
    audited.loc[resized & (audited["category"] == "tile"), "pro"] += 0.01
    first, second = audit_table.sections(audit_table.summary(audited, long))
    assert first.title.endswith("masks nearest, own")
    assert second.title.endswith("masks bilinear_any")
    assert "no mask is resized" not in second.caption
    assert list(audit_table.equal_treatments(audited)) == ["nearest", "bilinear_any"]


def test_numbers_as_text():
    assert typeset.number(0.95149) == "0.951"
    assert typeset.number(-0.0123, signed=True) == "-0.012"
    assert typeset.p_value(0.00012) == "< 0.001"
    assert typeset.interval(-0.01, 0.02) == "[-0.010, +0.020]"
    assert typeset.interval(np.nan, np.nan) == typeset.p_value(np.nan) == "n/a"
    # What equals the best as it is shown is best too; one value alone has no rival.
    assert typeset.bold_best(["a", "b", "c"], [0.9501, 0.9504, np.nan]) == ["**a**", "**b**", "c"]
    assert typeset.bold_best(["a", "b"], [0.9, np.nan]) == ["a", "b"]


def test_latex_compiles(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex")
    long = random_table(mvtec.CATEGORIES, layers=("1", "1+2+3"))
    table = tables.study_table(long, cells_of(long), {})
    differences = tables.differences(long, cells_of(long))
    sections = [
        *tables.study_sections("main", table, "9 of 9 cells"),
        *tables.by_category_sections("main", table, ""),
        *tables.differences_sections("main", differences, cells_of(long), ""),
    ]
    printed = literature.read()
    sections += literature.methods_sections("main", literature.methods(printed, table), "")
    sections += literature.reproductions_sections(literature.reproductions(printed, {}), "")
    found = verdict.Claim("1a", "A & B: " + "a sentence " * 9, "v1", "pro", [])
    sections += claims_table.sections([found], "50% of it", ["epochs 3"])
    typeset.write(tmp_path, "tables", sections)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}"
        "\\input{tables.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:]


def test_only_the_first_method_of_a_study_is_compared_with_the_paper():
    long = random_table(mvtec.CATEGORIES, metrics=literature.METRIC_NAMES)
    both = pd.concat([long.assign(value=0.9), long.assign(method="stpm_authors", value=0.5)])
    paper = literature.paper(literature.read())
    table = tables.study_table(both, cells_of(both), paper)
    compared = table[table["pro_paper"].notna()]
    assert set(compared["method"]) == {"stpm"}
    nothing = pd.DataFrame(columns=["definition", "masks", "pro", *grid.AXES])
    own = literature.ours(both, nothing, cells_of(both))
    assert own["bottle", "pro"][0] == pytest.approx(0.9)
    methods = literature.methods(literature.read(), table)
    assert not methods.duplicated(["metric", "category"]).any()


def test_means_compared_with_the_papers_are_of_the_15_categories_only():
    nothing = pd.DataFrame(columns=["definition", "masks", "pro", *grid.AXES])

    def mean(categories):
        long = random_table(categories, metrics=literature.METRIC_NAMES)
        long["value"] = np.where(long["category"] == "widget", 0.1, 0.9)
        rows = literature.reproductions(
            literature.read(), literature.ours(long, nothing, cells_of(long))
        )
        return rows[(rows["metric"] == "pro") & (rows["category"] == "mean")].iloc[0]["ours"]

    assert mean(mvtec.CATEGORIES) == pytest.approx(0.9)
    assert np.isnan(mean([*mvtec.CATEGORIES, "widget"]))
    assert np.isnan(mean(mvtec.CATEGORIES[:14]))


def test_several_sets_keep_their_rows_where_settings_vary_and_teachers_their_accuracy():
    long = random_table(["bottle", "visa.candle", "visa.pcb1"])
    both = pd.concat([long, long.assign(teacher="other")])
    table = tables.study_table(both, cells_of(both), {})
    section = tables.study_sections("x", table, "", {"t": 0.99, "other": None})[0]
    assert {"mvtec_ad", "visa", "objects", "mean"} == set(section.body["category"])
    accuracy = dict(zip(section.body["teacher"], section.body["accuracy"], strict=True))
    assert accuracy == {"t": "0.990", "other": "n/a"}
    assert "is not known" in section.caption


def test_a_caption_names_the_axes_that_do_not_vary():
    table = pd.DataFrame(
        [["1", "random", 0.5, "stpm"], ["2", "random", 0.5, "stpm"]], columns=grid.SETTING
    )
    assert tables.fixed_axes(table) == "Teacher random, fraction 0.5, method stpm. "
    table.loc[2] = ["3", "mnist", 1.0, "authors"]
    assert tables.fixed_axes(table) == ""


def test_a_table_with_anomalibs_reading_says_that_it_has_another_teacher():
    long = random_table(["bottle"])
    for name, expected in (("stpm_anomalib", True), ("paper", False)):
        part = long.assign(**{grid.SETTING[-1]: name})
        table = tables.study_table(part, cells_of(part), {})
        caption = tables.study_sections("s", table, "")[0].caption
        assert ("resnet18.a1_in1k" in caption) is expected


def test_a_few_shot_table_shows_the_steps():
    parts = [random_table(["bottle", "cable"]).assign(fraction=fraction) for fraction in (1.0, 0.1)]
    long = pd.concat(parts)
    table = tables.study_table(long, cells_of(long), {})
    setting = table[list(grid.SETTING)].iloc[0].tolist()
    steps = {(*setting[:2], 1.0, *setting[3:]): "480 to 600"}
    (section,) = tables.study_sections("few", table, "", None, steps)
    assert dict(zip(section.body["fraction"], section.body["steps"], strict=True)) == {
        "1.0": "480 to 600",
        "0.1": "n/a",
    }
    assert "Steps: the optimiser steps" in section.caption
    whole = table[table["fraction"] == 1]
    (section,) = tables.study_sections("main", whole, "", None, steps)
    assert "steps" not in section.body
