"""Files that are whole or not there."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from stpm_bench.errors import InputError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without error.

    A process killed inside the block leaves `path` as it was. The temporary name keeps the suffix,
    because numpy, pandas and matplotlib choose a format by it.

    Raises:
        InputError: the folder cannot be made or written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}). "
            "Expected a writable folder; choose another with the config key 'results'."
        ) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut can leave the new name without its content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: str | Path) -> None:
    """Make the folder of the results and a file in it, which is removed at once.

    Raises:
        InputError: one of the two is not possible.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"config key 'results': {folder} cannot be written ({error.strerror}); expected a "
            "folder that exists or can be made, and that can be written"
        ) from error


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, whole or not at all."""
    with whole(path) as temporary:
        table.to_csv(temporary, index=False)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array as a .npy file, whole or not at all."""
    with whole(path) as temporary:
        np.save(temporary, array)


def write_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    """Write named arrays as a .npz file, whole or not at all; the same arrays, the same bytes.

    numpy.savez would put the time of writing into the file.
    """
    with whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
