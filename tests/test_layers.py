"""Imports inside the package point downward: a module knows only the layers below its own."""

import ast

import pytest

from stpm_bench.code_version import PACKAGE

# From low to high. A package counts as one module unless a module of it is named separately. A
# module may import its own package and every layer below; imports inside functions count too.
LAYERS = (
    # They import nothing of this package.
    ("errors", "names", "seeds", "code_version", "worker", "anomaly_map", "neighbours", "metrics"),
    ("methods.interface", "methods.distance"),
    # Files, networks and images.
    ("files", "levels", "device", "schema", "split", "audit", "networks"),
    ("backbone", "embedded", "unfinished", "provenance", "datasets"),
    # What is computed from them.
    ("teacher", "methods", "evaluation"),
    ("pretrain", "grid"),
    # A config, and the folder of its results.
    ("config",),
    ("results", "config_page"),
    # What reads the results.
    ("report",),
    ("predict",),
    ("speed",),
    ("run", "benchmarks"),
    # The command line.
    ("steps",),
    ("__main__",),
)
# The version, which the package's own `__init__.py` has, may be read everywhere.
PACKAGE_ITSELF = ""


def unit_of(module: str) -> str:
    """Return the entry of `LAYERS` that a module belongs to: itself, or its package."""
    names = {name for layer in LAYERS for name in layer}
    return module if module in names else module.partition(".")[0]


def modules() -> dict[str, ast.Module]:
    """Return the parsed modules of the package by their names below it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """Return the modules of the package that a module imports, at its top or in functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == PACKAGE.name:
                found.add(module if module in known else module.rpartition(".")[0])
    return found


def upward(name: str, tree: ast.Module, known: set[str]) -> list[str]:
    """Return the imports of a module from its own layer or a higher one, except of its package."""
    height = {unit: number for number, layer in enumerate(LAYERS) for unit in layer}
    unit = unit_of(name)
    return [
        f"{name} imports {other}"
        for other in sorted(imported(tree, known) - {PACKAGE_ITSELF})
        if unit_of(other) != unit and height[unit_of(other)] >= height[unit]
    ]


def test_every_module_has_one_layer():
    units = [unit for layer in LAYERS for unit in layer]
    assert len(units) == len(set(units))
    assert {unit_of(name) for name in modules()} - {PACKAGE_ITSELF} == set(units)


def test_no_import_runs_upward():
    found = modules()
    assert [line for name, tree in found.items() for line in upward(name, tree, set(found))] == []


@pytest.mark.parametrize(
    ("module", "code", "expected"),
    [
        ("backbone", "from stpm_bench.methods import stpm", ["backbone imports methods.stpm"]),
        ("split", "def f():\n    from stpm_bench import grid", ["split imports grid"]),
        ("files", "import stpm_bench.device", ["files imports device"]),  # of the same layer
        ("methods.stpm", "from stpm_bench.methods import student", []),
        ("methods.stpm", "from stpm_bench.anomaly_map import FUSIONS", []),
        ("methods.interface", "from stpm_bench import methods", ["methods.interface imports me"]),
    ],
)
def test_an_upward_import_is_found(module, code, expected):
    found = upward(module, ast.parse(code), set(modules()))
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
