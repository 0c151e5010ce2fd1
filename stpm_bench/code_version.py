"""Hashes the code that computes a result: the definitions of this package that it reaches.

Snakemake does not see a change in an imported module. Each rule has the hash of its stage among its
params, so that an edit reruns the rules whose code it changes, and no others. The hash starts at
the function that computes, not at the step that calls it: editing how files are read, or what is
recorded about a result, does not rerun any fit.

All hashes together take a second of processor time, which every start of Snakemake would spend.
They are kept beside Python's bytecode and hold until any file of the package changes.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import symtable
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent
# Definitions that describe, store or report a result but do not affect it: not followed.
DESCRIBING = {
    "errors",
    "files",
    "methods.interface",
    "provenance",
    "report.cost",
    "results",
    "unfinished",
}

NETWORK = (("backbone", "create"), ("backbone", "load"), ("device", "set_deterministic"))
# Stage -> the definitions, as (module, name), on which its result depends. For 'fit' and 'score',
# the function of that name in the method's file is added.
ROOTS = {
    "prepare": (("datasets.prepare", "prepare"), ("datasets.prepare", "check_no_leak")),
    "pretraining_set": (("datasets.pretraining", "load"), ("datasets.pretraining", "load_folder")),
    "demo_data": (("datasets.demo", "write"),),
    "download": (("datasets.mvtec", "download"),),
    "teacher": (
        ("teacher", "untrained"),
        ("teacher", "from_file"),
        ("teacher", "from_torchvision"),
        ("teacher", "from_package"),
        ("pretrain", "train_classifier"),
        ("teacher", "level_report"),
        ("datasets.pretraining", "photographs"),
        ("device", "set_deterministic"),
    ),
    "fit": (("split", "divide"), *NETWORK),
    "score": NETWORK,
    "evaluate": (("evaluation", "evaluate_cell"),),
    "speed": (("speed", "frame_seconds"), ("speed", "summary"), ("predict", "predictor")),
    "collect": (("steps.evaluate", "collect"),),
    **{
        name: (("steps.report", name),)
        for name in (
            "studies",
            "tables",
            "claims",
            "figures",
            "explorer",
            "first_page",
            "notebook",
        )
    },
    # They compute anomaly maps from the level maps that they read.
    **{
        name: (("steps.report", name), ("anomaly_map", "anomaly_maps"))
        for name in ("panel", "failures")
    },
}


def version_of(stage: str, file: str = "") -> str:
    """Return the hash of a stage's code, from the kept hashes where they are still of this code.

    Args:
        stage: a key of `ROOTS`.
        file: for 'fit' and 'score', the name of the method's file in `methods/`.
    """
    name, kept = f"{stage} {file}".strip(), kept_versions()
    if name not in kept["versions"]:
        kept["versions"][name] = code_version(*roots_of(stage, file))
        keep(kept)
    return kept["versions"][name]


def roots_of(stage: str, file: str = "") -> tuple[tuple[str, str], ...]:
    """Return the definitions that a stage's hash starts at; arguments as for `version_of`."""
    method = ((f"methods.{file}", stage),) if file else ()
    return (*method, *ROOTS[stage])


@functools.cache
def kept_versions() -> dict:
    """Return `sources`, and `versions` by stage: those of the file, if its `sources` are these."""
    sources = hash_of_sources()
    # No file yet, one of other code, or one that somebody damaged: the hashes are made anew.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path_of_kept().read_text(encoding="utf-8"))
        if kept["sources"] == sources:
            return kept
    return {"sources": sources, "versions": {}}


def keep(kept: dict) -> None:
    """Write hashes for other processes, unless the code was edited since this one read it.

    Whole or not at all, without `files.py`: this module needs the standard library alone.
    """
    if kept["sources"] != hash_of_sources():
        return
    path = path_of_kept()
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # an installation that may not be written to
        path.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        temporary.replace(path)


def path_of_kept() -> Path:
    """Return the file of the kept hashes."""
    return PACKAGE / "__pycache__" / "code_version.json"


def hash_of_sources() -> str:
    """Return the hash of every source file of the package, with its place."""
    digest = hashlib.sha256()
    for path in sorted(filter(Path.is_file, PACKAGE.rglob("*.py"))):  # no dangling lock of Emacs
        text = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def code_version(*roots: tuple[str, str]) -> str:
    """Return a hash of definitions and of every definition of the package that they reach.

    Comments, docstrings, layout and annotations do not count, nor do other packages. What is looked
    up by a string at run time is not seen. Every version of Python gives the same hash.

    Args:
        roots: (module, name) of functions or constants at the top level of modules in the
            package, as in ('metrics.pro', 'pro').

    Returns:
        16 hexadecimal digits.

    Raises:
        KeyError: a module has no such definition.
    """
    # The line number in the name of 'line N' has no effect on results: only the texts are hashed.
    parts = sorted((place[0], text) for place, text in reach(*roots).items())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def reach(*roots: tuple[str, str]) -> dict[tuple[str, str], str]:
    """Return what `code_version` hashes: (module, name) -> its code."""
    reached, waiting = {}, list(roots)
    while waiting:
        place = waiting.pop()
        if place in reached or place[0] in DESCRIBING:
            continue
        definitions = read(place[0])
        if place[1] not in definitions:
            raise KeyError(f"stpm_bench/{place[0]}.py: has no top-level definition {place[1]!r}")
        reached[place], names = definitions[place[1]]
        waiting += names
        waiting += [(place[0], other) for other in definitions if other.startswith("line ")]
    return reached


@functools.cache
def read(module: str) -> dict[str, tuple[str, set[tuple[str, str]]]]:
    """Return a module's definitions: name -> its code, and each (module, name) that it uses."""
    result = {}
    for name, nodes in parsed(module).statements.items():
        tree = bare(ast.Module(nodes, []))
        result[name] = (canonical(tree), used(tree, ast.unparse(tree), module))
    return result


def canonical(node: object) -> str:
    """Return code as text, independent of the Python version that parsed it.

    Python's own output differs between versions: `ast.unparse` in the quotes of f-strings,
    `ast.dump` in the fields that it omits. Here a node is its type and its non-empty fields.
    """
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({','.join(map(canonical, join_texts(node.values)))})"
    if isinstance(node, ast.AST):
        values = (
            (name, getattr(node, name, None)) for name in node._fields if name not in NOT_CODE
        )
        fields = [f"{name}={canonical(v)}" for name, v in values if v is not None and v != []]
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    return repr(node)


NOT_CODE = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


def join_texts(values: Iterable[ast.AST]) -> list[ast.AST]:
    """Return the parts of an f-string with adjacent texts joined: not every Python joins them."""
    result: list[ast.AST] = []
    for value in values:
        text = isinstance(value, ast.Constant)
        if text and result and isinstance(result[-1], ast.Constant):
            result[-1] = ast.Constant(result[-1].value + value.value)
        elif not (text and value.value == ""):
            result.append(value)
    return result


class Parsed(NamedTuple):
    """A module's statements by the names that they define, and the names that its imports bind.

    A statement that defines nothing and runs on import is called 'line N'.
    """

    statements: dict[str, list[ast.stmt]]
    imported: dict[str, tuple[str, str | None]]


@functools.cache
def parsed(module: str) -> Parsed:
    """Read a module of the package."""
    body = ast.parse(path_of(module).read_text(encoding="utf-8")).body
    statements = {}
    for node in body:
        if not (isinstance(node, ast.Import | ast.ImportFrom) or is_text(node)):
            for name in names_of(node):
                statements[name] = [*statements.get(name, []), node]
    return Parsed(statements, imports(body))


def path_of(module: str) -> Path:
    """Return the file of a module below the package; '' is the package itself."""
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def names_of(node: ast.stmt) -> list[str]:
    """Return the names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        if names:
            return names
    return [f"line {node.lineno}"]


def imports(nodes: list[ast.AST]) -> dict[str, tuple[str, str | None]]:
    """Return the names bound by imports of this package: name -> (module, name or None for all)."""
    found = {}
    for node in nodes:
        if not (isinstance(node, ast.ImportFrom) and node.module):
            continue
        package, _, source = node.module.partition(".")
        if package != PACKAGE.name:
            continue
        for alias in node.names:
            inner = f"{source}.{alias.name}".strip(".")
            whole = path_of(inner).exists()
            found[alias.asname or alias.name] = (inner, None) if whole else (source, alias.name)
    return found


def used(tree: ast.Module, text: str, module: str) -> set[tuple[str, str]]:
    """Return the (module, name) of the package that a definition uses, given its tree and text."""
    here = imports(list(ast.walk(tree)))  # inside functions
    known = parsed(module).imported | here
    names = globals_of(symtable.symtable(text, module, "exec")) | set(here)
    attributes = {
        id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or node.id not in names:
            continue
        source, name = known.get(node.id, (module, node.id))
        if name is None:  # a module: the attributes used, or all if it is passed on
            attribute = attributes.get(id(node))
            found |= {origin(source, n) for n in ([attribute] if attribute else read(source))}
        elif node.id in known or node.id in parsed(module).statements:
            found.add(origin(source, name))
    return found


def globals_of(table: symtable.SymbolTable) -> set[str]:
    """Return the names that code reads from its module, including those in nested functions."""
    whole = table.get_type() == "module"
    names = {s.get_name() for s in table.get_symbols() if s.is_global() or whole}
    return names.union(*map(globals_of, table.get_children()))


def origin(module: str, name: str) -> tuple[str, str]:
    """Return the place where a name of a module is defined, following imports."""
    source, there = parsed(module).imported.get(name, (module, None))
    return origin(source, there) if there else (module, name)


def bare(tree: ast.Module) -> ast.Module:
    """Return code without the parts that do not compute: docstrings, functions' annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_text(node.body[0]):
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


def is_text(node: ast.stmt) -> bool:
    """Return whether a statement is only a string, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
