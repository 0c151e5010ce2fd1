"""The messages of a run: before it starts, at its end, and after a failure."""

import json
import re
import shlex
from pathlib import Path

import pytest

from builders import small_config
from stpm_bench.run import messages, plan
from stpm_bench.run.suite import suite_of


def announced(suite, cores: int = 2) -> str:
    images = {category: suite.image_count(category, "train") for category in suite.categories}
    todo = plan.images_to_do(suite.config, suite.fits, images)
    return messages.announcement(suite, todo, cores)


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_the_announcement_counts_fits_cells_and_categories(small_set):
    text = announced(suite_of(small_config(small_set)))
    assert "2 of 2 fits" in text
    assert "2 cells" in text
    assert "2 categories" in text
    assert "hours" not in text  # seconds are not announced


def test_the_announcement_says_the_hours_of_a_long_run(small_set):
    long = suite_of(small_config(small_set, training={"epochs": 10**6, "batch_size": 4}))
    assert "hours on 2 cores" in announced(long)
    assert "hours on one core" in announced(long, cores=1)


def test_what_is_scored_is_not_announced_again(small_set):
    suite = suite_of(small_config(small_set))
    folder = Path(suite.fit_folder(suite.cells[0]))
    folder.mkdir(parents=True)
    (folder / "level_maps.npz").touch()
    assert "1 of 2 fits" in announced(suite)


def test_a_teacher_that_has_seen_the_defects_is_warned_of(tmp_path):
    config = small_config(tmp_path)
    config["data"] = {"sets": {"cifar": {"layout": "cifar10_oneclass"}}, "folder": str(tmp_path)}
    config["teachers"] = {"seen": {"backbone": "resnet18", "pretrain": "cifar10"}}
    config["studies"]["main"]["teacher"] = ["seen"]
    text = announced(suite_of(config))
    assert "Warning: teacher seen was trained on CIFAR-10 with its labels" in text
    assert "cifar10 (163 MiB)" in text


def test_downloads_are_named_until_they_are_there(small_set):
    config = small_config(
        small_set, teachers={"random": {"backbone": "resnet18", "pretrain": "svhn"}}
    )
    suite = suite_of(config)
    assert messages.downloads(suite) == ["svhn (235 MiB)"]
    write(Path(suite.results, "pretraining", "svhn.npz"), {})
    assert messages.downloads(suite) == []


def test_published_weights_and_mvtec_ad_are_downloads(tmp_path):
    config = small_config(tmp_path, data={"folder": str(tmp_path / "data")})
    config["teachers"] = {"random": {"backbone": "resnet18", "weights": "IMAGENET1K_V1"}}
    found = messages.downloads(suite_of(config))
    assert [text.split(" ")[0] for text in found] == ["MVTec", "torchvision's"]


@pytest.mark.parametrize("conda", [True, False])
def test_the_interim_command_repeats_what_the_run_was_given(conda):
    here = Path.cwd()
    files = [here / "my config.yaml", Path("/elsewhere/b.yaml")]
    command = messages.interim_command(files, {"results": "a b", "threads": 2}, conda)
    words = shlex.split(command)
    assert words[:4] == ["snakemake", "interim", "--cores", "1"]
    assert ("--use-conda" in words) == conda
    assert words[words.index("--configfile") + 1 :][:2] == ["my config.yaml", "/elsewhere/b.yaml"]
    assert words[words.index("--config") + 1 :] == ['results="a b"', "threads=2"]


def test_a_failed_run_says_what_is_kept(small_set):
    suite = suite_of(small_config(small_set))
    assert "0 of 2 cells" in messages.after_failure(suite, "COMMAND")
    assert "COMMAND" not in messages.after_failure(suite, "COMMAND")
    write(Path(suite.cell_folder(suite.cells[0]), "metrics.json"), {"pro": 0.5})
    text = messages.after_failure(suite, "COMMAND")
    assert "1 of 2 cells" in text
    assert "COMMAND" in text


def test_the_end_shows_the_main_table_and_the_fits_that_failed(small_set):
    suite = suite_of(small_config(small_set))
    assert messages.closing(suite) == ""
    table = Path(suite.results, "tables", "main.md")
    table.parent.mkdir(parents=True)
    table.write_text("## Study: main\n\n| a |\n\n## PRO: published methods\n\n| wide |\n")
    write(Path(suite.cell_folder(suite.cells[0]), "metrics.json"), {"pro": 0.5})
    write(Path(suite.cell_folder(suite.cells[1]), "metrics.json"), {"failure": "NaN at epoch 2"})
    text = messages.closing(suite)
    assert "| a |" in text
    assert "| wide |" not in text
    assert f"In {suite.results}/: metrics.csv" in text
    assert "browser" not in text  # there is no page yet
    first = Path(suite.results, "first_page.html")
    page = Path(suite.results, "explorer", "alpha.html")
    write(page, {})
    assert f"Look first, in a browser, at {page} " in messages.closing(suite)
    write(first, {})
    found = re.search(rf"Look first, .* at {first} .*, then at {page} ", messages.closing(suite))
    assert found, messages.closing(suite)
    assert "1 of 2 cells failed" in text
    assert f"{suite.cells[1].folder}: NaN at epoch 2" in text
