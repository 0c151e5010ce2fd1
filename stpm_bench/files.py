"""Atomic writes of files, checksums, and locks."""

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

try:  # not filelock: Snakemake's process holds the results folder, and may lack that package
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block ends without error.

    A process killed inside the block leaves `path` unchanged; its temporary file is removed by the
    next process that writes `path`. A temporary file that is still being written is not touched.
    The temporary name keeps the suffix, because numpy, pandas and matplotlib choose a format by it.

    Raises:
        InputError: the folder cannot be made or the file cannot be written: disk full, read-only.
    """
    path = Path(path)
    # The name includes the thread: one process may write the same file twice at a time.
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
        # numpy and Pillow report how much they wrote, but not why they stopped.
        reason = error.strerror or f"{error}; a full disk?"
        raise InputError(
            f"{path}: cannot be written ({reason}). Expected a writable folder with enough space; "
            "fix that, or name another folder with the config key 'results', and run again"
        ) from error
    finally:
        with suppress(OSError):  # the disk may have become read-only
            temporary.unlink(missing_ok=True)


def _abandoned(temporary: Path) -> bool:
    """Return whether no process is writing a temporary file any more.

    Processes of other machines cannot be checked: their files count as abandoned after a day.
    """
    here = re.search(rf"\.{re.escape(platform.node())}-(\d+)-\d+\.tmp", temporary.name)
    if not here:
        with suppress(OSError):
            return time.time() - temporary.stat().st_mtime > 86_400
        return False
    try:
        os.kill(int(here[1]), 0)  # sends no signal
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, under another user
        pass
    return False


_HELD: list[IO] = []  # a lock is released when its file is closed


def lock_results(folder: str | Path) -> None:
    """Lock a results folder for this run, until the process ends, however it ends.

    If the system or the file system has no locks, nothing is locked.

    Raises:
        InputError: another run has locked it; the message names it.
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
            f"{folder}: is in use by another run: {who}. Expected one run at a time; wait for its "
            "end, or name another folder with the config key 'results'"
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
    """Write the SHA-256 of files to `record`, in the same folder, in the format of `sha256sum`.

    A step does this last, and calls `forget_hashes` before it writes anything: a killed step leaves
    its files without a record, never with the record of older files.
    """
    record = Path(record)
    lines = [f"{sha256(record.parent / name)}  {name}\n" for name in names]
    with atomic_write(record) as temporary:
        temporary.write_text("".join(lines))


def forget_hashes(record: str | Path) -> None:
    """Remove the record of files that are about to be rewritten."""
    Path(record).unlink(missing_ok=True)


def read_hashes(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Read the records of a folder: file -> its SHA-256, and the name of the record."""
    found = {}
    # Not pathlib, which takes twice as long for the tens of thousands of folders of a large grid.
    for record in glob.glob(f"{glob.escape(str(folder))}/*.sha256"):  # none that begins with a dot
        try:
            with open(record, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:  # another step has removed its record to rewrite its files
            continue
        for line in lines:
            digest, _, name = line.partition("  ")
            found[name] = (digest, os.path.basename(record))
    return found


def verified(path: str | Path) -> Path:
    """Return the path of a file that matches its recorded hash, or has no record.

    Raises:
        InputError: the file has changed since it was written.
    """
    path = Path(path)
    compare(path, sha256(path), read_hashes(path.parent))
    return path


def read_verified(path: str | Path, records: Mapping[str, tuple[str, str]] | None = None) -> bytes:
    """Return the content of a file that matches its recorded hash, or has no record.

    Args:
        records: what `read_hashes` returns for the file's folder, if several files are read.

    Raises:
        InputError: the file has changed since it was written.
    """
    path = Path(path)
    content = path.read_bytes()
    records = read_hashes(path.parent) if records is None else records
    compare(path, hashlib.sha256(content).hexdigest(), records)
    return content


def compare(path: Path, digest: str, records: Mapping[str, tuple[str, str]]) -> None:
    """Raise an InputError if a file's SHA-256 differs from the recorded one."""
    expected, record = records.get(path.name, (digest, ""))
    if digest != expected:
        raise damaged(
            path,
            f"is not what was written (expected the SHA-256 in {record}): it was damaged, or "
            "changed by hand",
        )


def check_writable(folder: str | Path) -> None:
    """Create the results folder and a test file in it, which is removed at once.

    Raises:
        InputError: one of the two is not possible.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"config key 'results': {folder} cannot be written ({error.strerror}); expected a "
            "writable folder, or one that can be made"
        ) from error


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path, records: Mapping[str, tuple[str, str]] | None = None) -> dict:
    """Read a file that `write_json` wrote.

    Args:
        records: as in `read_verified`.

    Raises:
        InputError: the file has changed since it was written, or is not JSON.
    """
    content = read_verified(path, records)
    try:
        return json.loads(content)
    except ValueError as error:
        raise unreadable(path, error) from error


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, atomically."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array as a .npy file, atomically."""
    with atomic_write(path) as temporary:
        np.save(temporary, array)


def write_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    """Write named arrays as a .npz file, atomically; the same arrays give the same bytes.

    numpy.savez would store the time of writing in the file.
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def write_tensors(path: str | Path, content: dict) -> None:
    """Write tensors for `torch.load`, atomically; the same content gives the same bytes."""
    import torch

    # Through memory: given a path, torch stores its name, here a temporary one, in the file, and
    # its writer hides why a file could not be written.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def unreadable(path: str | Path, error: object) -> InputError:
    """Return the error for a file of the results that cannot be read."""
    return damaged(path, f"cannot be read ({error})")


def damaged(path: str | Path, problem: str) -> InputError:
    """Return the error for a file of the results that must be written again by its step."""
    # By name: Snakemake does not check for each file of a step whose results exist.
    return InputError(
        f"{path}: {problem}. Delete it, rerun its step "
        f"(snakemake --cores all {path} --configfile ...), and run again"
    )


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
