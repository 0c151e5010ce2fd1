"""Teachers: published weights, a weights file, a network pretrained here, or an untrained one."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from tqdm import tqdm

from stpm_bench import backbone, embedded, unfinished
from stpm_bench.device import autocast
from stpm_bench.errors import InputError
from stpm_bench.files import sha256
from stpm_bench.methods.distance import unit
from stpm_bench.seeds import stream

# A teacher is kept with every level that its backbone or its file has, so that a study can add a
# level without a new teacher; the classifier is dropped.
ALL_LEVELS = (1, 2, 3, 4)

# A mirrored digit is another digit or none.
WITHOUT_FLIPS = ("digits", "mnist", "svhn")

# A level whose unit features deviate less than this (mean square) from one vector tells nothing
# apart: bfloat16, in which they are kept for training, resolves 2^-9 of a value.
CONSTANT = 1e-6


def untrained(name: str, seed: int) -> dict[str, torch.Tensor]:
    """Return an untrained backbone's weights, drawn from the teacher's own stream of `seed`."""
    return backbone.state(backbone.create(name, ALL_LEVELS, stream(seed, "teacher")))


def from_file(name: str, path: str | Path, expected: str = "") -> dict[str, torch.Tensor]:
    """Return the backbone's weights out of a file of tensors under torchvision's names.

    Args:
        expected: the file's sha256; '' does not check.

    Raises:
        InputError: the file is missing, has another hash, is not a PyTorch file of tensors, or
            does not fit the backbone (names the first key that differs).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected the weights of {name} that the config key "
            "'teachers' names"
        )
    if expected and (found := sha256(path)) != expected:
        raise InputError(
            f"{path}: its sha256 is {found}, but the config key 'teachers.NAME.sha256' says "
            f"{expected}; the file was altered or is another one: get it again, or mend the key"
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


def from_torchvision(name: str, weights: str, folder: str | Path) -> dict[str, torch.Tensor]:
    """Return torchvision's published weights, downloaded once into `folder`, hash checked.

    Args:
        weights: a name in `levels.PUBLISHED[name]`.

    Raises:
        InputError: they cannot be downloaded; says which file to put where.
    """
    published = torchvision.models.get_model_weights(name)[weights]
    file = Path(folder) / Path(published.url).name
    try:
        state = published.get_state_dict(model_dir=str(folder), check_hash=True, progress=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"{published.url}: cannot be downloaded ({error}); the next try begins again. Put the "
            f"file at {file}, or name a weights file with the config key 'teachers.NAME.weights'"
        ) from error
    return fitted(name, state, str(file))


def from_package() -> dict[str, torch.Tensor]:
    """Return the weights of mobilenet_v2 that ship with this package, levels 1 to 3.

    Raises:
        InputError: the file is missing or is not the one that was released.
    """
    weights = {key: torch.from_numpy(array) for key, array in embedded.read().items()}
    return fitted("mobilenet_v2", weights, str(embedded.FILE))


def fitted(name: str, weights: dict[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """Return those of `weights` that the backbone's levels need, checked for name and shape.

    Levels above the first whose weights are not there are left out: see `levels_in`.
    """
    network = backbone.create(name, levels_in(name, weights) or ALL_LEVELS[:1], seed=0)
    backbone.load(network, weights, source)
    return backbone.state(network)


def levels_in(name: str, weights: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """Return the levels that weights are enough for: all up to the first that lacks a tensor."""
    found = ()
    for level in ALL_LEVELS:
        needed = backbone.state(backbone.create(name, [level], seed=0))
        if any(key not in weights for key in needed if not key.endswith("num_batches_tracked")):
            break
        found += (level,)
    return found


def pretrain(
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

    SGD (Nesterov momentum 0.9, weight decay 5e-4) with a one-cycle schedule. The authors' own
    epochs, optimiser and input size are unknown (an author named
    `torchvision.models.resnet18(num_classes=10)` from scratch).

    Args:
        source: name of the pretraining set, for messages.
        data: `train_images` (N, H, W, 3) uint8, `train_labels` (N,), `test_images`,
            `test_labels`, `classes`.
        input_size: side in pixels to which images are resized for training.
        flip: mirror each image left to right with probability 1/2.
        unfinished_file: holds the state after each epoch; training goes on from it, to the
            same bits, where it is of the same data and settings. The caller removes it when the
            weights are written.

    Returns:
        the backbone's weights without the classifier, and a report: classes, images, settings,
        train and test accuracy in [0, 1], and both of each epoch in `history`.

    Raises:
        InputError: the loss became NaN or infinite (names the epoch).
    """
    torch.manual_seed(stream(seed, "teacher"))  # of initialisation and dropout
    network, optimizer = classifier(name, len(data["classes"]), learning_rate, device)
    images = torch.from_numpy(data["train_images"]).to(device)
    labels = torch.from_numpy(data["train_labels"]).to(device)
    batches = -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * batches
    )
    draws = torch.Generator().manual_seed(stream(seed, "order"))
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
        state = unfinished.resume(unfinished_file, described, parts, draws)
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
        for rows in torch.randperm(len(images), generator=draws).split(batch_size):
            if len(rows) == 1:  # batch norm has nothing to normalise a single vector by
                continue
            loss, logits = classify(
                network,
                images[rows],
                labels[rows],
                input_size,
                draws if flip else None,
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
            unfinished.save(unfinished_file, described, parts, draws, {"history": history})
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
    return fitted(name, weights, f"teacher {source}"), report


def classifier(
    name: str, classes: int, learning_rate: float, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return torchvision's network `name`, untrained, and its optimiser."""
    network = torchvision.models.get_model(name, num_classes=classes)
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=learning_rate,
        momentum=0.9,
        weight_decay=5e-4,
        nesterov=True,
        fused=True,  # one pass over the weights, which are many for images so small
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
        flips: draws which images are mirrored left to right; None mirrors none.
    """
    batch = resized(pixels, input_size)
    if flips is not None:
        mirrored = torch.rand(len(batch), generator=flips).to(device) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    with autocast(device, precision):
        logits = network(batch)
    return F.cross_entropy(logits.float(), labels), logits


@torch.no_grad()
def level_report(
    name: str,
    weights: dict[str, torch.Tensor],
    images: np.ndarray,
    levels: Sequence[int] = ALL_LEVELS,
) -> list[dict]:
    """Describe a teacher's features on a few photographs, level by level.

    A student that matches a level without information perfectly looks well trained, and every
    metric of it is noise: `degenerate` says why a level is such a one.

    Args:
        images: (N, S, S, 3) uint8, photographs of several things.
        levels: those that the weights have.

    Returns:
        for each level `level`, `channels`, `dead_share` (of positions whose features are all 0),
        `spread` (mean squared deviation of the unit features from their mean over positions and
        images, in [0, 1]; 0: all are one vector) and `degenerate` ('' or the reason).
    """
    network = backbone.create(name, levels, seed=0)
    backbone.load(network, weights, name)
    network.eval()
    rows = []
    outputs = network(backbone.normalise(torch.from_numpy(images)))
    for level, output in zip(levels, outputs, strict=True):
        vectors = unit(output).permute(0, 2, 3, 1).flatten(0, 2)
        finite = bool(torch.isfinite(vectors).all())
        dead_share = float((vectors == 0).all(dim=1).float().mean())
        spread = float((vectors - vectors.mean(dim=0)).square().sum(dim=1).mean())
        if not finite:
            reason = "its features are NaN or infinite"
        elif dead_share > 0.99:
            reason = f"its features are all 0 at {dead_share:.1%} of the positions"
        elif spread < CONSTANT:
            reason = f"its features point the same way everywhere (spread {spread:.1e})"
        else:
            reason = ""
        rows.append(
            {
                "level": level,
                "channels": output.shape[1],
                "dead_share": dead_share,
                "spread": spread if finite else None,
                "degenerate": reason,
            }
        )
    return rows


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
