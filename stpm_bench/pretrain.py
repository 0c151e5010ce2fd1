"""Training of a teacher: torchvision's network as an image classifier, from scratch."""

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from stpm_bench import backbone, networks, unfinished
from stpm_bench.device import autocast
from stpm_bench.errors import InputError
from stpm_bench.seeds import stream
from stpm_bench.teacher import select_weights

# Sources whose images must not be mirrored: a mirrored digit is another digit or none.
WITHOUT_FLIPS = ("digits", "mnist", "svhn")


def train_classifier(
    name: str,
    source: str,
    data: dict[str, np.ndarray],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    input_size: int,
    flip: bool,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    unfinished_file: Path | None = None,
) -> tuple[dict[str, torch.Tensor], dict]:
    """Train torchvision's `name` as an image classifier from scratch, with cross-entropy.

    SGD (Nesterov momentum 0.9, weight decay 5e-4) with a one-cycle schedule. The number of epochs,
    optimiser and input size that the authors used are unknown (an author named
    `torchvision.models.resnet18(num_classes=10)` from scratch).

    Args:
        source: name of the pretraining set, for messages.
        data: `train_images` (N, H, W, 3) uint8, `train_labels` (N,), `test_images`,
            `test_labels`, `classes`.
        input_size: side in pixels to which images are resized for training.
        flip: mirror each image left to right with probability 1/2.
        unfinished_file: stores the state after each epoch; training with the same data and settings
            resumes from it and gives the same bits. The caller removes it when the weights are
            written.

    Returns:
        The backbone's weights without the classifier, and a report: classes, images, settings,
        train and test accuracy in [0, 1], and both after each epoch in `history`.

    Raises:
        InputError: the loss became NaN or infinite (names the epoch).
    """
    torch.manual_seed(stream(seed, "teacher"))  # for initialisation and dropout
    network, optimizer = classifier(name, len(data["classes"]), learning_rate, device)
    images = torch.from_numpy(data["train_images"]).to(device)
    labels = torch.from_numpy(data["train_labels"]).to(device)
    batches = -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * batches
    )
    generator = torch.Generator().manual_seed(stream(seed, "order"))
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "input_size": input_size,
        "flip": flip,
    }
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    described = {"backbone": name, "seed": seed, "precision": str(precision), **settings}
    described |= {"data": unfinished.fingerprint(data)}
    state = {}
    if unfinished_file:
        state = unfinished.resume(unfinished_file, described, parts, generator)
    history = state.get("history", [])
    bar = tqdm(
        range(len(history) + 1, epochs + 1),
        desc=f"teacher {source}",
        initial=len(history),
        total=epochs,
        unit="epoch",
    )
    for epoch in bar:
        start = time.perf_counter()
        network.train()
        correct = 0
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            if len(rows) == 1:  # batch norm cannot normalise a single vector
                continue
            loss, logits = classify(
                network,
                images[rows],
                labels[rows],
                input_size,
                generator if flip else None,
                device,
                precision,
            )
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
        train_accuracy = int(correct) / len(images)
        bar.set_postfix(train=f"{train_accuracy:.4f}", test=f"{test_accuracy:.4f}")
        history.append(
            {
                "epoch": epoch,
                "train_accuracy": train_accuracy,
                "test_accuracy": test_accuracy,
                "seconds": round(time.perf_counter() - start, 2),
            }
        )
        if unfinished_file:
            unfinished.save(unfinished_file, described, parts, generator, {"history": history})
    report = {
        "classes": [str(c) for c in data["classes"]],
        "train_images": len(images),
        "test_images": len(data["test_images"]),
        **settings,
        "train_accuracy": history[-1]["train_accuracy"],
        "test_accuracy": history[-1]["test_accuracy"],
        "training_seconds": round(sum(row["seconds"] for row in history), 2),
        "history": history,
    }
    weights = {key: value.cpu() for key, value in network.state_dict().items()}
    return select_weights(name, weights, f"teacher {source}"), report


def classifier(
    name: str, classes: int, learning_rate: float, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the network `name`, untrained, and its optimiser."""
    network = networks.classifier(name, classes)
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=learning_rate,
        momentum=0.9,
        weight_decay=5e-4,
        nesterov=True,
        fused=True,  # one pass over the weights, which are many compared with such small images
    )
    return network, optimizer


def classify(
    network: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    input_size: int,
    flips: torch.Generator | None,
    device: torch.device,
    precision: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropy of a batch of uint8 images (N, H, W, 3), and the logits (N, C).

    Args:
        flips: generator of the choice which images are mirrored; None mirrors none.
    """
    batch = resized(pixels, input_size)
    if flips is not None:
        mirrored = torch.rand(len(batch), generator=flips).to(device) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    with autocast(device, precision):
        logits = network(batch)
    return F.cross_entropy(logits.float(), labels), logits


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
    """Return the share of images, in [0, 1], that are classified correctly."""
    network.eval()
    correct = 0
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        with autocast(device, precision):
            logits = network(resized(torch.from_numpy(images[rows]).to(device), input_size))
        correct += int((logits.argmax(1).cpu() == torch.from_numpy(labels[rows])).sum())
    return correct / len(images)
