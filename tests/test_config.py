from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from conftest import small_config
from stpm_bench.config import SCHEMA, complete, read
from stpm_bench.datasets import mvtec
from stpm_bench.errors import InputError
from stpm_bench.levels import LEVELS

CONFIGS = Path(__file__).parents[1] / "workflow" / "config"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_are_complete(path):
    config = read(path)
    assert {"main", "layers", "teachers", "few_shot"} <= set(config["studies"])


def test_defaults_are_the_papers_settings(small_set):
    training = complete(small_config(small_set, training={}))["training"]
    assert training == {
        "epochs": 100,
        "batch_size": 32,
        "learning_rate": 0.4,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "validation_fraction": 0.2,
    }


def test_all_is_every_category_of_the_folder(small_set):
    config = complete(small_config(small_set))
    assert config["data"]["categories"] == ["alpha", "beta"]
    assert config["studies"]["main"]["category"] == ["alpha", "beta"]


def test_all_is_every_category_of_mvtec_ad_where_it_will_be_downloaded():
    config = read(CONFIGS / "paper.yaml")
    assert config["studies"]["main"]["category"] == sorted(mvtec.CATEGORIES)


def test_completing_twice_changes_nothing_and_the_argument_is_left_alone(small_set):
    config = small_config(small_set)
    before = deepcopy(config)
    once = complete(config)
    assert config == before
    assert complete(once) == once


def test_the_schema_allows_the_backbones_that_exist():
    schema = yaml.safe_load(SCHEMA.read_text())
    teacher = schema["properties"]["teachers"]["additionalProperties"]
    assert teacher["properties"]["backbone"]["enum"] == list(LEVELS)


def study(**changes):
    axes = {"category": "all", "layers": [[1]], "teacher": ["random"], "fraction": [1.0]}
    return {"studies": {"main": axes | {"seed": [0]} | changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, r"config key 'epochs' is unknown; allowed here: results, data,"),
        (
            {"training": {"epoch": 3}},
            r"config key 'training.epoch' is unknown; allowed here: epochs, .*mean 'epochs'\?",
        ),
        ({"training": {"epochs": 0}}, r"config key 'training.epochs': 0 is less than"),
        ({"training": {"epochs": "ten"}}, r"epochs': found 'ten', expected a whole"),
        ({"image_size": 100}, r"config key 'image_size': 100 is not a multiple of 32"),
        ({"device": "gpu"}, r"config key 'device' is 'gpu'; allowed: auto, cpu, cuda"),
        ({"protocol": "mine"}, r"config key 'protocol' is 'mine'; allowed: paper"),
        ({"precision": "half"}, r"'precision' is 'half'; allowed: auto, float32, bfloat16"),
        (
            {"teachers": {"random": {"backbone": "vgg"}}},
            r"config key 'teachers.random.backbone' is 'vgg'; allowed: resnet18, resnet34,",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretrain": "imagnet"}}},
            r"'teachers.random.pretrain' is 'imagnet'; allowed: digits, photos, mnist,",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretrain": "mnist", "weights": "f"}}},
            r"'teachers.random' has both 'weights' and 'pretrain'",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "weights": "absent.pth"}}},
            r"'teachers.random.weights': no such file: absent.pth",
        ),
        ({"teachers": {"random": {}}}, r"'teachers.random' lacks 'backbone'"),
        (study(fraction=[0]), r"'studies.main.fraction.0' is 0; a fraction is above 0 and at most"),
        (study(fraction=[1.5]), r"'studies.main.fraction.0' is 1.5; a fraction is above 0 and"),
        (study(category=["gamma"]), r"main.category': 'gamma' is unknown; allowed: all, alpha, b"),
        (study(category="gamma"), r"'studies.main.category' is 'gamma'; expected 'all' or a list"),
        (study(teacher=["imagenet"]), r"main.teacher': 'imagenet' is not under .*allowed: random"),
        (
            study(layers=[[1, 5]]),
            r"main.layers': level 5 does not exist in backbone 'resnet18'; allowed: 1, 2, 3, 4",
        ),
        (study(layers=[1, 2, 3]), r"'studies.main.layers.0': found 1, expected a list"),
        (study(layers=[[1.0]]), r"main.layers.0.0': found 1.0, expected a whole number"),
        (study(seed=[1.0]), r"'studies.main.seed.0': found 1.0, expected a whole number"),
        (study(fraction=[float("nan")]), r"main.fraction.0': found nan, expected a number"),
        ({"studies": {2024: {}}}, r"'studies': found 2024, expected a text"),
        ({"studies": {"cost": {}}}, r"name 'cost'; .* a study's is not that of another table"),
        ({"studies": {"a_differences": {}}}, r"a study's is not that of another table or figure"),
        (
            {"teachers": {"a b": {"backbone": "resnet18"}}},
            r"config key 'teachers': found the name 'a b'; a name is made of letters",
        ),
        ({"training": {"learning_rate": "1e-3"}}, r"expected a number; it came as text, as YAML"),
        (study(layers=[[]]), r"'studies.main.layers.0': \[\] should be non-empty"),
        (study(layers=[[1, 1]]), r"'studies.main.layers.0': \[1, 1\] has non-unique elements"),
        (study(seed=[-1]), r"'studies.main.seed.0': -1 is less than the minimum of 0"),
        (study(sed=[1]), r"'studies.main.sed' is unknown; .*did you mean 'seed'\?"),
        ({"studies": {}}, r"config key 'studies': \{\} should be non-empty"),
        ({"studies": {"main": {}}}, r"'studies.main' lacks 'category', 'layers', 'teacher'"),
        (
            {"data": {"demo": True, "categories": ["bottle"]}},
            r"'data.categories': 'bottle' is not in the demo set; allowed: all, brick, grass, grav",
        ),
        (
            {"data": {"categories": ["botle"]}},
            r"'data.categories': 'botle' is not in MVTec AD; allowed: all, bottle, cable,",
        ),
        ({"data": {"mvtec_ad": "absent"}}, r"'data.mvtec_ad': no such folder: absent; expected"),
        ({"data": {"mvtec_ad": "tests", "demo": True}}, r"both 'demo: true' and 'mvtec_ad'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(small_set, changes, message):
    with pytest.raises(InputError, match=message):
        complete(small_config(small_set, **changes))


def test_a_folder_may_end_in_a_slash_and_begin_at_home(small_set, monkeypatch):
    monkeypatch.setenv("HOME", str(small_set))
    config = complete(small_config(small_set, results="~/out/", data={"mvtec_ad": "~/data/"}))
    assert config["results"] == str(small_set / "out")
    assert config["data"]["mvtec_ad"] == str(small_set / "data")


def test_every_error_is_told_at_once(small_set):
    with pytest.raises(InputError, match=r"'device'(.|\n)*'precision'"):
        complete(small_config(small_set, device="x", precision="y"))


def test_a_folder_without_categories(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="holds no category; expected folders like bottle/"):
        complete(small_config(tmp_path))


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(InputError, match=r"absent.yaml: cannot be read"):
        read(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(InputError, match=r"broken.yaml: is not YAML"):
        read(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match=r"the config: found .*, expected keys with values"):
        read(tmp_path / "list.yaml")
