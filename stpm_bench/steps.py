"""The steps: one plain function for each rule, files in, files out.

`python -m stpm_bench STEP --help` makes its options of a step's parameters; what computes is
imported inside the step, so that `--help` and the light steps do not wait for torch.
"""

import json
import time
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
Results = Annotated[Path, "folder of the results"]


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
    source: Annotated[str, "digits, photos, mnist, cifar10, cifar100 or svhn"],
    folder: Annotated[Path, "where downloads go, or are found"] = Path("data"),
    output: Annotated[Path, "the .npz to write"],
) -> None:
    """Get a pretraining set and write it as arrays."""
    from stpm_bench.datasets import pretraining

    data = pretraining.load(source, folder)
    write_arrays(output, data._asdict())


def teacher(
    *,
    backbone: Annotated[str, "resnet18, resnet34, resnet50, wide_resnet50_2 or mobilenet_v2"],
    weights: Annotated[str, "a file of weights, or 'torchvision'"] = "",
    folder: Annotated[Path, "where torchvision's weights are downloaded to"] = Path("data"),
    pretrain: Annotated[str, "name of the pretraining set"] = "",
    data: Annotated[Path | None, "the .npz that 'pretraining-set' wrote"] = None,
    epochs: Annotated[int, "of pretraining"] = 10,
    batch_size: Annotated[int, "of pretraining"] = 128,
    learning_rate: Annotated[float, "highest, of pretraining"] = 0.1,
    input_size: Annotated[int, "side in pixels to which pretraining resizes"] = 32,
    seed: Annotated[int, "of an untrained or pretrained teacher"] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: Annotated[Path, "the .pt to write; a .json that describes it lies beside it"],
) -> None:
    """Make a teacher: from weights, pretrained on a set, or untrained where neither is given."""

    from stpm_bench import provenance, teacher
    from stpm_bench.device import choose_device, choose_precision, set_deterministic

    start = time.perf_counter()
    set_deterministic(threads)
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    report = {"backbone": backbone, "seed": seed}
    if pretrain:
        with np.load(data) as arrays:
            loaded = dict(arrays)
        state, trained = teacher.pretrain(
            backbone,
            pretrain,
            loaded,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            input_size=input_size,
            seed=seed,
            device=where,
            precision=dtype,
        )
        report |= {"source": pretrain, "data_sha256": sha256(data), "precision": str(dtype)[6:]}
        report |= trained
    elif weights == "torchvision":
        state = teacher.from_torchvision(backbone, folder)
        report |= {"source": "torchvision IMAGENET1K_V1"}
    elif weights:
        state = teacher.from_file(backbone, weights)
        report |= {"source": weights, "weights_sha256": sha256(weights)}
    else:
        state = teacher.untrained(backbone, seed)
        report |= {"source": "untrained"}
    save_network(output, {"backbone": backbone, "weights": state})
    report |= {"sha256": sha256(output), "seconds": round(time.perf_counter() - start, 2)}
    write_json(output.with_suffix(".json"), report | provenance.environment(where))


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
    from stpm_bench.device import choose_device, choose_precision, set_deterministic
    from stpm_bench.seeds import stream
    from stpm_bench.split import split
    from stpm_bench.student import train as train_student

    start = time.perf_counter()
    set_deterministic(threads)
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    levels = grid.parse_layers(layers)
    images = load_array(train / "images.npy")
    files = list(read_names(train / "images.csv")["file"])
    chosen = split(files, fraction, validation_fraction, seed)
    rows = {role: [files.index(f) for f in group["file"]] for role, group in chosen.groupby("role")}
    name, teacher_network = load_network(teacher, levels)
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
    from stpm_bench import provenance
    from stpm_bench.anomaly_map import score
    from stpm_bench.device import choose_device, set_deterministic

    start = time.perf_counter()
    set_deterministic(threads)
    where = choose_device(device)
    levels = grid.parse_layers(load_checked(cell / "student.pt")["layers"])
    _, student_network = load_network(cell / "student.pt", levels)
    _, teacher_network = load_network(teacher, levels)
    images = load_array(test / "images.npy")
    scoring = time.perf_counter()
    maps, level_maps, scores = score(
        teacher_network.to(where), student_network.to(where), images, where
    )
    scoring = time.perf_counter() - scoring
    write_array(cell / "anomaly_maps.npy", maps)
    write_arrays(cell / "level_maps.npz", dict(zip(map(str, levels), level_maps, strict=True)))
    table = read_names(test / "images.csv")[["file", "defect"]].assign(score=scores)
    write_csv(cell / "image_scores.csv", table)
    record = {
        "images": len(images),
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(len(images) / scoring, 1),
        "peak_memory": provenance.peak_memory(where),
    }
    write_json(cell / "cost_anomaly_maps.json", record | provenance.environment(where))


def metrics(*, test: TestFolder, cell: CellFolder) -> None:
    """Compute every metric of a cell from its stored maps: metrics.json and pro_curve.csv."""
    from stpm_bench.cost import host_bytes
    from stpm_bench.metrics import evaluate

    start = time.perf_counter()
    scores = read_names(cell / "image_scores.csv")
    labels = (scores["defect"] != "good").to_numpy()
    # float32, as the maps are: pandas reads the same digits as float64
    values = scores["score"].to_numpy(np.float32)
    masks, maps = load_array(test / "masks.npy"), load_array(cell / "anomaly_maps.npy")
    evaluating = time.perf_counter()
    try:
        values = evaluate(labels, values, masks, maps)
    except ValueError as error:
        raise cannot_evaluate(cell, test, error) from error
    evaluating = time.perf_counter() - evaluating
    curve = pd.DataFrame(
        {"fpr": values.pop("pro_curve_fpr"), "overlap": values.pop("pro_curve_overlap")}
    )
    write_csv(cell / "pro_curve.csv", curve)
    write_json(cell / "metrics.json", values)
    record = {
        "images": len(maps),
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(len(maps) / evaluating, 1),
        "peak_memory": {"host_bytes": host_bytes()},
        "device": "cpu",
        "threads": 1,
    }
    write_json(cell / "cost_metrics.json", record)


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


def benchmark(
    name: Annotated[Literal["metrics"], "what to time"],
    *,
    runs: Annotated[int, "how often each is timed; medians are shown"] = 5,
) -> None:
    """Time a part of the project beside what others use, and print one table."""
    from stpm_bench import provenance
    from stpm_bench.benchmarks import metrics

    print(metrics.run(runs=runs).to_markdown(index=False, floatfmt=".3g"))
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


def tables(
    *,
    results: Results,
    main: Annotated[str, "name of the study that stands beside the published values"],
) -> None:
    """Make every table of the results in tables/, as CSV, Markdown, LaTeX and HTML."""
    import yaml

    from stpm_bench import audit, cost, published, tables, typeset

    folder, studies = results / "tables", grid.read(results / "studies.csv")
    cells, long = grid.cells(studies), grid.read(results / "metrics.csv")
    literature = published.read()
    audited = [pd.DataFrame(columns=[*grid.AXES, *audit.COLUMNS])]
    for cell in cells:
        path = results / "cells" / cell.folder / "pro_definitions.csv"
        if path.exists():
            audited.append(pd.read_csv(path).assign(**cell._asdict()))
    audited = pd.concat(audited[1:] or audited)[[*grid.AXES, *audit.COLUMNS]]
    write_csv(results / "pro_definitions.csv", audited)

    def write(name: str, table: pd.DataFrame, sections: list[typeset.Section]) -> None:
        write_csv(folder / f"{name}.csv", table)
        typeset.write(folder, name, sections)

    of_main = cells_of_study(results / "studies.csv", main)
    reference = of_main[list(grid.SETTING)].iloc[0]
    for study, rows in studies.groupby("study", sort=False):
        of_study = rows[list(grid.AXES)]
        # The paper's entries are for its own setting: they stand beside the main study alone.
        paper = published.paper(literature) if study == main else {}
        table = tables.study_table(long, of_study, paper)
        rests_on = tables.coverage(of_study, long)
        sections = tables.study_sections(study, table, rests_on)
        if study == main:
            methods = published.methods(literature, table)
            sections += published.methods_sections(study, methods, rests_on)
            write_csv(folder / f"{study}_methods.csv", methods)
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
    config = yaml.safe_load((results / "config.yaml").read_text())
    table = cost.collect(results, cells, config["teachers"])
    write("cost", table, cost.sections(table, len(cells)))


def claims(
    *,
    results: Results,
    main: Annotated[str, "name of the study from which each ablation changes one axis"],
) -> None:
    """Set the paper's claims against the cells: claims.json, claims.md, .tex and .html."""
    import yaml

    from stpm_bench import claims, published, typeset

    cells = grid.read(results / "studies.csv")
    config = yaml.safe_load((results / "config.yaml").read_text())
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
    write_json(results / "claims.json", claims.record(found, scope, deviates))
    typeset.write(results, "claims", claims.sections(found, scope, deviates))


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
    accuracies = {}
    for path in (results / "teachers").glob("*.json"):
        accuracies[path.stem] = json.loads(path.read_text()).get("test_accuracy")
    for study in studies["study"].unique():
        table = grid.read(results / "tables" / f"{study}.csv")
        write(study, figures.study(table, accuracies))
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
        pd.read_csv(path).assign(category=cell.category, seed=cell.seed)
        for cell in grid.cells(shown)
        if (path := results / "cells" / cell.folder / "pro_curve.csv").exists()
    ]
    rows = table[(table[setting] == of_main[setting].iloc[0]).all(axis=1)]
    scores = dict(zip(rows["category"], rows["pro"], strict=True))
    write("pro_curves", figures.pro_curves(pd.concat(curves), scores))
    definitions = pd.read_csv(results / "tables" / "pro_definitions.csv")
    write("pro_definitions", figures.definitions(definitions))


def panel(
    *,
    test: TestFolder,
    cell: CellFolder,
    output: Annotated[Path, "the figure without its suffix; .pdf and .png are written"],
) -> None:
    """Draw image, ground truth, each level's map and the fused map, as the paper's Figure 1."""
    from stpm_bench import pictures
    from stpm_bench.style import save

    scores = read_names(cell / "image_scores.csv")
    with np.load(cell / "level_maps.npz") as arrays:
        level_maps = dict(arrays)
    figure = pictures.panel(
        load_array(test / "images.npy"),
        load_array(test / "masks.npy"),
        level_maps,
        load_array(cell / "anomaly_maps.npy"),
        list(scores["defect"]),
        scores["score"].to_numpy(),
        title=cell.name,
    )
    save(figure, *(output.with_name(output.name + suffix) for suffix in (".pdf", ".png")))


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
        test, folder = (
            results / "prepared" / cell.category / "test",
            results / "cells" / cell.folder,
        )
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
    write_csv(results / "tables" / "failures.csv", pd.DataFrame(rows, columns=columns))


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
        temporary.write_text(body)


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
    collect,
    tables,
    claims,
    figures,
    panel,
    failures,
    notebook,
    benchmark,
)


def load_array(path: Path) -> np.ndarray:
    """Read a .npy file that a step wrote."""
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); delete it and run again, and it is made anew"
        ) from error


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
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); delete it and run again, "
            "and it is made anew"
        ) from error
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
