"""Teachers: published weights, a weights file, a network pretrained here, or an untrained one."""

import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from tqdm import tqdm

from stpm_bench import backbone
from stpm_bench.device import autocast
from stpm_bench.errors import InputError
from stpm_bench.seeds import stream

# A teacher is kept with every level that its backbone has, so that a study can add a level
# without a new teacher; the classifier is dropped.
ALL_LEVELS = (1, 2, 3, 4)

# A mirrored digit is another digit or none.
WITHOUT_FLIPS = ("digits", "mnist", "svhn")


def untrained(name: str, seed: int) -> dict[str, torch.Tensor]:
    """Return an untrained backbone's weights, drawn from the teacher's own stream of `seed`."""
    return backbone.state(backbone.create(name, ALL_LEVELS, stream(seed, "teacher")))


def from_file(name: str, path: str | Path) -> dict[str, torch.Tensor]:
    """Return the backbone's weights out of a file of tensors under torchvision's names.

    Raises:
        InputError: the file is missing, is not a PyTorch file of tensors, or does not fit the
            backbone (names the first key that differs).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected the weights of {name} that the config key "
            "'teachers' names"
        )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for the many ways to be wrong
        raise InputError(
            f"{path}: cannot be read as a file of tensors ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); expected what torch.save(network.state_dict(), path) "
            "writes; name such a file with the config key 'teachers.NAME.weights'"
        ) from error
    if not isinstance(weights, dict) or not all(torch.is_tensor(v) for v in weights.values()):
        raise InputError(
            f"{path}: holds more than tensors by name; "
            "expected what torch.save(network.state_dict(), path) writes"
        )
    return fitted(name, weights, str(path))


def from_torchvision(name: str, folder: str | Path) -> dict[str, torch.Tensor]:
    """Return torchvision's IMAGENET1K_V1 weights, downloaded once into `folder`, hash checked.

    Raises:
        InputError: they cannot be downloaded; says which file to put where.
    """
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    file = Path(folder) / Path(published.url).name
    try:
        weights = published.get_state_dict(model_dir=str(folder), check_hash=True, progress=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"{published.url}: cannot be downloaded ({error}). Put the file at {file}, or name "
            "a weights file with the config key 'teachers.NAME.weights'"
        ) from error
    return fitted(name, weights, str(file))


def fitted(name: str, weights: dict[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """Return those of `weights` that the backbone's levels need, checked for name and shape."""
    network = backbone.create(name, ALL_LEVELS, seed=0)
    backbone.load(network, weights, source)
    return backbone.state(network)


def pretrain(
    name: str,
    source: str,
    data: dict[str, np.ndarray],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    input_size: int,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
) -> tuple[dict[str, torch.Tensor], dict]:
    """Train torchvision's `name` as an image classifier from scratch, with cross-entropy.

    SGD (momentum 0.9, weight decay 5e-4) with a one-cycle schedule; images are flipped left to
    right at random where that keeps the label. The authors' own epochs, optimiser and input size
    are unknown (an author named `torchvision.models.resnet18(num_classes=10)` from scratch).

    Args:
        source: name of the pretraining set.
        data: `train_images` (N, H, W, 3) uint8, `train_labels` (N,), `test_images`,
            `test_labels`, `classes`.
        input_size: side in pixels to which images are resized for training.

    Returns:
        the backbone's weights without the classifier, and a report: classes, images, epochs,
        train and test accuracy in [0, 1].
    """
    torch.manual_seed(stream(seed, "teacher"))  # of initialisation and dropout
    network = torchvision.models.get_model(name, num_classes=len(data["classes"]))
    network.to(device, memory_format=torch.channels_last)
    images = torch.from_numpy(data["train_images"]).to(device)
    labels = torch.from_numpy(data["train_labels"]).to(device)
    batches = -(-len(images) // batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * batches
    )
    draws = torch.Generator().manual_seed(stream(seed, "order"))
    flips = source not in WITHOUT_FLIPS
    start = time.perf_counter()
    bar = tqdm(range(1, epochs + 1), desc=f"teacher {source}", unit="epoch")
    for epoch in bar:
        network.train()
        correct = 0
        for rows in torch.randperm(len(images), generator=draws).split(batch_size):
            if len(rows) == 1:  # batch norm has nothing to normalise a single vector by
                continue
            batch = resized(images[rows], input_size)
            if flips:
                mirrored = torch.rand(len(rows), generator=draws).to(device) < 0.5
                batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            with autocast(device, precision):
                logits = network(batch)
            loss = F.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            correct += (logits.argmax(1) == labels[rows]).sum()
        if not torch.isfinite(loss):
            raise InputError(
                f"teacher {source}: the loss is {loss.item()} at epoch {epoch}; "
                f"try a lower 'pretraining.learning_rate' than {learning_rate}"
            )
        test_accuracy = accuracy(
            network,
            data["test_images"],
            data["test_labels"],
            input_size,
            batch_size,
            device,
            precision,
        )
        bar.set_postfix(test_accuracy=f"{test_accuracy:.4f}")
    report = {
        "classes": [str(c) for c in data["classes"]],
        "train_images": len(images),
        "test_images": len(data["test_images"]),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "input_size": input_size,
        "train_accuracy": int(correct) / len(images),
        "test_accuracy": test_accuracy,
        "training_seconds": round(time.perf_counter() - start, 2),
    }
    weights = {key: value.cpu() for key, value in network.state_dict().items()}
    return fitted(name, weights, f"teacher {source}"), report


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) normalised and resized to (N, 3, size, size) float32."""
    batch = backbone.normalise(images)
    if batch.shape[-2:] != (size, size):
        batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
    return batch


@torch.no_grad()
def accuracy(
    network: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    input_size: int,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
) -> float:
    """Return the share of images, in [0, 1], that the classifier names rightly."""
    network.eval()
    correct = 0
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        with autocast(device, precision):
            logits = network(resized(torch.from_numpy(images[rows]).to(device), input_size))
        correct += int((logits.argmax(1).cpu() == torch.from_numpy(labels[rows])).sum())
    return correct / len(images)
