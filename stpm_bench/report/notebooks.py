"""Functions shared by the notebooks in analysis/; they read only the results folder."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Image, Markdown, display

from stpm_bench import grid
from stpm_bench.files import read_json, read_verified
from stpm_bench.report.tables import METRICS
from stpm_bench.report.typeset import NO_VALUE
from stpm_bench.results import cell_folder

# The rule 'notebook' sets it; a notebook opened by hand reads the default results folder.
RESULTS = Path(os.environ.get("STPM_BENCH_RESULTS", "results"))


def studies() -> pd.DataFrame:
    """Return the cells of every study: columns `study` and the axes."""
    return grid.read(RESULTS / "studies.csv")


def main_study() -> str:
    """Return the name of the main study: 'main', or the first study if none has that name."""
    return grid.main_study(studies()["study"])


def main_cells() -> list[tuple[grid.Cell, Path]]:
    """Return the cells of the main study's first setting, each with its folder."""
    table = studies()
    rows = table[table["study"] == main_study()]
    rows = grid.at_setting(rows, grid.setting_of(rows))
    return [(cell, cell_folder(RESULTS, cell)) for cell in grid.cells(rows)]


def studies_of(axis: str, example: str) -> list[str]:
    """Return the studies in which an axis varies; if there are none, show how to add one.

    Args:
        example: the YAML of such a study.
    """
    found = [
        name for name, rows in studies().groupby("study", sort=False) if axis in grid.varying(rows)
    ]
    if not found:
        text = f"**No study of this config varies `{axis}`.** One is a few lines of the config:"
        display(Markdown(f"{text}\n\n```yaml\nstudies:\n  {example}\n```"))
    return found


def show_table(name: str) -> None:
    """Show a table of the results; its title is one heading level below the notebook's."""
    text = read_verified(RESULTS / "tables" / f"{name}.md").decode()
    display(Markdown(text.replace("## ", "#### ")))


def show_figure(name: str, width: int = 560) -> None:
    """Show a figure of the results, `width` pixels wide."""
    display(Image(RESULTS / "figures" / f"{name}.png", width=width))


def show_frame(table: pd.DataFrame, digits: int = 3) -> None:
    """Show a table in which every column has a name: numbers rounded, 'n/a' for gaps."""

    def text(value: object) -> object:
        if isinstance(value, float):
            return NO_VALUE if np.isnan(value) else f"{value:.{digits}f}"
        return NO_VALUE if value is None else value

    with pd.option_context("display.max_colwidth", None):
        display(HTML(table.astype(object).map(text).to_html(index=False, border=0)))


def show_claims(question: str) -> None:
    """Show the results of the claims whose number starts with `question`."""
    record = read_json(RESULTS / "claims.json")
    rows = pd.DataFrame([c for c in record["claims"] if c["claim"].startswith(question)])
    columns = ["claim", "statement", "metric", "verdict", "comparison", "effect", "low", "high"]
    display(Markdown(f"Data: {record['data']}. Low and high are the bounds of the 95% interval."))
    shown = rows[[*columns, "note"]].assign(metric=rows["metric"].map(METRICS).fillna(""))
    show_frame(shown)
