"""Studies to cells: the one place that knows which combinations exist."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from stpm_bench.errors import InputError
from stpm_bench.files import checked

# A cell's folder spells its axes, so that any single cell can be asked for by name.
CELL = (
    "category-{category}_layers-{layers}_teacher-{teacher}"
    "_fraction-{fraction}_seed-{seed}_protocol-{protocol}"
)
AXES = ("category", "layers", "teacher", "fraction", "seed", "protocol")
# What a table sets side by side; seeds and categories are what it averages over.
SETTING = tuple(axis for axis in AXES if axis not in ("category", "seed"))


class Cell(NamedTuple):
    """One combination of the axes: one student."""

    category: str
    layers: str
    teacher: str
    fraction: float
    seed: int
    protocol: str

    @property
    def folder(self) -> str:
        return CELL.format(**self._asdict())


def set_of(category: str) -> str:
    """Return the set of a category as configs spell it: 'visa' of 'visa.candle'.

    A category without one is MVTec AD's, or of a folder given in its place.
    """
    return category.partition(".")[0] if "." in category else "mvtec_ad"


def spell_layers(levels: Sequence[int]) -> str:
    """Return levels in ascending order as the tables write them: [3, 1] is '1+3'."""
    return "+".join(str(level) for level in sorted(levels))


def parse_layers(layers: str) -> list[int]:
    """Return the levels of a spelling: '1+3' is [1, 3].

    Raises:
        InputError: it is spelled in another way.
    """
    if not re.fullmatch(r"\d+(\+\d+)*", layers):
        raise InputError(f"layers {layers!r}: expected levels joined by '+', as in 1+2+3")
    return [int(level) for level in layers.split("+")]


def cells_of(study: dict) -> list[Cell]:
    """Return the product of a study's axes, each cell once, in the order of the config."""
    product = itertools.product(
        study["category"],
        map(spell_layers, study["layers"]),
        study["teacher"],
        map(float, study["fraction"]),
        study["seed"],
        study["protocol"],
    )
    return list(dict.fromkeys(Cell(*values) for values in product))


def studies(config: dict) -> pd.DataFrame:
    """Return every study's cells: column `study`, then the axes; a shared cell has several rows."""
    rows = [(name, *cell) for name, study in config["studies"].items() for cell in cells_of(study)]
    return pd.DataFrame(rows, columns=["study", *AXES])


def cells(table: pd.DataFrame) -> list[Cell]:
    """Return the cells of a table with the axes as columns, each once, in its order."""
    unique = table[list(AXES)].drop_duplicates()
    return [Cell(*row) for row in unique.itertuples(index=False)]


def varying(table: pd.DataFrame) -> list[str]:
    """Return the axes of a setting in which the rows of a study differ."""
    return [axis for axis in SETTING if table[axis].nunique() > 1]


def read(path: str | Path) -> pd.DataFrame:
    """Read a CSV with axes among its columns.

    Names stay names: '1' of layers is no number, and a teacher called 'None' is no gap.

    Raises:
        InputError: the file is not what was written.
    """
    checked(path)
    names = {"study", "category", "layers", "teacher", "protocol"}
    numbers = set(pd.read_csv(path, nrows=0).columns) - names
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(names, str),
        keep_default_na=False,
        na_values={column: [""] for column in numbers},
    )
