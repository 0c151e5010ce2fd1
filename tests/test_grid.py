import pandas as pd
import pytest

from stpm_bench import grid
from stpm_bench.errors import InputError

CONFIG = {
    "studies": {
        "main": {
            "category": ["a", "b"],
            "layers": [[1, 2, 3]],
            "teacher": ["t"],
            "fraction": [1],
            "seed": [0, 1],
            "protocol": ["paper"],
        },
        "layers": {
            "category": ["a"],
            "layers": [[3, 1], [1, 2, 3], [3, 2, 1]],
            "teacher": ["t"],
            "fraction": [1.0, 0.05],
            "seed": [0],
            "protocol": ["paper", "authors"],
        },
    },
}


def test_a_cell_that_studies_share_is_one_cell():
    table = grid.studies(CONFIG)
    assert table["study"].value_counts().to_dict() == {"main": 4, "layers": 8}
    assert len(grid.cells(table)) == 11
    assert len({cell.folder for cell in grid.cells(table)}) == 11


def test_a_folder_spells_the_axes():
    cell = grid.cells_of(CONFIG["studies"]["layers"])[2]
    assert cell.folder == "category-a_layers-1+3_teacher-t_fraction-0.05_seed-0_protocol-paper"


def test_layers_are_spelled_in_order_and_read_back():
    assert grid.spell_layers([3, 1, 2]) == "1+2+3"
    assert grid.parse_layers("1+2+3") == [1, 2, 3]


def test_names_that_look_like_numbers_stay_names(tmp_path):
    cells = [
        grid.Cell("001", "2", "18", 0.1, 0, "paper"),
        grid.Cell("NA", "2", "None", 1.0, 1, "p"),
    ]
    pd.DataFrame(cells).to_csv(tmp_path / "cells.csv", index=False)
    assert grid.cells(grid.read(tmp_path / "cells.csv")) == cells


@pytest.mark.parametrize("layers", ["", "1-2", "1+", "a"])
def test_layers_that_are_spelled_wrong(layers):
    with pytest.raises(InputError, match=r"expected levels joined by '\+', as in 1\+2\+3"):
        grid.parse_layers(layers)
