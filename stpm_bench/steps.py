"""The steps: one plain function for each rule, files in, files out.

`python -m stpm_bench STEP --help` makes its options of a step's parameters; what computes is
imported inside the step, so that `--help` and the light steps do not wait for torch.
"""

import csv
import functools
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
from stpm_bench.code_version import code_version
from stpm_bench.errors import InputError
from stpm_bench.files import (
    checked,
    read_checked,
    read_json,
    recorded,
    seal,
    sha256,
    unreadable,
    unseal,
    whole,
    write_array,
    write_arrays,
    write_csv,
    write_json,
    write_tensors,
)

Device = Annotated[Literal["auto", "cpu", "cuda"], "auto: a GPU where there is one"]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"], "auto: bfloat16 where the hardware has it natively"
]
Layout = Annotated[
    Literal["mvtec", "visa", "btad", "mpdd", "cifar10_oneclass", "shanghaitech"],
    "how the set's folder is laid out",
]
Every = Annotated[int, "of each folder's images, of each video's frames, take every so many"]
Threads = Annotated[int, "processor threads; 0: as many as there are cores"]
MaskColour = Annotated[str, "R,G,B of a defect in the masks, as 255,0,0; '': what is not black"]
Intensity = Annotated[
    str, "of more than 8 bits, what becomes 0 and 255, as 0,4095; '': the training images' range"
]
MaxMegapixels = Annotated[float, "an image of more million pixels is refused"]
CellFolder = Annotated[Path, "the cell's folder"]
TestFolder = Annotated[Path, "prepared test images: the folder that 'prepare --split test' wrote"]
TeacherFile = Annotated[Path, "the file that 'teacher' wrote"]
ProtocolText = Annotated[
    str, "paper, authors, anomalib, or as JSON the fields that differ from one that it is 'like'"
]
# The arrays of masks in the folder of the prepared test images, by treatment.
MASKS = {"nearest": "masks.npy", "bilinear_any": "masks_bilinear_any.npy"}
OWN_MASKS = "masks_own.npz"  # at their images' own size, one array an image
Results = Annotated[Path, "folder of the results"]


def plan(config: Annotated[str, "config file"]) -> None:
    """Print what a config asks for: cells by study, what is done, the hours and gigabytes left."""
    from stpm_bench import plan, typeset
    from stpm_bench.config import read

    print(typeset.markdown(plan.sections(read(config)), "plan"))


def studies(
    *,
    config: Annotated[str, "config file, or the config itself as JSON"],
    output: Annotated[Path, "folder for config.yaml (completed) and studies.csv (the cells)"],
) -> None:
    """Check and complete a config; write it and the cells of every study."""
    import yaml

    from stpm_bench.config import complete, read

    completed = complete(json.loads(config)) if config.startswith("{") else read(config)
    unseal(output / "studies.sha256")
    with whole(output / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(completed, sort_keys=False))
    write_csv(output / "studies.csv", grid.studies(completed))
    seal(output / "studies.sha256", "config.yaml", "studies.csv")


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


def download(
    *,
    archive: Annotated[Path | None, "a copy of the published archive instead of a download"] = None,
    results: Annotated[Path, "folder whose disk must have room as well"] = Path("results"),
    results_bytes: Annotated[int, "how much: the prepared images"] = 0,
    mirrors: Annotated[str, "URLs of the archive to be tried first, with spaces between"] = "",
    output: Annotated[Path, "folder of the set; download.json appears last"],
) -> None:
    """Download and check MVTec AD, unless it is there already."""
    from stpm_bench.datasets import download

    room = {results: results_bytes}
    download.download("mvtec_ad", output, archive=archive, room=room, urls=mirrors.split())


def check_data(
    path: Annotated[Path, "folder of a data set: one folder a category, or as its layout has it"],
    *,
    layout: Layout = "mvtec",
    every: Every = 1,
    every_test: Every = 1,
    image_size: Annotated[int, "side in pixels at which defects must show in their masks"] = 256,
    mask_colour: MaskColour = "",
    intensity: Intensity = "",
    max_megapixels: MaxMegapixels = 179,
    threads: Threads = 0,
) -> None:
    """Read a whole data set and print what is there and every problem; status 1 for an error."""
    from stpm_bench.datasets.check import check, in_columns

    taken = {"train": every, "test": every_test}
    reading = reading_of(mask_colour, intensity, max_megapixels)
    table, problems = check(
        path, layout, threads or None, sys.stderr.isatty(), taken, image_size, reading
    )
    if len(table):
        print(in_columns(table))
        images, masks = table["images"].sum(), table["masks"].sum()
        print(f"\n{images} images and {masks} masks in {table['category'].nunique()} categories")
    for problem in problems:
        print(f"{problem.severity}: {problem.text}")
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise InputError(f"{path}: {errors} errors (see above); mend them before you train on it")


def prepare(
    *,
    root: Annotated[Path, "folder with one folder a category"],
    category: Annotated[str, "the category's folder"],
    layout: Layout = "mvtec",
    every: Every = 1,
    split: Annotated[Literal["train", "test"], "which images; training never reads test files"],
    image_size: Annotated[int, "side in pixels after resizing"] = 256,
    mask_colour: MaskColour = "",
    intensity: Intensity = "",
    max_megapixels: MaxMegapixels = 179,
    train: Annotated[Path | None, "for test: prepared training images, to share none"] = None,
    threads: Threads = 0,
    output: Annotated[Path, "folder for images.npy, images.csv and, of test, the masks"],
) -> None:
    """Decode and resize one split of a category into arrays and a manifest."""
    from stpm_bench.datasets import images

    pixels, masks, manifest = images.prepare(
        root,
        category,
        split,
        image_size,
        threads or None,
        layout=layout,
        every=every,
        reading=reading_of(mask_colour, intensity, max_megapixels),
    )
    if train is not None:
        images.refuse_leak(read_names(train / "images.csv"), manifest, root, category, layout)
    unseal(output / "images.sha256")
    write_array(output / "images.npy", pixels)
    names = ["images.npy", "images.csv"]
    if masks is not None:
        for name, file in MASKS.items():
            write_array(output / file, masks[name])
        own = {str(index): mask for index, mask in enumerate(masks["own"])}
        write_arrays(output / OWN_MASKS, own, compress=True)
        names += [*MASKS.values(), OWN_MASKS]
    write_csv(output / "images.csv", manifest)
    seal(output / "images.sha256", *names)


def reading_of(mask_colour: str, intensity: str, max_megapixels: float):
    """Return how a set's files are read, from the options of a step; '' leaves it to the files."""
    from stpm_bench.datasets.rows import Reading

    def numbers(option: str, text: str, kind: type, count: int) -> tuple | None:
        try:
            found = tuple(kind(part) for part in text.split(",")) if text else None
        except ValueError:
            found = ()
        if found is not None and len(found) != count:
            raise InputError(f"{option} is {text!r}; expected {count} numbers, joined by commas")
        return found

    colour = numbers("--mask-colour", mask_colour, int, 3)
    span = numbers("--intensity", intensity, float, 2)
    if span and not span[0] < span[1]:
        raise InputError(f"--intensity is {intensity!r}; expected the lower value first")
    return Reading(colour, span, max_megapixels)


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
    unseal(output.with_suffix(".sha256"))
    write_arrays(output, data._asdict())
    seal(output.with_suffix(".sha256"), output.name)


def teacher(
    *,
    backbone: Annotated[
        Literal["resnet18", "resnet34", "resnet50", "wide_resnet50_2", "mobilenet_v2"],
        "torchvision's name",
    ],
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
    start = time.perf_counter()  # its imports are part of what a step costs
    from stpm_bench import files, provenance, teacher
    from stpm_bench.datasets.pretraining import photographs
    from stpm_bench.device import choose_device, choose_precision, set_up
    from stpm_bench.levels import PUBLISHED

    set_up(threads)
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    report = {"backbone": backbone, "seed": seed}
    unfinished = output.with_suffix(".unfinished")
    if pretrain:
        if data is None:
            raise InputError(
                "--pretrain needs --data: expected the .npz that the step 'pretraining-set' wrote"
            )
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
        text = f"warning: {output.stem}: level {level} tells nothing apart: {reason}"
        print(text, file=sys.stderr)
    unseal(output.with_suffix(".sha256"))
    write_tensors(output, {"backbone": backbone, "weights": state, "degenerate": degenerate})
    report |= {"levels": levels, "sha256": files.sha256(output)}
    report |= {"seconds": round(time.perf_counter() - start, 2)}
    report |= {"peak_memory": provenance.peak_memory(where)}
    write_json(output.with_suffix(".json"), report | provenance.environment(where))
    seal(output.with_suffix(".sha256"), output.name, output.with_suffix(".json").name)
    for path in (unfinished, teacher.record_of(unfinished)):
        path.unlink(missing_ok=True)


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
    start = time.perf_counter()  # its imports are part of what a step costs
    from stpm_bench import backbone, config, protocols, provenance
    from stpm_bench.device import choose_device, choose_precision, set_up
    from stpm_bench.seeds import stream
    from stpm_bench.split import split
    from stpm_bench.student import not_begun, within_memory
    from stpm_bench.student import train as train_student

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
    training = functools.partial(
        train_student,
        teacher_network.to(where),
        network,
        images,
        rows["training"],
        rows["validation"],
        levels=levels,
        seed=seed,
        device=where,
        precision=dtype,
        whole=(whole["role"] == "training").sum(),
        title=output.name,
    )
    trained = not_begun(unusable) if unusable else within_memory(training, reading, where)
    history = trained.history
    if trained.failure:
        print(f"warning: {output.name}: training failed: {trained.failure}", file=sys.stderr)
    unseal(output / "student.sha256")
    weights = {"weights": trained.weights, "last_epoch_weights": trained.last_epoch_weights}
    write_tensors(output / "student.pt", {"backbone": name, "layers": layers} | weights)
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
        "code": code_version("student"),
        "seconds": round(time.perf_counter() - start, 2),
        "training_seconds": round(training_seconds, 2),
        "training_images_per_second": rate and round(rate, 1),
        "peak_memory": provenance.peak_memory(where),
    }
    write_json(output / "provenance.json", record | provenance.environment(where))
    names = ("student.pt", "history.csv", "split.csv", "provenance.json")
    seal(output / "student.sha256", *names)


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
    start = time.perf_counter()  # its imports are part of what a step costs
    from stpm_bench import config, provenance
    from stpm_bench.anomaly_map import score
    from stpm_bench.device import choose_device, set_up

    names = ("anomaly_maps.npy", "level_maps.npz", "image_scores.csv", "cost_anomaly_maps.json")
    # These maps are removed when they have been evaluated, hence a record of their own.
    last_epoch = cell / "last_epoch_maps.sha256"
    unseal(cell / "anomaly_maps.sha256")
    unseal(last_epoch)
    if failure_of(cell):
        for name in ("anomaly_maps.npy", "last_epoch_maps.npy"):
            write_array(cell / name, np.zeros((0, 0, 0), np.float32))
        write_arrays(cell / "level_maps.npz", {})
        write_csv(cell / "image_scores.csv", pd.DataFrame(columns=["file", "defect", "score"]))
        write_json(cell / "cost_anomaly_maps.json", {})
        seal(cell / "anomaly_maps.sha256", *names)
        return
    set_up(threads)
    where = choose_device(device)
    reading = config.protocol(protocol)
    levels = grid.parse_layers(load_checked(cell / "student.pt")["layers"])
    _, teacher_network = load_network(teacher, levels)
    _, kept = load_network(cell / "student.pt", levels, "weights")
    _, last = load_network(cell / "student.pt", levels, "last_epoch_weights")
    for network in (teacher_network, kept, last):
        network.to(where)
    images = load_array(test / "images.npy")
    scoring = time.perf_counter()
    maps, level_maps, scores = score(teacher_network, kept, images, where, reading)
    scoring = time.perf_counter() - scoring
    last_epoch_maps, _, _ = score(teacher_network, last, images, where, reading)
    write_array(cell / "anomaly_maps.npy", maps)
    write_array(cell / "last_epoch_maps.npy", last_epoch_maps)
    write_arrays(cell / "level_maps.npz", dict(zip(map(str, levels), level_maps, strict=True)))
    table = read_names(test / "images.csv")[["file", "defect"]].assign(score=scores)
    write_csv(cell / "image_scores.csv", table)
    record = {
        "code": code_version("anomaly_maps"),
        "images": len(images),
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(len(images) / scoring, 1),
        "peak_memory": provenance.peak_memory(where),
    }
    write_json(cell / "cost_anomaly_maps.json", record | provenance.environment(where))
    seal(cell / "anomaly_maps.sha256", *names)
    seal(last_epoch, "last_epoch_maps.npy")


def metrics(
    *,
    test: TestFolder,
    masks: Annotated[Literal[*MASKS], "how masks were brought to the maps' size"] = "nearest",
    truth: Annotated[
        Literal["regions", "pixels", "image"], "what the set says of an image; PRO needs regions"
    ] = "regions",
    cell: CellFolder,
) -> None:
    """Evaluate a cell's stored maps: metrics.json, pro_curve.csv and pro_definitions.csv.

    The metrics of the last epoch's maps stand beside those of the kept epoch, as
    last_epoch_METRIC; pro_definitions.csv has the PRO of the kept epoch by every definition. What
    the set does not say of an image has no metric, and the two tables have no row.
    """
    start = time.perf_counter()  # its imports are part of what a step costs
    from stpm_bench.audit import COLUMNS, audit
    from stpm_bench.cost import host_bytes
    from stpm_bench.metrics import evaluate

    names = ("metrics.json", "pro_curve.csv", "pro_definitions.csv", "cost_metrics.json")
    unseal(cell / "metrics.sha256")
    if failure := failure_of(cell):
        write_csv(cell / "pro_curve.csv", pd.DataFrame(columns=["fpr", "overlap"]))
        write_csv(cell / "pro_definitions.csv", pd.DataFrame(columns=COLUMNS))
        write_json(cell / "cost_metrics.json", {})
        write_json(cell / "metrics.json", {"failure": failure})
        seal(cell / "metrics.sha256", *names)
        return
    labels = (read_names(cell / "image_scores.csv")["defect"] != "good").to_numpy()
    marked = load_array(test / MASKS[masks])
    if not marked.any():  # no defect shows at this size, as 'prepare' said: images alone count
        truth = "image"
    maps = load_array(cell / "anomaly_maps.npy")
    definitions = pd.DataFrame(columns=COLUMNS)
    try:
        evaluating = time.perf_counter()
        values = evaluate(labels, maps.max(axis=(1, 2)), marked, maps, truth)
        evaluating = time.perf_counter() - evaluating
        sampled = load_array(test / MASKS["nearest"])
        if truth == "regions" and sampled.any():
            own_masks = list(load_arrays(test / OWN_MASKS).values())
            definitions = audit(sampled, own_masks, maps)
        maps = load_array(cell / "last_epoch_maps.npy")
        last = evaluate(labels, maps.max(axis=(1, 2)), marked, maps, truth)
    except InputError:  # a damaged file names itself
        raise
    except ValueError as error:
        raise cannot_evaluate(cell, test, error) from error
    curve = {name: values.pop(f"pro_curve_{name}", []) for name in ("fpr", "overlap")}
    write_csv(cell / "pro_curve.csv", pd.DataFrame(curve))
    write_csv(cell / "pro_definitions.csv", definitions)
    record = {
        "code": code_version("metrics"),
        "images": len(labels),
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(len(labels) / evaluating, 1),
        "peak_memory": {"host_bytes": host_bytes()},
        "device": "cpu",
        "threads": 1,
    }
    write_json(cell / "cost_metrics.json", record)
    values |= {f"last_epoch_{key}": last[key] for key in values}
    write_json(cell / "metrics.json", values)
    seal(cell / "metrics.sha256", *names)
    unseal(cell / "last_epoch_maps.sha256")  # Snakemake removes these maps now


def benchmark(
    name: Annotated[
        Literal["grid", "inference", "metrics", "prepare", "pretraining", "training"],
        "what to time",
    ],
    *,
    runs: Annotated[int, "how often each is timed; medians are shown"] = 5,
) -> None:
    """Time a part of the project, where there is one beside what others use; print one table."""
    # Each module has run(runs) -> table, and note() -> what the table rests on.
    module = importlib.import_module(f"stpm_bench.benchmarks.{name}")
    table = module.run(runs=runs)
    # Not before: a process that is started counts the memory of the one that starts it as its own.
    from stpm_bench import provenance

    shown = table.astype(object).where(table.notna(), None)  # a gap is an empty place
    print(shown.to_markdown(index=False, floatfmt=".3g"))
    print(f"\n{provenance.processor()}; medians of {runs} runs; {module.note()}")


def collect(*, results: Results) -> None:
    """Collect what every cell says into the long tables metrics.csv and pro_definitions.csv.

    A cell that has not run, or whose training failed, has no row.
    """
    from stpm_bench.audit import COLUMNS

    values, audited = [], []
    for cell in grid.cells(grid.read(results / "studies.csv")):
        folder = results / "cells" / cell.folder
        if (folder / "metrics.json").exists():
            records = recorded(folder)
            found = read_json(folder / "metrics.json", records)
            if "failure" not in found:
                values += [(*cell, metric, value) for metric, value in found.items()]
                audit = read_checked(folder / "pro_definitions.csv", records).decode()
                _, *lines = csv.reader(audit.splitlines())
                audited += [(*cell, *line) for line in lines]
    values = pd.DataFrame(values, columns=[*grid.AXES, "metric", "value"])
    unseal(results / "metrics.sha256")
    write_csv(results / "metrics.csv", values)
    audited = pd.DataFrame(audited, columns=[*grid.AXES, *COLUMNS])
    write_csv(results / "pro_definitions.csv", audited)
    seal(results / "metrics.sha256", "metrics.csv", "pro_definitions.csv")


def tables(
    *,
    results: Results,
    main: Annotated[str, "name of the study that stands beside the published values"],
) -> None:
    """Make every table of the results in tables/, as CSV, Markdown, LaTeX and HTML."""
    from stpm_bench import audit, cost, published, tables, typeset

    folder, studies = results / "tables", grid.read(results / "studies.csv")
    cells, long = grid.cells(studies), grid.read(results / "metrics.csv")
    literature = published.read()
    audited = grid.read(results / "pro_definitions.csv")
    audited = audited.astype({"pro": float, "pixel_auroc": float})  # without a cell: no type
    accuracies = accuracies_of(results, studies)
    costs = cost.collect(results, cells, studies["teacher"].unique())

    written = []  # names of files, for their record
    unseal(folder / "tables.sha256")

    def write(name: str, table: pd.DataFrame, sections: list[typeset.Section]) -> None:
        write_csv(folder / f"{name}.csv", table)
        written.extend([f"{name}.csv", *typeset.write(folder, name, sections)])

    of_main = cells_of_study(results / "studies.csv", main)
    reference = of_main[list(grid.SETTING)].iloc[0]
    for study, rows in studies.groupby("study", sort=False):
        of_study = rows[list(grid.AXES)]
        # The paper's entries are for its own setting: they stand beside the main study alone.
        paper = published.paper(literature) if study == main else {}
        names = tables.metrics_of(of_study.merge(long))
        table = tables.study_table(long, of_study, paper, names)
        rests_on = tables.coverage(of_study, long, costs)
        sections = tables.study_sections(study, table, rests_on, accuracies)
        if study == main:
            methods = published.methods(literature, table)
            sections += published.methods_sections(study, methods, rests_on)
            write_csv(folder / f"{study}_methods.csv", methods)
            written.append(f"{study}_methods.csv")
        write(study, table, sections)
        if grid.varying(of_study):
            wide = tables.by_category_sections(study, table, rests_on)
            write(f"{study}_by_category", tables.by_category(table), wide)
            differences = tables.differences(long, of_study, reference)
            sections = tables.differences_sections(study, differences, of_study, rests_on)
            write(f"{study}_differences", differences, sections)
        if study == main:
            own = published.ours(long, audited, of_study)
            table = published.reproductions(literature, own)
            write("reproductions", table, published.reproductions_sections(table, rests_on))
    table = audit.summary(audited, of_main)
    write("pro_definitions", table, audit.sections(table))
    write("cost", costs, cost.sections(costs, len(cells)))
    seal(folder / "tables.sha256", *written)


def claims(
    *,
    results: Results,
    main: Annotated[str, "name of the study from which each ablation changes one axis"],
) -> None:
    """Set the paper's claims against the cells: claims.json, claims.md, .tex and .html."""
    import yaml

    from stpm_bench import claims, published, typeset

    cells = grid.read(results / "studies.csv")
    config = yaml.safe_load(read_checked(results / "config.yaml"))
    of_main = cells_of_study(results / "studies.csv", main)
    setting = of_main[list(grid.SETTING)].iloc[0]
    costs = grid.read(results / "tables" / "cost.csv")
    scored = (costs[list(grid.SETTING)] == setting).all(axis=1) & (costs["stage"] == "anomaly_maps")
    scoring = costs[scored].astype({"seed": int})
    names = [cell.folder for cell in grid.cells(scoring)]
    found = claims.claims(
        grid.read(results / "metrics.csv"),
        cells,
        setting,
        config,
        published.read(),
        scoring.assign(cell=names),
    )
    scope = claims.scope(cells, config)
    deviates = claims.deviations(config, setting.to_dict())
    unseal(results / "claims.sha256")
    write_json(results / "claims.json", claims.record(found, scope, deviates))
    names = typeset.write(results, "claims", claims.sections(found, scope, deviates))
    seal(results / "claims.sha256", "claims.json", *names)


def figures(
    *,
    results: Results,
    main: Annotated[str, "name of the study whose curves and differences are drawn"],
) -> None:
    """Draw every figure of the tables and curves in figures/, as PDF and PNG."""
    from stpm_bench import figures, published
    from stpm_bench.style import save

    def write(name: str, figure) -> None:
        save(figure, *(results / "figures" / f"{name}.{suffix}" for suffix in ("pdf", "png")))

    studies = grid.read(results / "studies.csv")
    accuracies = accuracies_of(results, studies)
    for study in studies["study"].unique():
        table = grid.read(results / "tables" / f"{study}.csv")
        write(study, figures.study(table, accuracies))
        first, cut = figures.first_settings(cells_of_study(results / "studies.csv", study))
        histories = [
            pd.read_csv(checked(path)).assign(**cell._asdict())
            for cell in grid.cells(first)
            if (path := results / "cells" / cell.folder / "history.csv").exists()
        ]
        if histories:
            write(f"training/{study}", figures.training(pd.concat(histories), study + cut))
    of_main, table = (
        cells_of_study(results / "studies.csv", main),
        grid.read(results / "tables" / f"{main}.csv"),
    )
    if published.compared(published.read(), of_main):
        write("difference_to_paper", figures.difference_to_paper(table))
    setting = list(grid.SETTING)
    shown = of_main[(of_main[setting] == of_main[setting].iloc[0]).all(axis=1)]
    curves = [pd.DataFrame(columns=["category", "seed", "fpr", "overlap"], dtype=float)]
    curves += [
        pd.read_csv(checked(path)).assign(category=cell.category, seed=cell.seed)
        for cell in grid.cells(shown)
        if (path := results / "cells" / cell.folder / "pro_curve.csv").exists()
    ]
    rows = table[(table[setting] == of_main[setting].iloc[0]).all(axis=1)]
    scores = dict(zip(rows["category"], rows["pro"], strict=True)) if "pro" in rows else {}
    write(
        "pro_curves",
        figures.pro_curves(pd.concat(curves).astype({"fpr": float, "overlap": float}), scores),
    )
    definitions = pd.read_csv(checked(results / "tables" / "pro_definitions.csv"))
    write("pro_definitions", figures.definitions(definitions))


def interim(
    *,
    results: Results,
    main: Annotated[str, "name of the study that stands beside the published values"],
) -> None:
    """Make tables, claims and figures of the cells that are done; the others are gaps."""
    collect(results=results)
    for step in (tables, claims, figures):
        step(results=results, main=main)


def panel(
    *,
    test: TestFolder,
    cell: CellFolder,
    output: Annotated[Path, "the figure without its suffix; .pdf and .png are written"],
) -> None:
    """Draw image, ground truth, each level's map and the fused map, as the paper's Figure 1."""
    from stpm_bench import pictures
    from stpm_bench.style import save

    paths = [output.with_name(output.name + suffix) for suffix in (".pdf", ".png")]
    if failure := failure_of(cell):
        save(pictures.gap(cell.name, f"training failed: {failure}"), *paths)
        return
    scores = read_names(cell / "image_scores.csv")
    level_maps = load_arrays(cell / "level_maps.npz")
    figure = pictures.panel(
        load_array(test / "images.npy"),
        load_array(test / "masks.npy"),
        level_maps,
        load_array(cell / "anomaly_maps.npy"),
        list(scores["defect"]),
        scores["score"].to_numpy(),
        title=cell.name,
    )
    save(figure, *paths)


def failures(
    *,
    results: Results,
    main: Annotated[str, "name of the study whose first seed is looked at"],
    count: Annotated[int, "how many misses, and how many false alarms"] = 6,
) -> None:
    """Show the hardest misses and false alarms: figures/failures.pdf and .png, failures.csv."""
    from stpm_bench import pictures
    from stpm_bench.style import save

    of_main = cells_of_study(results / "studies.csv", main)
    first = of_main.drop_duplicates("category")
    misses, alarms = [], []
    for cell in grid.cells(first):
        test = results / "prepared" / cell.category / "test"
        folder = results / "cells" / cell.folder
        if failure_of(folder):
            continue
        scores = read_names(folder / "image_scores.csv")
        found = pictures.hardest(
            cell.category,
            list(scores["file"]),
            list(scores["defect"]),
            scores["score"].to_numpy(),
            load_array(test / "images.npy"),
            load_array(test / "masks.npy"),
            load_array(folder / "anomaly_maps.npy"),
            count,
        )
        misses, alarms = misses + found[0], alarms + found[1]
    misses, alarms = pictures.worst(misses, count), pictures.worst(alarms, count)
    title = f"the hardest of {len(first)} categories, seed {first['seed'].iloc[0]}"
    if len(first) == 1:
        title = f"the hardest of {first['category'].iloc[0]}, seed {first['seed'].iloc[0]}"
    paths = (results / "figures" / f"failures.{suffix}" for suffix in ("pdf", "png"))
    save(pictures.failures(misses, alarms, title), *paths)
    columns = ["category", "file", "defect", "share", "ratio"]
    rows = [[getattr(case, column) for column in columns] for case in (*misses, *alarms)]
    unseal(results / "tables" / "failures.sha256")
    write_csv(results / "tables" / "failures.csv", pd.DataFrame(rows, columns=columns))
    seal(results / "tables" / "failures.sha256", "failures.csv")


def notebook(
    *,
    source: Annotated[Path, "the notebook: a .py of jupytext's py:percent format"],
    results: Results,
    output: Annotated[Path, "folder for NAME.ipynb and NAME.html"],
) -> None:
    """Execute a notebook on the results; the page shows what it found, the .ipynb its code too."""
    import os

    import jupytext
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor

    os.environ["STPM_BENCH_RESULTS"] = str(results)
    content = jupytext.read(source)
    for i, cell in enumerate(content.cells):
        cell.id = f"cell-{i}"  # else random: the file would differ each time
    try:
        runner = ExecutePreprocessor(kernel_name="python3", timeout=None, record_timing=False)
        runner.preprocess(content, {"metadata": {"path": "."}})
    except CellExecutionError as error:
        raise InputError(f"{source}: a cell failed:\n{error}") from error
    # No script is loaded from elsewhere: the page is whole, and opens without a network.
    page = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    page.mathjax_url = page.require_js_url = page.mermaid_js_url = ""
    body, _ = page.from_notebook_node(content, {"metadata": {"name": source.stem}})
    with whole(output / f"{source.stem}.ipynb") as temporary:
        nbformat.write(content, temporary)
    with whole(output / f"{source.stem}.html") as temporary:
        temporary.write_text(body, encoding="utf-8")


STEPS = (
    plan,
    studies,
    demo_data,
    download,
    check_data,
    prepare,
    pretraining_set,
    teacher,
    student,
    anomaly_maps,
    metrics,
    collect,
    tables,
    claims,
    figures,
    interim,
    panel,
    failures,
    notebook,
    benchmark,
)


def failure_of(cell: Path) -> str | None:
    """Return why a cell's training failed, None where it did not."""
    return read_json(cell / "provenance.json").get("failure")


def load_array(path: Path) -> np.ndarray:
    """Read a .npy file that a step wrote."""
    checked(path)
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise unreadable(path, error) from error


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file that a step wrote."""
    checked(path)
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error) from error


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


def read_names(path: Path) -> pd.DataFrame:
    """Read a CSV of files and defects; a defect called 'NA' is a name, not a gap."""
    return pd.read_csv(checked(path), keep_default_na=False)


def load_checked(path: Path) -> dict:
    """Load a file that 'teacher' or 'student' wrote."""
    import torch

    checked(path)
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


def accuracies_of(results: Path, studies: pd.DataFrame) -> dict[str, float | None]:
    """Return the test accuracy of each teacher of the studies, None of one not trained here."""
    paths = {name: results / "teachers" / f"{name}.json" for name in studies["teacher"].unique()}
    found = {name: read_json(path) for name, path in paths.items() if path.exists()}
    return {name: record.get("test_accuracy") for name, record in found.items()}


def cells_of_study(studies: Path, study: str) -> pd.DataFrame:
    """Return a study's rows of studies.csv, columns `grid.AXES`."""
    table = grid.read(studies)
    rows = table.loc[table["study"] == study, list(grid.AXES)]
    if rows.empty:
        raise InputError(
            f"{studies}: no study {study!r}; there: {', '.join(table['study'].unique())}"
        )
    return rows
