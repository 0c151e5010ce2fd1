"""Training of a student: it learns to give the teacher's features on anomaly-free images."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from stpm_bench import backbone
from stpm_bench.anomaly_map import distance, unit
from stpm_bench.device import autocast
from stpm_bench.errors import InputError
from stpm_bench.seeds import stream


def train(
    teacher: nn.Module,
    student: nn.Module,
    images: np.ndarray,
    training: Sequence[int],
    validation: Sequence[int],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    title: str = "student",
) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    """Train `student` to match `teacher` and keep the epoch with the lowest validation loss.

    The loss is the mean of `anomaly_map.distance` over positions and images, summed over levels
    with weight 1 (STPM, section 3); SGD with a constant learning rate. Images are not augmented,
    so that the teacher's features never change: they are computed once.

    Args:
        teacher, student: networks that give the same levels, on `device`.
        images: (N, S, S, 3) uint8, all anomaly-free.
        training, validation: indices into `images`.
        seed: orders the batches; the same order for every subset of levels.
        precision: of the convolutions; weights, loss and optimiser are float32.

    Returns:
        the kept weights under torchvision's names, and the history: columns `epoch` (from 1),
        `train_loss`, `validation_loss`, `seconds`, `kept` (True in the row of the kept epoch).

    Raises:
        InputError: the loss became NaN or infinite (names the epoch), or `epochs` is below 1.
    """
    if epochs < 1:
        raise InputError(f"config key 'training.epochs' is {epochs}; expected at least 1")
    student.to(device, memory_format=torch.channels_last)
    teacher.to(device, memory_format=torch.channels_last)
    used = np.concatenate([np.asarray(training), np.asarray(validation)])
    pixels = torch.from_numpy(images[used]).to(device)
    targets = teacher_features(teacher, pixels, batch_size, device, precision)
    n_training = len(training)
    held_out = torch.arange(n_training, len(used))

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with autocast(device, precision):
            outputs = student(backbone.normalise(pixels[rows]))
        return sum(
            distance(target[rows], output).mean()
            for target, output in zip(targets, outputs, strict=True)
        )

    optimizer = torch.optim.SGD(
        student.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    order = torch.Generator().manual_seed(stream(seed, "order"))
    best, kept, history = float("inf"), None, []
    bar = tqdm(range(1, epochs + 1), desc=title, unit="epoch")
    for epoch in bar:
        start = time.perf_counter()
        student.train()
        total = torch.zeros((), device=device)
        for rows in torch.randperm(n_training, generator=order).split(batch_size):
            loss = loss_of(rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        train_loss = total.item() / n_training
        validation_loss = mean_loss(student, loss_of, held_out, batch_size)
        if not (np.isfinite(train_loss) and np.isfinite(validation_loss)):
            raise InputError(
                f"{title}: the loss is not finite at epoch {epoch} (training {train_loss}, "
                f"validation {validation_loss}); try a lower 'training.learning_rate' "
                f"than {learning_rate}"
            )
        if validation_loss < best:
            best = validation_loss
            kept = {key: value.clone() for key, value in backbone.state(student).items()}
            kept_epoch = epoch
        bar.set_postfix(train=f"{train_loss:.4f}", validation=f"{validation_loss:.4f}")
        history.append((epoch, train_loss, validation_loss, time.perf_counter() - start))
    table = pd.DataFrame(history, columns=["epoch", "train_loss", "validation_loss", "seconds"])
    table["kept"] = table["epoch"] == kept_epoch
    return kept, table


@torch.no_grad()
def teacher_features(
    teacher: nn.Module,
    pixels: torch.Tensor,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
) -> list[torch.Tensor]:
    """Return the teacher's unit features of all images, one (N, C, H, W) tensor a level."""
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
            level[start : start + len(output)] = unit(output)
    return levels


@torch.no_grad()
def mean_loss(student: nn.Module, loss_of, rows: torch.Tensor, batch_size: int) -> float:
    """Return the mean loss over the images `rows` with batch norm's running statistics."""
    student.eval()
    total = sum(loss_of(batch).item() * len(batch) for batch in rows.split(batch_size))
    return total / len(rows)
