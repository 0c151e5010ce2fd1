"""The state of a training between two epochs: saved regularly, and resumed after a kill."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from stpm_bench.files import forget_hashes, record_hashes, verified, write_tensors

# Shortest time between two saves when epochs are short; a kill loses at most as much time.
SAVE_SECONDS = 20.0


def save(
    file: Path, described: dict, parts: Mapping, generator: torch.Generator, progress: dict
) -> None:
    """Write everything that the next epoch depends on.

    Args:
        described: settings and data; only a training with the same may resume from this.
        parts: objects with a `state_dict`, by name.
        generator: the generator of batch order and flips; dropout uses PyTorch's global one.
        progress: what else the next epoch needs: texts, numbers, tensors, lists of them.
    """
    state = {
        "described": described,
        "progress": progress,
        "draws": generator.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    state |= {key: part.state_dict() for key, part in parts.items()}
    forget_hashes(record_of(file))
    write_tensors(file, state)
    record_hashes(record_of(file), file.name)


def resume(file: Path, described: dict, parts: Mapping, generator: torch.Generator) -> dict:
    """Restore what `save` wrote and return its `progress`; {} if there is nothing to resume.

    A file with other settings or data, or one that cannot be read, is ignored.
    """
    try:
        state = torch.load(verified(file), map_location="cpu", weights_only=True)
        if state["described"] != described:
            return {}
    except Exception:  # missing, or damaged in one of many ways: the training starts again
        return {}
    for key, part in parts.items():
        part.load_state_dict(state[key])
    generator.set_state(state["draws"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    return state["progress"]


def remove(file: Path) -> None:
    """Remove what `save` wrote, once the training's result is written."""
    for path in (file, record_of(file)):
        path.unlink(missing_ok=True)


def record_of(file: Path) -> Path:
    """Return the path of an unfinished state's checksum."""
    return file.with_name(f"{file.name}.sha256")


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of named arrays."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        values = np.asarray(arrays[key])
        digest.update(f"{key} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
