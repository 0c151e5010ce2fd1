"""A config and what follows from it: the cells, their fits, the teachers and the sets, by name.

The rules read the attributes of a `Suite`, and pass it to functions of stpm_bench/run/.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from stpm_bench import grid
from stpm_bench.config import Source, complete, keeps_model, methods, sources, unpacks_mvtec_ad
from stpm_bench.files import check_writable
from stpm_bench.grid import Cell
from stpm_bench.levels import PUBLISHED
from stpm_bench.methods.interface import Settings
from stpm_bench.results import check_layout
from stpm_bench.run.plan import count_images
from stpm_bench.run.rates import Rates, rates


class Suite(NamedTuple):
    """Everything that a config plans.

    Attributes:
        config: completed.
        sources: category -> where its images are.
        studies: what `grid.studies` returns.
        cells: each once, in the order of the config.
        fits: cell -> name of the folder of its fit.
        methods: name -> settings, the built-in ones first.
        teachers: name of a teacher's file, without its suffix -> its entry in the config; one
            file for each seed if the teacher is drawn for each seed (`grid.drawn_per_seed`).
        pretraining: name of a pretraining set -> the entry of a teacher that uses it, or for a
            CIFAR-10 that only a test set needs, `{"pretrain": "cifar10"}`.
        image_count: (category, split) -> how many images there are, or will be; counted once.
        known_rates: how fast fits are on this machine; read once.
    """

    config: dict
    sources: dict[str, Source]
    studies: pd.DataFrame
    cells: list[Cell]
    fits: dict[Cell, str]
    methods: dict[str, Settings]
    teachers: dict[str, dict]
    pretraining: dict[str, dict]
    image_count: Callable[[str, str], int]
    known_rates: Callable[[], Rates]

    @property
    def results(self) -> str:
        return self.config["results"]

    @property
    def data(self) -> str:
        return self.config["data"]["folder"]

    @property
    def categories(self) -> list[str]:
        return list(dict.fromkeys(cell.category for cell in self.cells))

    @property
    def mvtec_marker(self) -> str:
        """The file that is written last when MVTec AD is unpacked."""
        return f"{self.data}/mvtec_ad/download.json"

    @property
    def archive(self) -> str | None:
        """The user's archive of MVTec AD, if one is unpacked."""
        data = self.config["data"]
        return data["mvtec_ad"] if unpacks_mvtec_ad(data) else None

    @property
    def methods_with_kept_models(self) -> list[str]:
        """The methods whose models are kept after the test images are scored."""
        return [name for name, s in self.methods.items() if keeps_model(self.config, s)]

    @property
    def methods_with_temporary_models(self) -> list[str]:
        """The methods whose models are removed after the test images are scored."""
        return [name for name, s in self.methods.items() if not keeps_model(self.config, s)]

    @property
    def main_study(self) -> str:
        """The study of the main table, the audit and each category's figures."""
        return grid.main_study(self.config["studies"])

    @property
    def main_cells(self) -> list[Cell]:
        return grid.cells(self.studies[self.studies["study"] == self.main_study])

    @property
    def panel_cells(self) -> dict[str, Cell]:
        """The cell that a category's figure shows: the main study's first in that category."""
        # Later entries of a dict replace earlier ones, hence the reversal.
        return {cell.category: cell for cell in reversed(self.main_cells)}

    def cell_folder(self, cell: Cell) -> str:
        return f"{self.results}/cells/{cell.folder}"

    def fit_folder(self, cell: Cell) -> str:
        """Return the folder of a cell's fit.

        The cell need not be part of a study: Snakemake can be asked for any cell by its path.
        """
        fit = self.fits.get(cell) or grid.fits_of([cell], self.methods)[cell].folder
        return f"{self.results}/fits/{fit}"


def suite_of(config: Mapping[str, Any]) -> Suite:
    """Complete a config and return everything that it plans.

    Makes the results folder if there is none, and layout.json in a new one.

    Raises:
        InputError: the config is not allowed, or its results folder cannot be written or has
            another layout.
    """
    completed = complete(config)
    check_writable(completed["results"])
    check_layout(completed["results"])
    studies, category_sources = grid.studies(completed), sources(completed)
    cells = grid.cells(studies)
    rows = studies[["teacher_file", "teacher", "seed"]].itertuples(index=False)
    # A file that is not named like its teacher holds the draw for one seed.
    teachers = {
        file: completed["teachers"][teacher] | ({"seed": int(seed)} if file != teacher else {})
        for file, teacher, seed in rows
    }
    pretraining = {pretraining_name(t): t for t in teachers.values() if "pretrain" in t}
    # One-class CIFAR-10 needs the same download as a teacher of CIFAR-10. The file that the rule
    # `pretraining_set` makes from it is the marker (`Source.marker`) of the test set.
    cifar10 = f"{completed['results']}/pretraining/cifar10.npz"
    if any(category_sources[cell.category].marker == cifar10 for cell in cells):
        pretraining.setdefault("cifar10", {"pretrain": "cifar10"})
    fits = grid.fit_names(studies)
    return Suite(
        config=completed,
        sources=category_sources,
        studies=studies,
        cells=cells,
        fits=fits,
        methods=methods(completed),
        teachers=teachers,
        pretraining=pretraining,
        image_count=functools.cache(
            lambda category, split: count_images(category_sources[category], split)
        ),
        known_rates=functools.cache(lambda: rates(completed, fits)),
    )


def pretraining_name(teacher: Mapping) -> str:
    """Return the name of a teacher's pretraining set; for a folder, its last part and a hash of its
    path and of the size to which its images are resized."""
    source = teacher["pretrain"]
    if isinstance(source, str):
        return source
    folder, size = source["folder"], teacher["pretraining"]["input_size"]
    return f"{Path(folder).name}-{hashlib.sha256(f'{folder} {size}'.encode()).hexdigest()[:8]}"


def has_torchvision_weights(teacher: Mapping) -> bool:
    """Return whether a teacher's weights are torchvision's published ones."""
    return teacher.get("weights") in PUBLISHED[teacher["backbone"]]
