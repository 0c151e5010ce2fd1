"""Steps of evaluate.smk: metrics of stored level maps, and the long tables of all cells."""

import csv
import json
import time
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd

from stpm_bench import grid, results
from stpm_bench.code_version import version_of
from stpm_bench.errors import InputError
from stpm_bench.files import (
    forget_hashes,
    read_hashes,
    read_json,
    read_verified,
    record_hashes,
    sha256,
    verified,
    write_array,
    write_csv,
    write_json,
)
from stpm_bench.results import load_array, load_arrays, read_image_table
from stpm_bench.steps.options import CellFolder, FitFolder, Results, TestFolder


def evaluate(
    *,
    test: TestFolder,
    fit: FitFolder,
    settings: Annotated[str, "JSON of the fields that the evaluation reads"],
    annotation: Annotated[
        Literal["regions", "pixels", "image"], "annotation of the images; PRO needs regions"
    ] = "regions",
    cell: CellFolder,
) -> None:
    """Evaluate a cell: metrics.json, image_scores.csv, pro_curve.csv and pro_definitions.csv.

    pro_definitions.csv has the PRO by every definition. Metrics for which the set has no annotation
    are left out, and the two tables then have no rows.
    """
    start = time.perf_counter()  # a step's cost includes the imports that it makes
    from stpm_bench.audit import COLUMNS
    from stpm_bench.evaluation import evaluate_cell
    from stpm_bench.provenance import host_bytes

    fields = json.loads(settings)
    scored = read_json(fit / results.STAGES["score"])
    record = {"fit": fit.name, "evaluation": fields, "code": version_of("evaluate")}
    names = [*results.EVALUATION_FILES, results.STAGES["evaluate"]]
    forget_hashes(cell / "evaluation.sha256")
    if failure := results.failure_of(fit):
        write_json(cell / "metrics.json", {"failure": failure})
        write_csv(cell / "image_scores.csv", pd.DataFrame(columns=["file", "defect", "score"]))
        write_csv(cell / "pro_curve.csv", pd.DataFrame(columns=["fpr", "overlap"]))
        write_csv(cell / "pro_definitions.csv", pd.DataFrame(columns=COLUMNS))
        write_json(cell / "evaluation.json", record | {"failure": failure})
        record_hashes(cell / "evaluation.sha256", *names)
        return
    if scored["manifest_sha256"] != sha256(verified(test / "images.csv")):
        raise InputError(
            f"{fit}: its level maps belong to other test images than those in {test} (the SHA-256 "
            "of images.csv differs from manifest_sha256 in score.json); score the fit again"
        )
    table = read_image_table(test / "images.csv")[["file", "defect"]]
    size = scored["image_size"]
    masks = {name: load_array(test / file) for name, file in results.MASKS.items()}
    original_masks = list(load_arrays(test / results.ORIGINAL_MASKS).values())
    try:
        evaluating = time.perf_counter()
        found = evaluate_cell(
            results.read_scores(fit),
            table["defect"],
            masks,
            original_masks,
            fields,
            annotation,
            size,
        )
        evaluating = time.perf_counter() - evaluating
    except InputError:  # the message already names the damaged file
        raise
    except ValueError as error:
        raise cannot_evaluate(cell, test, error) from error
    write_json(cell / "metrics.json", found.metrics)
    write_csv(cell / "image_scores.csv", table.assign(score=found.image_scores))
    write_csv(cell / "pro_curve.csv", found.curve)
    write_csv(cell / "pro_definitions.csv", found.definitions)
    record |= {
        "image_size": size,
        "images": len(table),
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(len(table) / evaluating, 1),
        "peak_memory": {"host_bytes": host_bytes()},
        "device": "cpu",
        "threads": 1,
    }
    write_json(cell / "evaluation.json", record)
    record_hashes(cell / "evaluation.sha256", *names)


def cannot_evaluate(cell: Path, masks: Path, error: ValueError) -> InputError:
    """Return the error for maps and masks on which a metric is not defined."""
    return InputError(
        f"{cell}: its maps cannot be evaluated with the masks of {masks}: {error}. If the defects "
        "are too small to be visible in their masks, raise the config key 'image_size'"
    )


def collect(*, results: Results) -> None:
    """Collect the results of all cells into the long tables metrics.csv and pro_definitions.csv.

    A cell that has not run, or whose fit failed, has no row.
    """
    from stpm_bench.audit import COLUMNS

    values, audited = [], []
    for cell in grid.cells(grid.read(results / "studies.csv")):
        folder = results / "cells" / cell.folder
        if (folder / "metrics.json").exists():
            records = read_hashes(folder)
            found = read_json(folder / "metrics.json", records)
            if "failure" not in found:
                values += [(*cell, metric, value) for metric, value in found.items()]
                audit = read_verified(folder / "pro_definitions.csv", records).decode()
                _, *lines = csv.reader(audit.splitlines())
                audited += [(*cell, *line) for line in lines]
    values = pd.DataFrame(values, columns=[*grid.AXES, "metric", "value"])
    forget_hashes(results / "metrics.sha256")
    write_csv(results / "metrics.csv", values)
    audited = pd.DataFrame(audited, columns=[*grid.AXES, *COLUMNS])
    write_csv(results / "pro_definitions.csv", audited)
    record_hashes(results / "metrics.sha256", "metrics.csv", "pro_definitions.csv")


def export_maps(
    *,
    cell: CellFolder,
    output: Annotated[Path, "folder for anomaly_maps.npy and CATEGORY/test/DEFECT/*.tiff"],
) -> None:
    """Write an evaluated cell's anomaly maps: as one array, and as TIFF files at the images' own
    size in the folder structure that MVTec's evaluation code reads."""
    from PIL import Image

    from stpm_bench.audit import resized
    from stpm_bench.files import atomic_write

    _, maps = results.anomaly_maps_of(cell)
    table = read_image_table(cell / "image_scores.csv")
    category = cell.name.removeprefix("category-").rpartition("_layers-")[0]
    test = results.prepared_folder(cell.parents[1], category, "test")
    original_masks = list(load_arrays(test / results.ORIGINAL_MASKS).values())
    write_array(output / "anomaly_maps.npy", maps)
    for index, file in enumerate(table["file"]):
        shape = original_masks[index].shape if original_masks else maps.shape[1:]
        (image,) = resized(maps[index : index + 1], shape)
        with atomic_write((output / category / file).with_suffix(".tiff")) as temporary:
            Image.fromarray(image).save(temporary)
