"""MVTec AD: its categories, how many images each has, and its download.

`download` leaves the data set's folder ready to be read. It writes the following, in this order, so
that it can be killed at any point and resumes when called again:

    ARCHIVE.part     what has arrived; continued by HTTP range
    .extracting/     the archive's content, until it is complete and counted
    CATEGORY/        renamed from there
    download.json    where the data came from; its existence means that they are complete
"""

import datetime
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from stpm_bench.datasets import layouts
from stpm_bench.datasets.transfer import (
    Mirror,
    check_space,
    extract,
    fetch,
    list_mirrors,
    locked,
    size_of,
)
from stpm_bench.errors import InputError
from stpm_bench.files import read_json, sha256, write_json

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle",
    "cable",
    "capsule",
    "hazelnut",
    "metal_nut",
    "pill",
    "screw",
    "toothbrush",
    "transistor",
    "zipper",
)
CATEGORIES = TEXTURES + OBJECTS
# The side of a category's square images, in pixels. Source: Table 1 of the data set's paper
# (Bergmann et al., CVPR 2019).
SIDES = dict.fromkeys(CATEGORIES, 1024) | {
    "bottle": 900,
    "capsule": 1000,
    "metal_nut": 700,
    "pill": 800,
    "tile": 840,
}
# Published numbers of train and test images.
COUNTS: dict[str, tuple[int, int]] = {
    "carpet": (280, 117),
    "grid": (264, 78),
    "leather": (245, 124),
    "tile": (230, 117),
    "wood": (247, 79),
    "bottle": (209, 83),
    "cable": (224, 150),
    "capsule": (219, 132),
    "hazelnut": (391, 110),
    "metal_nut": (220, 115),
    "pill": (267, 167),
    "screw": (320, 160),
    "toothbrush": (60, 42),
    "transistor": (213, 100),
    "zipper": (240, 151),
}
TITLE = "MVTec AD"
PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
NOTICE = (
    "MVTec AD is licensed under CC BY-NC-SA 4.0: non-commercial use only.\n"
    "https://creativecommons.org/licenses/by-nc-sa/4.0/\n"
    "Cite: P. Bergmann, M. Fauser, D. Sattlegger, C. Steger: MVTec AD - A Comprehensive\n"
    "Real-World Dataset for Unsupervised Anomaly Detection, CVPR 2019; and\n"
    "P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger: The MVTec Anomaly\n"
    "Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised Anomaly\n"
    "Detection, IJCV 129, 2021."
)


def download(
    folder: str | Path,
    mirrors: Sequence[Mirror] | None = None,
    counts: Mapping[str, tuple[int, int]] = COUNTS,
    progress: bool = True,
    archive: str | Path | None = None,
    room: Mapping[Path, int] | None = None,
    urls: Sequence[str] = (),
) -> None:
    """Make `folder` hold all categories, and record their source in folder/download.json.

    Nothing is downloaded if the folder already holds them, or if `archive` is given or is in the
    folder under its original name; that archive is checked and never deleted. Complete categories
    that exist already are kept unchanged. A second process with the same folder waits for the
    first.

    Args:
        folder: made if it does not exist; its file system needs space for the archive and its
            content, twice the archive's size.
        mirrors: tried in turn; those of mirrors.csv by default.
        counts: category -> numbers of train and test images to be found at the end.
        progress: show progress bars.
        archive: the user's copy of the archive, anywhere.
        room: folder -> bytes that something else will need there; checked beforehand too.
        urls: the user's own URLs of the published archive (http, https, file), tried first.

    Raises:
        InputError: no mirror serves the archive; the folder cannot be written or its disk is too
            small; a category in it is incomplete; a user's archive is not the published one; the
            archive is damaged, reaches outside its folder, or does not hold the right counts.
    """
    mirrors = mirrors or list_mirrors("mvtec_ad")
    # Whatever name a copy has, a partial download is continued from the next mirror.
    name = Path(urlsplit(mirrors[0].url).path).name
    mirrors = [*(mirrors[0]._replace(url=url) for url in urls), *mirrors]
    folder = Path(folder)
    marker = folder / "download.json"
    if archive and not Path(archive).is_file():
        raise InputError(
            f"{archive}: no such archive. Expected a file; name it with the config key "
            "'data.mvtec_ad'."
        )
    if marker.exists() and not _wrong_counts(folder, counts):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".download.lock").touch()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}). Expected a writable folder for "
            f"{TITLE}; name a folder that already holds it with the config key 'data.mvtec_ad'."
        ) from error

    with locked(folder / ".download.lock"):
        url = digest = None
        existing = sorted(categories_before_download(folder, counts))
        if _wrong_counts(folder, counts):
            _check_none_incomplete(folder, counts)
            print(NOTICE, file=sys.stderr)
            archive, part = Path(archive or folder / name), folder / f"{name}.part"
            size = max(mirror.bytes for mirror in mirrors)
            if archive.exists():
                check_space({folder: size}, room or {})
                digest = _check_archive(archive, mirrors)
            else:
                archive = part
                check_space({folder: 2 * size - size_of(part)}, room or {})
                advice = (
                    f"Put the data set's folder (with {'/, '.join(list(counts)[:2])}/, ... inside) "
                    f"or the archive {name} anywhere and name it with the config key "
                    f"'data.mvtec_ad'. If the link has changed, {PAGE} has the current one; name "
                    "that, or your own copy (also file://), with the config key 'data.mirrors'."
                )
                url, digest, _ = fetch(mirrors, part, TITLE, advice, progress)
            _unpack(archive, folder, counts, 4 * size, progress)
            part.unlink(missing_ok=True)
        write_json(
            marker,
            {
                "dataset": "mvtec_ad",
                "url": url,  # null: the archive or the data were there already
                "sha256": digest,
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "counts": {category: list(numbers) for category, numbers in counts.items()},
                "own": existing,  # categories that were there before
            },
        )


def categories_before_download(
    folder: str | Path, counts: Mapping[str, tuple[int, int]] = COUNTS
) -> set[str]:
    """Return the categories that a folder has, or had, complete without this download.

    They are used unchanged: nothing is downloaded for them.
    """
    marker = Path(folder) / "download.json"
    if marker.exists():
        return set(read_json(marker).get("own", []))
    found = {category: layouts.count_images(folder, category) for category in counts}
    return {category for category in counts if found[category] == counts[category]}


def _wrong_counts(
    folder: Path, counts: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Return the categories with unexpected numbers of images, with these numbers."""
    found = {category: layouts.count_images(folder, category) for category in counts}
    return {category: found[category] for category in counts if found[category] != counts[category]}


def _check_none_incomplete(folder: Path, counts: Mapping[str, tuple[int, int]]) -> None:
    """Never overwrite a user's data: an incomplete category is an error."""
    for category, (train, test) in _wrong_counts(folder, counts).items():
        if (folder / category).exists():
            raise InputError(
                f"{folder / category}: has {train} train and {test} test images. Expected "
                f"{counts[category][0]} and {counts[category][1]}; move it away, so that the "
                "published one can take its place."
            )


def _check_archive(archive: Path, mirrors: Sequence[Mirror]) -> str:
    digest = sha256(archive)
    expected = sorted({mirror.sha256 for mirror in mirrors})
    if digest not in expected:
        raise InputError(
            f"{archive}: is not the published archive. Expected sha256 {' or '.join(expected)}, "
            f"found {digest}; copy it again, or delete it to have it downloaded."
        )
    return digest


def _unpack(
    archive: Path,
    folder: Path,
    counts: Mapping[str, tuple[int, int]],
    limit: int,
    progress: bool,
) -> None:
    """Extract an archive next to its destination, count its images, and rename its parts."""
    temporary = folder / ".extracting"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        extract(archive, temporary, limit, progress)
        inner = [path for path in temporary.iterdir() if path.is_dir()]
        alone = len(inner) == 1 and inner[0].name not in counts
        root = inner[0] if alone else temporary
        for category, (train, test) in _wrong_counts(root, counts).items():
            raise InputError(
                f"{archive}: its {category} has {train} train and {test} test images. "
                f"Expected {counts[category][0]} and {counts[category][1]}; "
                "delete the archive and use another."
            )
        for path in root.iterdir():
            if not (folder / path.name).exists():
                path.rename(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
