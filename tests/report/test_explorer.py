"""The page of a category: how its data are packed, and what it shows and computes in a browser."""

import base64
import fnmatch
import json
import re
import tomllib

import numpy as np
import pytest
from browser import needs_chromium, opened
from scipy import ndimage

from conftest import REPOSITORY
from stpm_bench import grid
from stpm_bench.anomaly_map import anomaly_maps, image_scores
from stpm_bench.files import read_json
from stpm_bench.grid import Cell
from stpm_bench.metrics.ordering import EIGHT_NEIGHBOURS
from stpm_bench.metrics.pro import pro_curve
from stpm_bench.report import explorer
from stpm_bench.results import anomaly_maps_of, load_array, prepared_folder
from stpm_bench.steps import report as reporting

BOTTLE = Cell("bottle", "1+2+3", "imagenet", 1.0, 0, "stpm")
# Names of methods here -> the fields of their evaluation, and the sides of their levels' maps.
METHODS = {
    "product": ({"fusion": "product", "map_resolution": "image", "smoothing": 0.0}, (16, 8, 4)),
    "sum": ({"fusion": "sum", "map_resolution": "image", "smoothing": 0.0}, (16, 8, 4)),
    "authors": ({"fusion": "product", "map_resolution": "finest", "smoothing": 0.0}, (16, 8, 4)),
    "smoothed": ({"smoothing": 4.0}, (16,)),
    "wide": ({"fusion": "sum", "smoothing": 30.0}, (13, 5)),  # wider than the image; odd sides
    "own size": ({"fusion": "product", "smoothing": 0.0}, (64, 16)),
}


def heavy_tailed(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    return (rng.standard_exponential((count, side, side)) ** 2 + 1e-4).astype(np.float32)


def made_up(count: int = 5, size: int = 64, masks: bool = True, own: bool = False) -> dict:
    """Return the arguments of a page: its cells are `METHODS`, on images of noise."""
    rng = np.random.default_rng(0)
    defects = ["cut" if i % 2 else "good" for i in range(count)]
    marks = np.zeros((count if masks else 0, size, size), bool)
    for i in range(1, len(marks), 2):
        marks[i, 5 : 9 + i, 10:20] = marks[i, 40:44, 30 : 33 + i] = True
    settings = []
    for name, (evaluation, sides) in METHODS.items():
        maps = {str(i + 1): heavy_tailed(rng, count, side) for i, side in enumerate(sides)}
        scores = image_scores(anomaly_maps(list(maps.values()), size, **evaluation), None)
        if own:
            scores = rng.random(count).astype(np.float32)
        cell = BOTTLE._replace(method=name)
        evaluation = {"masks": "nearest"} | evaluation
        metrics = {"image_auroc": 0.5}
        settings.append(explorer.Setting(cell, cell.folder, maps, scores, own, evaluation, metrics))
    return {
        "category": "bottle",
        "files": [f"test/{defect}/{i:03}.png" for i, defect in enumerate(defects)],
        "defects": defects,
        "images": rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8),
        "masks": {"nearest": marks, "bilinear_any": marks},
        "settings": settings,
    }


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S)[1])


def maps_of(setting: explorer.Setting, size: int) -> np.ndarray:
    fields = {key: value for key, value in setting.evaluation.items() if key != "masks"}
    return anomaly_maps(list(setting.level_maps.values()), size, **fields)


# Packing


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e4])
def test_a_packed_map_is_within_16_bits_of_its_range(offset):
    maps = heavy_tailed(np.random.default_rng(1), 3, 16) + np.float32(offset)
    found = explorer.unpacked(explorer.packed(maps))
    assert found.shape == maps.shape
    assert np.abs(found - maps).max() <= 1.7e-5 * np.ptp(maps)
    assert found.min() == maps.min()
    assert found.max() == maps.max()


def test_a_low_value_is_packed_more_finely():
    maps = np.float32([[[1e-6, 1e-4, 1e-2, 1.0, 0.0]]])
    found = explorer.unpacked(explorer.packed(maps))
    np.testing.assert_allclose(found, maps, rtol=0.02)


def test_a_constant_map_is_packed_as_it_is():
    maps = np.full((2, 3, 3), 0.25, np.float32)
    np.testing.assert_array_equal(explorer.unpacked(explorer.packed(maps)), maps)


def test_regions_are_those_that_pro_counts():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[1, 2] = True  # one, across a corner
    mask[4:, 3:] = True
    runs = explorer.regions(mask, apart=True)
    assert runs == [[0, 1, 6, 2], [27, 3, 3, 3]]
    labels, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    assert len(runs) == count
    for label, of_region in enumerate(runs, start=1):
        inside = np.repeat(np.arange(len(of_region)) % 2 == 1, of_region)
        place = np.flatnonzero(labels == label)
        np.testing.assert_array_equal(np.flatnonzero(inside), place)
    (together,) = explorer.regions(mask, apart=False)
    assert sum(together[1::2]) == mask.sum()
    assert explorer.regions(np.zeros((6, 6), bool), apart=True) == []


# Which cells and images


def test_the_cells_of_a_page_differ_from_the_first_in_one_axis_in_turn():
    cells = [
        BOTTLE._replace(seed=1),
        BOTTLE,
        BOTTLE._replace(layers="2"),
        BOTTLE._replace(method="patchcore", layers="2+3"),
        BOTTLE._replace(method="padim", layers="1"),
        BOTTLE._replace(method="padim"),
        BOTTLE._replace(method="padim", teacher="mnist"),
        BOTTLE._replace(teacher="mnist"),
        BOTTLE._replace(teacher="svhn"),
        BOTTLE._replace(fraction=0.1),
        BOTTLE._replace(layers="3"),
        BOTTLE._replace(teacher="random"),
    ]
    page = explorer.choose(cells, BOTTLE)
    assert page == [
        BOTTLE,
        BOTTLE._replace(method="padim"),
        BOTTLE._replace(teacher="mnist"),
        BOTTLE._replace(layers="2"),
        BOTTLE._replace(method="patchcore", layers="2+3"),
        BOTTLE._replace(teacher="svhn"),
    ]
    assert len(page) == explorer.CELLS
    assert explorer.labels_of(page)[:3] == [
        "stpm, levels 1+2+3, teacher imagenet",
        "padim, levels 1+2+3, teacher imagenet",
        "stpm, levels 1+2+3, teacher mnist",
    ]
    other = BOTTLE._replace(category="screw")
    assert explorer.chosen([*cells, other], [BOTTLE, other])["screw"] == [other]


def settings_of(count: int, *fits: str) -> list[explorer.Setting]:
    """Return settings, each of one level of 100 x 100: 20,000 bytes per image."""
    maps = {"1": np.broadcast_to(np.float32(1), (count, 100, 100))}
    scores = np.arange(count, dtype=np.float32)
    return [
        explorer.Setting(BOTTLE._replace(method=fit), fit, maps, scores, False, {}, {})
        for fit in fits
    ]


def test_a_page_that_is_too_large_leaves_out_cells_first():
    assert explorer.MAP_BYTES == 5_000_000
    assert explorer.fitting(settings_of(50, "a", "b", "c", "d")) == (4, 50)
    assert explorer.fitting(settings_of(80, "a", "b", "c", "d")) == (3, 80)
    assert explorer.fitting(settings_of(80, "a", "a", "a", "d")) == (4, 80)  # two fits
    assert explorer.fitting(settings_of(500, "a", "b", "c", "d")) == (2, 125)
    assert explorer.fitting(settings_of(500, "a")) == (1, 250)


def test_images_that_are_taken_are_spread_over_the_scores():
    scores = np.float32([9, 1, 5, 3, 7, 2, 8, 4, 6])
    assert scores[explorer.spread(scores, 3)].tolist() == [9, 1, 5]
    assert explorer.spread(scores, 9).tolist() == list(range(9))


def test_a_page_says_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(explorer, "MAP_BYTES", 3 * 2 * 2 * (16**2 + 8**2 + 4**2))
    arguments = made_up()
    data = data_of(explorer.page(**arguments, absent=["padim: the fit failed: made up"]))
    assert [cell["label"] for cell in data["cells"]] == ["product", "sum"]
    assert len(data["images"]) == 3
    failed, cells, images = data["absent"]
    assert "made up" in failed
    assert "authors; smoothed; wide; own size" in cells
    assert "3 of 5" in images
    scores = arguments["settings"][0].scores
    kept = [arguments["files"].index(image["file"]) for image in data["images"]]
    assert {np.argmin(scores), np.argmax(scores)} <= set(kept)


# What is in the page


def test_a_page_loads_nothing_and_no_file_name_ends_its_script():
    arguments = made_up()
    arguments["files"][0] = "test/good/</script><script>alert(1)</script>.png"
    page = explorer.page(**arguments)
    assert data_of(page)["images"][0]["file"] == arguments["files"][0]
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+/|@import|\bfetch\(", page) == []
    assert set(re.findall(r"<(?:link|iframe|img|script)[^>]*\b(?:src|href)=", page)) == set()


def test_the_template_is_part_of_the_package():
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    patterns = tools["setuptools"]["package-data"]["*"]
    assert any(fnmatch.fnmatch(explorer.TEMPLATE.name, pattern) for pattern in patterns)


def test_cells_of_one_fit_share_its_maps():
    arguments = made_up()
    first = arguments["settings"][0]
    other = first._replace(
        cell=first.cell._replace(method="other"), evaluation={"masks": "nearest"}
    )
    data = data_of(explorer.page(**arguments | {"settings": [first, other]}))
    assert [cell["fit"] for cell in data["cells"]] == [first.fit] * 2
    assert len(data["fits"]) == 1


# In a browser


@pytest.fixture
def show(tmp_path):
    """A function that opens the page of some arguments, or a file."""

    def shown(page, **arguments):
        path = page
        if isinstance(page, dict):
            path = tmp_path / "page.html"
            path.write_text(explorer.page(**page), encoding="utf-8")
        return opened(path, tmp_path / "profile", **arguments)

    return shown


READY = "document.body.dataset.state === 'ready'"
FUSED = """(() => {
  const cell = data.cells[%d], values = fusedMap(cell, %d, %s, "%s");
  const bytes = new Uint8Array(values.buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
})()"""


def fused(page, cell: int, image: int, size: int, levels: str, fusion: str) -> np.ndarray:
    text = page.evaluate(FUSED % (cell, image, levels, fusion))
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(size, size)


@needs_chromium
def test_the_fused_pixels_equal_the_suites_for_all_settings(show):
    arguments = made_up()
    with show(arguments) as page:
        for i, setting in enumerate(arguments["settings"]):
            expected = maps_of(setting, 64)
            levels = json.dumps([True] * len(setting.level_maps))
            fusion = setting.evaluation.get("fusion", "product")
            found = np.stack([fused(page, i, n, 64, levels, fusion) for n in range(len(expected))])
            assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected), setting.cell.method
        assert page.console == []


@needs_chromium
def test_a_hidden_level_and_another_fusion_are_those_of_the_suite(show):
    arguments = made_up()
    setting = arguments["settings"][2]  # fused at the finest of the levels that are shown
    others = setting.evaluation | {"fusion": "sum"}
    maps = {name: setting.level_maps[name] for name in ("2", "3")}
    expected = maps_of(setting._replace(level_maps=maps, evaluation=others), 64)
    with show(arguments) as page:
        found = np.stack([fused(page, 2, n, 64, "[false, true, true]", "sum") for n in range(5)])
    assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)


@needs_chromium
def test_every_image_of_a_category_that_was_run(finished, show):
    results = finished / "results"
    cell = next(c for c in grid.cells(grid.read(results / "studies.csv")) if c.category == "alpha")
    _, expected = anomaly_maps_of(results / "cells" / cell.folder)
    with show(results / "explorer" / "alpha.html") as page:
        page.wait(READY)
        assert page.evaluate("N") == len(expected)
        found = np.stack(
            [fused(page, 0, n, 64, "[true, true]", "product") for n in range(len(expected))]
        )
        metrics = page.evaluate("data.cells[0].metrics")
        assert page.console == []
    assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)
    assert metrics == read_json(results / "cells" / cell.folder / "metrics.json")


@needs_chromium
@pytest.mark.parametrize("place", [-3.0, -2.0, -0.7])
def test_overlap_and_false_positives_at_a_threshold_are_those_of_pro(show, place):
    arguments = made_up(count=8)
    masks = arguments["masks"]["nearest"]
    with show(arguments) as page:
        page.wait(READY)
        page.evaluate(f"at('slider').value = {place}; draw()")
        for side in (0, 1):
            maps = maps_of(arguments["settings"][side], 64)
            found = page.evaluate(
                f"(({{found, bin, threshold}}) => [threshold, found.rate(bin), found.overlap(bin),"
                f" found.regions])(sides[{side}])"
            )
            threshold, rate, overlap, regions = found
            predicted = maps >= threshold
            fprs, overlaps, _ = pro_curve(masks, maps)
            assert rate <= 10**place
            assert rate == pytest.approx(predicted[~masks].mean(), abs=2e-4)
            assert regions == sum(ndimage.label(m, EIGHT_NEIGHBOURS)[1] for m in masks)
            # The curve joins what single thresholds give.
            shares = [
                predicted[i][labels == label].mean()
                for i, mask in enumerate(masks)
                for labels, count in [ndimage.label(mask, EIGHT_NEIGHBOURS)]
                for label in range(1, count + 1)
            ]
            assert overlap == pytest.approx(np.mean(shares), abs=2e-3)
            assert overlap == pytest.approx(np.interp(rate, fprs, overlaps), abs=0.02)


@needs_chromium
def test_a_click_and_the_keyboard_go_through_the_images(show):
    arguments = made_up()
    scores = arguments["settings"][0].scores
    by_score = [arguments["files"][i] for i in np.argsort(-scores, kind="stable")]
    file = "at('file').textContent"
    with show(arguments) as page:
        page.wait(READY)
        page.wait(f"{file} === {json.dumps(by_score[0])}")
        titles = "[...document.querySelectorAll('.thumb')].map(thumb => thumb.title)"
        assert page.evaluate(titles) == by_score
        page.click(".thumb:nth-child(3)")
        page.wait(f"{file} === {json.dumps(by_score[2])}")
        for key, index in [("ArrowRight", 3), ("ArrowUp", 2), ("End", 4), ("Home", 0)]:
            page.press(key)
            page.wait(f"{file} === {json.dumps(by_score[index])}")
        page.press("ArrowLeft")  # there is none before the first
        assert page.evaluate("document.querySelector('[aria-selected=true]').title") == by_score[0]
        page.evaluate("at('defect').value = '=cut'; at('defect').onchange()")
        assert page.evaluate(titles) == [f for f in by_score if "cut" in f]
        assert page.console == []


@needs_chromium
def test_a_level_is_hidden_by_a_click_and_the_page_says_what_that_is_not(show):
    arguments = made_up()
    score = "document.querySelector('.thumb .value').textContent"
    with show(arguments) as page:
        page.wait(READY)
        assert "is not a student trained without" in page.evaluate("at('help').textContent")
        before = page.evaluate(score)
        page.click("[data-side='0'] .level:nth-child(2) input")
        page.wait(f"{READY} && {score} !== {json.dumps(before)}")
        maps = arguments["settings"][0].level_maps
        expected = anomaly_maps([maps["1"], maps["3"]], 64).max(axis=(1, 2))
        found = page.evaluate("sides[0].found.scores.slice ? [...sides[0].found.scores] : []")
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        assert "A method fitted without this level would" in page.evaluate(
            "sides[0].note.textContent"
        )
        page.click("[data-side='0'] .fusion input[value=sum]")
        page.wait(f"{READY} && sides[0].fusion === 'sum'")
        for level in (1, 3):  # the last one stays
            page.click(f"[data-side='0'] .level:nth-child({level}) input")
        page.wait(READY)
        assert page.evaluate("sides[0].levels") == [False, False, True]


@needs_chromium
def test_a_narrow_screen_needs_no_sideways_scrolling(show, tmp_path):
    with show(made_up(), width=400, height=800) as page:
        page.wait(READY)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        left, right = page.evaluate(
            "['mapA', 'mapB'].map(id => { const b = at(id).getBoundingClientRect();"
            " return [b.left, b.top, b.right]; })"
        )
        assert left[2] <= right[0]  # side by side
        assert left[1] == pytest.approx(right[1], abs=1)
        page.click(".thumb:nth-child(2)")
        page.wait("selected === 1")
        page.resize(1280, 800)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@needs_chromium
def test_a_set_without_masks_shows_only_images(show):
    with show(made_up(masks=False)) as page:
        page.wait(READY)
        text = page.evaluate("document.body.innerText")
        found = page.evaluate(
            "(({found, bin, threshold}) => [threshold, found.rate(bin), found.regions])(sides[0])"
        )
        assert page.console == []
    assert "No ground truth" in text
    assert "overlap" not in text
    threshold, rate, regions = found
    good = maps_of(made_up()["settings"][0], 64)[::2]
    assert regions == 0
    assert rate == pytest.approx((good >= threshold).mean(), abs=2e-4)


@needs_chromium
def test_a_methods_own_scores_sort_the_images_even_with_hidden_levels(show):
    arguments = made_up(own=True)
    scores = [round(float(score), 5) for score in arguments["settings"][0].scores]
    with show(arguments) as page:
        page.wait(READY)
        page.click("[data-side='0'] .level:nth-child(2) input")
        page.wait(READY)
        found = page.evaluate("[...sides[0].found.scores]")
    assert [round(score, 5) for score in found] == scores


@needs_chromium
def test_a_fusion_that_the_page_lacks_is_named(show):
    arguments = made_up()
    first = arguments["settings"][0]
    arguments["settings"][0] = first._replace(evaluation=first.evaluation | {"fusion": "highest"})
    with show(arguments) as page:
        page.wait(READY)
        assert "'highest'" in page.evaluate("sides[0].note.textContent")
        assert page.console == []


@needs_chromium
def test_a_category_whose_fits_failed_says_why(show, finished, tmp_path):
    results = tmp_path / "results"
    cell = Cell("alpha", "1+2", "random", 1.0, 0, "stpm")
    folder = results / "cells" / cell.folder
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"failure": "it did not converge"}))
    output = tmp_path / "alpha.html"
    reporting.explorer(
        test=prepared_folder(finished / "results", "alpha", "test"),
        results=results,
        cells=json.dumps([cell]),
        output=output,
    )
    with show(output) as page:
        assert "it did not converge" in page.evaluate("document.body.innerText")
        assert page.console == []


def test_the_page_of_a_run_has_its_images_and_masks(finished):
    results = finished / "results"
    data = data_of((results / "explorer" / "beta.html").read_text())
    test = prepared_folder(results, "beta", "test")
    masks = load_array(test / "masks.npy")
    assert [image["defect"] for image in data["images"]] == ["good"] * 3 + ["square"] * 3
    for runs, mask in zip(data["masks"]["nearest"], masks, strict=True):
        assert sum(sum(region[1::2]) for region in runs) == mask.sum()
    assert [cell["label"] for cell in data["cells"]] == ["stpm"]
