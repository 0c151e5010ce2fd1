"""Protocols through the workflow: what each step is handed, and a training that fails."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import made_once, small_config, snakemake, write_category
from stpm_bench.anomaly_map import score
from stpm_bench.config import protocols
from stpm_bench.datasets.images import bilinear_any
from stpm_bench.metrics import evaluate
from stpm_bench.steps import load_arrays, load_network

CELL = "category-alpha_layers-1+2_teacher-random_fraction-1.0_seed-0_protocol-{}"


def config_of(folder: Path, **mine) -> dict:
    """A study in which the first cell fails, and one of which nothing is left."""
    main = small_config(folder)["studies"]["main"]
    return small_config(
        folder,
        training={"epochs": 3, "batch_size": 4},
        protocols={
            "wild": {"learning_rate": 1.0e20},
            "mine": {"like": "authors", "checkpoint": "last", "learning_rate": 30} | mine,
        },
        studies={
            "main": main | {"protocol": ["wild", "mine"]},
            "lost": main | {"protocol": ["wild"]},
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
    wild, mine = (results / "cells" / CELL.format(name) for name in ("wild", "mine"))
    failure = json.loads((wild / "provenance.json").read_text())["failure"]
    history = pd.read_csv(wild / "history.csv")
    epoch = history["epoch"].max()
    assert failure.startswith(f"the loss is not finite at epoch {epoch} (training ")
    assert json.loads((wild / "metrics.json").read_text()) == {"failure": failure}
    assert f"training failed: {failure}" in (wild / "student.log").read_text()
    # The run's end says which, and why.
    assert "Training failed in 1 of 2 cells, which are gaps:" in printed
    assert f"  {wild.name}: {failure}" in printed
    assert json.loads((mine / "provenance.json").read_text())["failure"] is None
    assert set(pd.read_csv(results / "metrics.csv")["protocol"]) == {"mine"}
    table = pd.read_csv(results / "tables" / "main.csv").set_index(["protocol", "category"])
    assert np.isnan(table.loc[("wild", "alpha"), "pro"])
    assert np.isfinite(table.loc[("mine", "alpha"), "pro"])
    assert "0 of 1 cells; the others failed" in (results / "tables" / "lost.md").read_text()


def test_the_cell_is_evaluated_as_its_protocol_says_and_the_last_epoch_too(failed):
    folder, _ = failed
    results = folder / "results"
    cell = results / "cells" / CELL.format("mine")
    images = np.load(results / "prepared/alpha/test/images.npy")
    own = load_arrays(results / "prepared/alpha/test/masks_own.npz").values()
    masks = np.stack([bilinear_any(mask, 64) for mask in own])
    assert np.array_equal(masks, np.load(results / "prepared/alpha/test/masks_bilinear_any.npy"))
    protocol = protocols(config_of(folder))["mine"]
    assert (protocol.map_resolution, protocol.factor) == ("finest", 1.0)
    values = json.loads((cell / "metrics.json").read_text())
    _, teacher = load_network(results / "teachers" / "random.pt", [1, 2])
    for weights, prefix in (("weights", ""), ("last_epoch_weights", "last_epoch_")):
        _, student = load_network(cell / "student.pt", [1, 2], weights)
        maps, _, scores = score(teacher, student, images, torch.device("cpu"), protocol)
        expected = evaluate(masks.any(axis=(1, 2)), scores, masks, maps)
        for metric in ("image_auroc", "pixel_auroc", "pro"):
            assert values[prefix + metric] == pytest.approx(expected[metric])
    assert not (cell / "last_epoch_maps.npy").exists()


def jobs(run) -> dict[str, int]:
    """Return how many jobs of each rule a dry run would run."""
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", run.stdout, re.M)}


def test_a_change_of_the_fusion_trains_nothing_anew(failed):
    folder, _ = failed
    changed = jobs(snakemake(config_of(folder, fusion="sum", masks="nearest"), "--dry-run"))
    assert "student" not in changed
    assert (changed["anomaly_maps"], changed["metrics"], changed["collect"]) == (1, 1, 1)
    trained = snakemake(config_of(folder, momentum=0.5) | {"threads": 2}, "--dry-run", "-p")
    assert jobs(trained)["student"] == 1
    assert len(re.findall(r"stpm_bench student .* --threads 2 ", trained.stdout)) == 1
