"""VisA's layout: a table gives the path and the kind of each image and mask.

split_csv/1cls.csv: columns object, split, label, image, mask; its images and masks are at the paths
given there, CATEGORY/Data/{Images,Masks}/...

Zou et al., 2022, github.com/amazon-science/spot-diff, whose utils/prepare_data.py also defines the
values of masks: any non-zero pixel is a defect, the numbers are kinds of defect.
"""

import csv
from pathlib import Path, PurePosixPath

from stpm_bench.datasets.interface import Layout, Problem, Row, ScanResult
from stpm_bench.datasets.listing import both_kinds, same_but_for_case

SPLIT_CSV = Path("split_csv", "1cls.csv")
SPLIT_CSV_COLUMNS = ("object", "split", "label", "image", "mask")


def _categories(root: Path) -> list[str]:
    return sorted({row["object"] for row in read_split_csv(root)[0] if row["object"]})


def _scan(root: Path, category: str, split: str) -> ScanResult:
    path = root / SPLIT_CSV
    lines, problems = read_split_csv(root)
    rows, seen = [], {}
    for line in lines:
        if line["object"] != category:
            continue
        place = f"{path}: {line['image'] or 'a line without an image'}"
        image, mask = (_below(category, line[key]) for key in ("image", "mask"))
        wrong = None
        if line["split"] not in ("train", "test"):
            wrong = f"its split is {line['split']!r}. Expected train or test"
        elif line["label"] not in ("normal", "anomaly"):
            wrong = f"its label is {line['label']!r}. Expected normal or anomaly"
        elif image is None or (mask is None and line["mask"]):
            wrong = f"is not in the folder of its object. Expected {category}/Data/..."
        elif seen.setdefault(image, line) is not line:
            wrong = "is listed twice. Expected each image once, in train or in test"
        elif line["split"] == "train" and line["label"] != "normal":
            wrong = "is an anomaly in the split train. Expected only normal images there"
        elif line["label"] == "anomaly" and mask is None:
            wrong = "its mask is missing. Expected the file in the column mask"
        if wrong and (line["split"] == split or line["split"] not in ("train", "test")):
            problems.append(Problem("error", f"{place}: {wrong}; fix the line."))
        if line["split"] == split and image:
            good = line["label"] == "normal"
            rows.append(Row(image, "good" if good else line["label"], "" if good else mask or ""))
    if not rows:
        text = f"{path}: has no {split} images of {category}. Expected some; fix the table."
        problems.append(Problem("error", text))
    elif split == "test":
        kinds = {row.defect for row in rows}
        problems += both_kinds(path, kinds, "good", "lines test,normal", "lines test,anomaly")
    problems += same_but_for_case([root / category / row.file for row in rows])
    return rows, problems


def _sources(root: Path, category: str, split: str) -> list[Path]:
    rows, _ = _scan(root, category, split)
    files = [root / category / name for row in rows for name in (row.file, row.mask) if name]
    return [root / SPLIT_CSV, *files]


def _good_masks(root: Path, category: str) -> list[Path]:
    masks = [
        _below(category, line["mask"])
        for line in read_split_csv(root)[0]
        if (line["object"], line["split"], line["label"]) == (category, "test", "normal")
    ]
    return [root / category / mask for mask in masks if mask]


def read_split_csv(root: Path) -> tuple[list[dict[str, str]], list[Problem]]:
    path = root / SPLIT_CSV
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = set(SPLIT_CSV_COLUMNS) - set(reader.fieldnames or [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        return [], [
            Problem(
                "error",
                f"{path}: cannot be read ({reason}). Expected VisA's table of its images; copy it "
                "from the archive of the data set.",
            )
        ]
    if missing:
        return [], [
            Problem(
                "error",
                f"{path}: lacks the columns {', '.join(sorted(missing))}. Expected "
                f"{','.join(SPLIT_CSV_COLUMNS)}; copy it from the archive of the data set.",
            )
        ]
    return rows, []


def _below(category: str, file: str) -> str | None:
    """Return a file of the table relative to its category's folder; None if it is outside."""
    parts = PurePosixPath(file.strip()).parts
    if len(parts) < 2 or parts[0] != category or ".." in parts:
        return None
    return str(PurePosixPath(*parts[1:]))


LAYOUT = Layout(_categories, _scan, _sources, nonzero=True, good_masks=_good_masks)
