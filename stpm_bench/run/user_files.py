"""Hashes of a user's files by their contents.

Snakemake looks at the times of files and folders. In a copy of a data set they are new, and some
network disks and archives have them in the future; neither makes it another set.
"""

import functools
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stpm_bench.errors import InputError
from stpm_bench.files import read_json, sha256, write_json

RECORD = "user_files.json"  # in the results
MANY_BYTES = 50_000_000  # 100 MB took 6 s from a cold disk


def content_hash(results: str | Path, *places: Path) -> str:
    """Return a hash of the names and contents of files, and of all that is below folders.

    A file is read only if its path, size or time is not that of an earlier reading, which
    user_files.json in the results records. Missing files, broken links and files that cannot be
    read are left to the step, whose error message names them.

    Args:
        results: the folder. places: files and folders; their own names count, but not the names of
            the folders that they are in.

    Returns:
        64 hexadecimal digits.
    """
    names, states = [], {}
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.exists():
                names.append((str(path.relative_to(place.parent)), str(path)))
                if path.is_file():
                    status = path.stat()
                    states[str(path)] = [status.st_size, status.st_mtime_ns]
    record = Path(results, RECORD)
    known = recorded(record)
    unread = [path for path, state in states.items() if known.get(path, ())[:2] != state]
    if unread:
        size = sum(states[path][0] for path in unread)
        if size > MANY_BYTES:
            text = f"stpm_bench: reading {len(unread):,} files ({size / 1e9:.1f} GB) of"
            print(f"{text} {places[0].parent}, to notice changes later", file=sys.stderr)
        with ThreadPoolExecutor() as pool:
            digests = zip(unread, pool.map(digest, unread), strict=True)
        known |= {path: [*states[path], found] for path, found in digests if found}
        write_json(record, known)
    contents = [(name, known.get(path, ("",))[-1]) for name, path in names]
    return hashlib.sha256(repr(contents).encode()).hexdigest()


@functools.cache  # all calls of a run change the same dict
def recorded(record: Path) -> dict[str, list]:
    """Return what is known about files: path -> [size, time, SHA-256]."""
    try:
        return read_json(record) if record.exists() else {}
    except InputError:  # changed by hand: they are read again
        return {}


def digest(path: str) -> str:
    """Return the SHA-256 of a file, '' if it cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return ""
