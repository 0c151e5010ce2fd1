"""What a cluster's scheduler is told of a job beforehand, read from dry runs."""

import re
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, small_config, snakemake

CELL = "category-alpha_layers-1+2_teacher-random_fraction-{}_seed-0_method-stpm"


def asked_for(folder: Path, *arguments: str, fraction: float = 1.0, **changes) -> dict[str, dict]:
    """Return what each rule asks for on the way to a cell's metrics: rule -> resource -> number."""
    config = small_config(folder, **changes)
    target = folder / "results" / "cells" / CELL.format(fraction) / "metrics.json"
    run = snakemake(config, str(target), "--dry-run", *arguments)
    assert run.returncode == 0, run.stderr
    jobs = re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)", run.stdout, re.M)
    return {
        rule: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)(?=,|$)", resources)}
        for rule, resources in jobs
    }


def test_the_slurm_profile_names_rules_that_exist():
    profile = yaml.safe_load((REPOSITORY / "workflow/profiles/slurm/profile.yaml").read_text())
    listed = snakemake(REPOSITORY / "workflow/config/demo.yaml", "--list-rules").stdout.split()
    assert set(profile["groups"]) | set(profile["set-resources"]) <= set(listed)
    alone = {"all", "demo_data", "download", "pretraining_set", "teacher", "interim", "speed"}
    assert set(listed) - set(profile["groups"]) <= alone | {"published_teacher"}


def test_a_retry_asks_for_twice_the_memory_and_time(small_set):
    first, second = (asked_for(small_set, "--attempt", attempt) for attempt in ("1", "2"))
    for rule in ("prepare_train", "prepare_test", "fit", "score", "evaluate"):
        assert second[rule]["mem_mb"] == 2 * first[rule]["mem_mb"]
    assert second["fit"]["runtime"] == 2 * first["fit"]["runtime"]


@pytest.mark.parametrize(
    ("change", "grows"),
    [
        ({"image_size": 128}, {"prepare_train", "fit", "score", "evaluate"}),
        ({"training": {"epochs": 2, "batch_size": 32}}, {"fit"}),
        ({"teachers": {"random": {"backbone": "resnet50"}}}, {"fit"}),
    ],
)
def test_memory_follows_what_it_depends_on(small_set, change, grows):
    before, after = asked_for(small_set), asked_for(small_set, **change)
    rules = ("prepare_train", "fit", "score", "evaluate")
    assert {rule for rule in rules if after[rule]["mem_mb"] > before[rule]["mem_mb"]} == grows


def test_time_follows_the_images_that_are_trained_on(small_set):
    training = {"epochs": 1000, "batch_size": 4}
    whole = asked_for(small_set, training=training)["fit"]["runtime"]
    half = asked_for(small_set, training=training, fraction=0.5)["fit"]["runtime"]
    assert whole > half > 15
