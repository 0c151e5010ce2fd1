"""Steps of report.smk: tables, figures and pages for the reader."""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from stpm_bench import grid
from stpm_bench.errors import InputError
from stpm_bench.files import (
    atomic_write,
    forget_hashes,
    read_json,
    read_verified,
    record_hashes,
    verified,
    write_csv,
    write_json,
)
from stpm_bench.results import (
    MASKS,
    STAGES,
    accuracies_of,
    anomaly_maps_of,
    categories_with_other_images,
    cell_folder,
    fit_folder,
    image_sides,
    load_array,
    prepared_folder,
    read_image_table,
    read_scores,
    read_teachers,
    rows_of_study,
)
from stpm_bench.steps.evaluate import collect
from stpm_bench.steps.options import CellFolder, Results, TestFolder

RECORDS = ("fits/*/*.json", "cells/*/evaluation.json", "teachers/*.json")


def studies(
    *,
    config: Annotated[str, "config file, or the config itself as JSON"],
    output: Annotated[Path, "folder for config.yaml (completed) and studies.csv (the cells)"],
) -> None:
    """Check and complete a config; write it and the cells of every study."""
    import yaml

    from stpm_bench.config import complete, read, warnings_of

    completed = complete(json.loads(config)) if config.startswith("{") else read(config)
    for text in warnings_of(completed):
        print(f"warning: {text}", file=sys.stderr)
    forget_hashes(output / "studies.sha256")
    with atomic_write(output / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(completed, sort_keys=False))
    write_csv(output / "studies.csv", grid.studies(completed))
    record_hashes(output / "studies.sha256", "config.yaml", "studies.csv")


def tables(
    *,
    results: Results,
    main: Annotated[str, "name of the study that is compared with published values"],
) -> None:
    """Make every table of the results in tables/, as CSV, Markdown, LaTeX and HTML."""
    import yaml

    from stpm_bench.config import warnings_of
    from stpm_bench.report import audit_table, cost, literature, tables, typeset
    from stpm_bench.report.claims import file_declared, resampled_images

    folder, studies = results / "tables", grid.read(results / "studies.csv")
    cells, long = grid.cells(studies), grid.read(results / "metrics.csv")
    # Categories that only share a name with one of MVTec AD's are not compared with the paper.
    config = yaml.safe_load(read_verified(results / "config.yaml"))
    others = categories_with_other_images(results, config)
    values = literature.without(literature.read(), others)
    compared = values
    of_main = rows_of_study(results / "studies.csv", main)
    reference = grid.setting_of(of_main)
    sides = image_sides(results, [c for c in of_main["category"].unique() if c not in others])
    if not literature.is_stpm(config, reference["method"]):
        compared = values[values["method"] != literature.METHOD]
    audited = grid.read(results / "pro_definitions.csv")
    audited = audited.astype({"pro": float, "pixel_auroc": float})  # without cells: untyped
    accuracies = accuracies_of(results, studies)
    costs = cost.collect(results, grid.fit_names(studies), grid.teacher_files(studies))
    steps = cost.steps_by_setting(costs)

    written = []  # file names, for their record of hashes
    forget_hashes(folder / "tables.sha256")

    def write(name: str, table: pd.DataFrame, sections: list[typeset.Section], origin: str) -> None:
        write_csv(folder / f"{name}.csv", table)
        written.extend([f"{name}.csv", *typeset.write(folder, name, sections, origin)])

    def origin(functions, *files: str) -> str:
        return typeset.made_by("tables", functions, files)

    of_cells, printed = ("metrics.csv", "studies.csv"), "stpm_bench/report/literature.csv"

    for study, rows in studies.groupby("study", sort=False):
        of_study = rows[list(grid.AXES)]
        # The paper's entries are for its own setting: only the main study is compared with them.
        paper = literature.paper(compared) if study == main else {}
        names = tables.metrics_of(of_study.merge(long))
        table = tables.study_table(long, of_study, paper, names, others)
        basis = tables.coverage(of_study, long, costs, others)
        basis += "".join(f"; {text}" for text in warnings_of(config, study))
        for teacher in of_study["teacher"].unique():
            if declared := file_declared(config, teacher):
                basis += f"; teacher {teacher} {declared}"
        if elsewhere := tables.averaged_elsewhere(of_study, studies):
            basis += f"; {elsewhere}"
        if study == main and (resampled := resampled_images(sides)):
            basis += f"; {resampled}"
        sections = tables.study_sections(study, table, basis, accuracies, steps)
        if study == main:
            ran = literature.baselines(long, studies, config, of_study, others)
            methods = literature.methods(compared, table, others, ran)
            sections += literature.methods_sections(study, methods, basis, ran)
            write_csv(folder / f"{study}_methods.csv", methods)
            written.append(f"{study}_methods.csv")
        functions, files = [tables.study_table], [*of_cells]
        if study == main:
            functions += [literature.paper, literature.methods, literature.baselines]
            files += ["config.yaml", printed]
        write(study, table, sections, origin(functions, *files))
        if grid.varying(of_study):
            wide = tables.by_category_sections(study, table, basis)
            by_category = tables.by_category(table)
            line = origin([tables.by_category], f"tables/{study}.csv")
            write(f"{study}_by_category", by_category, wide, line)
            differences = tables.differences(long, of_study, reference)
            sections = tables.differences_sections(study, differences, of_study, basis)
            line = origin([tables.differences], *of_cells)
            write(f"{study}_differences", differences, sections, line)
        if study == main:
            own = literature.ours(long, audited, of_study, others) if compared is values else {}
            read_as = literature.readings(studies, config, of_study) if own else {}
            read_as = {
                name: literature.ours(long, audited, rows, others) for name, rows in read_as.items()
            }
            table = literature.reproductions(values, own, read_as)
            sections = literature.reproductions_sections(table, basis)
            functions = [literature.reproductions, literature.ours]
            line = origin(functions, *of_cells, "pro_definitions.csv", printed)
            write("reproductions", table, sections, line)
    table = audit_table.summary(audited, of_main)
    line = origin([audit_table.summary], "pro_definitions.csv", "studies.csv")
    write("pro_definitions", table, audit_table.sections(table), line)
    line = origin([cost.collect, cost.sections], *RECORDS)
    write("cost", costs, cost.sections(costs, len(cells)), line)
    record_hashes(folder / "tables.sha256", *written)


def claims(
    *,
    results: Results,
    main: Annotated[str, "name of the study from which each ablation changes one axis"],
) -> None:
    """Compare the paper's claims with the cells: claims.json, claims.md, .tex and .html."""
    import yaml

    from stpm_bench.report import (
        claims,
        claims_table,
        literature,
        questions,
        statistics,
        tables,
        typeset,
        verdict,
    )

    cells = grid.read(results / "studies.csv")
    config = yaml.safe_load(read_verified(results / "config.yaml"))
    of_main = rows_of_study(results / "studies.csv", main)
    setting = grid.setting_of(of_main)
    costs = grid.at_setting(grid.read(results / "tables" / "cost.csv"), setting)
    scoring = costs[costs["stage"] == "score"].astype({"seed": int})
    names = [cell.folder for cell in grid.cells(scoring)]
    long = grid.read(results / "metrics.csv")
    learned = verdict.learned_of(read_teachers(results, cells))
    others = categories_with_other_images(results, config)
    speed = results / "speed.csv"
    found = claims.claims(
        long,
        cells,
        setting,
        config,
        literature.read(),
        scoring.assign(cell=names),
        learned,
        pd.read_csv(verified(speed)) if speed.exists() else None,
        others,
    )
    data = verdict.evidence(long, cells, setting, config, learned)
    asked = questions.questions(data, cells)
    scope = claims.scope(long, config, others)
    deviates = claims.deviations(config, setting.to_dict())
    precisions = set(costs.loc[costs["stage"] == "fit", "precision"].dropna()) - {"float32"}
    deviates += [f"precision {name} in training" for name in sorted(precisions)]
    sides = image_sides(results, [c for c in of_main["category"].unique() if c not in others])
    deviates += [text for text in [claims.resampled_images(sides)] if text]
    teacher = setting["teacher"]
    declared = claims.file_declared(config, teacher)
    remarks = [f"Teacher {teacher}: {declared}"] if declared else []
    remarks.append(tables.why_claims_differ(cells))
    forget_hashes(results / "claims.sha256")
    write_json(results / "claims.json", claims_table.record(found, scope, deviates, asked))
    sections = claims_table.sections(found, scope, deviates, asked, remarks)
    functions = [claims.claims, claims_table.table, verdict.verdict, statistics.compare]
    functions += [statistics.mean_interval, questions.questions]
    files = ["metrics.csv", "studies.csv", "config.yaml", "tables/cost.csv"]
    files += ["stpm_bench/report/literature.csv", "teachers/*.json"]
    line = typeset.made_by("claims", functions, files)
    names = typeset.write(results, "claims", sections, line)
    record_hashes(results / "claims.sha256", "claims.json", *names)


def figures(
    *,
    results: Results,
    main: Annotated[str, "name of the study whose curves and differences are drawn"],
) -> None:
    """Draw every figure of the tables and curves in figures/, as PDF and PNG."""
    import yaml

    from stpm_bench.report import figures, literature
    from stpm_bench.report.style import save

    def write(name: str, figure) -> None:
        save(figure, *(results / "figures" / f"{name}.{suffix}" for suffix in ("pdf", "png")))

    studies = grid.read(results / "studies.csv")
    fits = grid.fit_names(studies)
    accuracies = accuracies_of(results, studies)
    for study in studies["study"].unique():
        table = grid.read(results / "tables" / f"{study}.csv")
        write(study, figures.study(table, accuracies))
        first, cut = figures.first_settings(rows_of_study(results / "studies.csv", study))
        histories = [
            pd.read_csv(verified(path)).assign(**cell._asdict())
            for cell in grid.cells(first)
            if (path := fit_folder(results, fits[cell]) / "history.csv").exists()
        ]
        if histories:
            write(f"training/{study}", figures.training(pd.concat(histories), study + cut))
    of_main, table = (
        rows_of_study(results / "studies.csv", main),
        grid.read(results / "tables" / f"{main}.csv"),
    )
    # Planned by the categories' names; their images tell whether they are the paper's.
    config = yaml.safe_load(read_verified(results / "config.yaml"))
    setting = grid.setting_of(of_main)
    own = literature.is_stpm(config, setting["method"])
    if own and literature.has_paper_values(literature.read(), of_main):
        write("difference_to_paper", figures.difference_to_paper(table))
    curves = [pd.DataFrame(columns=["category", "seed", "fpr", "overlap"], dtype=float)]
    curves += [
        pd.read_csv(verified(path)).assign(category=cell.category, seed=cell.seed)
        for cell in grid.cells(grid.at_setting(of_main, setting))
        if (path := cell_folder(results, cell) / "pro_curve.csv").exists()
    ]
    rows = grid.at_setting(table, setting)
    scores = dict(zip(rows["category"], rows["pro"], strict=True)) if "pro" in rows else {}
    write(
        "pro_curves",
        figures.pro_curves(pd.concat(curves).astype({"fpr": float, "overlap": float}), scores),
    )
    definitions = pd.read_csv(verified(results / "tables" / "pro_definitions.csv"))
    write("pro_definitions", figures.definitions(definitions))


def interim(
    *,
    results: Results,
    main: Annotated[str, "name of the study that is compared with published values"],
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
    image: Annotated[str, "only of this test image, e.g. test/DEFECT/000.png"] = "",
) -> None:
    """Draw image, ground truth, each level's map and the fused map, as the paper's Figure 1."""
    from stpm_bench.report import pictures
    from stpm_bench.report.style import save

    paths = [output.with_name(output.name + suffix) for suffix in (".pdf", ".png")]
    if failure := read_json(cell / "metrics.json").get("failure"):
        save(pictures.gap(cell.name, f"the fit failed: {failure}"), *paths)
        return
    scores = read_image_table(cell / "image_scores.csv")
    rows = np.flatnonzero((scores["file"] == image) | (image == ""))
    if not rows.size:
        raise InputError(
            f"--image {image!r} is not in {cell / 'image_scores.csv'}; expected a file of it, such "
            f"as {scores['file'].iloc[0]!r}"
        )
    masks = load_array(test / "masks.npy")
    level_maps, maps = anomaly_maps_of(cell)
    figure = pictures.panel(
        load_array(test / "images.npy")[rows],
        masks[rows] if len(masks) else masks,
        {level: values[rows] for level, values in level_maps.items()},
        maps[rows],
        list(scores["defect"].iloc[rows]),
        scores["score"].to_numpy()[rows],
        title=cell.name,
    )
    save(figure, *paths)


def explorer(
    *,
    test: TestFolder,
    results: Results,
    cells: Annotated[str, "JSON list of the page's cells, each a list of the values of its axes"],
    output: Annotated[Path, "the page, an HTML file"],
) -> None:
    """Write a category's page: its test images, and the maps of some cells to compare."""
    from stpm_bench.report import explorer

    chosen, settings, absent = [grid.Cell(*axes) for axes in json.loads(cells)], [], []
    for cell in chosen:
        folder = cell_folder(results, cell)
        metrics = read_json(folder / "metrics.json")
        if failure := metrics.get("failure"):
            absent.append(f"{cell.folder}: the fit failed: {failure}")
            continue
        record = read_json(folder / STAGES["evaluate"])
        scores = read_scores(fit_folder(results, record["fit"]))
        evaluated = read_image_table(folder / "image_scores.csv")["score"].to_numpy()
        own = scores.image_scores is not None
        settings.append(
            explorer.Setting(
                cell,
                record["fit"],
                scores.level_maps,
                evaluated,
                own,
                record["evaluation"],
                metrics,
            )
        )
    table = read_image_table(test / "images.csv")
    page = explorer.page(
        chosen[0].category,
        list(table["file"]),
        list(table["defect"]),
        load_array(test / "images.npy"),
        {name: load_array(test / file) for name, file in MASKS.items()},
        settings,
        apart="regions" in table,
        absent=absent,
    )
    with atomic_write(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def first_page(
    *,
    results: Results,
    main: Annotated[str, "name of the study whose table is shown"],
    category: Annotated[str, "the category whose anomaly maps are shown"],
) -> None:
    """Write the first page of the report: main table, verdicts on the claims, one panel."""
    from stpm_bench.report import first_page

    page = first_page.page(
        read_verified(results / "tables" / f"{main}.html").decode("utf-8"),
        read_json(results / "claims.json"),
        (results / "figures" / "anomaly_maps" / f"{category}.png").read_bytes(),
        category,
    )
    with atomic_write(results / "first_page.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def failures(
    *,
    results: Results,
    main: Annotated[str, "name of the study whose first seed is used"],
    count: Annotated[int, "how many misses, and how many false alarms"] = 6,
) -> None:
    """Show the worst misses and false alarms: figures/failures.pdf and .png, failures.csv."""
    from stpm_bench.report import pictures
    from stpm_bench.report.style import save

    of_main = rows_of_study(results / "studies.csv", main)
    first = of_main.drop_duplicates("category")
    misses, alarms = [], []
    for cell in grid.cells(first):
        test = prepared_folder(results, cell.category, "test")
        folder = cell_folder(results, cell)
        if "failure" in read_json(folder / "metrics.json"):
            continue
        scores = read_image_table(folder / "image_scores.csv")
        found = pictures.hardest(
            cell.category,
            list(scores["file"]),
            list(scores["defect"]),
            scores["score"].to_numpy(),
            load_array(test / "images.npy"),
            load_array(test / "masks.npy"),
            anomaly_maps_of(folder)[1],
            count,
        )
        misses, alarms = misses + found[0], alarms + found[1]
    misses, alarms = pictures.worst(misses, count), pictures.worst(alarms, count)
    title = f"hardest images of {len(first)} categories, seed {first['seed'].iloc[0]}"
    if len(first) == 1:
        title = f"hardest images of {first['category'].iloc[0]}, seed {first['seed'].iloc[0]}"
    paths = (results / "figures" / f"failures.{suffix}" for suffix in ("pdf", "png"))
    save(pictures.failures(misses, alarms, title), *paths)
    columns = ["category", "file", "defect", "share", "ratio"]
    rows = [[getattr(case, column) for column in columns] for case in (*misses, *alarms)]
    forget_hashes(results / "tables" / "failures.sha256")
    write_csv(results / "tables" / "failures.csv", pd.DataFrame(rows, columns=columns))
    record_hashes(results / "tables" / "failures.sha256", "failures.csv")


def notebook(
    *,
    source: Annotated[Path, "the notebook: a .py of jupytext's py:percent format"],
    results: Results,
    output: Annotated[Path, "folder for NAME.ipynb and NAME.html"],
) -> None:
    """Execute a notebook on the results; write a page without code, and the .ipynb with it."""
    import os
    import tempfile

    import jupytext
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor

    os.environ["STPM_BENCH_RESULTS"] = str(results)
    # The kernel would run the startup files of the user's IPython profile.
    profile = tempfile.TemporaryDirectory()
    os.environ["IPYTHONDIR"] = profile.name
    content = jupytext.read(source)
    for i, cell in enumerate(content.cells):
        cell.id = f"cell-{i}"  # otherwise random: the file would differ each time
    try:
        runner = ExecutePreprocessor(timeout=None, record_timing=False)
        runner.preprocess(content, {"metadata": {"path": "."}}, km=this_python())
    except CellExecutionError as error:
        raise InputError(f"{source}: a cell failed:\n{error}") from error
    finally:
        profile.cleanup()
    # No script is loaded from elsewhere: the page opens without a network.
    page = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    page.mathjax_url = page.require_js_url = page.mermaid_js_url = ""
    body, _ = page.from_notebook_node(content, {"metadata": {"name": source.stem}})
    with atomic_write(output / f"{source.stem}.ipynb") as temporary:
        nbformat.write(content, temporary)
    with atomic_write(output / f"{source.stem}.html") as temporary:
        temporary.write_text(body, encoding="utf-8")


def this_python():
    """Return the manager of a notebook kernel that runs this Python, whatever kernels exist.

    A kernel called python3 may belong to another Python, for example one on JUPYTER_PATH.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    # Without folders to search, 'python3' is the kernel of the current Python.
    return AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
