"""The plan of a config, against a count by hand and against the files of a run."""

import json
import re
from dataclasses import replace

import pytest

from builders import small_config
from conftest import snakemake
from stpm_bench import config as configs
from stpm_bench import grid
from stpm_bench.__main__ import main
from stpm_bench.config import complete, sources
from stpm_bench.methods.stpm import METHODS
from stpm_bench.run import plan, rates
from stpm_bench.split import split


@pytest.mark.parametrize("schedule", ["epochs", "steps"])
@pytest.mark.parametrize(("images", "fraction"), [(209, 1.0), (209, 0.1), (60, 0.05), (8, 0.5)])
def test_training_images_are_those_that_the_split_leaves(images, fraction, schedule):
    settings = replace(METHODS["stpm"], epochs=7, schedule=schedule)
    roles = split([f"{i}.png" for i in range(images)], fraction, 0.2, seed=0)["role"]
    used = (roles == "training").sum()
    found = settings.fit_images(images, fraction)
    if schedule == "epochs":
        # An image more or less where two roundings meet.
        assert abs(found - 7 * used) <= 7
    else:
        assert found >= 7 * used


def test_the_paper_has_its_675_students_and_11_million_images(tmp_path):
    config = configs.read("workflow/config/paper.yaml") | {"results": str(tmp_path)}
    category_sources, fits = sources(config), grid.fit_names(grid.studies(config))
    assert len(fits) == 675
    images = {name: plan.count_images(source, "train") for name, source in category_sources.items()}
    assert sum(images.values()) == 3629
    assert sum(plan.count_images(source, "test") for source in category_sources.values()) == 1725
    todo = plan.images_to_do(config, fits, images)
    assert sum(todo.values()) == pytest.approx(11.5e6, rel=0.01)


def numbers(text: str, line: str) -> list[str]:
    row = re.findall(rf"^\| {line} +\|(.*)\|$", text, re.M)[0]
    return [cell.strip() for cell in row.split("|")]


def test_the_whole_grid_is_16_200_students(capsys):
    assert main(["plan", "workflow/config/full.yaml"]) == 0
    text = capsys.readouterr().out
    assert numbers(text, "total")[0] == "16,200"
    assert numbers(text, "layers")[:2] == ["675", "45"]
    assert "prepared categories (15), teachers (16)" in text
    assert f"an estimate for processors with {rates.processor_class()}" in text


def test_what_is_done_is_counted_and_its_rate_is_used(finished, tmp_path, capsys):
    config = small_config(finished)
    config["studies"]["main"]["seed"] = [0, 1]
    config["studies"]["again"] = config["studies"]["main"] | {"seed": [1, 2]}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    assert main(["plan", str(path)]) == 0
    text = capsys.readouterr().out
    assert numbers(text, "main") == ["4", "0", "2"]
    assert numbers(text, "again") == ["4", "2", "0"]
    assert "rates recorded by fits on this machine" in text
    # Four cells are left, each of 6 training images in 2 epochs, and of 6 test images.
    assert numbers(text, "fits")[0] == "48 images"
    assert numbers(text, "maps and metrics")[0] == "24 images"


def test_the_plan_of_a_finished_config_has_no_images_left(small_set, capsys):
    for cell in grid.cells(grid.studies(complete(small_config(small_set)))):
        path = small_set / "results" / "cells" / cell.folder / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text('{"failure": "the loss is not finite at epoch 1"}')
        fit = small_set / "results" / "fits" / cell.folder / "level_maps.npz"
        fit.parent.mkdir(parents=True)
        fit.touch()
    (small_set / "config.json").write_text(json.dumps(small_config(small_set)))
    assert main(["plan", str(small_set / "config.json")]) == 0
    text = capsys.readouterr().out
    assert numbers(text, "fits")[0] == "0 images"
    assert "an estimate for processors with" in text


def test_the_bytes_of_a_cell_are_those_on_the_disk(finished):
    config = complete(small_config(finished))
    category_sources = sources(config)
    (cell, _) = grid.cells(grid.studies(config))
    expected = plan.bytes_of(
        config, lambda name, part: plan.count_images(category_sources[name], part)
    )(cell)
    folder = finished / "results" / "fits" / cell.folder
    sizes = [(folder / name).stat().st_size for name in ("model.pt", "level_maps.npz")]
    assert expected == pytest.approx(sum(sizes), rel=0.05)
    config["keep_models"] = False
    expected = plan.bytes_of(
        config, lambda name, part: plan.count_images(category_sources[name], part)
    )(cell)
    assert expected == pytest.approx(sizes[1], abs=1000)


def test_a_config_that_is_wrong_is_named(tmp_path, capsys):
    assert main(["plan", str(tmp_path / "no.yaml")]) == 1
    assert "no.yaml" in capsys.readouterr().err


def test_a_dry_run_of_many_students_counts_them_instead_of_listing(small_set):
    main = small_config(small_set)["studies"]["main"]
    many = small_config(small_set, studies={"main": main | {"seed": list(range(501))}})
    counted = snakemake(many, "--dry-run").stdout
    assert re.search(r"^fit +1002$", counted, re.M)
    assert "rule fit:" not in counted
