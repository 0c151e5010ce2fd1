"""Real MVTec AD, if it is available."""

import json

import pandas as pd
import pytest
import yaml

from conftest import REPOSITORY, SHARED_DATA, snakemake


def test_bottle_trains_to_useful_maps(bottle, tmp_path):
    """The config of the real run, shortened: 3 epochs at 128 x 128."""
    weights = SHARED_DATA / "weights" / "mobilenet_v2-imagenet1k-backbone.pth"
    if not weights.is_file():
        pytest.skip(f"the ImageNet weights are not at {weights}")
    config = yaml.safe_load((REPOSITORY / "tests" / "configs" / "bottle.yaml").read_text())
    config["results"] = str(tmp_path / "results")
    config["data"]["mvtec_ad"] = str(bottle)
    config["teachers"]["imagenet"]["weights"] = str(weights)
    config |= {"image_size": 128, "training": {"epochs": 3}}
    run = snakemake(config, str(tmp_path / "results" / "metrics.csv"))
    assert run.returncode == 0, run.stderr
    results = tmp_path / "results"
    train = pd.read_csv(results / "prepared/bottle/train/images.csv")
    test = pd.read_csv(results / "prepared/bottle/test/images.csv", keep_default_na=False)
    assert len(train) == 209
    assert test["defect"].value_counts().to_dict() == {
        "contamination": 21,
        "broken_small": 22,
        "broken_large": 20,
        "good": 20,
    }
    assert (test["mask"] != "").sum() == 63
    values = pd.read_csv(results / "metrics.csv").set_index("metric")["value"]
    # Far from the full run's figures, and far from chance.
    assert values["pixel_auroc"] > 0.8
    assert values["image_auroc"] > 0.8
    assert values["pro"] > 0.5
    fit = next((results / "fits").iterdir())
    record = json.loads((fit / "fit.json").read_text())
    assert record["backbone"] == "mobilenet_v2"
    assert record["split"] == {"training": 167, "validation": 42}
