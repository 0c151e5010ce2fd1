"""Training of STPM's student: it learns the teacher's features on anomaly-free images."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.sgd import sgd
from tqdm import tqdm

from stpm_bench import backbone, unfinished
from stpm_bench.anomaly_map import fuse, fused_size
from stpm_bench.device import autocast, is_out_of_memory
from stpm_bench.errors import InputError
from stpm_bench.methods.distance import DISTANCES, distance
from stpm_bench.methods.interface import HISTORY, Fitted, Split
from stpm_bench.methods.stpm import Stpm, optimiser_steps
from stpm_bench.seeds import stream


def train(
    teacher: nn.Module,
    student: nn.Module,
    images: np.ndarray,
    split: Split,
    settings: Stpm,
    *,
    levels: Sequence[int],
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    title: str = "student",
    progress: bool = True,
    unfinished_file: Path | None = None,
) -> Fitted:
    """Train `student` to match `teacher` and keep the epoch chosen by the `checkpoint` setting.

    Images are not augmented, so the teacher's features never change and are computed once. A
    training fails if a loss is not finite, or if the kept epoch's validation loss is not below that
    of the untrained student. Training is deterministic: a
    repetition would fail in the same way, so a failure is recorded as the result.

    Args:
        teacher, student: networks with the same levels.
        images: (N, S, S, 3) uint8, all anomaly-free.
        levels: those of the networks, for the weights of the loss.
        seed: determines the order of the batches, which is the same for every subset of levels.
        precision: of the student's convolutions; the teacher's features, weights, loss and
            optimiser are float32.
        title, progress: of the progress bar, and whether there is one.
        unfinished_file: stores the state during training; a training with the same settings and
            data resumes from it and gives the same bits. The caller removes it.

    Returns:
        The model holds `weights` of the kept epoch, and `last_epoch_weights` if the settings ask
        for them. In the history epoch 0 is the untrained student (its `train_loss` NaN),
        `validation_map` is the mean of the fused maps (NaN unless the checkpoint asks for it),
        `kept` is True in the row of the kept epoch. Losses are means over images, whatever the
        reduction.
    """
    student.to(device, memory_format=torch.channels_last)
    teacher.to(device, memory_format=torch.channels_last)
    n_training, n_validation = len(split.training), len(split.validation)
    used = np.concatenate([np.asarray(split.training), np.asarray(split.validation)])
    pixels = torch.from_numpy(images[used]).to(device)
    kind, factor = settings.distance, settings.factor
    by_map = settings.checkpoint == "validation_map"
    targets = teacher_features(teacher, pixels, kind, settings.batch_size)
    weights = [settings.level_weights[level - 1] for level in levels]
    held_out = torch.arange(n_training, len(used), device=device).split(settings.batch_size)

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
        fused = 0.0 if by_map else math.nan
        for rows in held_out:
            maps = level_maps(rows)
            loss += loss_of(maps).double() * len(rows)
            if by_map:
                arrays = [m.cpu().numpy() for m in maps]
                side = fused_size(arrays, images.shape[1], settings.map_resolution)
                fused += float(fuse(arrays, side, settings.fusion).mean(dtype=float)) * len(rows)
        return loss.item() / n_validation, fused / n_validation

    parameters = list(student.parameters())
    steps = optimiser_steps(settings, n_training, split.full)
    steps_per_epoch = math.ceil(n_training / settings.batch_size)
    order = torch.Generator().manual_seed(stream(seed, "order"))
    parts = {"student": student}
    described, state = {}, {}
    if unfinished_file:
        arrays = {"images": images[used], "training": np.asarray(n_training)}
        arrays |= {f"level {i}": t[:1].float().cpu().numpy() for i, t in enumerate(targets)}
        described = asdict(settings) | {"levels": list(levels), "seed": seed}
        described |= {"precision": str(precision), "data": unfinished.fingerprint(arrays)}
        described |= {"format": 2}  # of the state: 1 held an optimiser instead of its momenta
        described["level_weights"] = list(described["level_weights"])
        state = unfinished.resume(unfinished_file, described, parts, order)
    if not state:
        start = time.perf_counter()
        loss, fused = validate()
        state = {
            "history": [[0, math.nan, loss, fused, time.perf_counter() - start]],
            "best": math.inf,
            "kept_epoch": None,
            "kept": {},
            "momenta": [None for _ in parameters],
        }
    # A resumed state is on the CPU.
    momenta = [None if m is None else m.to(device) for m in state["momenta"]]
    state["momenta"] = momenta
    history, failure = state["history"], None
    epochs = math.ceil(steps / steps_per_epoch)
    bar = tqdm(
        range(len(history), epochs + 1),
        desc=title,
        unit="epoch",
        initial=len(history) - 1,
        total=epochs,
        disable=not progress,
    )
    saved = time.perf_counter()
    for epoch in bar:
        start = time.perf_counter()
        student.train()
        total, seen = torch.zeros((), device=device), 0
        batches = torch.randperm(n_training, generator=order).to(device).split(settings.batch_size)
        for rows in batches[: steps - (epoch - 1) * steps_per_epoch]:
            loss = loss_of(level_maps(rows))
            student.zero_grad()
            (loss * len(rows) if settings.reduction == "sum" else loss).backward()
            with torch.no_grad():
                # torch.optim.SGD without the class, which loads torch._dynamo: 1.7 s of a fit.
                sgd(
                    parameters,
                    [parameter.grad for parameter in parameters],
                    momenta,
                    lr=settings.learning_rate,
                    momentum=settings.momentum,
                    weight_decay=settings.weight_decay,
                    dampening=0,
                    nesterov=False,
                    maximize=False,
                )
            total += loss.detach() * len(rows)
            seen += len(rows)
        train_loss = total.item() / seen
        validation_loss, validation_map = validate()
        history.append(
            [epoch, train_loss, validation_loss, validation_map, time.perf_counter() - start]
        )
        criterion = {
            "validation_loss": validation_loss,
            "validation_map": validation_map,
            "last": -epoch,
        }[settings.checkpoint]
        # If one step's loss is not finite, neither is the sum over the epoch.
        if not all(map(math.isfinite, (train_loss, validation_loss, criterion))):
            failure = (
                f"the loss is not finite at epoch {epoch} (training {train_loss}, "
                f"validation {validation_loss})"
            )
            break
        if criterion < state["best"]:
            kept = {key: value.clone() for key, value in backbone.state(student).items()}
            state |= {"best": criterion, "kept_epoch": epoch, "kept": kept}
        bar.set_postfix(train=f"{train_loss:.4f}", validation=f"{validation_loss:.4f}")
        due = time.perf_counter() - saved >= unfinished.SAVE_SECONDS
        if unfinished_file and due and epoch < epochs:
            unfinished.save(unfinished_file, described, parts, order, state)
            saved = time.perf_counter()
    kept_epoch = state["kept_epoch"]
    if failure is None and not history[kept_epoch][2] < history[0][2]:
        failure = (
            "the student is no better than an untrained one: its validation loss is "
            f"{history[kept_epoch][2]:.4g} at the kept epoch {kept_epoch}, and "
            f"{history[0][2]:.4g} before training"
        )
    table = pd.DataFrame(history, columns=HISTORY[:-1])
    table["kept"] = table["epoch"] == (kept_epoch if failure is None else None)
    model = {}
    if failure is None:
        model["weights"] = state["kept"]
        if settings.last_epoch:
            ended = kept_epoch == history[-1][0]
            model["last_epoch_weights"] = state["kept"] if ended else backbone.state(student)
    seconds = table.loc[table["epoch"] > 0, "seconds"].sum()
    done = len(table) - 1
    taken = min(steps, done * steps_per_epoch)
    return Fitted(model, table, done * n_training, float(seconds), failure, taken)


def within_memory(train: Callable[[Stpm], Fitted], settings: Stpm, device: torch.device) -> Fitted:
    """Train; if memory runs out, find the batch size that would fit by trying smaller ones.

    Args:
        train: settings -> what `train` returns.

    Raises:
        InputError: memory runs out; names the largest half, quarter, ... of the batch that fits.
    """

    def attempt(settings: Stpm) -> Fitted | None:
        try:
            return train(settings=settings)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # the failed attempt's tensors are freed by now; no effect on CPU
        return None

    trained = attempt(settings)
    if trained is not None:
        return trained
    size = settings.batch_size // 2
    while size and attempt(replace(settings, batch_size=size, epochs=1)) is None:
        size //= 2
    advice = (
        f"A batch of {size} fits: set the config key 'training.batch_size', or the 'batch_size' of "
        f"an own method, to {size} (the numbers then are those of another method), or give the "
        "job more memory"
        if size
        else "Not even a batch of 1 fits: give the job more memory, or lower 'image_size'"
    )
    raise InputError(
        f"config key 'training.batch_size': a batch of {settings.batch_size} does not fit the "
        f"memory of {device}. {advice}"
    )


@torch.no_grad()
def teacher_features(
    teacher: nn.Module, pixels: torch.Tensor, kind: str, batch_size: int
) -> list[torch.Tensor]:
    """Return the features that the distance `kind` compares, for all images: one (N, C, H, W)
    float32 tensor per level.

    Always in float32: a pass in bfloat16 changes unit features by up to 2e-2 (squared distance),
    which would affect the targets, the validation loss and so the choice of the epoch that is kept.
    """
    teacher.eval()
    levels: list[torch.Tensor] = []
    for start in range(0, len(pixels), batch_size):
        outputs = teacher(backbone.normalise(pixels[start : start + batch_size]))
        if not levels:  # filled in place: a list of batches would need twice the memory
            levels = [
                torch.empty(
                    (len(pixels), *output.shape[1:]),
                    dtype=torch.float32,
                    device=pixels.device,
                    memory_format=torch.channels_last,
                )
                for output in outputs
            ]
        for level, output in zip(levels, outputs, strict=True):
            level[start : start + len(output)] = DISTANCES[kind].features(output)
    return levels
