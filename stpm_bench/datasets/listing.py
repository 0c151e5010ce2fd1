"""Lists the files and folders of a data set by name, without opening any."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from stpm_bench.datasets.interface import Problem

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def folders(path: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted; [] if there is no such folder."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted; [] if there is no such folder.

    A broken link counts as an image, so that reading it fails with its name: if it were silently
    left out, the results would change.
    """
    if not folder.is_dir():
        return []
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and not p.is_dir()
    )


def images_below(folder: Path) -> list[Path]:
    """Return the image files at any depth below a folder's own folders, sorted.

    Links to folders are followed, each folder once; hidden folders are ignored.
    """

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], {os.path.realpath(folder)}
    for place, names, _ in os.walk(folder, followlinks=True, onerror=fail):
        visible = []
        for name in sorted(names):
            real = os.path.realpath(os.path.join(place, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                visible.append(name)
        names[:] = visible
        if Path(place) != folder:
            found += image_files(Path(place))
    return sorted(found)


def same_but_for_case(paths: Iterable[Path]) -> list[Problem]:
    """Find paths that are the same on Windows and macOS, where one would overwrite the other."""
    first: dict[str, Path] = {}
    return [
        Problem(
            "error",
            f"{path}: differs from {other.name} only in case; on a file system that ignores case "
            "one would overwrite the other. Expected different names; rename one (and its mask).",
        )
        for path in paths
        if (other := first.setdefault(composed(str(path)).casefold(), path)) != path
    ]


def composed(name: str) -> str:
    """Return a name with each accented letter as one character; macOS writes two."""
    return unicodedata.normalize("NFC", name)


def both_kinds(
    path: Path, kinds: set[str], good: str, good_place: str, defect_place: str
) -> list[Problem]:
    """Report a test split without good images, or without defective ones."""
    if good not in kinds:
        text = (
            f"{path}: has no good images (found only {', '.join(sorted(kinds))}). Expected "
            f"anomaly-free test images in {good_place}: without them no AUROC is defined. Add some."
        )
    elif kinds == {good}:
        text = (
            f"{path}: has good images only. Expected images with defects in {defect_place} "
            "and their masks: without them no AUROC is defined. Add some."
        )
    else:
        return []
    return [Problem("error", text)]
