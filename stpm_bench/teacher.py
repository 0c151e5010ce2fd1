"""Teachers: published weights, a weights file, or an untrained network (see also pretrain.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch

from stpm_bench import backbone, embedded
from stpm_bench.errors import InputError
from stpm_bench.files import sha256
from stpm_bench.methods.distance import unit
from stpm_bench.seeds import stream

# A teacher is stored with every level that its backbone or its file has, so that a study can add a
# level without a new teacher; the classifier is dropped.
ALL_LEVELS = (1, 2, 3, 4)
# A level whose unit features deviate from one vector by less than this (mean square) carries no
# information: bfloat16, in which features are kept for training, resolves 2^-9 of a value.
CONSTANT = 1e-6


def untrained(name: str, seed: int) -> dict[str, torch.Tensor]:
    """Return an untrained backbone's weights, drawn from the teacher's random stream of `seed`."""
    return backbone.state(backbone.create(name, ALL_LEVELS, stream(seed, "teacher")))


def from_file(name: str, path: str | Path, expected: str = "") -> dict[str, torch.Tensor]:
    """Return the backbone's weights from a file of tensors under torchvision's names.

    Args:
        expected: the file's sha256; '' skips the check.

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
            f"{expected}; the file was changed or is another one: copy it again, or correct the key"
        )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds of exceptions for invalid files
        raise InputError(
            f"{path}: cannot be read as a file of tensors ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); expected what torch.save(network.state_dict(), path) "
            "writes; name such a file with the config key 'teachers.NAME.weights'"
        ) from error
    if not isinstance(weights, dict) or not all(torch.is_tensor(v) for v in weights.values()):
        raise InputError(
            f"{path}: contains more than named tensors; "
            "expected what torch.save(network.state_dict(), path) writes"
        )
    return select_weights(name, weights, str(path))


def from_torchvision(name: str, weights: str, folder: str | Path) -> dict[str, torch.Tensor]:
    """Return torchvision's published weights, downloaded once into `folder`, hash checked.

    Args:
        weights: a name in `levels.PUBLISHED[name]`.

    Raises:
        InputError: they cannot be downloaded; says which file to put where.
    """
    from torchvision.models import get_model_weights  # takes 2 s to import: see networks.py

    published = get_model_weights(name)[weights]
    file = Path(folder) / Path(published.url).name
    try:
        state = published.get_state_dict(model_dir=str(folder), check_hash=True, progress=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"{published.url}: cannot be downloaded ({error}); another run starts it from the "
            f"beginning. Put the file at {file}, or name a weights file with the config key "
            "'teachers.NAME.weights'"
        ) from error
    return select_weights(name, state, str(file))


def from_package() -> dict[str, torch.Tensor]:
    """Return the weights of mobilenet_v2 that are part of this package, levels 1 to 3.

    Raises:
        InputError: the file is missing or differs from the released one.
    """
    weights = {key: torch.from_numpy(array) for key, array in embedded.read().items()}
    return select_weights("mobilenet_v2", weights, str(embedded.FILE))


def select_weights(
    name: str, weights: dict[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """Return the part of `weights` that the backbone's levels need, with name and shape checked.

    Levels above the first one with missing weights are left out: see `levels_in`.
    """
    network = backbone.create(name, levels_in(name, weights) or ALL_LEVELS[:1], seed=0)
    backbone.load(network, weights, source)
    return backbone.state(network)


def levels_in(name: str, weights: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """Return the levels that the weights suffice for: all below the first that lacks a tensor."""
    found = ()
    for level in ALL_LEVELS:
        needed = backbone.state(backbone.create(name, [level], seed=0))
        if any(key not in weights for key in needed if not key.endswith("num_batches_tracked")):
            break
        found += (level,)
    return found


@torch.no_grad()
def level_report(
    name: str,
    weights: dict[str, torch.Tensor],
    images: np.ndarray,
    levels: Sequence[int] = ALL_LEVELS,
) -> list[dict]:
    """Describe a teacher's features on a few photographs, level by level.

    If a level carries no information, a student that matches it perfectly looks well trained, and
    all its metrics are noise: `degenerate` gives the reason for such a level.

    Args:
        images: (N, S, S, 3) uint8, photographs of several things.
        levels: the levels that the weights have.

    Returns:
        For each level `level`, `channels`, `dead_share` (of positions whose features are all 0),
        `spread` (mean squared deviation of the unit features from their mean over positions and
        images, in [0, 1]; 0 means that all are one vector) and `degenerate` ('' or the reason).
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
            reason = f"its features have the same direction at all positions (spread {spread:.1e})"
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
