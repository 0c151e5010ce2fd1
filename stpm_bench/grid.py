"""Turns studies into cells: the one module that knows which combinations exist."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from stpm_bench.files import verified
from stpm_bench.levels import format_layers
from stpm_bench.methods import define, fit_key
from stpm_bench.methods.interface import Settings

# The name of a cell's folder contains its axes, so that a single cell can be requested from
# Snakemake by its path; the same holds for the folder of its fit.
CELL = (
    "category-{category}_layers-{layers}_teacher-{teacher}"
    "_fraction-{fraction}_seed-{seed}_method-{method}"
)
# `layers` is the text of the levels that the method uses: '1+2+3', see `levels.format_layers`.
AXES = ("category", "layers", "teacher", "fraction", "seed", "method")
# The axes that a table compares; it averages over seeds and categories.
SETTING = tuple(axis for axis in AXES if axis not in ("category", "seed"))


class Cell(NamedTuple):
    """One combination of the axes: a method's run, evaluated."""

    category: str
    layers: str
    teacher: str
    fraction: float
    seed: int
    method: str

    @property
    def folder(self) -> str:
        return CELL.format(**self._asdict())


def set_of(category: str) -> str:
    """Return the set of a category by its name in the config: 'visa' of 'visa.candle'.

    A category without a prefix belongs to MVTec AD, to a folder given in its place, or to the demo:
    'mvtec_ad' for all three.
    """
    return category.partition(".")[0] if "." in category else "mvtec_ad"


def levels_of(layers: Sequence[int] | str, settings: Settings) -> Sequence[int]:
    """Return the levels of a study; 'default' stands for those of the method."""
    return settings.levels if layers == "default" else layers


def drawn_per_seed(teacher: Mapping) -> bool:
    """Return whether each seed has a separate draw of a teacher.

    A teacher with weights is one network. One that is trained here or untrained is drawn again for
    each seed, so that the spread over seeds includes its variance, unless the config gives its
    `seed` or says `draws: 1`.

    Args:
        teacher: an entry of the config's `teachers`.
    """
    return "weights" not in teacher and "seed" not in teacher and teacher.get("draws") != 1


def teacher_file(name: str, teacher: Mapping, seed: int) -> str:
    """Return the file name, without its suffix, of a teacher's draw for a seed."""
    return f"{name}_seed-{seed}" if drawn_per_seed(teacher) else name


def cells_of(
    study: dict, methods: Mapping[str, Settings], teachers: Mapping[str, Mapping]
) -> list[Cell]:
    """Return the product of a study's axes without duplicates, in the order of the config.

    A method without randomness gets only the first seed if nothing else is drawn: at a fraction of
    1.0 and with a teacher that is the same for every seed.

    Args:
        methods: every method of the config by name. teachers: the config's `teachers`.
    """
    product = itertools.product(
        study["category"],
        study["layers"],
        study["teacher"],
        map(float, study["fraction"]),
        study["seed"],
        study["method"],
    )
    cells = []
    for category, layers, teacher, fraction, seed, method in product:
        settings = methods[method]
        if not settings.depends_on_seed and fraction == 1 and not drawn_per_seed(teachers[teacher]):
            seed = study["seed"][0]
        levels = format_layers(levels_of(layers, settings))
        cells.append(Cell(category, levels, teacher, fraction, seed, method))
    return list(dict.fromkeys(cells))


def fits_of(cells: Iterable[Cell], methods: Mapping[str, Settings]) -> dict[Cell, Cell]:
    """Return the fit of each cell: the cell of the first method whose fit would be the same.

    Cells that differ only in their evaluation share a fit. The cell that stands for it gives the
    fit's folder its name; no study needs to contain that cell.

    Args:
        methods: every method of the config by name; earlier ones take precedence.
    """

    @functools.cache
    def first(method: str, fraction: float) -> str:
        key = fit_key(methods[method], fraction)
        return next(name for name, s in methods.items() if fit_key(s, fraction) == key)

    return {cell: cell._replace(method=first(cell.method, cell.fraction)) for cell in cells}


def studies(config: dict) -> pd.DataFrame:
    """Return every study's cells: column `study`, the axes, `fit` (the folder name of the cell's
    fit) and `teacher_file` (the file name of its teacher); a cell that several studies share has
    one row in each.

    Args:
        config: completed.
    """
    methods, teachers = define(config["methods"], config["training"]), config["teachers"]
    cells = {name: cells_of(part, methods, teachers) for name, part in config["studies"].items()}
    fits = fits_of(itertools.chain.from_iterable(cells.values()), methods)
    rows = [
        (name, *c, fits[c].folder, teacher_file(c.teacher, teachers[c.teacher], c.seed))
        for name, of_study in cells.items()
        for c in of_study
    ]
    return pd.DataFrame(rows, columns=["study", *AXES, "fit", "teacher_file"])


def cells(table: pd.DataFrame) -> list[Cell]:
    """Return the cells of a table with the axes as columns, without duplicates, in its order."""
    unique = table[list(AXES)].drop_duplicates()
    return [Cell(*row) for row in unique.itertuples(index=False)]


def fit_names(table: pd.DataFrame) -> dict[Cell, str]:
    """Return the name of the folder of each cell's fit, from what `studies` returns."""
    unique = table[[*AXES, "fit"]].drop_duplicates()
    return {Cell(*axes): fit for *axes, fit in unique.itertuples(index=False)}


def cell_of(wildcards: Mapping[str, str]) -> Cell:
    """Return the cell for a folder's wildcards, which are texts."""
    values = dict(wildcards)
    return Cell(**values | {"fraction": float(values["fraction"]), "seed": int(values["seed"])})


def teacher_files(table: pd.DataFrame) -> dict[str, str]:
    """Return the files of all teachers, from what `studies` returns: file -> the teacher."""
    unique = table[["teacher_file", "teacher"]].drop_duplicates()
    return dict(unique.itertuples(index=False))


def main_study(names: Iterable[str]) -> str:
    """Return the study of the main table, the audit and the figures of each category: 'main', or
    the first study if none has that name."""
    names = list(dict.fromkeys(names))
    return "main" if "main" in names else names[0]


def setting_of(cells: pd.DataFrame) -> pd.Series:
    """Return the reference setting of a study, that of its first cell: the values of `SETTING`."""
    return cells[list(SETTING)].iloc[0]


def at_setting(table: pd.DataFrame, setting: Sequence) -> pd.DataFrame:
    """Return the rows of a table at a setting, the values of `SETTING`."""
    return table[(table[list(SETTING)] == list(setting)).all(axis=1)]


def varying(table: pd.DataFrame) -> list[str]:
    """Return the axes of a setting in which the rows of a study differ."""
    return [axis for axis in SETTING if table[axis].nunique() > 1]


def read(path: str | Path) -> pd.DataFrame:
    """Read a CSV with axes among its columns.

    Names stay texts: '1' in `layers` is not a number, and a teacher called 'None' is not a gap. An
    empty field in any other column is a gap.

    Raises:
        InputError: the file has changed since it was written.
    """
    verified(path)
    names = {"study", "category", "layers", "teacher", "method", "fit", "teacher_file"}
    others = set(pd.read_csv(path, nrows=0).columns) - names
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(names, str),
        keep_default_na=False,
        na_values={column: [""] for column in others},
    )
