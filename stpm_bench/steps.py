"""The steps: one plain function for each rule, files in, files out.

`python -m stpm_bench STEP --help` makes its options of a step's parameters; what computes is
imported inside the step, so that `--help` and the light steps do not wait for torch.
"""

import json
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd

from stpm_bench import grid
from stpm_bench.errors import InputError
from stpm_bench.files import sha256, whole, write_array, write_arrays, write_csv, write_json

Device = Annotated[Literal["auto", "cpu", "cuda"], "auto: a GPU where there is one"]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"], "auto: bfloat16 where the hardware has it natively"
]
Threads = Annotated[int, "processor threads; 0: as many as there are cores"]
CellFolder = Annotated[Path, "the cell's folder"]
TestFolder = Annotated[Path, "prepared test images: the folder that 'prepare --split test' wrote"]
TeacherFile = Annotated[Path, "the file that 'teacher' wrote"]


def plan(
    *,
    config: Annotated[str, "config file, or the config itself as JSON"],
    output: Annotated[Path, "folder for config.yaml (completed) and studies.csv (the cells)"],
) -> None:
    """Check and complete a config; write it and the cells of every study."""
    import yaml

    from stpm_bench.config import complete, read

    completed = complete(json.loads(config)) if config.startswith("{") else read(config)
    with whole(output / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(completed, sort_keys=False))
    write_csv(output / "studies.csv", grid.studies(completed))


def demo_data(
    *,
    output: Annotated[Path, "folder of the set, in MVTec AD's layout"],
    marker: Annotated[Path, "file written last: the set is whole"],
    seed: Annotated[int, "of crops and defects"] = 0,
) -> None:
    """Make the embedded demo set from photographs that scikit-image ships."""
    from stpm_bench.datasets import demo

    demo.write(output, seed=seed)
    write_json(marker, {"seed": seed, "categories": list(demo.CATEGORIES)})


def download(*, output: Annotated[Path, "folder of the set; download.json appears last"]) -> None:
    """Download and check MVTec AD, unless it is there already."""
    from stpm_bench.datasets import download

    download.download("mvtec_ad", output)


def prepare(
    *,
    root: Annotated[Path, "folder with one folder a category"],
    category: Annotated[str, "the category's folder"],
    split: Annotated[Literal["train", "test"], "which images; training never reads test files"],
    image_size: Annotated[int, "side in pixels after resizing"] = 256,
    threads: Threads = 0,
    output: Annotated[Path, "folder for images.npy, images.csv and, of test, masks.npy"],
) -> None:
    """Decode and resize one split of a category into arrays and a manifest."""
    from stpm_bench.datasets import mvtec

    images, masks, manifest = mvtec.prepare(root, category, split, image_size, threads or None)
    write_array(output / "images.npy", images)
    if masks is not None:
        write_array(output / "masks.npy", masks)
    write_csv(output / "images.csv", manifest)


def pretraining_set(
    *,
    source: Annotated[str, "digits, photos, mnist, cifar10, cifar100, svhn or imagefolder"],
    folder: Annotated[Path, "where downloads go, or are found; of imagefolder its folder"] = Path(
        "data"
    ),
    size: Annotated[int, "side in pixels to which the images of a folder are resized"] = 32,
    output: Annotated[Path, "the .npz to write"],
) -> None:
    """Get a pretraining set and write it as arrays."""
    from stpm_bench.datasets import pretraining

    if source == "imagefolder":
        data = pretraining.load_folder(folder, size)
    else:
        data = pretraining.load(source, folder)
    write_arrays(output, data._asdict())


def teacher(
    *,
    backbone: Annotated[str, "resnet18, resnet34, resnet50, wide_resnet50_2 or mobilenet_v2"],
    weights: Annotated[str, "a file of weights, or torchvision's name, as IMAGENET1K_V1"] = "",
    sha256: Annotated[str, "of the file of weights; '' does not check"] = "",
    folder: Annotated[Path, "where torchvision's weights are downloaded to"] = Path("data"),
    pretrain: Annotated[str, "name of the pretraining set"] = "",
    data: Annotated[Path | None, "the .npz that 'pretraining-set' wrote"] = None,
    epochs: Annotated[int, "of pretraining"] = 10,
    batch_size: Annotated[int, "of pretraining"] = 128,
    learning_rate: Annotated[float, "highest, of pretraining"] = 0.1,
    input_size: Annotated[int, "side in pixels to which pretraining resizes"] = 32,
    flip: Annotated[
        Literal["auto", "always", "never"], "mirror at random; auto: not digits, mnist, svhn"
    ] = "auto",
    seed: Annotated[int, "of an untrained or pretrained teacher"] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: Annotated[Path, "the .pt to write; a .json that describes it lies beside it"],
) -> None:
    """Make a teacher: from weights, pretrained on a set, or untrained where neither is given."""

    from stpm_bench import files, provenance, teacher
    from stpm_bench.datasets.pretraining import photographs
    from stpm_bench.device import (
        choose_device,
        choose_precision,
        keep_freed_memory,
        set_deterministic,
    )
    from stpm_bench.levels import PUBLISHED

    start = time.perf_counter()
    set_deterministic(threads)
    keep_freed_memory()
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    report = {"backbone": backbone, "seed": seed}
    unfinished = output.with_suffix(".unfinished")
    if pretrain:
        state, trained = teacher.pretrain(
            backbone,
            pretrain,
            load_arrays(data),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            input_size=input_size,
            flip=pretrain not in teacher.WITHOUT_FLIPS if flip == "auto" else flip == "always",
            seed=seed,
            device=where,
            precision=dtype,
            unfinished=unfinished,
        )
        report |= {"source": pretrain, "data_sha256": files.sha256(data)}
        report |= {"precision": str(dtype).removeprefix("torch."), **trained}
    elif weights in PUBLISHED[backbone]:
        state = teacher.from_torchvision(backbone, weights, folder)
        report |= {"source": f"torchvision {weights}"}
    elif weights:
        state = teacher.from_file(backbone, weights, sha256)
        report |= {"source": weights, "weights_sha256": files.sha256(weights)}
    else:
        state = teacher.untrained(backbone, seed)
        report |= {"source": "untrained"}
    levels = teacher.level_report(backbone, state, photographs())
    degenerate = {row["level"]: row["degenerate"] for row in levels if row["degenerate"]}
    for level, reason in degenerate.items():
        print(f"WARNING: {output.stem}: level {level} tells nothing apart: {reason}")
    save_network(output, {"backbone": backbone, "weights": state, "degenerate": degenerate})
    report |= {"levels": levels, "sha256": files.sha256(output)}
    report |= {"seconds": round(time.perf_counter() - start, 2)}
    write_json(output.with_suffix(".json"), report | provenance.environment(where))
    unfinished.unlink(missing_ok=True)


def student(
    *,
    train: Annotated[Path, "prepared training images: the folder of 'prepare --split train'"],
    teacher: TeacherFile,
    layers: Annotated[str, "levels, as in 1+2+3"],
    fraction: Annotated[float, "share of the training images to use"] = 1.0,
    seed: Annotated[int, "of initialisation, split and order"] = 0,
    protocol: Annotated[Literal["paper"], "whose reading of the method"] = "paper",
    epochs: Annotated[int, "passes over the training images"] = 100,
    batch_size: Annotated[int, "images a step"] = 32,
    learning_rate: Annotated[float, "of SGD, constant"] = 0.4,
    momentum: Annotated[float, "of SGD"] = 0.9,
    weight_decay: Annotated[float, "of SGD"] = 1e-4,
    validation_fraction: Annotated[float, "share of the images used that validates"] = 0.2,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: CellFolder,
) -> None:
    """Train one student; write student.pt, history.csv, split.csv and provenance.json."""

    from stpm_bench import backbone, provenance
    from stpm_bench.device import (
        choose_device,
        choose_precision,
        keep_freed_memory,
        set_deterministic,
    )
    from stpm_bench.seeds import stream
    from stpm_bench.split import split
    from stpm_bench.student import train as train_student

    start = time.perf_counter()
    set_deterministic(threads)
    keep_freed_memory()
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    levels = grid.parse_layers(layers)
    images = load_array(train / "images.npy")
    files = list(read_names(train / "images.csv")["file"])
    chosen = split(files, fraction, validation_fraction, seed)
    rows = {role: [files.index(f) for f in group["file"]] for role, group in chosen.groupby("role")}
    name, teacher_network = load_network(teacher, levels)
    refuse_degenerate(teacher, levels)
    # One stream for each purpose: cells that differ in one axis share the draws of the others.
    network = backbone.create(name, levels, stream(seed, "student"))
    weights, history = train_student(
        teacher_network.to(where),
        network,
        images,
        rows["training"],
        rows["validation"],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
        device=where,
        precision=dtype,
        title=output.name,
    )
    save_network(output / "student.pt", {"backbone": name, "layers": layers, "weights": weights})
    write_csv(output / "history.csv", history)
    write_csv(output / "split.csv", chosen)
    training_seconds = history["seconds"].sum()
    record = {
        "config": {
            "layers": layers,
            "fraction": fraction,
            "seed": seed,
            "protocol": protocol,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "validation_fraction": validation_fraction,
            "precision": str(dtype).removeprefix("torch."),
            "image_size": images.shape[1],
        },
        "backbone": name,
        "images": {role: len(indices) for role, indices in rows.items()},
        "kept_epoch": int(history.loc[history["kept"], "epoch"].iloc[0]),
        "teacher_sha256": sha256(teacher),
        "manifest_sha256": sha256(train / "images.csv"),
        "student_sha256": sha256(output / "student.pt"),
        "seconds": round(time.perf_counter() - start, 2),
        "training_seconds": round(training_seconds, 2),
        "training_images_per_second": round(epochs * len(rows["training"]) / training_seconds, 1),
        "peak_memory": provenance.peak_memory(where),
    }
    write_json(output / "provenance.json", record | provenance.environment(where))


def anomaly_maps(
    *,
    test: TestFolder,
    teacher: TeacherFile,
    cell: CellFolder,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score the test images: anomaly_maps.npy, level_maps.npz and image_scores.csv."""
    from stpm_bench.anomaly_map import score
    from stpm_bench.device import choose_device, keep_freed_memory, set_deterministic

    set_deterministic(threads)
    keep_freed_memory()
    where = choose_device(device)
    levels = grid.parse_layers(load_checked(cell / "student.pt")["layers"])
    _, student_network = load_network(cell / "student.pt", levels)
    _, teacher_network = load_network(teacher, levels)
    images = load_array(test / "images.npy")
    maps, level_maps, scores = score(
        teacher_network.to(where), student_network.to(where), images, where
    )
    write_array(cell / "anomaly_maps.npy", maps)
    write_arrays(cell / "level_maps.npz", dict(zip(map(str, levels), level_maps, strict=True)))
    table = read_names(test / "images.csv")[["file", "defect"]].assign(score=scores)
    write_csv(cell / "image_scores.csv", table)


def metrics(*, test: TestFolder, cell: CellFolder) -> None:
    """Compute every metric of a cell from its stored maps: metrics.json and pro_curve.csv."""
    from stpm_bench.metrics import evaluate

    scores = read_names(cell / "image_scores.csv")
    labels = (scores["defect"] != "good").to_numpy()
    # float32, as the maps are: pandas reads the same digits as float64
    values = scores["score"].to_numpy(np.float32)
    masks, maps = load_array(test / "masks.npy"), load_array(cell / "anomaly_maps.npy")
    try:
        values = evaluate(labels, values, masks, maps)
    except ValueError as error:
        raise cannot_evaluate(cell, test, error) from error
    curve = pd.DataFrame(
        {"fpr": values.pop("pro_curve_fpr"), "overlap": values.pop("pro_curve_overlap")}
    )
    write_csv(cell / "pro_curve.csv", curve)
    write_json(cell / "metrics.json", values)


def audit(
    *,
    root: Annotated[Path, "folder with one folder a category: masks at their own size"],
    category: Annotated[str, "the category's folder"],
    test: TestFolder,
    cell: CellFolder,
) -> None:
    """Evaluate a cell's stored maps by every definition of PRO: pro_definitions.csv."""
    from stpm_bench.audit import audit
    from stpm_bench.datasets import mvtec

    masks, maps = load_array(test / "masks.npy"), load_array(cell / "anomaly_maps.npy")
    own_masks = mvtec.read_masks(root, category)
    try:
        table = audit(masks, own_masks, maps)
    except ValueError as error:
        raise cannot_evaluate(cell, test, error) from error
    write_csv(cell / "pro_definitions.csv", table)


def audit_table(
    *,
    study: Annotated[str, "name of the study whose cells the table averages"],
    studies: Annotated[Path, "the studies.csv that 'plan' wrote"],
    cells: Annotated[Path, "folder of the cells' folders"],
    long: Annotated[Path, "the long table of all cells to write"],
    tables: Annotated[Path, "folder for pro_definitions.csv and .md"],
    figures: Annotated[Path, "folder for pro_definitions.pdf and .png"],
) -> None:
    """Set the definitions of PRO side by side, by category: long table, table and figure."""
    from stpm_bench import audit
    from stpm_bench import figures as drawing

    audited = pd.concat(
        pd.read_csv(cells / cell.folder / "pro_definitions.csv").assign(**cell._asdict())
        for cell in grid.cells(grid.read(studies))
    )[[*grid.AXES, *audit.COLUMNS]]
    table = audit.summary(audited, cells_of_study(studies, study))
    write_csv(long, audited)
    write_csv(tables / "pro_definitions.csv", table)
    with whole(tables / "pro_definitions.md") as temporary:
        temporary.write_text(audit.markdown(table))
    figure = drawing.definitions(table)
    drawing.save(figure, figures / "pro_definitions.pdf", figures / "pro_definitions.png")


def benchmark(
    name: Annotated[Literal["metrics", "pretraining"], "what to time"],
    *,
    runs: Annotated[int, "how often each is timed; medians are shown"] = 5,
) -> None:
    """Time a part of the project beside what others use, and print one table."""
    import importlib

    from stpm_bench import provenance

    timed = importlib.import_module(f"stpm_bench.benchmarks.{name}")
    print(timed.run(runs=runs).to_markdown(index=False, floatfmt=".3g"))
    print(f"\n{provenance.processor()}; medians of {runs} runs; one process")


def collect(
    *,
    studies: Annotated[Path, "the studies.csv that 'plan' wrote"],
    results: Annotated[Path, "folder of the results; the cells' folders lie in its cells/"],
    output: Annotated[Path, "the long table to write"],
) -> None:
    """Collect metrics.json of every cell of the studies into one long table; a gap is a gap."""
    rows = []
    for cell in grid.cells(grid.read(studies)):
        path = results / "cells" / cell.folder / "metrics.json"
        if path.exists():
            values = json.loads(path.read_text())
            rows += [(*cell, metric, value) for metric, value in values.items()]
    table = pd.DataFrame(rows, columns=[*grid.AXES, "metric", "value"])
    write_csv(output, table)


def study_table(
    *,
    study: Annotated[str, "name of the study"],
    studies: Annotated[Path, "the studies.csv that 'plan' wrote"],
    metrics: Annotated[Path, "the long table that 'collect' wrote"],
    output: Annotated[Path, "folder for STUDY.csv and STUDY.md"],
) -> None:
    """Summarise a study over its seeds; the main study beside the paper's values."""
    from stpm_bench import published, tables

    cells = cells_of_study(studies, study)
    long = grid.read(metrics)
    # The paper's entries are for its own setting: they stand beside the main study alone.
    paper = published.paper(published.read()) if study == "main" else {}
    table = tables.study_table(long, cells, paper)
    done = cells.merge(long[list(grid.AXES)].drop_duplicates())
    write_csv(output / f"{study}.csv", table)
    with whole(output / f"{study}.md") as temporary:
        text = tables.markdown(table, f"Study: {study}", len(cells), len(cells) - len(done))
        temporary.write_text(text)


def study_figure(
    *,
    study: Annotated[str, "name of the study"],
    table: Annotated[Path, "the STUDY.csv that 'study-table' wrote"],
    output: Annotated[Path, "folder for STUDY.pdf and STUDY.png"],
) -> None:
    """Draw a study's metrics by setting."""
    from stpm_bench import figures

    figure = figures.study(grid.read(table), study)
    figures.save(figure, output / f"{study}.pdf", output / f"{study}.png")


def panel(
    *,
    test: TestFolder,
    cell: CellFolder,
    output: Annotated[Path, "the figure without its suffix; .pdf and .png are written"],
) -> None:
    """Draw image, ground truth, each level's map and the fused map, as the paper's Figure 1."""
    from stpm_bench import figures

    scores = read_names(cell / "image_scores.csv")
    level_maps = load_arrays(cell / "level_maps.npz")
    figure = figures.panel(
        load_array(test / "images.npy"),
        load_array(test / "masks.npy"),
        level_maps,
        load_array(cell / "anomaly_maps.npy"),
        list(scores["defect"]),
        scores["score"].to_numpy(),
        title=cell.name,
    )
    figures.save(figure, *(output.with_name(output.name + suffix) for suffix in (".pdf", ".png")))


STEPS = (
    plan,
    demo_data,
    download,
    prepare,
    pretraining_set,
    teacher,
    student,
    anomaly_maps,
    metrics,
    audit,
    audit_table,
    collect,
    study_table,
    study_figure,
    panel,
    benchmark,
)


def load_array(path: Path) -> np.ndarray:
    """Read a .npy file that a step wrote."""
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise unreadable(path, error) from error


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file that a step wrote."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: object) -> InputError:
    """Return the error for a file of the results that is damaged."""
    return InputError(
        f"{path}: cannot be read ({error}); delete it and run again, and it is made anew"
    )


def refuse_degenerate(teacher: Path, levels: Sequence[int]) -> None:
    """Raise where a teacher's file says that one of the levels tells nothing apart."""
    degenerate = load_checked(teacher).get("degenerate", {})
    for level in levels:
        if level in degenerate:
            raise InputError(
                f"{teacher}: level {level} of this teacher tells nothing apart: "
                f"{degenerate[level]}. A student would match it perfectly and find no defect; "
                "use another teacher, train it longer, or leave the level out of 'layers'"
            )


def cannot_evaluate(cell: Path, test: Path, error: ValueError) -> InputError:
    """Return the error for maps and masks on which a metric is not defined."""
    return InputError(
        f"{cell}: its maps cannot be evaluated with the masks of {test}: {error}. If the defects "
        "are too small to show in their masks, raise the config key 'image_size'"
    )


def save_network(path: Path, content: dict) -> None:
    """Write what `load_checked` reads; the same content, the same bytes."""
    import torch

    # Through a file object: of a path torch puts the name, here a temporary one, into the file.
    with whole(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def read_names(path: Path) -> pd.DataFrame:
    """Read a CSV of files and defects; a defect called 'NA' is a name, not a gap."""
    return pd.read_csv(path, keep_default_na=False)


def load_checked(path: Path) -> dict:
    """Load a file that 'teacher' or 'student' wrote."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for the many ways to be damaged
        raise unreadable(path, str(error).splitlines()[0]) from error
    if not (isinstance(content, dict) and {"backbone", "weights"} <= set(content)):
        raise InputError(f"{path}: is not a file that the steps 'teacher' or 'student' wrote")
    return content


def load_network(path: Path, levels: list[int]):
    """Return the backbone's name and the network of a teacher or student file, cut at `levels`."""
    from stpm_bench import backbone

    content = load_checked(path)
    network = backbone.create(content["backbone"], levels, seed=0)
    backbone.load(network, content["weights"], str(path))
    return content["backbone"], network


def cells_of_study(studies: Path, study: str) -> pd.DataFrame:
    """Return a study's rows of studies.csv, columns `grid.AXES`."""
    table = grid.read(studies)
    rows = table.loc[table["study"] == study, list(grid.AXES)]
    if rows.empty:
        raise InputError(
            f"{studies}: no study {study!r}; there: {', '.join(table['study'].unique())}"
        )
    return rows
