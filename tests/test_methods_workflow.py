"""Methods through the workflow: the inputs of each step, and a training that fails."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from builders import small_config, write_category
from conftest import made_once, snakemake
from stpm_bench.__main__ import main
from stpm_bench.anomaly_map import anomaly_maps
from stpm_bench.backbone import create, load, state
from stpm_bench.config import complete, methods
from stpm_bench.datasets.masks import bilinear_any
from stpm_bench.methods.stpm import level_maps
from stpm_bench.metrics import evaluate_arrays
from stpm_bench.results import load_arrays, read_teacher

CPU = torch.device("cpu")
CELL = "category-alpha_layers-1+2_teacher-random_fraction-1.0_seed-0_method-{}"


def config_of(folder: Path, **mine) -> dict:
    """A study in which the first cell fails, and one of which nothing is left."""
    main = small_config(folder)["studies"]["main"]
    return small_config(
        folder,
        training={"epochs": 3, "batch_size": 4},
        methods={
            "wild": {"learning_rate": 1.0e20},
            "mine": {
                "like": "stpm_authors",
                "checkpoint": "validation_loss",
                "learning_rate": 30,
                "last_epoch": True,
            }
            | mine,
        },
        studies={
            "main": main | {"method": ["wild", "mine"]},
            "lost": main | {"method": ["wild"]},
        },
    )


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The folder of a whole run, and what it printed."""

    def make(folder: Path) -> None:
        write_category(folder / "data", "alpha")
        results = folder / "results"
        names = [f"tables/{study}.md" for study in ("main", "lost", "pro_definitions")]
        names += ["figures/main.png", "figures/lost.png", "figures/anomaly_maps/alpha.png"]
        names += ["figures/training/main.png", "figures/training/lost.png"]
        run = snakemake(config_of(folder), *(str(results / name) for name in names))
        assert run.returncode == 0, run.stderr
        (folder / "printed").write_text(run.stderr)

    folder = made_once(tmp_path_factory, "failed", make)
    return folder, (folder / "printed").read_text()


def test_a_training_that_fails_is_a_gap_and_the_others_go_on(failed):
    folder, printed = failed
    results = folder / "results"
    wild, mine = (results / "fits" / CELL.format(name) for name in ("wild", "mine"))
    failure = json.loads((wild / "fit.json").read_text())["failure"]
    history = pd.read_csv(wild / "history.csv")
    epoch = history["epoch"].max()
    assert failure.startswith(f"the loss is not finite at epoch {epoch} (training ")
    metrics = results / "cells" / wild.name / "metrics.json"
    assert json.loads(metrics.read_text()) == {"failure": failure}
    assert f"the fit failed: {failure}" in (wild / "fit.log").read_text()
    # The run's end says which, and why.
    assert "1 of 2 cells failed" in printed
    assert f"  {wild.name}: {failure}" in printed
    assert json.loads((mine / "fit.json").read_text())["failure"] is None
    assert set(pd.read_csv(results / "metrics.csv")["method"]) == {"mine"}
    table = pd.read_csv(results / "tables" / "main.csv").set_index(["method", "category"])
    assert np.isnan(table.loc[("wild", "alpha"), "pro"])
    assert np.isfinite(table.loc[("mine", "alpha"), "pro"])
    assert "0 of 1 cells; the others failed" in (results / "tables" / "lost.md").read_text()


def test_the_cell_is_evaluated_as_its_method_says_and_the_last_epoch_too(failed):
    folder, _ = failed
    results = folder / "results"
    fit, cell = (results / kind / CELL.format("mine") for kind in ("fits", "cells"))
    images = np.load(results / "prepared/alpha/test/images.npy")
    own = load_arrays(results / "prepared/alpha/test/masks_own.npz").values()
    masks = np.stack([bilinear_any(mask, 64) for mask in own])
    assert np.array_equal(masks, np.load(results / "prepared/alpha/test/masks_bilinear_any.npy"))
    settings = methods(complete(config_of(folder)))["mine"]
    assert (settings.map_resolution, settings.factor) == ("finest", 1.0)
    values = json.loads((cell / "metrics.json").read_text())
    teacher = read_teacher(results / "teachers" / "random.pt", [1, 2], CPU).network
    model = torch.load(fit / "model.pt", weights_only=True)
    for weights, prefix in (("weights", ""), ("last_epoch_weights", "last_epoch_")):
        student = create("resnet18", [1, 2], seed=0)
        load(student, model[weights], "")
        levels = level_maps(teacher, student, images, settings, CPU)
        maps = anomaly_maps(levels, 64, map_resolution="finest")
        expected = evaluate_arrays(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)), masks, maps)
        for metric in ("image_auroc", "pixel_auroc", "pro"):
            assert values[prefix + metric] == pytest.approx(expected[metric])
        if not prefix:
            scores = pd.read_csv(cell / "image_scores.csv")["score"]
            np.testing.assert_allclose(scores, maps.max(axis=(1, 2)), rtol=1e-6)


def jobs(run) -> dict[str, int]:
    """Return how many jobs of each rule a dry run would run."""
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", run.stdout, re.M)}


def test_a_change_of_the_evaluation_fits_and_scores_nothing_again(failed):
    folder, _ = failed
    changed = jobs(snakemake(config_of(folder, fusion="sum", masks="nearest"), "--dry-run"))
    assert {"fit", "score"} & set(changed) == set()
    assert (changed["evaluate"], changed["collect"]) == (1, 1)
    trained = snakemake(config_of(folder, momentum=0.5) | {"threads": 2}, "--dry-run", "-p")
    assert jobs(trained)["fit"] == 1
    assert len(re.findall(r"stpm_bench fit .* --threads 2 ", trained.stdout)) == 1


def test_a_method_that_evaluates_otherwise_takes_the_fit_that_is_there(failed):
    folder, _ = failed
    config = config_of(folder)
    config["methods"]["summed"] = config["methods"]["mine"] | {"fusion": "sum"}
    config["studies"]["main"]["method"].append("summed")
    added = jobs(snakemake(config, "--dry-run"))
    assert {"fit", "score"} & set(added) == set()
    assert added["evaluate"] == 1


def test_models_that_are_not_kept_go_and_their_level_maps_stay(finished, tmp_path):
    config = small_config(finished, results=str(tmp_path / "results"), keep_models=False)
    target = str(tmp_path / "results" / "metrics.csv")
    assert snakemake(config, target).returncode == 0
    fits = tmp_path / "results" / "fits"
    assert len(list(fits.glob("*/level_maps.npz"))) == 2
    assert list(fits.glob("*/model.pt")) == []
    assert "Nothing to be done" in snakemake(config, target).stderr
    for name in ("metrics.csv", "pro_definitions.csv"):
        one, other = (folder / "results" / name for folder in (finished, tmp_path))
        assert one.read_bytes() == other.read_bytes()
    # The scoring code has changed: the fits are rerun, which the announcement says.
    for record in fits.glob("*/score.json"):
        record.write_text(record.read_text().replace('"code": "', '"code": "0'))
    (tmp_path / "results" / "studies.csv").unlink()
    said = snakemake(config, str(tmp_path / "results" / "studies.csv")).stderr
    assert "the models of 2 scored fits were not kept" in said


def test_results_of_another_layout_are_refused(small_set):
    (small_set / "results" / "cells" / "category-alpha").mkdir(parents=True)
    run = snakemake(small_config(small_set), "--dry-run")
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert f"config key 'results': {small_set / 'results'} holds results of layout 1" in said
    assert "delete the old results" in said


def test_clean_lists_and_removes_what_a_config_does_not_ask_for(failed, tmp_path, capsys):
    folder, _ = failed
    shutil.copytree(folder / "results", tmp_path / "results")
    config = config_of(folder) | {"results": str(tmp_path / "results")}
    config["studies"] = {"lost": config["studies"]["lost"]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    stale = [tmp_path / "results" / kind / CELL.format("mine") for kind in ("cells", "fits")]
    assert main(["clean", str(path)]) == 0
    printed = capsys.readouterr().out
    assert [str(folder) in printed for folder in stale] == [True, True]
    assert "2 places not part of this config" in printed
    assert all(folder.is_dir() for folder in stale)
    assert main(["clean", str(path), "--yes"]) == 0
    assert not any(folder.exists() for folder in stale)
    assert (tmp_path / "results" / "cells" / CELL.format("wild")).is_dir()


def test_a_score_refuses_a_model_of_another_teacher(finished, tmp_path, capsys):
    results = finished / "results"
    fit = next((results / "fits").iterdir())
    copied = tmp_path / fit.name
    shutil.copytree(fit, copied)
    other = tmp_path / "other.pt"
    assert main(["teacher", "--backbone", "resnet18", "--seed", "1", "--output", str(other)]) == 0
    command = ["score", "--test", str(results / "prepared/alpha/test"), "--teacher", str(other)]
    assert main([*command, "--fit", str(copied), "--layers", "1+2"]) == 1
    said = capsys.readouterr().err
    assert f"{copied / 'model.pt'}: was fitted on another teacher than {other}" in said
    record = json.loads((fit / "fit.json").read_text())
    assert record["teacher_sha256"] in said


def test_level_maps_of_other_test_images_are_not_evaluated(finished, tmp_path, capsys):
    results = finished / "results"
    fit = next((results / "fits").glob("category-alpha*"))
    test = tmp_path / "test"
    shutil.copytree(results / "prepared/alpha/test", test)
    (test / "images.sha256").unlink()
    table = pd.read_csv(test / "images.csv")
    table[::-1].to_csv(test / "images.csv", index=False)
    command = ["evaluate", "--test", str(test), "--fit", str(fit), "--cell", str(tmp_path / "cell")]
    assert main([*command, "--settings", '{"masks": "nearest"}']) == 1
    assert "its level maps belong to other test images" in capsys.readouterr().err


def test_exported_maps_are_those_that_were_evaluated(finished, tmp_path):
    results = finished / "results"
    cell = next((results / "cells").glob("category-alpha*"))
    assert main(["export-maps", "--cell", str(cell), "--output", str(tmp_path)]) == 0
    maps = np.load(tmp_path / "anomaly_maps.npy")
    table = pd.read_csv(cell / "image_scores.csv")
    np.testing.assert_allclose(maps.max(axis=(1, 2)), table["score"])
    for values, file in zip(maps, table["file"], strict=True):  # 'test/square/000.png'
        image = np.asarray(Image.open((tmp_path / "alpha" / file).with_suffix(".tiff")))
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, values)  # the images are 64 x 64 themselves


def test_a_failed_fit_has_no_maps_to_export(tmp_path, capsys):
    cell, fit = tmp_path / "cells" / "category-a_layers-1", tmp_path / "fits" / "f"
    for folder, name, content in (
        (cell, "evaluation.json", {"fit": "f", "evaluation": {"masks": "nearest"}}),
        (fit, "fit.json", {"failure": "the loss is not finite"}),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
    assert main(["export-maps", "--cell", str(cell), "--output", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"{cell}: has no anomaly maps" in message
    assert "the loss is not finite" in message


def test_a_level_that_a_file_of_weights_lacks_is_named(small_set):
    weights = create("resnet18", [1, 2, 3], seed=0)
    file = small_set / "to_layer3.pth"
    torch.save(state(weights), file)
    teachers = {"random": {"backbone": "resnet18", "weights": str(file), "source": "mine"}}
    config = small_config(small_set, teachers=teachers)
    target = str(small_set / "results" / "teachers" / "random.json")
    assert snakemake(config, target).returncode == 0
    record = json.loads(Path(target).read_text())
    assert [row["level"] for row in record["levels"]] == [1, 2, 3]
    assert record["declared"] == "mine"
    # The teacher that is there is refused by the fit, a new one before anything is fitted.
    config["studies"]["main"]["layers"] = [[1, 4]]
    fit = small_set / "results" / "fits" / CELL.format("stpm").replace("1+2", "1+4") / "model.pt"
    for _ in range(2):
        run = snakemake(config, str(fit))
        assert run.returncode != 0
        assert "level 4" in run.stderr or "but not 4" in run.stderr
        assert str(file) in run.stderr
        Path(target).with_suffix(".pt").unlink(missing_ok=True)
