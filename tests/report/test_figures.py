import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from builders import cells_of, random_table
from stpm_bench import grid
from stpm_bench.datasets import mvtec
from stpm_bench.report import figures, literature, pictures, tables
from stpm_bench.report.style import COLUMN_WIDTH, save


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def draw_panel(masked=True):
    rng = np.random.default_rng(0)
    masks = np.zeros((5, 64, 64), bool)
    masks[2:, 10:30, 20:40] = True
    return pictures.panel(
        rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8),
        masks if masked else masks[:0],
        {"1": rng.random((5, 16, 16)), "2": rng.random((5, 8, 8))},
        rng.random((5, 64, 64)),
        ["good", "good", "cut", "cut", "stain"],
        np.array([0.1, 0.2, 0.9, 0.3, 0.5]),
        "bottle",
    )


def test_a_panel_has_a_row_for_each_defect_and_a_column_for_each_map(tmp_path):
    figure = draw_panel()
    titles = [axis.get_title() for axis in figure.axes[:5]]
    assert titles == ["image", "ground truth", "level 1\n(16²)", "level 2\n(8²)", "fused\n(64²)"]
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert [label.split("\n")[0] for label in labels] == ["cut", "stain", "good"]
    save(figure, tmp_path / "panel.pdf", tmp_path / "panel.png")
    assert (tmp_path / "panel.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(tmp_path / "panel.png").size[0] > 1000


def test_a_panel_of_a_set_without_masks_has_no_ground_truth():
    figure = draw_panel(masked=False)
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["image", "level 1\n(16²)", "level 2\n(8²)", "fused\n(64²)"]
    assert len(figure.axes) == 3 * 4
    assert all(axis.images and not axis.collections for axis in figure.axes)


def test_failures_of_a_set_without_masks_have_no_outline():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    maps = rng.random((4, 8, 8))
    arguments = ["c.cat", list("abcd"), ["good", "dog", "good", "dog"], np.array([3, 1, 0, 2])]
    for masks in (np.ones((4, 8, 8), bool), np.zeros((0, 8, 8), bool)):
        misses, alarms = pictures.hardest(*arguments, images, masks, maps, count=1)
        (miss,), (alarm,) = misses, alarms
        assert (miss.file, alarm.file) == ("b", "a")
        assert np.array_equal(miss.image, images[1])
        assert np.array_equal(alarm.anomaly_map, maps[0] / maps.max())
        drawn = pictures.failures(misses, alarms, "").axes
        assert bool(drawn[0].collections) == (miss.mask is not None) == bool(len(masks))


def curves(categories):
    fpr = np.linspace(0, 0.3, 30)
    return pd.concat(
        pd.DataFrame(
            {"category": c, "seed": seed, "fpr": fpr, "overlap": 1 - np.exp(-fpr * (20 + 9 * i))}
        )
        for i, c in enumerate(categories)
        for seed in (0, 1)
    )


def study(categories, name="layers", values=("1", "2", "1+2")):
    """A study's table in which one axis varies."""
    long = pd.concat([random_table(categories).assign(**{name: value}) for value in values])
    return tables.study_table(long, cells_of(long), {})


FEW = study(["bottle", "carpet"], "fraction", (0.05, 0.1, 1.0))
TEACHERS = study(["bottle"], "teacher", ("imagenet", "mnist"))
DRAWINGS = [
    draw_panel,
    lambda: figures.study(study(["bottle", "carpet"]), {}),
    lambda: figures.study(FEW, {}),
    lambda: figures.study(TEACHERS, {"mnist": 0.991}),
    lambda: figures.pro_curves(curves(["bottle", "tile"]), {"bottle": 0.8, "tile": 0.9}),
]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_the_same_figure_is_the_same_file(tmp_path, draw):
    for name in ("a", "b"):
        save(draw(), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    for suffix in ("pdf", "png"):
        one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
        assert one == other


@pytest.mark.parametrize("draw", [DRAWINGS[1], DRAWINGS[0]])
def test_the_users_settings_of_matplotlib_change_no_figure(tmp_path, draw):
    save(draw(), tmp_path / "a.png", tmp_path / "a.pdf")
    theirs = {"text.usetex": True, "axes.facecolor": "black", "font.family": "serif"}
    theirs |= {"savefig.facecolor": "red", "savefig.dpi": 50, "lines.linewidth": 9}
    with plt.rc_context(theirs):
        save(draw(), tmp_path / "b.png", tmp_path / "b.pdf")
        assert plt.rcParams["lines.linewidth"] == 9  # and they are left as they were
    for suffix in ("png", "pdf"):
        a, b = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert a == b


@pytest.mark.parametrize("draw", DRAWINGS[1:])
def test_a_figure_of_numbers_is_a_column_wide_and_clips_nothing(tmp_path, draw):
    save(draw(), tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert image.size[0] / 300 <= COLUMN_WIDTH + 0.25
    border = np.asarray(image.convert("L"))
    for edge in (border[0], border[-1], border[:, 0], border[:, -1]):
        assert edge.min() > 200


def labels(figure):
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def test_a_study_has_a_row_for_each_setting_or_category():
    table = study(["bottle", "carpet"])
    figure = figures.study(table, {})
    assert [axis.get_xlabel() for axis in figure.axes] == list(tables.METRICS.values())
    assert labels(figure) == ["1", "2", "1+2"]
    assert figure.get_suptitle().endswith("n = 2 categories × 3 seeds")
    means = table[table["category"] == "mean"]["pro"]
    drawn = np.asarray(figure.axes[2].containers[0].lines[0].get_xdata(), float)
    np.testing.assert_allclose(drawn, means)
    single = tables.study_table(random_table(["bottle"]), cells_of(random_table(["bottle"])), {})
    assert labels(figures.study(single, {})) == ["bottle", "mean"]


def test_a_study_is_drawn_by_the_metrics_that_it_has():
    long = random_table(["c.cat", "c.dog"], metrics=("image_auroc",))
    table = tables.study_table(long, cells_of(long), {}, tables.metrics_of(long))
    figure = figures.study(table, {})
    assert [axis.get_xlabel() for axis in figure.axes] == ["image AUROC"]
    assert labels(figure) == ["c.cat", "c.dog", "mean"]
    mixed = pd.concat([long, random_table(["bottle"])])
    figure = figures.study(tables.study_table(mixed, cells_of(mixed), {}), {})
    assert [axis.get_xlabel() for axis in figure.axes] == list(tables.METRICS.values())
    assert labels(figure) == ["bottle", "mean"]  # of the other set it is the table that tells
    few = pd.concat([long.assign(fraction=fraction) for fraction in (0.1, 1.0)])
    table = tables.study_table(few, cells_of(few), {}, tables.metrics_of(few))
    assert len(figures.study(table, {}).axes) == 1


def test_the_labels_of_teachers_give_their_accuracy():
    figure = figures.study(TEACHERS, {"imagenet": None, "mnist": 0.991})
    assert labels(figure) == ["imagenet", "mnist\n(99.1% accuracy)"]


def test_a_fraction_is_an_axis():
    figure = figures.study(FEW, {})
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["5", "10", "100"]


def test_methods_are_lines_against_the_fraction():
    layers = {"stpm": "1+2+3", "patchcore": "2+3"}
    long = pd.concat(
        random_table(["bottle", "carpet"], layers=(layers[method],)).assign(
            method=method, fraction=fraction
        )
        for method in layers
        for fraction in (0.05, 1.0)
    )
    long["value"] = np.random.default_rng(0).random(len(long))
    table = tables.study_table(long, cells_of(long), {})
    figure = figures.study(table, {})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(layers)
    mean = table[table["kind"] == tables.MEAN].set_index(["method", "fraction"])
    for axis, metric in zip(figure.axes, tables.METRICS, strict=True):
        for method, line in zip(layers, axis.containers, strict=True):
            assert list(line.lines[0].get_xdata()) == [0.05, 1.0]
            drawn = np.asarray(line.lines[0].get_ydata(), float)
            np.testing.assert_allclose(drawn, mean.loc[method, metric].astype(float))
    # The same levels of each method are an axis of their own, and so are too many of them.
    every = pd.concat([long, long.assign(layers="1")])
    table = tables.study_table(every, cells_of(every), {})
    names = [text.get_text() for text in figures.study(table, {}).legends[0].get_texts()]
    assert set(names) == {"1, patchcore", "1, stpm", "1+2+3, stpm", "2+3, patchcore"}
    every = pd.concat(long.assign(layers=str(level)) for level in range(figures.MOST_LINES))
    table = tables.study_table(every, cells_of(every), {})
    assert not figures.study(table, {}).legends


def test_the_difference_to_the_paper_is_drawn_where_it_has_entries():
    long = random_table(mvtec.CATEGORIES)
    printed = literature.read()
    assert literature.has_paper_values(printed, cells_of(long))
    assert not literature.has_paper_values(printed, cells_of(random_table(["brick"])))
    other_layers = cells_of(random_table(["bottle"], layers=("1",)))
    assert not literature.has_paper_values(printed, other_layers)
    table = tables.study_table(long, cells_of(long), literature.paper(printed))
    figure = figures.difference_to_paper(table)
    assert [axis.get_title() for axis in figure.axes] == ["pixel AUROC", "PRO"]
    assert labels(figure) == [*mvtec.CATEGORIES, "mean"]
    drawn = np.asarray(figure.axes[1].containers[0].lines[0].get_xdata(), float)
    expected = table.set_index("category").loc[[*mvtec.CATEGORIES, "mean"], "pro_difference"]
    np.testing.assert_allclose(drawn, expected)


def test_a_figure_says_on_how_many_seeds_it_rests():
    long = random_table(["bottle", "carpet"])
    long = long[(long["category"] != "carpet") | (long["seed"] < 2)]
    figure = figures.study(
        tables.study_table(long, cells_of(random_table(["bottle", "carpet"])), {}), {}
    )
    assert figure.get_suptitle().endswith("n = 2 categories × 2 to 3 seeds (the mean: 2)")
    some = curves(["bottle", "tile"])
    some = some[(some["category"] != "tile") | (some["seed"] == 0)]
    figure = figures.pro_curves(some, {"bottle": 0.8, "tile": 0.9})
    assert "mean over 1 to 2 seeds" in figure.axes[0].get_title()


def test_pro_curves_name_the_highest_and_the_lowest():
    three = ["bottle", "tile", "wood"]
    figure = figures.pro_curves(curves(three), dict(zip(three, (0.7, 0.8, 0.9), strict=True)))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [
        "each category",
        "highest: wood, PRO 0.900",
        "lowest: bottle, PRO 0.700",
        "mean of 3, PRO 0.800",
    ]
    assert "grey" not in figure.axes[0].get_title()
    one = figures.pro_curves(curves(["bottle"]), {"bottle": 0.7})
    assert [text.get_text() for text in one.legends[0].get_texts()] == ["bottle, PRO 0.700"]


def test_studies_with_gaps_are_drawn():
    long = random_table(["bottle", "carpet"], layers=("1", "2"))
    for part in (long[long["category"] == "bottle"], long.iloc[:0]):
        table = tables.study_table(part, cells_of(long), {})
        assert len(figures.study(table, {}).axes) == 3
    nothing = pd.DataFrame(columns=["category", "seed", "fpr", "overlap"], dtype=float)
    assert figures.pro_curves(nothing, {}).axes


def histories(failed=()):
    """Three epochs of two methods and two seeds; the cells of the seeds `failed` end in NaN."""
    parts = []
    for method in ("stpm", "stpm_authors"):
        for seed in (0, 1):
            table = pd.DataFrame(
                {
                    "epoch": [0, 1, 2, 3],
                    "train_loss": [np.nan, 0.5, 0.3, 0.2],
                    "validation_loss": [1.0, 0.6, 0.4, 0.5],
                    "kept": [False, False, True, False],
                }
            )
            if seed in failed:
                table.loc[3, ["train_loss", "validation_loss"]] = np.nan
                table["kept"] = False
            cell = grid.Cell("bottle", "1+2", "t", 1.0, seed, method)
            parts.append(table.assign(**cell._asdict()))
    return pd.concat(parts)


def test_trainings_have_one_panel_per_setting_and_mark_the_epoch_kept(tmp_path):
    figure = figures.training(histories(failed=[1]), "readings")
    assert [axis.get_title() for axis in figure.axes] == ["method stpm", "method stpm_authors"]
    for axis in figure.axes:
        assert axis.get_yscale() == "log"
        kept, failed = axis.lines[2], axis.lines[5]
        assert (kept.get_marker(), kept.get_xydata().tolist()) == ("o", [[2.0, 0.4]])
        assert (failed.get_marker(), failed.get_xydata().tolist()) == ("x", [[2.0, 0.4]])
    for name in ("a", "b"):
        figure = figures.training(histories(), "readings")
        save(figure, tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def legend_of(figure):
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    return dict(zip(texts, legend.legend_handles, strict=True))


def test_the_lines_of_trainings_are_named():
    """By seed if there is one category, else by category; dashed and solid lines have names too."""
    names = ["training", "validation", "epoch kept"]
    figure = figures.training(histories(), "readings")
    assert list(legend_of(figure)) == [*names, "seed 0", "seed 1"]
    assert "category bottle" in figure.get_suptitle()
    assert "training failed" in legend_of(figures.training(histories(failed=[1]), "readings"))
    several = pd.concat([histories().assign(category=name) for name in mvtec.CATEGORIES])
    figure = figures.training(several, "main")
    shades = legend_of(figure)
    assert list(shades) == [*names, *mvtec.CATEGORIES]  # not one entry per cell
    assert "15 categories × 2 seeds" in figure.get_suptitle()
    assert len({str(shades[name].get_color()) for name in mvtec.CATEGORIES}) == 15
    train, validation = figure.axes[0].lines[:2]
    assert train.get_linestyle() == shades["training"].get_linestyle() == "--"
    assert train.get_color() == validation.get_color() == shades["carpet"].get_color()


def test_treatments_of_the_masks_that_are_equal_are_drawn_once():
    rows = [
        (category, kind, definition, masks, 1, 0.5, difference, np.nan)
        for category, kind in (("bottle", "category"), ("mean", "mean"))
        for masks in ("nearest", "own", "bilinear_any")
        for definition, difference in (("mvtec", 0.0), ("bins_50", -0.1))
    ]
    columns = ["category", "kind", "definition", "masks", "cells", "pro", "difference"]
    table = pd.DataFrame(rows, columns=[*columns, "pixel_auroc"])
    figure = figures.definitions(table)
    assert labels(figure) == ["bins_50"]
    assert "masks nearest, own, bilinear_any: equal" in figure.get_suptitle()
    table.loc[table["masks"] == "own", "pro"] = 0.6
    figure = figures.definitions(table)
    assert labels(figure) == ["bins_50", "mvtec, masks own", "bins_50, masks own"]


def test_a_gap_says_why():
    figure = pictures.gap("a cell", "training failed: NaN")
    assert [text.get_text() for text in figure.axes[0].texts] == ["training failed: NaN"]


def test_a_study_of_many_settings_shows_the_best_of_them():
    count = figures.MOST_SETTINGS + 5
    layers = [str(i) for i in range(count)]
    rows = [
        {"layers": name, "teacher": "t", "fraction": 1.0, "method": "stpm", "category": category}
        | {"seeds": 1, "kind": "mean" if category == "mean" else "category"}
        | {metric: i / count for metric in tables.METRICS}
        | {f"{metric}_sd": 0.0 for metric in tables.METRICS}
        for i, name in enumerate(layers)
        for category in ("bottle", "cable", "mean")
    ]
    figure = figures.study(pd.DataFrame(rows), {})
    assert "the best 30 of 35 settings" in figure.get_suptitle()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(shown, key=int) == layers[5:]
    cells = pd.DataFrame(rows).drop(columns="category").assign(category="bottle", seed=0)
    first, cut = figures.first_settings(cells)
    assert first["layers"].unique().tolist() == layers[:30]
    assert cut == ", the first 30 of 35 settings"
    assert figures.first_settings(cells[cells["layers"] < "2"])[1] == ""


def test_names_with_dollars_are_no_formulas(tmp_path):
    """In titles, labels and ticks alike; numbers on a logarithmic axis still have exponents."""
    figure, axes = plt.subplots()
    axes.bar([0, 1], [1e-3, 10])
    axes.set_yscale("log")
    axes.set_xticks([0, 1], ["$\\frac{$", "a $b$"])
    axes.set_title("x $\\nothing$ y")
    figure.suptitle("{sq} $u^$ are")
    save(figure, tmp_path / "figure.pdf")
    text = "".join(label.get_text() for label in axes.get_xticklabels())
    assert text == "$\\frac{$a $b$"
    assert all(not label.get_parse_math() for label in axes.get_xticklabels())
    assert all(label.get_parse_math() for label in axes.get_yticklabels(which="both"))


def test_texts_of_a_study_of_methods_do_not_overlap():
    """Long names leave little width, and two varying axes have a long label."""
    levels = {("1+2+3", "stpm"): 0.983, ("1+2+3", "padim"): 0.948, ("2+3", "patchcore"): 0.973}
    parts = []
    for (layers, method), level in levels.items():
        long = random_table(["bottle", "screw", "tile"])
        shift = long["category"].map({"bottle": -0.037, "screw": 0.0, "tile": 0.006})
        parts.append(long.assign(layers=layers, method=method, value=level + shift))
    long = pd.concat(parts)
    figure = figures.study(tables.study_table(long, cells_of(long), {}), {})
    figure.canvas.draw()
    title = figure.get_suptitle()
    (above,) = (text for text in figure.texts if text.get_text() == title)
    assert not figure.axes[0].yaxis.label.get_window_extent().overlaps(above.get_window_extent())
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.get_xticklabels() if text.get_text()]
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
