"""What the report holds: the tables and figures, each with its category, and the notebooks."""

import re
from pathlib import Path

from stpm_bench import grid
from stpm_bench.report import literature
from stpm_bench.run.suite import Suite


def varying_studies(suite: Suite) -> list[str]:
    """Return the studies in which an axis of the setting varies."""
    rows = suite.studies.groupby("study", sort=False)
    return [study for study, cells in rows if grid.varying(cells)]


def tables(suite: Suite) -> dict[str, tuple[str, str]]:
    """Return the tables: name -> category of the report, and a description of the table."""
    found = {study: (study, "means and spread") for study in suite.config["studies"]}
    for study in varying_studies(suite):
        found[f"{study}_by_category"] = (study, "by category")
        found[f"{study}_differences"] = (study, "paired differences, tests")
    return found | {
        "reproductions": ("published", "the paper, its authors, others, ours"),
        "pro_definitions": ("PRO definitions", "the same maps by each definition"),
        "cost": ("cost", "seconds, images per second, memory"),
    }


def figures(suite: Suite) -> dict[str, tuple[str, str]]:
    """Return the figures: name -> category of the report, and what the figure shows."""
    studies = suite.config["studies"]
    found = {study: (study, "metrics") for study in studies}
    found |= {f"training/{study}": (study, "losses by epoch") for study in studies}
    found |= {
        "pro_curves": (suite.main_study, "PRO curves"),
        "pro_definitions": ("PRO definitions", "the difference to the exact value"),
    }
    of_main = suite.studies[suite.studies["study"] == suite.main_study]
    of_stpm = literature.is_stpm(suite.config, suite.main_cells[0].method)
    if of_stpm and literature.has_paper_values(literature.read(), of_main):
        found["difference_to_paper"] = ("published", "ours less the paper's")
    return found


def notebooks(folder: Path) -> dict[str, str]:
    """Return the notebooks in a folder: name -> what the report calls it: its name and its title.

    The title is the first heading of level 1 of a jupytext file.
    """
    found = {}
    for path in sorted(folder.glob("*.py")):
        title = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), re.M)
        found[path.stem] = f"{path.stem}: {title[1]}" if title else path.stem
    return found
