"""Tables, figures, claims, notebooks and the report, for made-up results and for real runs."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from browser import Page, needs_chromium, opened
from PIL import Image

from builders import small_config, write_category
from conftest import REPOSITORY, made_once, snakemake
from stpm_bench import anomaly_map, audit, grid
from stpm_bench.config import complete
from stpm_bench.datasets import mvtec
from stpm_bench.errors import InputError
from stpm_bench.metrics.definitions import DEFINITIONS
from stpm_bench.report import cost, pictures
from stpm_bench.results import cell_folder, fit_folder, read_scores
from stpm_bench.steps import evaluate
from stpm_bench.steps import report as reporting

NOTEBOOKS = sorted(path.stem for path in (REPOSITORY / "analysis").glob("*.py"))
LEVELS = {"1": 0.85, "2": 0.93, "3": 0.94, "1+2+3": 0.96}


@pytest.fixture(scope="session")
def paper_results(tmp_path_factory) -> Path:
    """Results of the paper's studies on MVTec AD's 15 categories, made up; a cell has failed."""

    def make_all(folder: Path) -> None:
        make_up(folder / "results")
        make(folder / "results")

    return made_once(tmp_path_factory, "paper", make_all) / "results"


def make_up(results: Path) -> None:
    """Write the files of cells and teachers that the report reads."""
    config = yaml.safe_load((REPOSITORY / "workflow" / "config" / "paper.yaml").read_text())
    config["results"] = str(results)
    config["studies"]["layers"]["layers"] = [[1], [2], [3], [1, 2, 3]]
    config["studies"]["teachers"]["teacher"] = ["imagenet", "mnist", "random"]
    reporting.studies(config=json.dumps(config), output=results)
    rng = np.random.default_rng(0)
    (results / "teachers").mkdir()
    for name, accuracy in (("imagenet", None), ("mnist", 0.991), ("random", None)):
        record = {"device": "cpu", "threads": 1, "seconds": 3.0, "test_accuracy": accuracy}
        (results / "teachers" / f"{name}.json").write_text(json.dumps(record))
    fits = grid.fit_names(grid.read(results / "studies.csv"))
    offsets = dict(zip(mvtec.CATEGORIES, rng.normal(0, 0.01, 15), strict=True))
    for i, (cell, fit) in enumerate(fits.items()):
        folder, of_fit = cell_folder(results, cell), fit_folder(results, fit)
        for path in (folder, of_fit):
            path.mkdir(parents=True)
        level = LEVELS[cell.layers] + offsets[cell.category] + rng.normal(0, 0.003)
        level -= {"imagenet": 0, "mnist": 0.2, "random": 0.3}[cell.teacher]
        level -= 0.02 * (cell.fraction < 1)
        values = dict.fromkeys(("image_auroc", "pixel_auroc", "pro"), level)
        (folder / "metrics.json").write_text(json.dumps(values if i else {"failure": "made up"}))
        pd.DataFrame(
            [(name, "nearest", level - 0.1 * (name != "mvtec"), 0.9) for name in DEFINITIONS],
            columns=audit.COLUMNS,
        ).to_csv(folder / "pro_definitions.csv", index=False)
        history = pd.DataFrame({"epoch": range(4), "validation_loss": [1.0, 0.4, 0.2, 0.3]})
        history = history.assign(train_loss=history["validation_loss"], kept=i > 0)
        history.to_csv(of_fit / "history.csv", index=False)
        fpr = np.linspace(0, 0.3, 20)
        curve = pd.DataFrame({"fpr": fpr, "overlap": 1 - np.exp(-fpr * 60 * level)})
        curve.to_csv(folder / "pro_curve.csv", index=False)
        record = {
            "images": 83,
            "seconds": 2.0,
            "images_per_second": 50.0 + i % 3,
            "peak_memory": {"host_bytes": 10**9},
            "device": "cpu",
            "threads": 1,
        }
        (of_fit / "score.json").write_text(json.dumps(record))


def make(results: Path) -> None:
    """Make everything that needs no images."""
    evaluate.collect(results=results)
    reporting.tables(results=results, main="main")
    reporting.claims(results=results, main="main")
    reporting.figures(results=results, main="main")


def made(results: Path) -> dict[str, bytes]:
    """Return what `make` made."""
    folders = [results / "tables", results / "figures"]
    paths = [path for folder in folders for path in sorted(folder.glob("*.*"))]
    paths += sorted(results.glob("claims.*"))
    return {path.name: path.read_bytes() for path in paths}


def test_the_papers_studies_make_every_table_and_figure(paper_results):
    names = set(made(paper_results))
    varying = ("layers", "teachers", "few_shot")
    tables = ["main", *varying, "reproductions", "pro_definitions", "cost"]
    tables += [f"{study}_{kind}" for study in varying for kind in ("by_category", "differences")]
    expected = {f"{name}.{suffix}" for name in tables for suffix in ("csv", "md", "tex", "html")}
    figures = ["main", *varying, "pro_curves", "pro_definitions", "difference_to_paper"]
    assert (paper_results / "figures" / "training" / "layers.png").exists()
    expected |= {f"{name}.{suffix}" for name in figures for suffix in ("pdf", "png")}
    expected |= {"main_methods.csv"} | {f"claims.{s}" for s in ("json", "md", "tex", "html")}
    expected |= {"tables.sha256", "claims.sha256"}
    assert names == expected


def test_every_table_names_the_rule_the_functions_and_the_files_that_it_was_made_from(
    paper_results,
):
    tables = [*(paper_results / "tables").glob("*.md"), paper_results / "claims.md"]
    assert len(tables) == 14
    for path in tables:
        line = path.read_text().splitlines()[-1]
        rule, rest = re.fullmatch(r"Made by the rule `(\w+)`: (.+)", line).groups()
        assert rule == ("claims" if path.stem == "claims" else "tables")
        for function, module in re.findall(r"`(\w+)` of `(.+?)\.py`", rest):
            assert callable(getattr(importlib.import_module(module.replace("/", ".")), function))
        assert rest.partition("; from ")[0].count(".py`") > 0
        files = re.findall("`(.+?)`", rest.partition("; from ")[2].partition("`. ")[0] + "`")
        assert files, line
        places = (paper_results, REPOSITORY)
        plain = [file for file in files if "*" not in file]
        assert not [f for f in plain if not any((place / f).exists() for place in places)], line
        assert f"<code>{rule}</code>" in path.with_suffix(".html").read_text()


def test_a_cell_that_failed_is_a_gap_that_the_caption_counts(paper_results):
    text = (paper_results / "tables" / "main.md").read_text()
    assert "44 of 45 cells; the others failed or have not run: gaps" in text
    assert "## PRO: published methods and main" in text
    table = grid.read(paper_results / "tables" / "main.csv").set_index("category")
    assert table["seeds"].value_counts().to_dict() == {3: 15, 2: 3}  # bottle, its group, the mean
    definitions = pd.read_csv(paper_results / "pro_definitions.csv")
    cells = grid.cells(grid.read(paper_results / "studies.csv"))
    assert len(definitions) == len(DEFINITIONS) * (len(cells) - 1)
    few = pd.read_csv(paper_results / "tables" / "few_shot_differences.csv")
    assert few["values"].tolist() == [89, 89, 90] * 3


def test_the_claims_use_all_15_categories(paper_results):
    record = json.loads((paper_results / "claims.json").read_text())
    assert record["data"] == "MVTec AD, all 15 categories"
    verdicts = {(c["claim"], c["metric"]): c["verdict"] for c in record["claims"]}
    notes = {(c["claim"], c["metric"]): c["note"] for c in record["claims"]}
    for claim in ("1a", "2c", "4c"):  # one cell of the main study has failed
        assert verdicts[claim, "pro"] == "undecided"
        assert "lacks 1 of 45 values (bottle)" in notes[claim, "pro"]
    assert "not planned: teacher imagenet less svhn" in notes["2c", "pro"]
    asked = {(q["study"], q["metric"]): q for q in record["questions"]}
    assert asked["layers", "pro"]["setting"] == "layers 1"
    assert asked["layers", "pro"]["reference"] == "layers 1+2+3"
    assert verdicts["5a", ""] == "not tested"
    assert "images per second" in (paper_results / "claims.md").read_text()


def test_the_same_numbers_make_the_same_files(paper_results, tmp_path):
    before = made(paper_results)
    shutil.copytree(paper_results, tmp_path / "results")
    reporting.tables(results=tmp_path / "results", main="main")
    reporting.claims(
        results=tmp_path / "results", main="main"
    )  # of figures: tests/report/test_figures.py
    after = made(tmp_path / "results")
    assert [name for name in before if before[name] != after[name]] == []


def test_the_papers_values_of_stpm_are_compared_with_no_other_method(tmp_path):
    config = yaml.safe_load((REPOSITORY / "workflow" / "config" / "paper.yaml").read_text())
    config["results"] = str(tmp_path)
    config["studies"] = {"main": config["studies"]["main"] | {"method": ["padim"]}}
    reporting.studies(config=json.dumps(config), output=tmp_path)
    for cell in grid.cells(grid.read(tmp_path / "studies.csv")):
        folder = cell_folder(tmp_path, cell)
        folder.mkdir(parents=True)
        values = dict.fromkeys(("image_auroc", "pixel_auroc", "pro"), 0.9)
        (folder / "metrics.json").write_text(json.dumps(values))
        pd.DataFrame(columns=audit.COLUMNS).to_csv(folder / "pro_definitions.csv", index=False)
    make(tmp_path)
    table = pd.read_csv(tmp_path / "tables" / "main.csv")
    assert table["pro"].tolist() == pytest.approx([0.9] * len(table))
    assert table["pro_paper"].isna().all()
    text = (tmp_path / "tables" / "main.md").read_text()
    assert "PaDiM-R18" in text
    assert "STPM (paper)" not in text
    reproductions = pd.read_csv(tmp_path / "tables" / "reproductions.csv")
    assert reproductions["ours"].isna().all()
    assert not (tmp_path / "figures" / "difference_to_paper.png").exists()


def test_without_any_result_the_tables_are_gaps(paper_results, tmp_path):
    for name in ("config.yaml", "studies.csv"):
        shutil.copy(paper_results / name, tmp_path / name)
    for history in (paper_results / "fits").glob("*/history.csv"):
        folder = tmp_path / "fits" / history.parent.name
        folder.mkdir(parents=True)
        shutil.copy(history, folder)
    pd.DataFrame(columns=[*grid.AXES, "metric", "value"]).to_csv(
        tmp_path / "metrics.csv", index=False
    )
    make(tmp_path)
    assert "0 of 45 cells" in (tmp_path / "tables" / "main.md").read_text()
    verdicts = {c["verdict"] for c in json.loads((tmp_path / "claims.json").read_text())["claims"]}
    assert verdicts == {"not tested"}
    assert list(pd.read_csv(tmp_path / "tables" / "cost.csv").columns) == cost.COLUMNS


def cases(scores, defects, count=2):
    n = len(scores)
    maps = np.ones((n, 4, 4)) * np.asarray(scores)[:, None, None]
    files = [f"test/{defect}/{i:03}.png" for i, defect in enumerate(defects)]
    images, masks = np.zeros((n, 4, 4, 3), np.uint8), np.zeros((n, 4, 4), bool)
    return pictures.hardest("bottle", files, defects, scores, images, masks, maps, count)


def test_the_hardest_are_those_that_most_of_the_others_pass():
    misses, alarms = cases([0.1, 0.2, 0.3, 0.6, 0.15, 0.9], ["good"] * 4 + ["cut", "hole"])
    assert [(case.file, case.share) for case in misses] == [
        ("test/cut/004.png", 0.75),
        ("test/hole/005.png", 0),
    ]
    assert [(case.file, case.share) for case in alarms] == [
        ("test/good/003.png", 0.5),
        ("test/good/002.png", 0.5),
    ]
    assert misses[0].anomaly_map.max() == pytest.approx(0.15 / 0.9)
    figure = pictures.failures(misses, alarms, "title")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[0] == "bottle\ncut/004\nbelow 75% of good"
    assert titles[-1] == "bottle\ngood/002\nabove 50% of defects"


# Notebooks


def page(results: Path, name: str, output: Path) -> str:
    command = [sys.executable, "-m", "stpm_bench", "notebook"]
    options = ["--source", f"analysis/{name}.py", "--results", str(results)]
    run = subprocess.run(
        [*command, *options, "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return (output / f"{name}.html").read_text()


@pytest.mark.parametrize("name", ["02_layers", "04_few_shot"])
def test_a_notebook_shows_the_papers_study(paper_results, tmp_path, name):
    text = page(paper_results, name, tmp_path)
    assert "No study of this config" not in text
    assert text.count("<table") > 5
    assert 'src="data:image/png' in text
    assert "undecided" in text  # a cell of the main study has failed


def test_notebooks_of_studies_that_a_config_lacks_say_so(finished):
    for name, axis in (("02_layers", "layers"), ("03_teachers", "teacher")):
        text = (finished / "results" / "notebooks" / f"{name}.html").read_text()
        assert f"No study of this config varies <code>{axis}</code>" in text
    assert {path.stem for path in (finished / "results" / "notebooks").glob("*.html")} == set(
        NOTEBOOKS
    )


def test_a_notebook_reads_the_results_and_loads_nothing_from_elsewhere(finished):
    for name in NOTEBOOKS:
        text = (finished / "results" / "notebooks" / f"{name}.html").read_text()
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', text) == []
        assert "Traceback" not in text


def test_a_notebook_that_fails_is_named(tmp_path):
    from stpm_bench.errors import InputError

    source = tmp_path / "broken.py"
    source.write_text("# %%\n1 / 0\n")
    with pytest.raises(InputError, match=r"broken.py: a cell failed:\n(.*\n)*.*ZeroDivisionError"):
        reporting.notebook(source=source, results=tmp_path, output=tmp_path)
    assert not (tmp_path / "broken.html").exists()


# The report, in a browser


@pytest.fixture(scope="module")
def report(finished) -> Path:
    path = finished / "report.html"
    run = snakemake(finished / "config.yaml", "--report", str(path))
    assert run.returncode == 0, run.stderr
    return path


def test_the_report_holds_every_table_figure_and_notebook(report, finished):
    results = finished / "results"
    shown = [*results.glob("tables/*.html"), *results.glob("figures/**/*.png")]
    shown += [*results.glob("notebooks/*.html"), results / "claims.html"]
    text = report.read_text()
    assert [path.name for path in shown if f"filename={path.name};" not in text] == []
    assert "<code" in text or "every table, figure and notebook" in text


# The report's framework logs this on every page.
NOTICE = "cdn.tailwindcss.com should not be used in production"


def said(page: Page) -> list[str]:
    """Return the console of a page of the report, without what its framework always logs."""
    return [line for line in page.console if not line.startswith(NOTICE)]


@needs_chromium
def test_a_notebooks_page_in_a_browser(finished, tmp_path):
    path = finished / "results" / "notebooks" / "01_main_table.html"
    with opened(path, tmp_path / "profile") as page:
        assert page.evaluate("document.querySelectorAll('table').length") > 5
        page.wait("[...document.images].every(image => image.complete)")
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        page.screenshot(tmp_path / "page.png")
        assert page.console == []
    assert len(widths) >= 3
    assert min(widths) > 100
    # Not a blank page.
    assert len(np.unique(np.asarray(Image.open(tmp_path / "page.png").convert("L")))) > 20


@needs_chromium
def test_a_person_finds_a_study_in_the_report_in_two_clicks(report, tmp_path):
    link = "[...document.querySelectorAll('a')].find(a => a.textContent.trim() === 'main')"
    row = "[...document.querySelectorAll('tbody tr')].find(row => row.innerText.includes('%s'))"
    with opened(report, tmp_path / "profile") as page:
        page.wait(f"{link} !== undefined")
        page.evaluate(f"{link}.click()")
        for what in ("figure: PRO curves", "figure: metrics", "table: means and spread"):
            page.wait(f"{row % what} !== undefined")
        eye = f"{row}.querySelector('a[iconname=eye]').click()"
        page.evaluate(eye % "figure: metrics")
        page.wait("document.querySelector('.first-page') === null")
        page.wait("[...document.images].some(image => image.naturalWidth > 300)")
        page.evaluate(eye % "table: means")
        page.wait("document.querySelector('iframe') !== null")
        source = page.evaluate("document.querySelector('iframe').src.slice(0, 60)")
        assert said(page) == []
    assert source.startswith("data:text/html;charset=utf8;filename=main.html")


@needs_chromium
def test_the_report_opens_with_the_main_table_the_verdicts_and_a_panel(report, tmp_path):
    with opened(report, tmp_path / "profile") as page:
        page.wait("document.querySelector('.first-page img')?.naturalWidth > 300")
        text = page.evaluate("document.querySelector('.first-page').innerText")
        top = page.evaluate(
            "document.querySelector('.first-page table').getBoundingClientRect().top"
        )
        widths = page.evaluate(
            "[...document.querySelectorAll('.first-page table')].map(table =>"
            " [table.scrollWidth, table.parentElement.clientWidth])"
        )
        assert said(page) == []
    for words in ("Study: main", "alpha", "mean", "The paper's claims", "Anomaly maps of alpha"):
        assert words in text
    assert 0 < top < 450  # seen without scrolling
    assert all(own <= room for own, room in widths)


@needs_chromium
def test_an_error_on_a_page_is_seen(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<body><script>undefinedFunction()</script></body>")
    with opened(path, tmp_path / "profile") as page:
        (line,) = page.console
    assert line.startswith("ReferenceError: undefinedFunction is not defined")


def test_a_panel_of_one_image(finished, tmp_path):
    results = finished / "results"
    cell = next((results / "cells").glob("category-alpha*"))
    options = {"test": results / "prepared" / "alpha" / "test", "cell": cell}
    heights = {}
    for name in ("", "test/square/001.png"):
        reporting.panel(**options, output=tmp_path / "panel", image=name)
        heights[name] = Image.open(tmp_path / "panel.png").size[1]
    assert heights["test/square/001.png"] < heights[""]  # a row, of two kinds
    with pytest.raises(InputError, match=r"--image 'absent\.png' .*image_scores\.csv") as caught:
        reporting.panel(**options, output=tmp_path / "other", image="absent.png")
    assert "'test/" in str(caught.value)
    assert not (tmp_path / "other.png").exists()


# An own study, data set or scoring rule, by following the pages


def block(page: str, section: str, language: str, word: str) -> str:
    """Return the code block of a page's section that has a word in it."""
    text = (REPOSITORY / page).read_text().split(f"\n## {section}")[1]
    blocks = re.findall(rf"```{language}\n(.*?)```", text.split("\n## ")[0], re.S)
    return next(block for block in blocks if word in block)


OWN = ("README.md", "Add your own method, data set", "yaml")
RULE = ("docs/add_a_method.md", "A scoring rule, a distance")


def test_a_study_is_an_entry_and_a_data_set_a_path(finished, tmp_path):
    for name in ("data", "results"):
        shutil.copytree(finished / name, tmp_path / name, copy_function=shutil.copy2)
    # Snakemake records by path what a file was made with; here the path is another.
    (tmp_path / "results" / "studies.csv").unlink()
    write_category(tmp_path / "data", "gamma", train=4, test=2)
    config = small_config(tmp_path)
    named = re.search(r"`(data: {.*?})`", (REPOSITORY / "README.md").read_text())[1]
    assert list(yaml.safe_load(named)["data"]) == list(config["data"])
    added = yaml.safe_load(block(*OWN, "studies:"))["studies"]
    assert complete(config | {"studies": added | config["studies"]} | {"teachers": TEACHER})
    # The study of the page, made small: one category, the existing teacher and seed.
    added["pairs"] |= {"category": ["gamma"], "teacher": ["random"], "seed": [0]}
    config["studies"] |= added
    run = snakemake(config, str(tmp_path / "results" / "tables" / "pairs_by_category.md"))
    assert run.returncode == 0, run.stderr
    assert re.search(r"^fit +2$", run.stderr, re.M)  # gamma by 1 and by 1+2; no other
    text = (tmp_path / "results" / "tables" / "pairs_by_category.md").read_text()
    assert "| category   | layers 1 " in text
    assert "| gamma " in text
    assert "| gamma " in (tmp_path / "results" / "tables" / "main.md").read_text()


TEACHER = {"imagenet": {"backbone": "resnet18"}, "random": {"backbone": "resnet18"}}


def test_a_scoring_rule_is_one_function(finished, tmp_path):
    shutil.copytree(REPOSITORY / "stpm_bench", tmp_path / "stpm_bench")
    line = block(*RULE, "python", "FUSIONS").rstrip()
    path = tmp_path / "stpm_bench/anomaly_map.py"
    text, count = re.subn(r"^FUSIONS = .*$", line, path.read_text(), flags=re.M)
    assert count == 1
    path.write_text(text)
    results = finished / "results"
    config = small_config(finished) | yaml.safe_load(block(*RULE, "yaml", "methods:"))
    config["studies"]["main"]["method"] = ["stpm", "highest"]
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    fit = next((results / "fits").glob("category-alpha_*"))

    def step(name: str, *options: str) -> None:
        command = [sys.executable, "-m", "stpm_bench", name, *options]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    step("studies", "--config", "config.yaml", "--output", "results")
    fits = grid.read(tmp_path / "results" / "studies.csv").groupby("category")["fit"]
    assert fits.nunique().tolist() == [1, 1]  # the two methods share one
    cell = tmp_path / "results" / "cells" / fit.name.replace("-stpm", "-highest")
    (tmp_path / "results" / "fits").mkdir()
    shutil.copytree(fit, tmp_path / "results" / "fits" / fit.name)
    settings = json.dumps({"masks": "nearest", "fusion": "highest"})
    options = ["--test", str(results / "prepared" / "alpha" / "test"), "--fit", str(fit)]
    step("evaluate", *options, "--settings", settings, "--cell", str(cell))
    enlarged = [anomaly_map.enlarge(m, 64) for m in read_scores(fit).level_maps.values()]
    scores = pd.read_csv(cell / "image_scores.csv")["score"]
    np.testing.assert_allclose(scores, np.maximum(*enlarged).max(axis=(1, 2)), rtol=1e-6)
