import numpy as np
import pandas as pd
from PIL import Image
from test_tables import cells, long_table

from stpm_bench import figures, grid, tables


def draw_panel():
    rng = np.random.default_rng(0)
    masks = np.zeros((5, 64, 64), bool)
    masks[2:, 10:30, 20:40] = True
    return figures.panel(
        rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8),
        masks,
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
    figures.save(figure, tmp_path / "panel.pdf", tmp_path / "panel.png")
    assert (tmp_path / "panel.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(tmp_path / "panel.png").size[0] > 1000


def test_the_same_figure_is_the_same_file(tmp_path):
    long = long_table(["bottle", "carpet"], layers=("1", "2"))
    table = tables.study_table(long, cells(long), {})
    for draw in (draw_panel, lambda: figures.study(table, "layers")):
        for name in ("a", "b"):
            figures.save(draw(), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
        for suffix in ("pdf", "png"):
            one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
            assert one == other


def test_a_study_is_drawn_by_setting_or_by_category():
    long = long_table(["bottle", "carpet"], layers=("1", "2", "1+2"))
    table = tables.study_table(long, cells(long), {})
    figure = figures.study(table, "layers")
    assert [axis.get_title() for axis in figure.axes] == list(tables.METRICS.values())
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "2", "1+2"]
    means = table[table["category"] == "mean"]["pro"]
    drawn = np.asarray(figure.axes[2].containers[0].lines[0].get_ydata(), float)
    np.testing.assert_allclose(drawn, means)
    single = tables.study_table(long_table(["bottle"]), cells(long_table(["bottle"])), {})
    figure = figures.study(single, "main")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["bottle", "mean"]


def test_a_study_with_gaps_is_drawn():
    long = long_table(["bottle", "carpet"])
    table = tables.study_table(long[long["category"] == "bottle"], cells(long), {})
    assert figures.study(pd.DataFrame(table), "main").axes


def histories(failed=()):
    """Three epochs of two protocols and two seeds; the cells of the seeds `failed` end in NaN."""
    parts = []
    for protocol in ("paper", "authors"):
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
            cell = grid.Cell("bottle", "1+2", "t", 1.0, seed, protocol)
            parts.append(table.assign(**cell._asdict()))
    return pd.concat(parts)


def test_a_study_of_trainings_has_a_panel_a_setting_and_marks_the_epoch_kept(tmp_path):
    figure = figures.training(histories(failed=[1]), "protocols")
    assert [axis.get_title() for axis in figure.axes] == ["protocol paper", "protocol authors"]
    for axis in figure.axes:
        assert axis.get_yscale() == "log"
        kept, failed = axis.lines[2], axis.lines[5]
        assert (kept.get_marker(), kept.get_xydata().tolist()) == ("o", [[2.0, 0.4]])
        assert (failed.get_marker(), failed.get_xydata().tolist()) == ("x", [[2.0, 0.4]])
    for name in ("a", "b"):
        figure = figures.training(histories(), "protocols")
        figures.save(figure, tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_a_gap_says_why():
    figure = figures.gap("a cell", "training failed: NaN")
    assert [text.get_text() for text in figure.axes[0].texts] == ["training failed: NaN"]
