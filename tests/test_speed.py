"""The methods' frames per second: what is timed, in turns, with models loaded beforehand."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from builders import small_config, write_category
from conftest import REPOSITORY, made_once, snakemake
from stpm_bench import backbone, config, methods, speed
from stpm_bench.__main__ import main
from stpm_bench.methods.interface import Scores, Split, Teacher
from stpm_bench.report.claims import SPEED_COLUMNS, frame_rate_ratios

SIZE, LEVELS = 64, (1, 2)
BOTH = ["stpm", "spade"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("questions", ["stpm", "padim", "spade", "patchcore", "patchcore_1"]),
        ("demo", []),
        ("paper", []),
        ("full", []),
    ],
)
def test_what_a_config_times(name, expected):
    made = config.read(REPOSITORY / "workflow" / "config" / f"{name}.yaml")
    cells = speed.timed_cells(made, "main")
    assert [cell.method for cell in cells] == expected
    assert len({(c.category, c.teacher, c.fraction, c.seed) for c in cells}) <= 1
    assert [cell.layers for cell in cells if cell.method == "patchcore"] == ["2+3"] * bool(cells)


def test_no_study_at_the_main_setting_times_nothing(small_set):
    base = small_config(small_set)["studies"]["main"]
    few = base | {"fraction": [0.5], "method": BOTH}

    def timed(**studies) -> list[str]:
        made = config.complete(small_config(small_set, studies={"main": base} | studies))
        return [cell.folder for cell in speed.timed_cells(made, "main")]

    assert timed(few=few) == []
    assert timed(alone=base | {"method": ["spade"]}) == []
    found = timed(few=few, many=few | {"fraction": [0.5, 1.0], "seed": [3, 0], "category": "all"})
    name = "category-alpha_layers-1+2_teacher-random_fraction-1.0_seed-3_method-"
    assert found == [name + method for method in BOTH]


def test_methods_take_turns_and_the_first_frames_do_not_count(monkeypatch):
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    clock, calls = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])

    def predictor(name: str, seconds: float):
        def predict(frame: np.ndarray):
            assert frame.shape == (1, 2, 2, 1)
            calls.append((name, int(frame.ravel()[0]) // 4))
            slow = 100 if len(calls) <= 2 * speed.WARM else 1  # the first frames of both
            clock[0] += slow * seconds

        return predict

    predictors = {"one": predictor("one", 0.1), "other": predictor("other", 2.0)}
    seconds = speed.frame_seconds(predictors, images, frames=5)
    assert calls == [(name, i % 3) for i in range(speed.WARM + 5) for name in predictors]
    np.testing.assert_allclose(seconds["one"], [0.1] * 5)
    np.testing.assert_allclose(seconds["other"], [2.0] * 5)


def test_the_table_is_what_the_claim_reads():
    seconds = {"stpm": [0.01] * 18 + [0.02, 0.03], "spade": [1.0] * 19 + [4.0]}
    table = speed.table(seconds, "cpu")
    assert list(table.columns) == SPEED_COLUMNS
    rows = table.set_index("method")
    assert rows.loc["stpm", "frames_per_second"] == pytest.approx(100)
    assert rows.loc["stpm", "p50"] == pytest.approx(0.01)
    assert rows.loc["spade", "p95"] == pytest.approx(np.percentile(seconds["spade"], 95))
    (comparison,) = frame_rate_ratios(table)
    assert comparison.effect == pytest.approx(100)
    assert comparison.low <= comparison.effect <= comparison.high


@pytest.mark.parametrize("file", methods.FILES)
def test_a_loaded_model_scores_frame_by_frame_as_all_at_once(file):
    device = torch.device("cpu")
    network = backbone.create("resnet18", LEVELS, seed=0).eval()
    teacher = Teacher("resnet18", network)
    training, images = np.random.default_rng(0).integers(0, 256, (2, 5, SIZE, SIZE, 3), np.uint8)
    settings = next(iter(methods.module_of(file).METHODS.values()))
    changes = {"epochs": 1, "last_epoch": True, "channels": 5}
    settings = methods.differing(settings, changes, skip=True)
    same = {"levels": LEVELS, "settings": settings, "device": device}
    module = methods.module_of(file)
    split = Split(range(4), [4], 4)
    extra = {"seed": 0, "precision": torch.float32, "title": "", "progress": False}
    model = module.fit(teacher, training, split, unfinished=None, **same, **extra).model
    whole = module.score(teacher, model, images, **same)
    scores_of = methods.scorer(teacher, model, **same)
    model.clear()  # all that is needed of it was loaded
    for i in range(len(images)):
        one = scores_of(images[i : i + 1])
        for name, maps in whole.level_maps.items():
            # The square root of what rounding leaves of a distance of 0 is some 1e-5.
            np.testing.assert_allclose(one.level_maps[name][0], maps[i], rtol=1e-3, atol=1e-4)
        if whole.image_scores is not None:
            np.testing.assert_allclose(one.image_scores[0], whole.image_scores[i], rtol=1e-3)
        assert one.variants.keys() == whole.variants.keys()


def test_a_method_without_a_scorer_scores_all_the_same(monkeypatch):
    def score(teacher, model, images, *, levels, settings, device):
        return Scores({f"{teacher} {model} {levels} {device}": images})

    monkeypatch.setattr(methods, "module_of", lambda file: SimpleNamespace(score=score))
    settings = SimpleNamespace(module="own")
    scores_of = methods.scorer("t", {"m": 1}, levels=(1,), settings=settings, device="cpu")
    assert scores_of("images").level_maps == {"t {'m': 1} (1,) cpu": "images"}


def compared(folder, **changes) -> dict:
    main = small_config(folder)["studies"]["main"] | {"method": BOTH}
    return small_config(folder, studies={"main": main}, **changes)


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """The folder of a run that made speed.csv, and metrics.csv of the same models."""

    def make(folder) -> None:
        write_category(folder / "data", "alpha")
        results = folder / "results"
        run = snakemake(compared(folder), str(results / "speed.csv"), str(results / "metrics.csv"))
        assert run.returncode == 0, run.stderr

    return made_once(tmp_path_factory, "timed", make)


def test_the_rule_has_the_models_that_are_not_kept_and_the_machine(timed):
    results = timed / "results"
    table = pd.read_csv(results / "speed.csv")
    assert list(table.columns) == SPEED_COLUMNS
    assert list(table["method"]) == BOTH
    assert (table["frames_per_second"] > 0).all()
    assert (table["p50"] <= table["p95"]).all()
    record = json.loads((results / "speed.json").read_text())
    assert record["threads"] == 2  # all cores of the run: no other job has one
    assert record["settings"]["fits"].keys() == set(BOTH)
    assert record["results"][0]["method"] == "stpm"
    fits = [results / "fits" / name for name in record["settings"]["fits"].values()]
    assert [(fit / "model.pt").exists() for fit in fits] == [True, False]
    again = snakemake(compared(timed), str(results / "speed.csv"), str(results / "metrics.csv"))
    assert "Nothing to be done" in again.stderr


def test_another_study_or_metric_times_nothing_again(timed):
    made = compared(timed)
    made["studies"]["more"] = made["studies"]["main"] | {"seed": [1], "method": ["stpm"]}
    run = snakemake(made, "--dry-run")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", run.stdout, re.M))
    assert "fit" in jobs  # of the new study
    assert "speed" not in jobs
    assert "fit_temporary" not in jobs
    made["methods"] = {}
    made["studies"] = {"main": made["studies"]["main"] | {"method": ["stpm"]}}
    alone = snakemake(made, "--dry-run")
    assert "speed" not in re.findall(r"^(\w+) +\d+$", alone.stdout, re.M)


def test_a_fit_that_failed_is_not_timed(timed, tmp_path, capsys):
    results = tmp_path / "results"
    shutil.copytree(timed / "results", results)
    folder = results / "fits" / "category-alpha_layers-1+2_teacher-random_fraction-1.0_seed-0"
    spade = folder.with_name(f"{folder.name}_method-spade")
    record = json.loads((spade / "fit.json").read_text())
    (spade / "fit.json").write_text(json.dumps(record | {"failure": "not finite"}))
    (spade / "fit.sha256").unlink()
    made = config.complete(compared(timed))
    asked = speed.step_input(speed.timed_cells(made, "main"), config.methods(made))
    options = ["--results", str(results), "--test", str(results / "prepared" / "alpha" / "test")]
    options += ["--teacher", str(results / "teachers" / "random.pt"), "--frames", "1"]
    assert main(["speed", *options, "--timed", json.dumps(asked), "--threads", "1"]) == 0
    assert "not timed: the fit failed: not finite" in capsys.readouterr().err
    assert list(pd.read_csv(results / "speed.csv")["method"]) == ["stpm"]
