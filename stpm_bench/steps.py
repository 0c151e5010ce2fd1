"""The steps: one plain function for each rule, files in, files out.

`python -m stpm_bench STEP --help` makes its options of a step's parameters; what computes is
imported inside the step, so that `--help` and the light steps do not wait for torch.
"""

import importlib
import json
import sys
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
ProtocolText = Annotated[
    str, "paper, authors, anomalib, or as JSON the fields that differ from one that it is 'like'"
]
# The arrays of masks in the folder of the prepared test images, by treatment.
MASKS = {"nearest": "masks.npy", "bilinear_any": "masks_bilinear_any.npy"}


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
    output: Annotated[Path, "folder for images.npy, images.csv and, of test, the masks"],
) -> None:
    """Decode and resize one split of a category into arrays and a manifest."""
    from stpm_bench.datasets import mvtec

    images, masks, manifest = mvtec.prepare(root, category, split, image_size, threads or None)
    write_array(output / "images.npy", images)
    for name, array in (masks or {}).items():
        write_array(output / MASKS[name], array)
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
    from stpm_bench.device import choose_device, choose_precision, set_up
    from stpm_bench.levels import PUBLISHED

    start = time.perf_counter()
    set_up(threads)
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
    protocol: ProtocolText = "paper",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: CellFolder,
) -> None:
    """Train one student; write student.pt, history.csv, split.csv and provenance.json.

    A training that fails is a result: the files say what was seen, later steps pass it on.
    """
    from stpm_bench import backbone, config, protocols, provenance
    from stpm_bench.device import choose_device, choose_precision, set_up
    from stpm_bench.seeds import stream
    from stpm_bench.split import split
    from stpm_bench.student import train as train_student
    from stpm_bench.student import untrained

    start = time.perf_counter()
    set_up(threads)
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    levels = grid.parse_layers(layers)
    reading = config.protocol(protocol)
    images = load_array(train / "images.npy")
    files = list(read_names(train / "images.csv")["file"])
    chosen = split(files, fraction, reading.validation_fraction, seed)
    whole = split(files, 1.0, reading.validation_fraction, seed)
    rows = {role: [files.index(f) for f in group["file"]] for role, group in chosen.groupby("role")}
    name, teacher_network = load_network(teacher, levels)
    # One stream for each purpose: cells that differ in one axis share the draws of the others.
    network = backbone.create(name, levels, stream(seed, "student"))
    unusable = degenerate(teacher, levels)
    trained = (
        untrained(unusable)
        if unusable
        else train_student(
            teacher_network.to(where),
            network,
            images,
            rows["training"],
            rows["validation"],
            reading,
            levels=levels,
            seed=seed,
            device=where,
            precision=dtype,
            whole=(whole["role"] == "training").sum(),
            title=output.name,
        )
    )
    history = trained.history
    if trained.failure:
        print(f"warning: {output.name}: training failed: {trained.failure}", file=sys.stderr)
    weights = {"weights": trained.weights, "last_epoch_weights": trained.last_epoch_weights}
    save_network(output / "student.pt", {"backbone": name, "layers": layers} | weights)
    write_csv(output / "history.csv", history)
    write_csv(output / "split.csv", chosen)
    training_seconds = history.loc[history["epoch"] > 0, "seconds"].sum()
    epochs = int(history["epoch"].max())
    rate = epochs * len(rows["training"]) / training_seconds if epochs else None
    kept = history.loc[history["kept"], "epoch"].tolist()  # none where it failed
    record = {
        "failure": trained.failure,
        "config": {
            "layers": layers,
            "fraction": fraction,
            "seed": seed,
            **protocols.training_part(reading),
            "precision": str(dtype).removeprefix("torch."),
            "image_size": images.shape[1],
        },
        "backbone": name,
        "images": {role: len(indices) for role, indices in rows.items()},
        "epochs": epochs,
        "kept_epoch": kept[0] if kept else None,
        "teacher_sha256": sha256(teacher),
        "manifest_sha256": sha256(train / "images.csv"),
        "student_sha256": sha256(output / "student.pt"),
        "seconds": round(time.perf_counter() - start, 2),
        "training_seconds": round(training_seconds, 2),
        "training_images_per_second": rate and round(rate, 1),
        "peak_memory": provenance.peak_memory(where),
    }
    write_json(output / "provenance.json", record | provenance.environment(where))


def anomaly_maps(
    *,
    test: TestFolder,
    teacher: TeacherFile,
    cell: CellFolder,
    protocol: ProtocolText = "paper",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score the test images: anomaly_maps.npy, level_maps.npz and image_scores.csv.

    last_epoch_maps.npy holds the maps of the student as the last epoch left it.
    """
    from stpm_bench import config
    from stpm_bench.anomaly_map import score
    from stpm_bench.device import choose_device, set_up

    if failure_of(cell):
        for name in ("anomaly_maps.npy", "last_epoch_maps.npy"):
            write_array(cell / name, np.zeros((0, 0, 0), np.float32))
        write_arrays(cell / "level_maps.npz", {})
        write_csv(cell / "image_scores.csv", pd.DataFrame(columns=["file", "defect", "score"]))
        return
    set_up(threads)
    where = choose_device(device)
    reading = config.protocol(protocol)
    levels = grid.parse_layers(load_checked(cell / "student.pt")["layers"])
    _, teacher_network = load_network(teacher, levels)
    images = load_array(test / "images.npy")

    def maps_of(weights: str) -> tuple:
        _, student_network = load_network(cell / "student.pt", levels, weights)
        return score(teacher_network.to(where), student_network.to(where), images, where, reading)

    maps, level_maps, scores = maps_of("weights")
    last_epoch_maps, _, _ = maps_of("last_epoch_weights")
    write_array(cell / "anomaly_maps.npy", maps)
    write_array(cell / "last_epoch_maps.npy", last_epoch_maps)
    write_arrays(cell / "level_maps.npz", dict(zip(map(str, levels), level_maps, strict=True)))
    table = read_names(test / "images.csv")[["file", "defect"]].assign(score=scores)
    write_csv(cell / "image_scores.csv", table)


def metrics(
    *,
    masks: Annotated[Path, "the masks that 'prepare --split test' wrote, by the one treatment"],
    cell: CellFolder,
) -> None:
    """Compute every metric of a cell from its stored maps: metrics.json and pro_curve.csv.

    Those of the last epoch's maps stand beside those of the kept epoch, as last_epoch_METRIC.
    """
    from stpm_bench.metrics import evaluate

    if failure := failure_of(cell):
        write_csv(cell / "pro_curve.csv", pd.DataFrame(columns=["fpr", "overlap"]))
        write_json(cell / "metrics.json", {"failure": failure})
        return
    labels = (read_names(cell / "image_scores.csv")["defect"] != "good").to_numpy()
    truth = load_array(masks)

    def values_of(name: str) -> dict:
        maps = load_array(cell / name)
        try:
            return evaluate(labels, maps.max(axis=(1, 2)), truth, maps)
        except ValueError as error:
            raise cannot_evaluate(cell, masks, error) from error

    values, last = values_of("anomaly_maps.npy"), values_of("last_epoch_maps.npy")
    curve = {"fpr": values.pop("pro_curve_fpr"), "overlap": values.pop("pro_curve_overlap")}
    write_csv(cell / "pro_curve.csv", pd.DataFrame(curve))
    values |= {f"last_epoch_{key}": last[key] for key in values}
    write_json(cell / "metrics.json", values)


def audit(
    *,
    root: Annotated[Path, "folder with one folder a category: masks at their own size"],
    category: Annotated[str, "the category's folder"],
    test: TestFolder,
    cell: CellFolder,
) -> None:
    """Evaluate a cell's stored maps by every definition of PRO: pro_definitions.csv."""
    from stpm_bench.audit import COLUMNS, audit
    from stpm_bench.datasets import mvtec

    if failure_of(cell):
        write_csv(cell / "pro_definitions.csv", pd.DataFrame(columns=COLUMNS))
        return
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
    name: Annotated[Literal["inference", "metrics", "pretraining", "training"], "what to time"],
    *,
    runs: Annotated[int, "how often each is timed; medians are shown"] = 5,
) -> None:
    """Time a part of the project beside what others use, and print one table."""
    from stpm_bench import provenance

    # Each module has run(runs) -> table, and note() -> what the table rests on.
    module = importlib.import_module(f"stpm_bench.benchmarks.{name}")
    table = module.run(runs=runs)
    shown = table.astype(object).where(table.notna(), None)  # a gap is an empty place
    print(shown.to_markdown(index=False, floatfmt=".3g"))
    print(f"\n{provenance.processor()}; medians of {runs} runs; {module.note()}")


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
            if "failure" not in values:
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


def training_figure(
    *,
    study: Annotated[str, "name of the study"],
    studies: Annotated[Path, "the studies.csv that 'plan' wrote"],
    cells: Annotated[Path, "folder of the cells' folders"],
    output: Annotated[Path, "folder for STUDY.pdf and STUDY.png"],
) -> None:
    """Draw the losses of a study's trainings by epoch, with the epoch that was kept."""
    from stpm_bench import figures

    histories = pd.concat(
        pd.read_csv(cells / cell.folder / "history.csv").assign(**cell._asdict())
        for cell in grid.cells(cells_of_study(studies, study))
    )
    figure = figures.training(histories, study)
    figures.save(figure, output / f"{study}.pdf", output / f"{study}.png")


def panel(
    *,
    test: TestFolder,
    cell: CellFolder,
    output: Annotated[Path, "the figure without its suffix; .pdf and .png are written"],
) -> None:
    """Draw image, ground truth, each level's map and the fused map, as the paper's Figure 1."""
    from stpm_bench import figures

    paths = [output.with_name(output.name + suffix) for suffix in (".pdf", ".png")]
    if failure := failure_of(cell):
        figures.save(figures.gap(cell.name, f"training failed: {failure}"), *paths)
        return
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
    figures.save(figure, *paths)


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
    training_figure,
    panel,
    benchmark,
)


def failure_of(cell: Path) -> str | None:
    """Return why a cell's training failed, None where it did not."""
    return json.loads((cell / "provenance.json").read_text()).get("failure")


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


def degenerate(teacher: Path, levels: Sequence[int]) -> str | None:
    """Return why a student of this teacher cannot be trained: a level that tells nothing apart."""
    reasons = load_checked(teacher).get("degenerate", {})
    for level in levels:
        if level in reasons:
            return (
                f"level {level} of the teacher {teacher.stem} tells nothing apart: "
                f"{reasons[level]}; a student would match it perfectly and find no defect"
            )
    return None


def cannot_evaluate(cell: Path, masks: Path, error: ValueError) -> InputError:
    """Return the error for maps and masks on which a metric is not defined."""
    return InputError(
        f"{cell}: its maps cannot be evaluated with the masks of {masks}: {error}. If the defects "
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


def load_network(path: Path, levels: list[int], weights: str = "weights"):
    """Return the backbone's name and the network of a teacher or student file, cut at `levels`."""
    from stpm_bench import backbone

    content = load_checked(path)
    network = backbone.create(content["backbone"], levels, seed=0)
    backbone.load(network, content[weights], str(path))
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
