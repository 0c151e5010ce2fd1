"""The methods by name: the built-in ones, and those that a config defines by differences.

A method's file is imported by its name, so that the code version of one method does not depend on
the code of the others: see `code_version`.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from types import ModuleType

import numpy as np

from stpm_bench.methods.interface import Scores, Settings, Teacher

# The files of this package, in the order of their methods in messages and tables.
FILES = ("stpm", "padim", "spade", "patchcore")
DEFAULT = "stpm"  # the method of a study without `method`, and the default of `like`

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", tuple: "array"}


def module_of(file: str) -> ModuleType:
    """Return the module of a method's file."""
    return importlib.import_module(f"{__name__}.{file}")


def built_in() -> dict[str, Settings]:
    """Return the settings of every built-in method by name."""
    return {name: s for file in FILES for name, s in module_of(file).METHODS.items()}


def scorer(
    teacher: Teacher, model: dict, *, levels: Sequence[int], settings: Settings, device
) -> Callable[[np.ndarray], Scores]:
    """Return a method's `score` as a function of images (N, S, S, 3) uint8 only.

    A method with a `scorer` loads its model beforehand; for others, `score` does so at every call.
    """
    module, same = module_of(settings.module), dict(levels=levels, settings=settings, device=device)
    if hasattr(module, "scorer"):
        return module.scorer(teacher, model, **same)
    return lambda images: module.score(teacher, model, images, **same)


def define(entries: Mapping[str, Mapping], training: Mapping[str, float]) -> dict[str, Settings]:
    """Return every method of a config by name: the built-in ones, then its own.

    Args:
        entries: the config's `methods`: name -> `like` (a built-in method; `DEFAULT` if left out)
            and the fields that differ from it.
        training: the config's `training`: replaces these numbers in the built-in methods that have
            them. The fields of a config's method replace both.
    """
    known = {name: differing(s, training, skip=True) for name, s in built_in().items()}
    return known | {
        name: differing(
            known[entry.get("like", DEFAULT)], {k: v for k, v in entry.items() if k != "like"}
        )
        for name, entry in entries.items()
    }


def differing(settings: Settings, changes: Mapping, skip: bool = False) -> Settings:
    """Return settings with some fields changed.

    Args:
        skip: ignore changes of fields that these settings do not have.
    """
    names = {field.name for field in fields(settings)}
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in changes.items()
        if not skip or name in names
    }
    return replace(settings, **changes)


def schema(settings: Settings) -> dict:
    """Return the fields that a config may set for a method like this one, as a JSON Schema."""
    properties = {
        field.name: {"type": TYPES[type(field.default)]} | field.metadata["schema"]
        for field in fields(settings)
    }
    like = {"like": {"enum": list(built_in())}}
    return {"type": "object", "additionalProperties": False, "properties": like | properties}


def to_dict(settings: Settings) -> dict:
    """Return settings as they are written in a config or JSON, with the name of their file."""
    return {"file": settings.module} | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
    }


def fit_key(settings: Settings, fraction: float) -> tuple:
    """Return the key of a cell's fit: cells with equal keys share a fit.

    Args:
        fraction: of the training images.
    """
    return settings.module, tuple(sorted(settings.fit_part(fraction).items()))
