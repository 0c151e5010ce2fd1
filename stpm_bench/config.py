"""Reads the config, checks it against the schema and for contradictions, and completes it."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from stpm_bench import methods as registry
from stpm_bench.datasets import cifar10, demo, layouts, mvtec
from stpm_bench.datasets.layouts import EVERY_IMAGE
from stpm_bench.errors import InputError
from stpm_bench.grid import levels_of
from stpm_bench.levels import EMBEDDED, EMBEDDED_LEVELS, PUBLISHED, level_names, names_a_file
from stpm_bench.methods.interface import Settings
from stpm_bench.names import wrong_category, wrong_folder
from stpm_bench.schema import check, with_defaults

SCHEMA = Path(__file__).with_name("config.schema.yaml")


class Source(NamedTuple):
    """Where the images of a category are.

    root: folder of its set. category: its name there. layout: a key of `layouts.LAYOUTS`.
    marker: the file written last if the set is made here; None for a user's set.
    every: split -> take one image in this many, see `layouts.subsample`.
    counts: split -> number of images, for a category that is made here; None for a user's set.
    read_options: options of the step 'prepare' that say how the set's files are read.
    """

    root: str
    category: str
    layout: str
    marker: str | None
    every: Mapping[str, int] = EVERY_IMAGE
    counts: Mapping[str, int] | None = None
    read_options: Mapping[str, str] = MappingProxyType({})


def read(path: str | Path) -> dict:
    """Return the completed config of a YAML file (see `complete`).

    Raises:
        InputError: the file is missing, is not YAML, or `complete` finds an error.
    """
    return complete(load(path))


class _DuplicateKey(yaml.YAMLError):
    """A mapping has a key twice; the text names the key and the line."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Rejects a mapping with a duplicate key; YAML's loaders would keep the last one."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _DuplicateKey(
                    f"has the key {key.value!r} twice, in lines {lines[name]} and {line}"
                )
            lines[name] = line
        return node


def load(path: str | Path) -> object:
    """Return the content of a YAML file in UTF-8, or UTF-16 with a BOM, whatever the locale.

    Raises:
        InputError: the file is missing, is in another encoding, is not YAML, or has a key twice.
    """
    try:
        content = Path(path).read_bytes()
        return yaml.load(content, _UniqueKeyLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a config") from error
    except (yaml.reader.ReaderError, UnicodeDecodeError) as error:
        start = getattr(error, "position", None) or getattr(error, "start", 0)
        line = content.count(b"\n", 0, start) + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8 ({error.reason}); expected a config in UTF-8; "
            "save it in that encoding"
        ) from error
    except _DuplicateKey as error:
        raise InputError(
            f"{path}: {error}; only the last one would count. Expected each key once; remove or "
            "rename one"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {error}") from error


def complete(config: dict) -> dict:
    """Return a copy of `config` with every default filled in and `all` replaced by the categories.

    `data.categories` becomes a list, and so does each study's `category`.

    Raises:
        InputError: a key, category, level, teacher, fraction or anything else is not allowed; the
            message names every such key and lists what is allowed.
    """
    schema = load(SCHEMA)
    check(config, schema)
    check_methods(config.get("methods", {}))
    config = with_defaults(deepcopy(config), schema)
    places = [(config, "results"), (config["data"], "folder"), (config["data"], "mvtec_ad")]
    places += [(part, "path") for part in config["data"]["sets"].values()]
    for teacher in config["teachers"].values():
        if names_a_file(teacher):
            places.append((teacher, "weights"))
        if isinstance(teacher.get("pretrain"), dict):
            places.append((teacher["pretrain"], "folder"))
        if "pretrain" in teacher:
            teacher["pretraining"] = config["pretraining"] | teacher.get("pretraining", {})
    for part, key in places:
        if part.get(key) is not None:
            part[key] = str(Path(part[key]).expanduser())  # no trailing slash either
    for part, key, name in (
        (config, "results", "results"),
        (config["data"], "folder", "data.folder"),
    ):
        if reason := wrong_folder(part[key]):
            raise InputError(f"config key '{name}': {reason}; choose another folder")
    found = sources(config)
    available = list(found)
    config["data"]["categories"] = expand_all(config["data"]["categories"], available)
    for category in config["data"]["categories"]:
        if category not in available:
            raise InputError(
                f"config key 'data.categories': {category!r} is unknown; "
                f"allowed: all, {', '.join(available)}"
            )
    for study in config["studies"].values():
        study["category"] = expand_all(study["category"], config["data"]["categories"])
    check_category_names(config, found)
    messages = list(contradictions(config))
    if messages:
        raise InputError("\n".join(messages))
    return config


def check_category_names(config: dict, found: Mapping[str, Source]) -> None:
    """Raise an InputError if a study's category has a name that is not allowed."""
    messages = []
    for name in dict.fromkeys(c for study in config["studies"].values() for c in study["category"]):
        source = found.get(name)
        if source and not layouts.LAYOUTS[source.layout].inside:
            reason = wrong_category(source.category) or wrong_category(name)
            if reason:
                messages.append(
                    f"{Path(source.root) / source.category}: {reason}; rename the folder, or name "
                    "the other categories under the config key 'data.categories'"
                )
    if messages:
        raise InputError("\n".join(messages))


def methods(config: dict) -> dict[str, Settings]:
    """Return every method of a completed config by name, the built-in ones first."""
    return registry.define(config["methods"], config["training"])


def settings(text: str) -> Settings:
    """Return settings from the name of a built-in method, or from JSON of `methods.to_dict`.

    Raises:
        InputError: the name is unknown, or a field or its value is not allowed.
    """
    known = registry.built_in()
    if text in known:
        return known[text]
    try:
        fields = json.loads(text)
        first = next(iter(registry.module_of(fields["file"]).METHODS.values()))
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise InputError(
            f"settings {text!r}: expected {', '.join(known)}, or JSON such as "
            f'{{"file": "{registry.DEFAULT}", "epochs": 10}} ({type(error).__name__}: {error})'
        ) from error
    changes = {key: value for key, value in fields.items() if key != "file"}
    check({"settings": changes}, {"properties": {"settings": registry.schema(first)}})
    return registry.differing(first, changes)


def keeps_model(config: dict, settings: Settings) -> bool:
    """Return whether the models of a method are kept after the test images are scored."""
    keep = config["keep_models"]
    return settings.keeps_model if keep is None else keep


def check_methods(entries: Mapping[str, dict]) -> None:
    """Raise an InputError if a method of the config has a field that the method it is `like` does
    not have, or a value that is not allowed."""
    known = registry.built_in()
    for name, entry in entries.items():
        like = entry.get("like", registry.DEFAULT)
        if not isinstance(like, str) or like not in known:
            raise InputError(
                f"config key 'methods.{name}.like' is {like!r}; allowed: {', '.join(known)}"
            )
        part = {"type": "object", "properties": {name: registry.schema(known[like])}}
        check({"methods": {name: entry}}, {"properties": {"methods": part}})


def sources(config: dict) -> dict[str, Source]:
    """Return where the images of each category are, for every set that a config names.

    A category of `data.sets` is written NAME.CATEGORY; one of MVTec AD or the demo has no prefix.

    Raises:
        InputError: a folder is missing or holds no category; keys that exclude each other.
    """
    data, found = config["data"], {}
    if data["demo"] and (data["mvtec_ad"] or data["sets"]):
        other = "mvtec_ad" if data["mvtec_ad"] else "sets"
        raise InputError(
            f"config key 'data' has both 'demo: true' and '{other}'; expected only one of them"
        )
    if data["demo"]:
        root = f"{config['results']}/demo_data"
        found = {
            name: Source(root, name, "mvtec", f"{root}/made.json", counts=demo.IMAGES)
            for name in demo.CATEGORIES
        }
    elif unpacks_mvtec_ad(data):
        root = f"{data['folder']}/mvtec_ad"
        found = {
            name: Source(
                root,
                name,
                "mvtec",
                f"{root}/download.json",
                counts=dict(zip(("train", "test"), mvtec.COUNTS[name], strict=True)),
            )
            for name in sorted(mvtec.CATEGORIES)
        }
        # Categories that are there already are the user's: nothing is downloaded for them alone.
        for name in mvtec.categories_before_download(root):
            found[name] = Source(root, name, "mvtec", None)
    elif data["mvtec_ad"]:
        folder = Path(data["mvtec_ad"])
        if not folder.is_dir():
            raise InputError(
                f"config key 'data.mvtec_ad': no such folder or archive: {folder}; expected a "
                "folder with one subfolder per category (bottle/train/good/000.png, ...), the "
                "published archive, or null to download it"
            )
        names = layouts.list_categories(folder)
        if not names:
            raise InputError(
                f"config key 'data.mvtec_ad': {folder} contains no category; expected folders such "
                "as bottle/ with train/good/ and test/ inside"
            )
        for name in names:
            if "." in name:
                raise InputError(
                    f"config key 'data.mvtec_ad': {folder / name}: the name of a category must not "
                    "contain a dot, which separates a set of data.sets from its category; rename "
                    "the folder"
                )
        found = {name: Source(str(folder), name, "mvtec", None) for name in names}
    for name, part in data["sets"].items():
        root, marker = part.get("path"), None
        if root is None:  # one-class CIFAR-10, which uses the same download as a teacher
            root, marker = data["folder"], f"{config['results']}/pretraining/cifar10.npz"
        names = cifar10.CLASSES if marker else layouts.list_categories(root, part["layout"])
        if not names:
            text = layouts.no_category(Path(root), part["layout"])
            raise InputError(f"config key 'data.sets.{name}.path': {text}")
        if name in found:
            raise InputError(
                f"config key 'data.sets.{name}': a category of data.mvtec_ad has the same name, "
                "so that two rows of a table would have the same name; rename the set"
            )
        every = {"train": part["every"], "test": part["every_test"]}
        counts = cifar10.IMAGES if marker else None
        keys = ("mask_colour", "intensity", "max_megapixels")
        read_options = {key: str(part[key]).strip("[]") for key in keys if key in part}
        found |= {
            f"{name}.{c}": Source(root, c, part["layout"], marker, every, counts, read_options)
            for c in names
        }
    return found


def unpacks_mvtec_ad(data: dict) -> bool:
    """Return whether MVTec AD is downloaded, or unpacked from an archive."""
    if data["mvtec_ad"] is None:
        return not data["demo"] and not data["sets"]
    return Path(data["mvtec_ad"]).is_file()


def expand_all(chosen: str | list[str], available: list[str]) -> list[str]:
    """Return categories with 'all' and 'NAME.all' replaced by the categories; no duplicates."""
    if chosen == "all":
        return list(available)
    names = []
    for category in chosen:
        prefix = category.removesuffix("all")  # including its dot
        members = [name for name in available if name.startswith(prefix)]
        every = category == "all" or (category.endswith(".all") and members)
        names += members if every else [category]
    return list(dict.fromkeys(names))


def warnings_of(config: dict, study: str | None = None) -> list[str]:
    """Return warnings about a completed config that can nevertheless be run.

    A teacher that was trained on CIFAR-10 with its labels has seen the defects of one-class
    CIFAR-10, which are its other classes.

    Args:
        study: if given, only this study's warnings.
    """
    sets = config["data"]["sets"]
    seen = [name for name, part in sets.items() if part["layout"] == "cifar10_oneclass"]
    taught = [
        name
        for name, teacher in config["teachers"].items()
        if "cifar10" in (teacher.get("pretrain"), str(teacher.get("source")).lower())
    ]
    return [
        f"teacher {teacher} was trained on CIFAR-10 with its labels: it has seen the defects of "
        f"{name}, which are the other classes of CIFAR-10"
        for name in seen
        for teacher in taught
        if any(
            teacher in part["teacher"] and any(c.startswith(f"{name}.") for c in part["category"])
            for key, part in config["studies"].items()
            if study in (None, key)
        )
    ]


def contradictions(config: dict) -> Iterator[str]:
    """Yield one line for each name that one part of the config uses and no other part defines."""
    for name, part in config["data"]["sets"].items():
        if "intensity" in part and not part["intensity"][0] < part["intensity"][1]:
            yield (
                f"config key 'data.sets.{name}.intensity' is {part['intensity']}; expected a "
                "lower value, which becomes 0, and a higher one, which becomes 255"
            )
    for name, teacher in config["teachers"].items():
        key = f"config key 'teachers.{name}"
        backbone, weights = teacher["backbone"], teacher.get("weights")
        if re.search(r"_seed-\d+$", name):
            yield f"{key}' ends like the file of another teacher's draw; expected no '_seed-NUMBER'"
        if names_a_file(teacher) and not Path(weights).is_file():
            embedded = f"{EMBEDDED!r}, or " if backbone in EMBEDDED_LEVELS else ""
            yield (
                f"{key}.weights': no such file: {weights}; expected a file of weights, or "
                f"{embedded}one of torchvision's: {', '.join(PUBLISHED[backbone])}"
            )
        if weights == EMBEDDED and backbone not in EMBEDDED_LEVELS:
            yield (
                f"{key}.weights' is {EMBEDDED!r}, but this package has none for {backbone}; "
                f"expected 'backbone: {', '.join(EMBEDDED_LEVELS)}', or other weights"
            )
        if "sha256" in teacher and not names_a_file(teacher):
            yield f"{key}.sha256' is for a file of weights, but 'weights' names no file"
        if isinstance(teacher.get("pretrain"), dict):
            folder = teacher["pretrain"]["folder"]
            if not Path(folder, "train").is_dir():
                yield (
                    f"{key}.pretrain.folder': no folder {folder}/train; expected "
                    "train/CLASS/* and, optionally, test/CLASS/* inside"
                )
        elif "pretraining" in teacher and "pretrain" not in teacher:
            yield f"{key}.pretraining' is set, but the teacher has no 'pretrain'"
    built_in = registry.built_in()
    for name in config["methods"]:
        if name in built_in:
            yield f"config key 'methods.{name}': this is a built-in method; choose another name"
    known = methods(config)
    for study_name, study in config["studies"].items():
        key = f"config key 'studies.{study_name}"
        for category in study["category"]:
            if category not in config["data"]["categories"]:
                allowed = ", ".join(config["data"]["categories"])
                yield f"{key}.category': {category!r} is unknown; allowed: all, {allowed}"
        for name in study["method"]:
            if name not in known:
                yield f"{key}.method': {name!r} is unknown; allowed: {', '.join(known)}"
        chosen = [known[name] for name in study["method"] if name in known]
        for teacher in study["teacher"]:
            if teacher not in config["teachers"]:
                allowed = ", ".join(config["teachers"])
                yield f"{key}.teacher': {teacher!r} is not under 'teachers'; allowed: {allowed}"
                continue
            asked = itertools.product(study["layers"], chosen)
            levels = sorted({level for layers, s in asked for level in levels_of(layers, s)})
            # Batch normalisation cannot train on a last batch of one image with one position.
            if 4 in levels and config["image_size"] < 64:
                yield (
                    f"config key 'image_size' is {config['image_size']}, at which level 4 of study "
                    f"{study_name} has a single position; expected at least 64"
                )
            entry = config["teachers"][teacher]
            has = EMBEDDED_LEVELS.get(entry["backbone"], ())
            if entry.get("weights") == EMBEDDED and (lacking := sorted({*levels} - {*has})) and has:
                yield (
                    f"{key}.layers': level {', '.join(map(str, lacking))} is missing in the "
                    f"weights '{EMBEDDED}' of 'teachers.{teacher}.weights', which have the levels "
                    f"{', '.join(map(str, has))}"
                )
            try:
                level_names(entry["backbone"], levels)
            except InputError as error:
                yield f"{key}.layers': {error}"
