"""The estimated size of each method's model, against a fitted model."""

import numpy as np
import pytest
import torch

from stpm_bench import backbone, methods
from stpm_bench.methods.interface import Split, Teacher

SIZE, IMAGES = 64, 6


@pytest.mark.parametrize("file", [file for file in methods.FILES if file != "stpm"])
def test_a_model_is_as_large_as_its_method_says(file):
    settings = next(iter(methods.module_of(file).METHODS.values()))
    network = backbone.create("resnet18", settings.levels, seed=0).eval()
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8)
    fitted = methods.module_of(file).fit(
        Teacher("resnet18", network),
        images,
        Split(range(IMAGES), [], IMAGES),
        levels=settings.levels,
        settings=settings,
        seed=0,
        device=torch.device("cpu"),
        precision=torch.float32,
        progress=False,
    )
    size = sum(t.numel() * t.element_size() for t in fitted.model.values()) / 1e6
    said = settings.model_mb("resnet18", IMAGES) * (SIZE / 256) ** 2
    assert size == pytest.approx(said, rel=0.05)
