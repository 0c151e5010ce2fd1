"""The methods by name, and those that a config makes by single differences.

A method's file is imported by its name, so that the code of one does not reach the others': see
`code_version`.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType

from stpm_bench.methods.interface import Settings

# Of this package; the order of their methods in messages and tables.
FILES = ("stpm", "padim", "spade", "patchcore")


def module_of(name: str) -> ModuleType:
    """Return the module of a method's file."""
    return importlib.import_module(f"{__name__}.{name}")


def built_in() -> dict[str, Settings]:
    """Return the settings of every built-in method by name."""
    return {name: s for file in FILES for name, s in module_of(file).METHODS.items()}
