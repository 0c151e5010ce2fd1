"""Training of a student: it learns to give the teacher's features on anomaly-free images."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from stpm_bench import backbone
from stpm_bench.anomaly_map import DISTANCES, distance, fuse, fused_size
from stpm_bench.device import autocast, is_out_of_memory
from stpm_bench.errors import InputError
from stpm_bench.protocols import Protocol, optimiser_steps
from stpm_bench.seeds import stream

Weights = dict[str, torch.Tensor]
COLUMNS = ["epoch", "train_loss", "validation_loss", "validation_map", "seconds"]


class Trained(NamedTuple):
    """What a training gives.

    Attributes:
        weights, last_epoch_weights: of the kept and of the last epoch, under torchvision's names;
            both empty where the training failed.
        history: columns `epoch` (0 is the untrained student), `train_loss` (NaN at 0),
            `validation_loss`, `validation_map` (the mean of the fused maps; NaN unless the
            protocol's checkpoint asks for it), `seconds`, `kept` (True in the row of the kept
            epoch). Losses are means over images, whatever the protocol's reduction.
        failure: what was seen, and at which epoch, or None.
    """

    weights: Weights
    last_epoch_weights: Weights
    history: pd.DataFrame
    failure: str | None


def train(
    teacher: nn.Module,
    student: nn.Module,
    images: np.ndarray,
    training: Sequence[int],
    validation: Sequence[int],
    protocol: Protocol,
    *,
    levels: Sequence[int],
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    whole: int | None = None,
    title: str = "student",
    progress: bool = True,
) -> Trained:
    """Train `student` to match `teacher` and keep the epoch that the protocol's checkpoint names.

    Images are not augmented, so that the teacher's features never change: they are computed once.
    A training fails if a loss is not finite, or if the kept epoch's validation loss is not below
    that of the untrained student; it is deterministic, so that a failure is a result.

    Args:
        teacher, student: networks that give the same levels, on `device`.
        images: (N, S, S, 3) uint8, all anomaly-free.
        training, validation: indices into `images`.
        levels: those of the networks, for the weights of the loss.
        seed: orders the batches; the same order for every subset of levels.
        precision: of the convolutions; weights, loss and optimiser are float32.
        whole: how many images train at a fraction of 1.0, for the schedule 'steps'; by default as
            many as `training` has.
        title, progress: of the progress bar, and whether there is one.
    """
    student.to(device, memory_format=torch.channels_last)
    teacher.to(device, memory_format=torch.channels_last)
    n_training = len(training)
    used = np.concatenate([np.asarray(training), np.asarray(validation)])
    pixels = torch.from_numpy(images[used]).to(device)
    kind, factor = protocol.distance, protocol.factor
    targets = teacher_features(teacher, pixels, kind, protocol.batch_size, device, precision)
    weights = [protocol.level_weights[level - 1] for level in levels]
    held_out = torch.arange(n_training, len(used), device=device).split(protocol.batch_size)

    def level_maps(rows: torch.Tensor) -> list[torch.Tensor]:
        with autocast(device, precision):
            outputs = student(backbone.normalise(pixels[rows]))
        return [
            distance(target[rows], output, kind, factor)
            for target, output in zip(targets, outputs, strict=True)
        ]

    def loss_of(maps: list[torch.Tensor]) -> torch.Tensor:
        return sum(weight * m.mean() for weight, m in zip(weights, maps, strict=True))

    @torch.no_grad()
    def validate() -> tuple[float, float]:
        """Return mean loss and mean fused map, with batch norm's running statistics."""
        student.eval()
        loss = torch.zeros((), dtype=torch.float64, device=device)
        fused = torch.full_like(loss, 0 if protocol.checkpoint == "validation_map" else math.nan)
        for rows in held_out:
            maps = level_maps(rows)
            loss += loss_of(maps).double() * len(rows)
            if protocol.checkpoint == "validation_map":
                side = fused_size(maps, images.shape[1], protocol.map_resolution)
                fused += fuse(maps, side, protocol.fusion).mean().double() * len(rows)
        return loss.item() / len(validation), fused.item() / len(validation)

    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
    )
    steps = optimiser_steps(protocol, n_training, whole or n_training)
    steps_an_epoch = math.ceil(n_training / protocol.batch_size)
    order = torch.Generator().manual_seed(stream(seed, "order"))
    start = time.perf_counter()
    untrained, untrained_map = validate()
    history = [(0, math.nan, untrained, untrained_map, time.perf_counter() - start)]
    best, kept, kept_epoch, failure = math.inf, {}, None, None
    epochs = range(1, math.ceil(steps / steps_an_epoch) + 1)
    bar = tqdm(epochs, desc=title, unit="epoch", disable=not progress)
    for epoch in bar:
        start = time.perf_counter()
        student.train()
        total, seen = torch.zeros((), device=device), 0
        batches = torch.randperm(n_training, generator=order).to(device).split(protocol.batch_size)
        for rows in batches[: steps - (epoch - 1) * steps_an_epoch]:
            loss = loss_of(level_maps(rows))
            optimizer.zero_grad(set_to_none=True)
            (loss * len(rows) if protocol.reduction == "sum" else loss).backward()
            optimizer.step()
            total += loss.detach() * len(rows)
            seen += len(rows)
        train_loss = total.item() / seen
        validation_loss, validation_map = validate()
        history.append(
            (epoch, train_loss, validation_loss, validation_map, time.perf_counter() - start)
        )
        rule = {
            "validation_loss": validation_loss,
            "validation_map": validation_map,
            "last": -epoch,
        }
        criterion = rule[protocol.checkpoint]
        # A step's loss that is not finite stays so in the sum over the epoch.
        if not all(map(math.isfinite, (train_loss, validation_loss, criterion))):
            failure = (
                f"the loss is not finite at epoch {epoch} (training {train_loss}, "
                f"validation {validation_loss})"
            )
            break
        if criterion < best:
            best, kept_epoch, kept_loss = criterion, epoch, validation_loss
            kept = {key: value.clone() for key, value in backbone.state(student).items()}
        bar.set_postfix(train=f"{train_loss:.4f}", validation=f"{validation_loss:.4f}")
    if failure is None and not kept_loss < untrained:
        failure = (
            f"the student ended no better than it began: validation loss {kept_loss:.4g} at the "
            f"kept epoch {kept_epoch}, {untrained:.4g} untrained"
        )
    table = pd.DataFrame(history, columns=COLUMNS)
    if failure is not None:
        return Trained({}, {}, table.assign(kept=False), failure)
    last = kept if kept_epoch == epoch else backbone.state(student)
    return Trained(kept, last, table.assign(kept=table["epoch"] == kept_epoch), None)


def within_memory(
    train: Callable[[Protocol], Trained], protocol: Protocol, device: torch.device
) -> Trained:
    """Train by a protocol; where memory runs out, find by trying which batch size would fit.

    Args:
        train: protocol -> what `train` returns.

    Raises:
        InputError: memory runs out; names the largest half, quarter, ... of the batch that fits.
    """

    def attempt(protocol: Protocol) -> Trained | None:
        try:
            return train(protocol)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # here the failed attempt's tensors are gone; nothing on a CPU
        return None

    trained = attempt(protocol)
    if trained is not None:
        return trained
    size = protocol.batch_size // 2
    while size and attempt(replace(protocol, batch_size=size, epochs=1)) is None:
        size //= 2
    advice = (
        f"A batch of {size} fits: set the config key 'training.batch_size', or the 'batch_size' of "
        f"an own protocol, to {size} (the numbers then are those of another protocol), or give the "
        "job more memory"
        if size
        else "Not even a batch of 1 fits: give the job more memory, or lower 'image_size'"
    )
    raise InputError(
        f"config key 'training.batch_size': a batch of {protocol.batch_size} does not fit the "
        f"memory of {device}. {advice}"
    )


def not_begun(failure: str) -> Trained:
    """Return the result of a training that was not begun."""
    history = pd.DataFrame([(0, math.nan, math.nan, math.nan, 0.0)], columns=COLUMNS)
    return Trained({}, {}, history.assign(kept=False), failure)


@torch.no_grad()
def teacher_features(
    teacher: nn.Module,
    pixels: torch.Tensor,
    kind: str,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
) -> list[torch.Tensor]:
    """Return what the distance `kind` compares of all images, one (N, C, H, W) tensor a level."""
    teacher.eval()
    levels: list[torch.Tensor] = []
    for start in range(0, len(pixels), batch_size):
        with autocast(device, precision):
            outputs = teacher(backbone.normalise(pixels[start : start + batch_size]))
        if not levels:  # filled in place: a list of batches would need the memory twice
            levels = [
                torch.empty(
                    (len(pixels), *output.shape[1:]),
                    dtype=precision,
                    device=device,
                    memory_format=torch.channels_last,
                )
                for output in outputs
            ]
        for level, output in zip(levels, outputs, strict=True):
            level[start : start + len(output)] = DISTANCES[kind].features(output)
    return levels
