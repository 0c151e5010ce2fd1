"""The memory and time that are requested for each job."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from builders import small_config
from conftest import REPOSITORY, snakemake
from stpm_bench.run import resources
from stpm_bench.run.suite import suite_of

MEMORY = {
    "prepare_train": resources.prepare_train_memory,
    "prepare_test": resources.prepare_test_memory,
    "fit": resources.fit_memory,
    "score": resources.score_memory,
    "evaluate": resources.evaluate_memory,
}
MINUTES = {"fit": resources.fit_minutes, "score": resources.score_minutes}


def asked_for(functions, folder: Path, attempt: int = 1, job=None, **changes) -> dict[str, int]:
    """Return what the rules request for the metrics of one cell of a small config."""
    suite = suite_of(small_config(folder, **changes))
    of_cell = suite.cells[0]._asdict() | (job or {})
    wildcards = SimpleNamespace(**{axis: str(value) for axis, value in of_cell.items()})
    return {rule: request(suite, wildcards, attempt) for rule, request in functions.items()}


def test_the_slurm_profile_names_rules_that_exist():
    profile = yaml.safe_load((REPOSITORY / "workflow/profiles/slurm/profile.yaml").read_text())
    listed = snakemake(REPOSITORY / "workflow/config/questions.yaml", "--list-rules").stdout.split()
    assert set(profile["groups"]) | set(profile["set-resources"]) <= set(listed)
    alone = {"all", "demo_data", "download", "pretraining_set", "teacher", "interim", "speed"}
    assert set(listed) - set(profile["groups"]) <= alone | {"published_teacher"}


@pytest.mark.parametrize("functions", [MEMORY, MINUTES])
def test_a_retry_asks_for_twice_as_much(small_set, functions):
    first, second = (asked_for(functions, small_set, attempt) for attempt in (1, 2))
    assert second == {rule: 2 * number for rule, number in first.items()}


def test_a_job_asks_for_what_its_functions_say(small_set):
    config = small_config(small_set)
    cell = suite_of(config).cells[0]
    target = small_set / "results" / "cells" / cell.folder / "metrics.json"
    run = snakemake(config, str(target), "--dry-run")
    assert run.returncode == 0, run.stderr
    for rule, number in asked_for(MEMORY, small_set).items():
        job = run.stdout.split(f"rule {rule}:")[1].split("rule ")[0]
        assert f"mem_mb={number}," in job
    fit = run.stdout.split("rule fit:")[1].split("rule ")[0]
    assert f"runtime={asked_for(MINUTES, small_set)['fit']}," in fit


@pytest.mark.parametrize(
    ("change", "grows"),
    [
        ({"image_size": 128}, set(MEMORY)),
        ({"training": {"epochs": 2, "batch_size": 32}}, {"fit"}),
        ({"teachers": {"random": {"backbone": "resnet50"}}}, {"fit"}),
    ],
)
def test_memory_follows_what_it_depends_on(small_set, change, grows):
    before, after = asked_for(MEMORY, small_set), asked_for(MEMORY, small_set, **change)
    assert {rule for rule in MEMORY if after[rule] > before[rule]} == grows


def test_scores_of_a_method_with_a_large_model_ask_for_room_for_it(small_set):
    students = asked_for(MEMORY, small_set)
    padim = asked_for(MEMORY, small_set, job={"method": "padim"})
    assert padim["score"] > students["score"]
    assert padim["evaluate"] == students["evaluate"]


def test_time_follows_the_images_that_are_trained_on(small_set):
    training = {"epochs": 1000, "batch_size": 4}
    full, half = (
        asked_for(MINUTES, small_set, training=training, job={"fraction": fraction})["fit"]
        for fraction in (1.0, 0.5)
    )
    assert full > half > 15
