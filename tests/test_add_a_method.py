"""docs/add_a_method.md, followed to the letter on a copy of the package."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import torch
import yaml

from builders import small_config
from conftest import REPOSITORY
from stpm_bench import backbone
from stpm_bench.anomaly_map import anomaly_maps
from stpm_bench.results import read_scores, read_teacher

TEXT = (REPOSITORY / "docs" / "add_a_method.md").read_text(encoding="utf-8")
METHOD = TEXT.split("\n## ")[0]
FILE, LINE = re.findall(r"```python\n(.*?)```", METHOD, re.S)
(STUDY,) = re.findall(r"```yaml\n(.*?)```", METHOD, re.S)
NAME = re.search(r"`stpm_bench/methods/(\w+)\.py`:", TEXT)[1]


def test_a_method_is_one_file_and_one_line(finished, tmp_path):
    shutil.copytree(REPOSITORY / "stpm_bench", tmp_path / "stpm_bench")
    package = tmp_path / "stpm_bench" / "methods"
    (package / f"{NAME}.py").write_text(FILE)
    registry = package / "__init__.py"
    text, count = re.subn(r"^FILES = .*$", LINE.rstrip(), registry.read_text(), flags=re.M)
    assert count == 1
    registry.write_text(text)

    def step(name: str, *options: str) -> None:
        command = [sys.executable, "-m", "stpm_bench", name, *options]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    config = small_config(finished)
    config["studies"] |= yaml.safe_load(STUDY)["studies"]
    config["studies"]["mine"] |= {"teacher": ["random"]}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    step("studies", "--config", "config.yaml", "--output", "results")
    studies = pd.read_csv(tmp_path / "results" / "studies.csv")
    seeds = studies[studies["study"] == "mine"].groupby("method")["seed"].apply(set).to_dict()
    assert seeds == {"stpm": {0, 1, 2}, NAME: {0}}

    results, test = finished / "results", finished / "results" / "prepared" / "alpha" / "test"
    teacher = str(results / "teachers" / "random.pt")
    fit, cell = tmp_path / "results" / "fits" / "f", tmp_path / "results" / "cells" / "c"
    asked = ["--teacher", teacher, "--layers", "1+2", "--settings", NAME]
    step("fit", "--train", str(test.parent / "train"), *asked, "--output", str(fit))
    step("score", "--test", str(test), *asked, "--fit", str(fit))
    evaluation = ["--settings", '{"masks": "nearest", "smoothing": 4.0}', "--cell", str(cell)]
    step("evaluate", "--test", str(test), "--fit", str(fit), *evaluation)
    assert json.loads((cell / "metrics.json").read_text())["pixel_auroc"] > 0.5

    network = read_teacher(results / "teachers" / "random.pt", [1], torch.device("cpu")).network
    trained, tested = (
        network(backbone.normalise(torch.from_numpy(np.load(folder / "images.npy"))))[0]
        for folder in (test.parent / "train", test)
    )
    (maps,) = read_scores(fit).level_maps.values()
    # Of level 1's channels alone the distance is no larger than of both levels'.
    alone = (tested - trained.mean(0)).norm(dim=1).detach().numpy()
    assert (maps >= alone - 1e-4).all()
    scores = pd.read_csv(cell / "image_scores.csv")["score"]
    expected = anomaly_maps([maps], 64, smoothing=4.0).max(axis=(1, 2))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
