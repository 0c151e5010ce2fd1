# The checked config, the cells, and the names that rules share.
import hashlib
import json
import re
import sys
from pathlib import Path

# The package lies beside the Snakefile: nothing needs to be installed for the workflow to find it.
sys.path.insert(0, str(Path(workflow.basedir)))

from stpm_bench import grid
from stpm_bench.config import complete
from stpm_bench.errors import InputError

try:
    CONFIG = complete(config)
except InputError as error:
    raise WorkflowError(str(error))

RESULTS = CONFIG["results"]
DATA = CONFIG["data"]["folder"]
STUDIES = CONFIG["studies"]
TABLE = grid.studies(CONFIG)
CELLS = grid.cells(TABLE)
CATEGORIES = list(dict.fromkeys(cell.category for cell in CELLS))
TEACHERS = {
    name: CONFIG["teachers"][name] for name in dict.fromkeys(cell.teacher for cell in CELLS)
}
CELL = f"{RESULTS}/cells/{grid.CELL}"

# The cell that a category's figure shows: the first of the main study, or of all where none is so
# called. Later entries of a dict replace earlier ones, hence the reversal.
SHOWN = grid.cells_of(STUDIES.get("main") or next(iter(STUDIES.values())), CONFIG["protocol"])
PANEL_CELLS = {cell.category: f"{RESULTS}/cells/{cell.folder}" for cell in reversed(SHOWN)}

NOTEBOOKS = sorted(path.stem for path in Path(workflow.basedir, "analysis").glob("*.py"))

# With as many cells as cores or more, one thread each trains the most images a second; few cells
# get the cores that would be idle.
THREADS = max(1, (workflow.cores or 1) // len(CELLS))


wildcard_constraints:
    category="|".join(map(re.escape, CATEGORIES)),
    teacher="|".join(map(re.escape, TEACHERS)),
    study="|".join(STUDIES),
    notebook="|".join(NOTEBOOKS),
    split="train|test",
    source=r"[a-z0-9]+",
    layers=r"[0-9+]+",
    fraction=r"[0-9.e-]+",
    seed=r"[0-9]+",
    protocol=r"[a-z_]+",


def options(values):
    """Return a dict as command-line options: {'batch_size': 32} is '--batch-size 32'."""
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in values.items())


def announcement():
    """Return what this run will do, before it starts."""
    lines = [
        f"stpm_bench: {len(CELLS)} students of {len(CATEGORIES)} categories in {len(STUDIES)} "
        f"studies ({', '.join(STUDIES)}); what is done already is kept."
    ]
    lines += [f"  downloads {what} into {DATA}/" for what in downloads()]
    return "\n".join(lines)


def closing():
    """Return the main table and where everything else is."""
    study = "main" if "main" in STUDIES else next(iter(STUDIES))
    table = Path(RESULTS, "tables", f"{study}.md").read_text()
    return (
        f"\n{table}\nAll numbers: {RESULTS}/metrics.csv\nTables:      {RESULTS}/tables/\n"
        f"Figures:     {RESULTS}/figures/"
    )
