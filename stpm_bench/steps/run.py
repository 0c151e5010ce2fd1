"""Steps that no rule runs: for users, before, during and after a run."""

import importlib
import inspect
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

from stpm_bench.errors import InputError


def plan(config: Annotated[str, "config file"]) -> None:
    """Print what a config plans: cells by study, those done, the remaining hours and gigabytes."""
    from stpm_bench.config import read, warnings_of
    from stpm_bench.report import typeset
    from stpm_bench.run import plan

    completed = read(config)
    for text in warnings_of(completed):
        print(f"warning: {text}", file=sys.stderr)
    print(typeset.markdown(plan.sections(completed), "plan"))


def clean(
    config: Annotated[str, "config file"],
    *,
    yes: Annotated[bool, "remove them; without it they are only listed"] = False,
) -> None:
    """List files in the results that are not part of the config, and their size."""
    from stpm_bench.config import read
    from stpm_bench.run.plan import stale

    found = stale(read(config))
    for folder, size in found.items():
        print(f"{size / 1e6:10,.1f} MB  {folder}")
        if yes:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    total = sum(found.values()) / 1e6
    done = "removed" if yes else "not part of this config; --yes removes them"
    print(f"{total:10,.1f} MB in {len(found)} places {done}")


def config_docs(
    *,
    output: Annotated[Path, "the page"] = Path("docs/configuration.md"),
) -> None:
    """Write the page of every config key, with its type, bounds, default and meaning."""
    from stpm_bench.config_page import page
    from stpm_bench.files import atomic_write

    with atomic_write(output) as temporary:
        temporary.write_text(page(), encoding="utf-8")


def publish(
    results: Annotated[Path, "folder of the results"],
    name: Annotated[str, "name of the published folder"],
    *,
    note: Annotated[str, "what a reader must know in addition, e.g. on the data"] = "",
    mixed: Annotated[
        bool, "publish results of several versions of code or packages; README.md then says so"
    ] = False,
    replace: Annotated[bool, "replace a published folder of that name"] = False,
    to: Annotated[Path, "folder of the published folders"] = Path("results/published"),
) -> None:
    """Write the finished cells of a run as a small folder for git: config, metrics, tables, claims,
    figures, a record of machine, versions and hours, and a README.md."""
    import yaml

    from stpm_bench.report import publish

    files = publish.contents(results, name, note, mixed)
    for place in publish.absolute_paths(yaml.safe_load(files["config.yaml"])):
        text = "warning: the published config.yaml contains a path of your machine"
        print(f"{text}: {place}", file=sys.stderr)
    publish.write(to / name, files, replace)
    print(f"{to / name}: {len(files)} files, {sum(map(len, files.values())) / 1e3:,.0f} kB")


def compare(
    one: Annotated[Path, "folder of results, or a published one"],
    other: Annotated[Path, "another one"],
    *,
    out: Annotated[Path | None, "folder for compare.md, compare.tex and compare.html"] = None,
) -> int:
    """Compare two runs, with one verdict for each study and metric; the exit status is 1 if one is
    beyond noise, else 2 if one cannot be told, else 0."""
    from stpm_bench.report import compare, typeset

    folders = compare.read(one), compare.read(other)
    found = compare.studies_of(*folders)
    sections = compare.sections(*folders, found)
    print(typeset.markdown(sections, "compare"))
    if out is not None:
        typeset.write(out, "compare", sections)
    return compare.exit_status(found)


def readme(
    *,
    published: Annotated[Path, "folder of the published folders"] = Path("results/published"),
    file: Annotated[Path, "the README whose block of published results is updated"] = Path(
        "README.md"
    ),
) -> None:
    """Update the part of README.md on the published folders, between its two markers."""
    from stpm_bench.files import atomic_write
    from stpm_bench.report.readme import block, with_block

    text = with_block(file.read_text(encoding="utf-8"), block(published))
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def benchmark_docs(
    *,
    measured: Annotated[Path, "folder of the JSON files of benchmarks"] = Path("docs/measured"),
    output: Annotated[Path, "the page"] = Path("docs/speed.md"),
) -> None:
    """Write the page of measured speeds from the files that 'benchmark --output' wrote."""
    from stpm_bench.benchmarks.page import page
    from stpm_bench.files import atomic_write

    with atomic_write(output) as temporary:
        temporary.write_text(page(measured), encoding="utf-8")


def benchmark(
    name: Annotated[
        Literal[
            "grid",
            "inference",
            "intervals",
            "methods",
            "metrics",
            "prepare",
            "pretraining",
            "training",
        ],
        "what to time",
    ],
    *,
    runs: Annotated[int, "how often each is timed; medians are shown"] = 5,
    size: Annotated[int, "side of the images in pixels, if it can be chosen; 0: the default"] = 0,
    output: Annotated[Path | None, "a JSON file: the table, with machine and versions"] = None,
) -> None:
    """Time a part of the project, if possible compared with other code; print one table."""
    # Each module has run(runs) -> table, and note() -> how the table was measured.
    module = importlib.import_module(f"stpm_bench.benchmarks.{name}")
    known = inspect.signature(module.run).parameters
    if size and "size" not in known:
        raise InputError(f"--size is {size}, but the benchmark {name!r} has no size; leave it out")
    options = {"runs": runs} | ({"size": size} if size else {})
    table = module.run(**options)
    # Imported late: a child process counts the memory of the process that starts it as its own.
    from stpm_bench import provenance

    if output:
        from stpm_bench.benchmarks.record import record
        from stpm_bench.device import choose_device
        from stpm_bench.files import write_json

        rest = {key: p.default for key, p in known.items()} | options
        del rest["runs"]
        write_json(output, record(name, table, choose_device("auto"), runs, rest))

    shown = table.astype(object).where(table.notna(), None)  # a gap is printed as an empty cell
    print(shown.to_markdown(index=False, floatfmt=".3g"))
    summary = getattr(module, "SUMMARY", "medians of {runs} runs").format(runs=runs)
    print(f"\n{provenance.processor()}; {summary}; {module.note()}")
