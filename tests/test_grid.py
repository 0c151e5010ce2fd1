import pandas as pd
import pytest

from stpm_bench import grid, methods
from stpm_bench.errors import InputError
from stpm_bench.levels import format_layers, parse_layers

CONFIG = {
    "methods": {"summed": {"fusion": "sum"}, "long": {"epochs": 7}},
    "training": {},
    "teachers": {"t": {"backbone": "resnet18", "weights": "t.pth"}, "u": {"backbone": "resnet18"}},
    "studies": {
        "main": {
            "category": ["a", "b"],
            "layers": [[1, 2, 3]],
            "teacher": ["t"],
            "fraction": [1],
            "seed": [0, 1],
            "method": ["stpm"],
        },
        "layers": {
            "category": ["a"],
            "layers": [[3, 1], [1, 2, 3], [3, 2, 1]],
            "teacher": ["t"],
            "fraction": [1.0, 0.05],
            "seed": [0],
            "method": ["stpm", "stpm_authors"],
        },
    },
}


def test_a_cell_that_studies_share_is_one_cell():
    table = grid.studies(CONFIG)
    assert table["study"].value_counts().to_dict() == {"main": 4, "layers": 8}
    assert len(grid.cells(table)) == 11
    assert len({cell.folder for cell in grid.cells(table)}) == 11


def test_cells_that_differ_in_their_evaluation_alone_share_a_fit():
    study = CONFIG["studies"]["main"] | {"method": ["long", "summed", "stpm"]}
    fits = grid.fit_names(grid.studies(CONFIG | {"studies": {"main": study}}))
    assert len(fits) == 12
    for cell, fit in fits.items():
        # Named after the first method of all with these fields, whether a study runs it or not.
        first = {"long": "long", "summed": "stpm", "stpm": "stpm"}[cell.method]
        assert fit == cell._replace(method=first).folder
    alone = study | {"method": ["summed"]}
    again = grid.fit_names(grid.studies(CONFIG | {"studies": {"main": alone}}))
    assert {fit for cell, fit in again.items()} < set(fits.values())


def test_default_layers_are_the_methods_own():
    study = CONFIG["studies"]["main"] | {"layers": ["default", [2]]}
    cells = grid.cells(grid.studies(CONFIG | {"studies": {"main": study}}))
    assert {cell.layers for cell in cells} == {"1+2+3", "2"}


def test_a_method_that_draws_nothing_has_one_seed_where_nothing_else_is_drawn():
    study = {"category": ["a"], "layers": ["default"], "teacher": ["t", "u"], "seed": [3, 4]}
    study |= {"fraction": [0.1, 1.0], "method": ["spade", "stpm"]}
    table = grid.studies(CONFIG | {"studies": {"main": study}})
    assert not methods.built_in()["spade"].depends_on_seed
    seeds = table.groupby(["method", "teacher", "fraction"])["seed"].apply(list).to_dict()
    alone = {key for key, found in seeds.items() if found == [3]}
    assert alone == {("spade", "t", 1.0)}  # a file of weights, all images
    assert all(found == [3, 4] for key, found in seeds.items() if key not in alone)


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        ({}, {"t_seed-0", "t_seed-1"}),
        ({"pretrain": "mnist"}, {"t_seed-0", "t_seed-1"}),
        ({"pretrain": "mnist", "draws": 1}, {"t"}),
        ({"seed": 3}, {"t"}),
        ({"weights": "IMAGENET1K_V1"}, {"t"}),
    ],
)
def test_a_teacher_is_drawn_for_each_seed_unless_it_is_one_network(entry, files):
    config = CONFIG | {"teachers": {"t": {"backbone": "resnet18"} | entry}}
    config["studies"] = {"main": CONFIG["studies"]["main"]}
    table = grid.studies(config)
    assert set(table["teacher_file"]) == files
    assert grid.teacher_files(table) == dict.fromkeys(files, "t")


def test_a_folder_spells_the_axes():
    cell = grid.cells_of(CONFIG["studies"]["layers"], methods.built_in(), CONFIG["teachers"])[2]
    assert cell.folder == "category-a_layers-1+3_teacher-t_fraction-0.05_seed-0_method-stpm"


def test_layers_are_written_in_order_and_read_back():
    assert format_layers([3, 1, 2]) == "1+2+3"
    assert parse_layers("1+2+3") == [1, 2, 3]


def test_names_that_look_like_numbers_stay_names(tmp_path):
    cells = [
        grid.Cell("001", "2", "18", 0.1, 0, "stpm"),
        grid.Cell("NA", "2", "None", 1.0, 1, "p"),
    ]
    pd.DataFrame(cells).to_csv(tmp_path / "cells.csv", index=False)
    assert grid.cells(grid.read(tmp_path / "cells.csv")) == cells


@pytest.mark.parametrize("layers", ["", "1-2", "1+", "a"])
def test_layers_that_are_written_wrong(layers):
    with pytest.raises(InputError, match=r"expected levels joined by '\+', as in 1\+2\+3"):
        parse_layers(layers)


def test_the_main_study_and_its_reference_setting():
    assert grid.main_study(["layers", "main", "layers"]) == "main"
    assert grid.main_study(pd.Series(["few", "few", "layers"])) == "few"
    table = grid.studies(CONFIG)
    layers = table[table["study"] == "layers"]
    assert grid.setting_of(layers).to_list() == ["1+3", "t", 1.0, "stpm"]
    rows = grid.at_setting(layers, grid.setting_of(layers))
    assert grid.cells(rows) == [grid.Cell("a", "1+3", "t", 1.0, 0, "stpm")]
