"""Images per second in the pretraining of a teacher, compared with the usual way of doing it."""

import itertools
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stpm_bench import backbone, pretrain
from stpm_bench.device import choose_device, choose_precision

CLASSES = 10


class Images(Dataset):
    """Images in the form of torchvision's sets: each goes through PIL and the usual transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: int):
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(backbone.IMAGENET_MEAN, backbone.IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def run(
    name: str = "resnet18",
    batches: int = 8,
    batch_size: int = 128,
    size: int = 32,
    runs: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Time the training of a classifier on random images and return one table.

    The two ways take turns, so that a slow phase of the machine affects both; the first turn of
    each is a warm-up and not counted.

    Args:
        batches: number of batches timed in one turn.
        size: side of the images in pixels, which is also the `input_size`.
        runs: turns; the table gives medians.

    Returns:
        One row per way with the columns `way`, `images/s`, `ratio`, `runs`.
    """
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batches * batch_size, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, len(images))
    ways = {
        "a DataLoader with PIL transforms, float32": plain(name, images, labels, batch_size, size),
        f"stpm_bench, {str(precision).removeprefix('torch.')}": ours(
            name, images, labels, batch_size, size, device, precision
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(runs + 1):
        for way, steps in ways.items():
            start = time.perf_counter()
            for _ in itertools.islice(steps, batches):
                pass
            if turn:
                seconds[way].append(time.perf_counter() - start)
    rates = {way: len(images) / float(np.median(values)) for way, values in seconds.items()}
    slowest = next(iter(rates.values()))
    return pd.DataFrame(
        {
            "way": list(rates),
            "images/s": list(rates.values()),
            "ratio": [rate / slowest for rate in rates.values()],
            "runs": runs,
        }
    )


def plain(
    name: str, images: np.ndarray, labels: np.ndarray, batch_size: int, size: int
) -> Iterator[None]:
    """Train without end in the way of most tutorials, one step per turn."""
    device = choose_device("auto")
    network = torchvision.models.get_model(name, num_classes=CLASSES).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    loader = DataLoader(Images(images, labels, size), batch_size, shuffle=True)
    while True:
        for batch, target in loader:
            loss = F.cross_entropy(network(batch.to(device)), target.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def ours(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    size: int,
    device: torch.device,
    precision: torch.dtype,
) -> Iterator[None]:
    """Train without end in the same way as `pretrain.train_classifier`, one step per turn."""
    network, optimizer = pretrain.classifier(name, CLASSES, 0.1, device)
    pixels = torch.from_numpy(images).to(device)
    targets = torch.from_numpy(labels).to(device)
    generator = torch.Generator().manual_seed(0)
    while True:
        for rows in torch.randperm(len(pixels), generator=generator).split(batch_size):
            loss, _ = pretrain.classify(
                network, pixels[rows], targets[rows], size, generator, device, precision
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def note() -> str:
    """Return how the table was measured."""
    return "one process; random images of 32 x 32; the DataLoader without workers"
