"""Files that are whole or not there."""

import datetime
import glob
import hashlib
import io
import json
import os
import platform
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from stpm_bench.errors import InputError

try:  # and not filelock: Snakemake, which need not have it, holds the folder of the results
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without error.

    A process killed inside the block leaves `path` as it was, and its temporary file to whoever
    writes `path` next; that of a process that still writes is left alone. The temporary name keeps
    the suffix, because numpy, pandas and matplotlib choose a format by it.

    Raises:
        InputError: the folder cannot be made, or the file not be written: no space, read-only.
    """
    path = Path(path)
    # With the thread: a process, too, may write one file twice at a time.
    writer = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{writer}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(f'.{path.name}.')}*.tmp{path.suffix}"):
            if _abandoned(left):
                left.unlink(missing_ok=True)
        temporary.touch()
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut can leave the new name without its content
        os.replace(temporary, path)
    except OSError as error:
        # numpy and Pillow say how far they came, and not why they stopped.
        reason = error.strerror or f"{error}; a full disk?"
        raise InputError(
            f"{path}: cannot be written ({reason}). Expected a writable folder with enough space; "
            "mend that, or choose another with the config key 'results', and run again"
        ) from error
    finally:
        with suppress(OSError):  # a disk that has become read-only keeps what was begun
            temporary.unlink(missing_ok=True)


def _abandoned(temporary: Path) -> bool:
    """Return whether nobody writes a temporary file any more.

    Of another machine's processes nothing is known here: theirs count as abandoned after a day.
    """
    here = re.search(rf"\.{re.escape(platform.node())}-(\d+)-\d+\.tmp", temporary.name)
    if not here:
        with suppress(OSError):
            return time.time() - temporary.stat().st_mtime > 86_400
        return False
    try:
        os.kill(int(here[1]), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, who runs
        pass
    return False


_HELD: list[IO] = []  # a lock is given back when its file is closed


def hold(folder: str | Path) -> None:
    """Hold a folder of results for this run, until the process ends, however it ends.

    Where the system or the file system has no locks, nothing is held.

    Raises:
        InputError: another run holds it; says which.
    """
    if fcntl is None:
        return
    held = open(Path(folder, ".held"), "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.seek(0)
        who = held.read().strip() or "another process"
        held.close()
        raise InputError(
            f"{folder}: another run holds it: {who}. Expected one run at a time; wait for its end, "
            "or choose another folder with the config key 'results'"
        ) from error
    except OSError:  # a file system without locks
        held.close()
        return
    held.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    held.write(f"process {os.getpid()} on {platform.node()}, started in {Path.cwd()}, {since}\n")
    held.flush()
    _HELD.append(held)


def record_hashes(record: str | Path, *names: str) -> None:
    """Write the SHA-256 of files to `record`, beside them, in the format of `sha256sum`.

    The last thing that a step does, and `forget_hashes` the first before it writes: a step that is
    killed leaves its files without a record, never with that of older ones.
    """
    record = Path(record)
    lines = [f"{sha256(record.parent / name)}  {name}\n" for name in names]
    with written_whole(record) as temporary:
        temporary.write_text("".join(lines))


def forget_hashes(record: str | Path) -> None:
    """Remove the record of files that are about to be written anew."""
    Path(record).unlink(missing_ok=True)


def read_hashes(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Read the records of a folder: file -> its SHA-256, and the name of the record."""
    found = {}
    for record in Path(folder).glob("[!.]*.sha256"):
        try:
            lines = record.read_text(errors="replace").splitlines()
        except FileNotFoundError:  # of another step, which has begun to write its files anew
            continue
        for line in lines:
            digest, _, file = line.partition("  ")
            found[file] = (digest, record.name)
    return found


def verified(path: str | Path) -> Path:
    """Return the path of a file that is what the record beside it says, or that has no record.

    Raises:
        InputError: the file is not what was written.
    """
    path = Path(path)
    compare(path, sha256(path), read_hashes(path.parent))
    return path


def read_verified(path: str | Path, records: Mapping[str, tuple[str, str]] | None = None) -> bytes:
    """Return the content of a file that is what the record beside it says, or that has no record.

    Args:
        records: what `read_hashes` returns of the file's folder, where several of it are read.

    Raises:
        InputError: the file is not what was written.
    """
    path = Path(path)
    content = path.read_bytes()
    records = read_hashes(path.parent) if records is None else records
    compare(path, hashlib.sha256(content).hexdigest(), records)
    return content


def compare(path: Path, digest: str, records: Mapping[str, tuple[str, str]]) -> None:
    """Raise an InputError where a file's SHA-256 is not the recorded one."""
    expected, record = records.get(path.name, (digest, ""))
    if digest != expected:
        raise damaged(
            path,
            f"is not what was written (expected the SHA-256 in {record}): it was damaged, or "
            "changed by hand",
        )


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
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path, records: Mapping[str, tuple[str, str]] | None = None) -> dict:
    """Read what `write_json` wrote.

    Args:
        records: as of `read_verified`.

    Raises:
        InputError: the file is not what was written, or is no JSON.
    """
    content = read_verified(path, records)
    try:
        return json.loads(content)
    except ValueError as error:
        raise unreadable(path, error) from error


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, whole or not at all."""
    with written_whole(path) as temporary:
        table.to_csv(temporary, index=False)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array as a .npy file, whole or not at all."""
    with written_whole(path) as temporary:
        np.save(temporary, array)


def write_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    """Write named arrays as a .npz file, whole or not at all; the same arrays, the same bytes.

    numpy.savez would put the time of writing into the file.
    """
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def write_tensors(path: str | Path, content: dict) -> None:
    """Write what `torch.load` reads, whole or not at all; the same content, the same bytes."""
    import torch

    # Through memory: of a path torch puts the name, here a temporary one, into the file; and its
    # writer hides why a file could not be written.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_whole(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def unreadable(path: str | Path, error: object) -> InputError:
    """Return the error for a file of the results that cannot be read."""
    return damaged(path, f"cannot be read ({error})")


def damaged(path: str | Path, problem: str) -> InputError:
    """Return the error for a file of the results that is to be made anew."""
    # By name: Snakemake does not look for each file of a step whose results are there.
    return InputError(
        f"{path}: {problem}. Delete it, have it made anew "
        f"(snakemake --cores all {path} --configfile ...), and run again"
    )


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
