"""What rules pass to their steps: command-line options, and the state of a user's files.

Snakemake compares a rule's params with those of the last run, except params whose function has a
parameter `input`, `output`, `threads` or `resources`, used or not. So the function of an option
that affects the result must have none of them; that of an option that does not affect it, such as
the location of a set, should have one.
"""

import functools
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from stpm_bench.code_version import version_of
from stpm_bench.datasets import layouts, mvtec
from stpm_bench.levels import format_layers, names_a_file, parse_layers
from stpm_bench.run.plan import prepared_bytes
from stpm_bench.run.suite import Suite, pretraining_name
from stpm_bench.run.user_files import content_hash


def shell_options(values: Mapping[str, object]) -> str:
    """Return options as shell text: {'batch_size': 32} is '--batch-size=32'."""
    return " ".join(
        f"--{key.replace('_', '-')}={shlex.quote(str(value))}" for key, value in values.items()
    )


# Fits and scores: options from a cell's method.
def fit_settings(suite: Suite, wildcards) -> str:
    """Return the fields of a method that a fit or its scores depend on, as JSON.

    The steps see no other field, so changing another field does not rerun them.
    """
    return _fit_settings(suite.methods[wildcards.method], float(wildcards.fraction))


@functools.cache
def _fit_settings(settings, fraction: float) -> str:
    return json.dumps({"file": settings.module} | settings.fit_part(fraction))


def fit_code(suite: Suite, wildcards) -> str:
    """Return the version of the code of a method's fit."""
    return code_of("fit", suite.methods[wildcards.method].module)


def score_code(suite: Suite, wildcards) -> str:
    """Return the version of the code of a method's scores."""
    return code_of("score", suite.methods[wildcards.method].module)


code_of = functools.cache(version_of)  # a few methods, but thousands of jobs


def evaluation(suite: Suite, wildcards) -> str:
    """Return the evaluation's fields of a cell's method, and the annotation of its set."""
    annotation = layouts.LAYOUTS[suite.sources[wildcards.category].layout].annotation
    settings = json.dumps(suite.methods[wildcards.method].evaluation_part())
    return shell_options({"settings": settings, "annotation": annotation})


# Sets: where they are, which of their images are used, and whether a user has changed them.
def root(suite: Suite, wildcards, input) -> str:
    """Return the folder of a category's set; moving a set does not make it another set."""
    return suite.sources[wildcards.category].root


def category(suite: Suite, wildcards, split: str) -> str:
    """Return a category's name in its set, its layout, and which of a split's images are used."""
    source = suite.sources[wildcards.category]
    values = {"category": source.category, "layout": source.layout}
    return shell_options(values | {"every": source.every[split]} | source.read_options)


def category_state(suite: Suite, wildcards, split: str) -> str | None:
    """Return a hash of a user's files; None for a set that is made here."""
    source = suite.sources[wildcards.category]
    if source.marker:
        return None
    places = layouts.LAYOUTS[source.layout].sources(Path(source.root), source.category, split)
    return content_hash(suite.results, *places)


def download(suite: Suite, wildcards, output) -> str:
    """Return the options of the step 'download'; none of them affects what is downloaded."""
    size = suite.config["image_size"]
    room = sum(prepared_bytes(size, *numbers) for numbers in mvtec.COUNTS.values())
    values = {"results": suite.results, "results_bytes": room}
    values |= {"mirrors": " ".join(suite.config["data"]["mirrors"])}
    return shell_options(values | ({"archive": suite.archive} if suite.archive else {}))


# Teachers, and the sets on which they are trained.
def teacher(suite: Suite, wildcards) -> str:
    """Return the options of the step 'teacher' that affect a teacher's weights.

    Without a parameter `input`, so that Snakemake compares it.
    """
    values = {k: v for k, v in suite.teachers[wildcards.teacher_file].items() if k != "draws"}
    if "pretrain" in values:
        values["pretrain"] = pretraining_name(values)
        values |= values.pop("pretraining")
        values |= {key: suite.config[key] for key in ("device", "precision")}
    return shell_options(values)


def teacher_files(suite: Suite, wildcards, input) -> str:
    """Return where a teacher's files are, and the levels that studies need from it.

    A change of either does not make it another teacher.
    """
    rows = suite.studies[suite.studies["teacher_file"] == wildcards.teacher_file]
    asked = {level for layers in rows["layers"].unique() for level in parse_layers(layers)}
    files = {"folder": f"{suite.data}/weights", "levels": format_layers(asked)}
    named = dict(input.items())
    return shell_options(files | {"data": named["data"]} if "data" in named else files)


def weights_state(suite: Suite, wildcards) -> str | None:
    """Return a hash of a user's file of weights; None for any other teacher."""
    teacher = suite.teachers[wildcards.teacher_file]
    return content_hash(suite.results, Path(teacher["weights"])) if names_a_file(teacher) else None


def pretraining_set(suite: Suite, wildcards) -> str:
    """Return the options of the step 'pretraining-set' that affect the set."""
    teacher = suite.pretraining[wildcards.source]
    if isinstance(teacher["pretrain"], str):
        return shell_options({"source": teacher["pretrain"]})
    return shell_options({"source": "imagefolder", "size": teacher["pretraining"]["input_size"]})


def pretraining_state(suite: Suite, wildcards) -> str | None:
    """Return a hash of the files in a folder of images; None for a built-in set."""
    source = suite.pretraining[wildcards.source]["pretrain"]
    if isinstance(source, str):
        return None
    splits = (Path(source["folder"], split) for split in ("train", "test"))
    return content_hash(suite.results, *splits)


def pretraining_folder(suite: Suite, wildcards, input) -> str:
    """Return where a pretraining set is, or will be downloaded to."""
    source = suite.pretraining[wildcards.source]["pretrain"]
    return suite.data if isinstance(source, str) else source["folder"]
