"""Downloads files completely or not at all: mirrors, resuming, disk space, extraction."""

import csv
import lzma
import re
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from stpm_bench.errors import InputError
from stpm_bench.files import sha256

CONNECT_TIMEOUT = 5.0  # seconds for each of the host's addresses: fail early without a route
READ_TIMEOUT = 60.0  # seconds without a byte
TRIES = 5  # in a row without receiving more
BACKOFF = 1.0  # seconds before the second try; doubled before each further one
CHUNK = 1 << 16


class Mirror(NamedTuple):
    """Where an archive can be downloaded, and its expected size and hash."""

    url: str
    sha256: str
    bytes: int


def list_mirrors(dataset: str) -> list[Mirror]:
    """Return a data set's rows of mirrors.csv, in the order in which they are tried."""
    with open(Path(__file__).with_name("mirrors.csv"), newline="", encoding="utf-8") as file:
        return [
            Mirror(row["url"], row["sha256"], int(row["bytes"]))
            for row in csv.DictReader(file)
            if row["dataset"] == dataset
        ]


class _Failed(Exception):
    """A mirror did not serve the file; the text says why."""


class _Refused(_Failed):
    """The same request would fail again."""


class _Unreachable(_Failed):
    """No connection: worth waiting only if there was one just before."""


def fetch(
    mirrors: Sequence[Mirror],
    path: str | Path,
    title: str,
    advice: str = "",
    progress: bool = True,
) -> Mirror:
    """Download one file to `path`, from the first mirror that serves it completely.

    If `path` already holds a part of the file, it is continued; after an error a part may remain.

    Args:
        mirrors: tried in turn.
        path: in a folder that exists.
        title: what it is, for the progress bar and the message.
        advice: what a user can do instead; ends the message.
        progress: show a progress bar.

    Returns:
        The mirror from which the file came; its hash has been checked.

    Raises:
        InputError: no mirror served it (the message gives each one's reason), or `path` cannot be
            written.
    """
    path = Path(path)
    reasons = []
    for mirror in mirrors:
        try:
            _fetch_from(mirror, path, title, progress)
            return mirror
        except _Failed as failed:
            reasons.append(f"{mirror.url}: {failed}")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}). "
                "Expected a writable folder with enough space; run again to continue the download."
            ) from error
    kept = (
        f"The {size_of(path)} bytes received so far are kept; another run continues from there. "
        if size_of(path)
        else ""
    )
    raise InputError(
        f"{title} could not be downloaded (tried {'; '.join(reasons)}). {kept}{advice}"
    )


def _bar_of_bytes(title: str, total: int, progress: bool, initial: int = 0):
    """Return a progress bar in bytes: live on a terminal, a line every half minute in a log."""
    from tqdm import tqdm  # not above: Snakemake's environment reads this module and may lack it

    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        desc=title,
        total=total,
        initial=initial,
        unit="B",
        unit_scale=True,
        mininterval=interval,
        maxinterval=max(10, interval),
        disable=not progress,
    )


def _fetch_from(mirror: Mirror, path: Path, title: str, progress: bool) -> None:
    """Fetch a file from one mirror and check its hash; raise _Failed if it is not available."""
    if size_of(path) > mirror.bytes:
        path.unlink()
    while True:
        continued = path.exists()
        with _bar_of_bytes(title, mirror.bytes, progress, initial=size_of(path)) as bar:
            _fetch_with_retries(mirror, path, bar)
        digest = sha256(path)
        if digest == mirror.sha256:
            return
        path.unlink()
        # The wrong bytes may come from an earlier call or another mirror: then try once more.
        if not continued:
            raise _Refused(f"sent a file with sha256 {digest} instead of {mirror.sha256}")


def _fetch_with_retries(mirror: Mirror, path: Path, bar) -> None:
    """Retry a mirror, with growing pauses, until `TRIES` in a row receive nothing new."""
    furthest, failures, connected = size_of(path), 0, False
    while size_of(path) < mirror.bytes:
        try:
            _receive(mirror, path, bar)
        except _Refused:
            raise
        except _Failed as failed:
            # A server without ranges starts over each time: only a new furthest point is progress.
            if size_of(path) > furthest:
                furthest, failures, connected = size_of(path), 0, True
            failures += 1
            if failures == TRIES or (isinstance(failed, _Unreachable) and not connected):
                raise
            time.sleep(BACKOFF * 2 ** (failures - 1))


def _receive(mirror: Mirror, path: Path, bar) -> None:
    """Make one request; append the data to the content of `path`, or replace it."""
    start = size_of(path)
    if urlsplit(mirror.url).scheme == "file":
        _copy(mirror, path, start, bar)
        return
    # Otherwise a server may compress, and lengths and ranges would count other bytes.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = requests.get(
            mirror.url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)
        )
    except requests.ConnectionError as error:
        if error.args and isinstance(error.args[0], urllib3.exceptions.ProtocolError):
            raise _Failed(_reason(error)) from error  # it was reached, and closed the connection
        raise _Unreachable(_reason(error)) from error
    except requests.ReadTimeout as error:
        raise _Failed(f"no answer within {READ_TIMEOUT:g} s") from error
    except requests.RequestException as error:
        raise _Refused(_reason(error)) from error

    with response:
        status = f"HTTP status {response.status_code} {response.reason}"
        if response.status_code == 416:  # the content of `path` cannot be the file's beginning
            path.unlink()
            raise _Failed(status)
        if response.status_code == 429 or response.status_code >= 500:
            raise _Failed(status)
        if response.status_code not in (200, 206):
            raise _Refused(status)
        if response.status_code == 200:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _Refused("sent another range than the requested one")
        # Checked before writing anything, so that an error page never replaces a good part.
        kind = response.headers.get("Content-Type", "unknown type")
        length = response.headers.get("Content-Length", "")
        if kind.startswith("text/html") or (
            length.isdigit() and start + int(length) != mirror.bytes
        ):
            raise _Refused(
                f"sent {length or 'some'} bytes of {kind} instead of {mirror.bytes - start}"
            )
        _write(response, path, start, mirror, bar)


def _copy(mirror: Mirror, path: Path, start: int, bar) -> None:
    """Copy the bytes after `start` of the file in a file:// URL."""
    source = Path(url2pathname(urlsplit(mirror.url).path))
    try:
        found = source.stat().st_size
        if found != mirror.bytes:
            raise _Refused(f"has {found} bytes instead of {mirror.bytes}")
        file = source.open("rb")
    except OSError as error:
        raise _Refused(error.strerror) from error
    with file, open(path, "ab") as copy:
        file.seek(start)
        while True:
            try:
                chunk = file.read(CHUNK)
            except OSError as error:
                raise _Failed(error.strerror) from error
            if not chunk:
                return
            copy.write(chunk)
            bar.update(len(chunk))


def _write(response: requests.Response, path: Path, start: int, mirror: Mirror, bar) -> None:
    bar.n = size = start
    with open(path, "ab" if start else "wb") as file:
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                size += len(chunk)
                if size > mirror.bytes:
                    file.truncate(0)
                    raise _Refused(f"sent more than {mirror.bytes} bytes")
                file.write(chunk)
                bar.update(len(chunk))
        except (urllib3.exceptions.HTTPError, requests.RequestException) as error:
            raise _Failed(f"broke off after {size} bytes ({_reason(error)})") from error
    if size < mirror.bytes:
        raise _Failed(f"broke off after {size} bytes")


def _reason(error: Exception) -> str:
    """Return the innermost cause of an error of requests, without its pools and addresses."""
    while True:
        inner = [getattr(error, "reason", None), *reversed(error.args)]
        inner = [cause for cause in inner if isinstance(cause, Exception)]
        if not inner:
            return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", str(error))
        error = inner[0]


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def check_space(*needs: Mapping[Path, int]) -> None:
    """Compare the required space with the free space, on each disk that the folders are on."""
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, needed in (item for need in needs for item in need.items()):
        # A folder that does not exist yet will be on the disk of its parent.
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disk = there.stat().st_dev
        first, sum_so_far = by_disk.get(disk, (there, 0))
        by_disk[disk] = first, sum_so_far + needed
    for folder, needed in by_disk.values():
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise InputError(
                f"{folder}: {free / 1e9:.1f} GB are free on its disk. Expected {needed / 1e9:.1f} "
                "GB for the archive, its content and the prepared images; free some space or name "
                "another folder."
            )


def extract(archive: str | Path, folder: str | Path, limit: int, progress: bool = True) -> None:
    """Extract a tar archive of any compression into `folder`, with tarfile's data filter.

    Raises:
        InputError: the archive is damaged, has a member that reaches outside the folder, or would
            take more than `limit` bytes; or the folder cannot be written.
    """
    archive, total = Path(archive), 0
    try:
        with (
            open(archive, "rb") as file,
            tarfile.open(fileobj=file, mode="r|*") as tar,
            _bar_of_bytes("Extracting", size_of(archive), progress) as bar,
        ):
            for member in tar:
                total += member.size
                if total > limit:
                    raise InputError(
                        f"{archive}: contains more than {limit} bytes, far more than expected. "
                        "It may be a decompression bomb; delete it and use another."
                    )
                tar.extract(member, folder, filter="data")
                bar.update(file.tell() - bar.n)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(
            f"{archive}: cannot be extracted ({error}). Expected a complete archive whose members "
            "stay in its folder; delete it and use another."
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder}: {archive.name} cannot be extracted ({error.strerror or error}). "
            "Expected a writable folder with enough space."
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file; the system releases the lock when the process ends, however it ends.

    A second process prints a message to stderr and waits. If the file system has no such locks (NFS
    or Lustre, as they are mounted), nothing is locked.
    """
    from filelock import FileLock, Timeout  # not above: Snakemake's environment may lack it

    # Its fallback is the existence of a file, which a killed process would leave behind.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"{path.parent}: waiting for the download of another process.", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()
