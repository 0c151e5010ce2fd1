import dataclasses
import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builders import small_config
from stpm_bench import grid
from stpm_bench import methods as registry
from stpm_bench.__main__ import parser
from stpm_bench.anomaly_map import FUSIONS
from stpm_bench.code_version import version_of
from stpm_bench.config import SCHEMA, complete, load, methods, read, settings, sources, warnings_of
from stpm_bench.datasets import masks, mvtec
from stpm_bench.datasets.check import check_folder
from stpm_bench.datasets.interface import ReadOptions
from stpm_bench.datasets.prepare import prepare
from stpm_bench.errors import InputError
from stpm_bench.levels import LEVELS
from stpm_bench.methods.distance import DISTANCES
from stpm_bench.methods.stpm import METHODS, Stpm
from stpm_bench.results import MASKS
from stpm_bench.steps.data import read_options_of

FIELDS = {field.name for field in dataclasses.fields(Stpm)}

CONFIGS = Path(__file__).parents[1] / "workflow" / "config"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_are_complete(path):
    if path.stem == "shanghaitech":  # its folder is the user's
        with pytest.raises(InputError, match=r"shanghaitech.path': data/shanghaitech: no category"):
            read(path)
        return
    config = read(path)
    assert "main" in config["studies"]
    if path.stem in ("demo", "paper", "full"):
        assert {"main", "layers", "teachers", "few_shot"} <= set(config["studies"])


def test_training_replaces_numbers_and_an_own_field_replaces_both(small_set):
    own = {"mine": {"like": "stpm_authors", "epochs": 7, "fusion": "sum"}, "plain": {}}
    changes = {"training": {"epochs": 3, "weight_decay": 0.5}, "methods": own}
    found = methods(complete(small_config(small_set, **changes)))
    assert list(found) == [*registry.built_in(), "mine", "plain"]
    for name in METHODS:
        assert found[name] == replace(METHODS[name], epochs=3, weight_decay=0.5)
    expected = replace(METHODS["stpm_authors"], epochs=7, weight_decay=0.5, fusion="sum")
    assert found["mine"] == expected
    assert found["plain"] == found["stpm"]


def test_without_training_the_methods_are_as_built_in(small_set):
    config = complete(small_config(small_set, training={}))
    assert config["training"] == {}
    assert config["studies"]["main"]["method"] == ["stpm"]
    assert methods(config) == registry.built_in()


def test_shipped_configs_mean_what_they_say():
    for name, epochs, batch_size in (("paper", 100, 32), ("demo", 20, 4)):
        config = read(CONFIGS / f"{name}.yaml")
        expected = replace(METHODS["stpm"], epochs=epochs, batch_size=batch_size)
        assert methods(config)["stpm"] == expected
        assert "stpm" in set(grid.studies(config)["method"])


def test_the_schema_allows_what_the_code_knows():
    training = yaml.safe_load(SCHEMA.read_text())["properties"]["training"]["properties"]
    assert set(training) < FIELDS
    fields = registry.schema(METHODS["stpm"])["properties"]
    assert set(fields) == {"like", *FIELDS}
    for key in training:
        assert training[key].items() >= fields[key].items()  # a description may come on top
    for field, known in (
        ("like", registry.built_in()),
        ("distance", DISTANCES),
        ("fusion", FUSIONS),
        ("masks", masks.TREATMENTS),
    ):
        assert set(fields[field]["enum"]) == set(known)
    assert set(MASKS) == set(masks.TREATMENTS)
    weights = fields["level_weights"]
    assert weights["minItems"] == weights["maxItems"] == max(map(len, LEVELS.values()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stpm_anomalib", METHODS["stpm_anomalib"]),
        ('{"file": "stpm", "epochs": 3}', replace(METHODS["stpm"], epochs=3)),
    ],
)
def test_a_step_takes_a_method_by_name_or_by_its_fields(text, expected):
    assert settings(text) == expected


@pytest.mark.parametrize("name", registry.built_in())
def test_settings_come_through_the_command_line_as_they_were(name):
    expected = registry.built_in()[name]
    assert settings(json.dumps(registry.to_dict(expected))) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", r"settings 'mine': expected stpm, stpm_authors"),
        ('{"epochs": 3}', r"expected .*KeyError: 'file'"),
        ('{"file": "mine"}', r"ModuleNotFoundError"),
        ('{"file": "stpm", "epoch": 3}', r"'settings.epoch' is unknown; .*mean 'epochs'\?"),
        ('{"file": "stpm", "epochs": 0}', r"'settings.epochs' is 0; .*at least 1"),
        ("{", r"JSONDecodeError"),
    ],
)
def test_settings_that_a_step_does_not_understand(text, message):
    with pytest.raises(InputError, match=message):
        settings(text)


def test_what_evaluates_does_not_fit():
    stpm = METHODS["stpm"]
    for change in ({"masks": "bilinear_any"}, {"fusion": "sum"}, {"map_resolution": "finest"}):
        changed = replace(stpm, **change)
        assert registry.fit_key(changed, 1.0) == registry.fit_key(stpm, 1.0)
        assert change.items() <= changed.evaluation_part().items()
        by_map = [replace(s, checkpoint="validation_map") for s in (changed, stpm)]
        same = registry.fit_key(by_map[0], 1.0) == registry.fit_key(by_map[1], 1.0)
        assert same == ("masks" in change)
    steps = replace(stpm, schedule="steps")
    assert registry.fit_key(steps, 1.0) == registry.fit_key(stpm, 1.0)
    assert registry.fit_key(steps, 0.5) != registry.fit_key(stpm, 0.5)
    for field in FIELDS:
        part = {"masks", "smoothing", "fusion", "map_resolution"}
        assert (field in stpm.evaluation_part()) == (field in part)
        assert (field in stpm.fit_part(1.0)) == (field not in part)


def test_a_pattern_is_never_shown_but_its_words():
    def parts(schema):
        yield schema
        for part in schema.values() if isinstance(schema, dict) else schema:
            if isinstance(part, dict | list):
                yield from parts(part)

    patterns = [p for p in parts(yaml.safe_load(SCHEMA.read_text())) if "pattern" in p]
    assert len(patterns) > 5
    assert [part for part in patterns if "x-expected" not in part] == []


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
        ({"epochs": 3}, r"config key 'epochs' is unknown; allowed here: results, image_size,"),
        (
            {"training": {"epoch": 3}},
            r"config key 'training.epoch' is unknown; allowed here: epochs, .*mean 'epochs'\?",
        ),
        ({"training": {"epochs": 0}}, r"config key 'training.epochs' is 0; .* at least 1"),
        ({"training": {"epochs": "ten"}}, r"epochs' is 'ten'; expected a whole"),
        ({"image_size": 100}, r"config key 'image_size' is 100; .* multiple of 32"),
        (
            study(layers=[[3, 4]]) | {"image_size": 32},
            r"'image_size' is 32, .*level 4 of study main .*at least 64",
        ),
        ({"results": ""}, r"config key 'results' is ''; expected a text, not empty"),
        (
            {"teachers": {"random": {"backbone": "resnet18", "draws": 2}}},
            r"'teachers.random.draws' is 2; expected 1",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretrain": ["mnist"]}}},
            r"'teachers.random.pretrain' is \['mnist'\]; allowed: digits, .*folder: PATH",
        ),
        ({"method": "stpm"}, r"config key 'method' is unknown.*did you mean 'methods'"),
        (study(method=["mine"]), r"main.method': 'mine' is unknown; allowed: stpm, stpm_authors,"),
        (study(layers=["all"]), r"main.layers.0' is 'all'; expected default or a list of levels"),
        (
            {"methods": {"mine": {"like": "yours"}}},
            r"'methods.mine.like' is 'yours'; allowed: stpm, stpm_authors,",
        ),
        (
            {"methods": {"mine": {"fuse": "sum"}}},
            r"'methods.mine.fuse' is unknown; allowed here: .*distance.*did you mean 'fusion'",
        ),
        (
            {"methods": {"mine": {"fusion": "max"}}},
            r"'methods.mine.fusion' is 'max'; allowed: product, sum",
        ),
        ({"methods": {"stpm": {}}}, r"'methods.stpm': .*built-in"),
        ({"methods": {"A-b": {}}}, r"'methods': found the name 'A-b'; expected a name of"),
        ({"threads": 0}, r"'threads' is 0; .* at least 1"),
        ({"device": "gpu"}, r"config key 'device' is 'gpu'; allowed: auto, cpu, cuda"),
        ({"precision": "half"}, r"'precision' is 'half'; allowed: auto, float32, bfloat16"),
        (
            {"teachers": {"random": {"backbone": "vgg"}}},
            r"config key 'teachers.random.backbone' is 'vgg'; allowed: resnet18, resnet34,",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretrain": "imagnet"}}},
            r"'teachers.random.pretrain' is 'imagnet'; allowed: digits, mnist,",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretrain": "mnist", "weights": "f"}}},
            r"'teachers.random' has both 'weights' and 'pretrain'",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "weights": "absent.pth"}}},
            r"'teachers.random.weights': no such file: absent.pth; .*torchvision's: IMAGENET1K_V1",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "weights": "IMAGENET1K_V2"}}},
            r"no such file: IMAGENET1K_V2; expected .*, or one of torchvision's: IMAGENET1K_V1$",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretrain": {"folder": "absent"}}}},
            r"'teachers.random.pretrain.folder': no folder absent/train; expected train/CLASS/\*",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "sha256": "abc"}}},
            r"'teachers.random.sha256' is 'abc'; expected 64 hex",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "sha256": "0" * 64}}},
            r"'teachers.random.sha256' .*'weights' names no file",
        ),
        (
            {
                "teachers": {
                    "random": {
                        "backbone": "mobilenet_v2",
                        "weights": "embedded",
                        "sha256": "0" * 64,
                    }
                }
            },
            r"'teachers.random.sha256' .*'weights' names no file",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet34", "weights": "embedded"}}},
            r"'teachers.random.weights' is 'embedded', but .* none for resnet34; .*: mobilenet_v2'",
        ),
        (
            {"teachers": {"random": {"backbone": "mobilenet_v2", "weights": "embeded"}}},
            r"'teachers.random.weights': no such file: embeded; expected .* or 'embedded', or",
        ),
        (
            {"teachers": {"random": {"backbone": "mobilenet_v2", "weights": "embedded"}}}
            | study(layers=[[1, 2], [3, 4]]),
            r"'studies.main.layers': level 4 .*'teachers.random.weights', .* levels 1, 2, 3",
        ),
        (
            {"teachers": {"random": {"backbone": "resnet18", "pretraining": {"epochs": 3}}}},
            r"'teachers.random.pretraining' is set, but the teacher has no 'pretrain'",
        ),
        ({"training": {"validation_fraction": 0}}, r"fraction' is 0; .* above 0, below 1"),
        ({"training": {"validation_fraction": 1}}, r"fraction' is 1; .* above 0, below 1"),
        (
            {"methods": {"mine": {"level_weights": [1, 1, 1]}}},
            r"'methods.mine.level_weights' is \[1, 1, 1\]; expected a list of 4",
        ),
        ({"methods": {"Mine": {}}}, r"found the name 'Mine'; expected a name of .*lower-case"),
        ({"pretraining": {"flip": True}}, r"flip' is True; allowed: auto, always, never"),
        ({"teachers": {"random": {}}}, r"'teachers.random' lacks 'backbone'"),
        (study(fraction=[0]), r"'studies.main.fraction.0' is 0; .* above 0, at most 1"),
        (study(fraction=[1.5]), r"'studies.main.fraction.0' is 1.5; .* above 0, at most 1"),
        (study(category=["gamma"]), r"main.category': 'gamma' is unknown; allowed: all, alpha, b"),
        (study(category="gamma"), r"'studies.main.category' is 'gamma'; expected all or a list"),
        (study(teacher=["imagenet"]), r"main.teacher': 'imagenet' is not under .*allowed: random"),
        (
            study(layers=[[1, 5]]),
            r"main.layers': level 5 does not exist in backbone 'resnet18'; allowed: 1, 2, 3, 4",
        ),
        (study(layers=[1, 2, 3]), r"'studies.main.layers.0' is 1; expected default or a list"),
        (study(layers=[[1.0]]), r"main.layers.0.0' is 1.0; expected a level's number, 1 to 4"),
        (study(seed=[1.0]), r"'studies.main.seed.0' is 1.0; expected a whole number"),
        (study(fraction=[float("nan")]), r"main.fraction.0' is nan; expected a number"),
        (
            {"studies": {2024: {}}},
            r"'studies': found the name 2024; .*write it in quotes, as in '2024'",
        ),
        ({"studies": {"cost": {}}}, r"'studies': found the name 'cost'; .*cost"),
        (
            {"studies": {"a_differences": {}}},
            r"'studies': found the name 'a_differences'; .*_differences",
        ),
        (
            {"teachers": {"a b": {"backbone": "resnet18"}}},
            r"config key 'teachers': found the name 'a b'; expected a name of",
        ),
        (
            {"training": {"learning_rate": "1e-3"}},
            r"learning_rate' is '1e-3'; expected a number, above 0; .*as YAML",
        ),
        (study(layers=[[]]), r"'studies.main.layers.0' is \[\]; expected a list of levels"),
        (study(layers=[[1, 1]]), r"'studies.main.layers.0' is \[1, 1\]; .* all different"),
        (study(seed=[-1]), r"'studies.main.seed.0' is -1; .* at least 0"),
        (study(sed=[1]), r"'studies.main.sed' is unknown; .*did you mean 'seed'\?"),
        ({"studies": {}}, r"config key 'studies' is \{\}; expected at least one name"),
        ({"studies": {"main": {}}}, r"'studies.main' lacks 'category', 'layers', 'teacher'"),
        (
            {"data": {"demo": True, "categories": ["bottle"]}},
            r"'data.categories': 'bottle' is unknown; allowed: all, brick, grass, grav",
        ),
        (
            {"data": {"categories": ["botle"]}},
            r"'data.categories': 'botle' is unknown; allowed: all, bottle, cable,",
        ),
        (
            {"data": {"mvtec_ad": "absent"}},
            r"'data.mvtec_ad': no such folder or archive: abs",
        ),
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


def test_a_teacher_is_not_named_like_the_file_of_anothers_draw(small_set):
    teachers = {"random": {"backbone": "resnet18"}, "random_seed-0": {"backbone": "resnet18"}}
    with pytest.raises(InputError, match=r"'teachers\.random_seed-0'.*no '_seed-NUMBER'"):
        complete(small_config(small_set, teachers=teachers))


def test_a_teachers_pretraining_replaces_keys_of_the_configs(small_set):
    teachers = {
        "random": {"backbone": "resnet18"},
        "long": {"backbone": "resnet18", "pretrain": "digits", "pretraining": {"epochs": 30}},
        "usual": {"backbone": "resnet18", "pretrain": "digits"},
    }
    config = complete(small_config(small_set, teachers=teachers, pretraining={"batch_size": 64}))
    defaults = {"learning_rate": 0.1, "input_size": 32, "flip": "auto"}
    usual = {"epochs": 10, "batch_size": 64} | defaults
    assert config["pretraining"] == usual
    assert config["teachers"]["usual"]["pretraining"] == usual
    assert config["teachers"]["long"]["pretraining"] == usual | {"epochs": 30}
    assert config["teachers"]["random"] == {"backbone": "resnet18"}
    assert complete(config) == config


def test_all_errors_are_listed_at_once(small_set):
    with pytest.raises(InputError, match=r"'device'(.|\n)*'precision'"):
        complete(small_config(small_set, device="x", precision="y"))


def test_a_category_with_a_dot_would_be_taken_for_a_set(small_set):
    (small_set / "data" / "alpha").rename(small_set / "data" / "beta.v2")
    with pytest.raises(InputError, match=r"'data.mvtec_ad': .*beta.v2: .* dot"):
        complete(small_config(small_set))


def test_a_folder_without_categories(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"'data.mvtec_ad': .*data contains no category"):
        complete(small_config(tmp_path))


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(InputError, match=r"absent.yaml: cannot be read"):
        read(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(InputError, match=r"broken.yaml: is not YAML"):
        read(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match=r"the config is .*; expected keys with values"):
        read(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("teacher", "warned"),
    [
        ({"pretrain": "cifar10"}, True),
        ({"weights": "mine.pth", "source": "cifar10"}, True),
        ({"pretrain": "cifar100"}, False),
        ({}, False),
    ],
)
def test_a_teacher_that_has_seen_the_defects_with_labels_is_warned_of(teacher, warned):
    config = {
        "data": {"sets": {"one_class": {"layout": "cifar10_oneclass"}}},
        "teachers": {"seen": {"backbone": "resnet18"} | teacher},
        "studies": {
            "main": {"teacher": ["seen"], "category": ["one_class.cat", "bottle"]},
            "other": {"teacher": ["seen"], "category": ["bottle"]},
        },
    }
    texts = warnings_of(config)
    assert len(texts) == warned
    assert all("teacher seen" in text and "defects of one_class" in text for text in texts)
    assert warnings_of(config, "main") == texts
    assert warnings_of(config, "other") == []


# --- mistakes that users make ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"key 'a' twice, in lines 1 and 3"),
        ("studies:\n  main: {seed: [0]}\n  main: {seed: [1]}\n", r"'main' twice, in lines 2 and 3"),
        ("{a: {x: 1, x: 2}}\n", r"key 'x' twice, in lines 1 and 1"),
    ],
)
def test_a_key_twice_is_refused_at_every_depth(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_keys_that_are_merged_in_may_be_replaced(tmp_path):
    path = tmp_path / "config.yaml"
    text = 'b: &b {x: 1, y: 1}\na: &a {<<: *b, x: 2}\nc: {<<: *a, y: 3}\n"1": 1\n1: 2\n'
    path.write_text(text)
    assert load(path) == yaml.safe_load(text)
    assert load(path)["a"] == {"x": 2, "y": 1}


def test_a_config_in_another_encoding(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes("results: x\ndata: {mvtec_ad: Prüfung}\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.yaml: line 2 is not UTF-8"):
        read(path)
    for encoding in ("utf-16", "utf-8", "utf-8-sig"):
        path.write_bytes("results: Prüfung\n".encode(encoding))
        assert load(path) == {"results": "Prüfung"}


def test_the_locale_changes_nothing(small_set):
    """Files are read as UTF-8, whatever the locale of the terminal."""
    config = small_config(small_set) | {"results": "Prüfung"}
    path = small_set / "config.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    code = (
        "import sys\nfrom stpm_bench.__main__ import main\n"
        "from stpm_bench.code_version import version_of\nfrom stpm_bench.config import read\n"
        f"print(read({str(path)!r})['results'] == 'Pr\\xfcfung', version_of('fit'))\n"
        f"sys.exit(main(['check-data', {str(small_set / 'data')!r}]))\n"
    )
    ascii_alone = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ascii_alone | {"PYTHONPATH": str(SCHEMA.parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("True " + version_of("fit"))
    assert "0 errors, 0 warnings" in run.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mean", "use it themselves"),
        ("textures", "use it themselves"),
        ("objects", "use it themselves"),
        ("all", "use it themselves"),
        ("a{b}", r"it contains { }"),
        ("<results>", r"it contains < >"),
        ("a|b", r"it contains \|"),
        ("what?", r"it contains \?"),
        ("line\nbreak", "control character"),
        (" space", "begins or ends with a space"),
        ("x" * 101, "it has 101 bytes"),
        ("é" * 51, "it has 102 bytes"),
    ],
)
def test_what_a_category_may_not_be_called(small_set, name, reason):
    """The same reason is given when a config is read, a set checked, or a category prepared."""
    (small_set / "data" / "alpha").rename(small_set / "data" / name)
    for data in (
        {"mvtec_ad": str(small_set / "data")},
        {"sets": {"ours": {"path": str(small_set / "data"), "layout": "mvtec"}}},
    ):
        with pytest.raises(InputError, match=reason) as caught:
            complete(small_config(small_set, data=data))
        assert ascii(name) in str(caught.value)
    texts = [p.text for p in check_folder(small_set / "data", progress=False)[1]]
    assert any(re.search(reason, text) for text in texts)
    with pytest.raises(InputError, match=reason):
        prepare(small_set / "data", name, "train", 8)


def test_a_category_that_no_study_names_may_be_called_anything(small_set):
    (small_set / "data" / "alpha").rename(small_set / "data" / "mean")
    data = {"mvtec_ad": str(small_set / "data"), "categories": ["beta"]}
    assert complete(small_config(small_set, data=data))["data"]["categories"] == ["beta"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": {"x" * 41: {"backbone": "resnet18"}}}, r"'teachers'.*at most 40"),
        ({"data": {"sets": {"x" * 41: {"layout": "mvtec", "path": "x"}}}}, r"sets'.*at most 40"),
        ({"data": {"sets": {"all": {"layout": "mvtec", "path": "x"}}}}, r"sets'.*'all'"),
        ({"studies": {"x" * 81: {}}}, r"'studies'.*at most 80"),
    ],
)
def test_other_names_end_where_file_names_do(small_set, changes, message):
    with pytest.raises(InputError, match=message):
        complete(small_config(small_set, **changes))


@pytest.mark.parametrize("name", ["-x", "a $b$ c", "it's", "[1]", "#&%~^,;=+@!()", "große Mutter"])
def test_what_a_category_may_be_called(small_set, name):
    (small_set / "data" / "alpha").rename(small_set / "data" / name)
    assert name in complete(small_config(small_set))["data"]["categories"]


@pytest.mark.parametrize("key", ["results", "data.folder"])
def test_a_path_with_braces_names_its_key(small_set, key):
    config = small_config(small_set)
    part = config["data"] if "." in key else config
    part[key.rpartition(".")[2]] = "runs/{date}"
    with pytest.raises(InputError, match=rf"'{key}': 'runs/{{date}}' has '{{' '}}'"):
        complete(config)


def test_all_in_a_list_is_every_category(small_set):
    config = complete(small_config(small_set, **study(category=["all"])))
    assert config["studies"]["main"]["category"] == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (study(category=[1]), r"category.0' is 1; .*write it in quotes, as in '1'"),
        (
            study(teacher=[True]),
            r"teacher.0' is True; expected a text; write it in quotes, as in 'True'",
        ),
        (
            {"data": {"demo": True, "categories": [1]}},
            r"categories.0' is 1; .*write it in quotes, as in '1'",
        ),
        (study(layers=[["layer1"]]), r"is 'layer1'; expected a level's number, 1 to 4, as in"),
    ],
)
def test_a_value_of_another_type_says_how_to_write_it(small_set, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        complete(small_config(small_set, **changes))
    assert "1e-3" not in str(caught.value)


def test_how_a_sets_files_are_read_reaches_the_step(small_set):
    part = {"path": str(small_set / "data"), "layout": "mvtec", "mask_colour": [255, 0, 0]}
    part |= {"intensity": [0, 4095], "max_megapixels": 500}
    config = complete(small_config(small_set, data={"sets": {"ours": part}}))
    options = sources(config)["ours.alpha"].read_options
    parsed = parser().parse_args(
        ["check-data", "x", *(f"--{k.replace('_', '-')}={v}" for k, v in options.items())]
    )
    found = read_options_of(parsed.mask_colour, parsed.intensity, parsed.max_megapixels)
    assert found == ReadOptions((255, 0, 0), (0, 4095), 500)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intensity": [5, 5]}, r"data\.sets\.ours\.intensity' is \[5, 5\]"),
        ({"mask_colour": [255, 0]}, r"data\.sets\.ours\.mask_colour'"),
        ({"mask_colour": [256, 0, 0]}, r"data\.sets\.ours\.mask_colour\.0'.*256"),
        ({"max_megapixels": 0}, r"data\.sets\.ours\.max_megapixels'"),
    ],
)
def test_how_a_sets_files_cannot_be_read(small_set, changes, message):
    part = {"path": str(small_set / "data"), "layout": "mvtec"} | changes
    with pytest.raises(InputError, match=message):
        complete(small_config(small_set, data={"sets": {"ours": part}}))
