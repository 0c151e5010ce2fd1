"""The hash of a step's code: against the functions that run, and against edits of a copy."""

import ast
import functools
import inspect
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stpm_bench import code_version as module
from stpm_bench import methods, steps
from stpm_bench.code_version import (
    DESCRIBING,
    PACKAGE,
    ROOTS,
    code_version,
    reach,
    roots_of,
    version_of,
)

PYENV = Path.home() / ".pyenv" / "versions"
# Each stage, those of a method once for each method's file.
STAGES = [(stage, "") for stage in ROOTS if stage not in ("fit", "score")]
STAGES += [(stage, file) for stage in ("fit", "score") for file in methods.FILES]
STPM = {("fit", "stpm"), ("score", "stpm")}
FITS = {("fit", file) for file in methods.FILES}
SCORES = {("score", file) for file in methods.FILES}
EVALUATION = {("evaluate", "")}
SPEED = {("speed", "")}  # a frame ends as an anomaly map


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package, from which the hashes are made."""
    folder = tmp_path / "stpm_bench"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "PACKAGE", folder)
    yield folder
    forget()


def forget() -> None:
    for function in (module.read, module.parsed, module.kept_versions):
        function.cache_clear()


def hashes() -> dict[tuple[str, str], str]:
    """Return every stage's hash, made from the files as they are now."""
    forget()
    return {stage: code_version(*roots_of(*stage)) for stage in STAGES}


@functools.cache
def unedited() -> dict[tuple[str, str], str]:
    """Return the hashes of the package itself, which are those of its copy before an edit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PACKAGE", PACKAGE)
        result = hashes()
    forget()
    return result


def changed(before: dict) -> set[tuple[str, str]]:
    after = hashes()
    return {stage for stage in STAGES if before[stage] != after[stage]}


def insert(path: Path, function: str, line: str) -> None:
    """Put a line before the first statement of a function that follows its docstring."""
    lines = path.read_text().splitlines()
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    (node,) = [node for node in nodes if node.name == function]
    first = node.body[1] if module.is_text(node.body[0]) else node.body[0]
    lines.insert(first.lineno - 1, " " * first.col_offset + line)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "function", "expected"),
    [
        ("methods/student.py", "train", {("fit", "stpm")}),
        ("methods/student.py", "validate", {("fit", "stpm")}),  # inside another
        ("methods/stpm.py", "optimiser_steps", {("fit", "stpm")}),
        ("methods/stpm.py", "level_maps", {("score", "stpm")}),
        ("methods/distance.py", "squared", STPM),  # by a table of distances
        ("split.py", "split", FITS),
        ("split.py", "divide", FITS),  # the choice of rows
        ("backbone.py", "load", FITS | SCORES | {("teacher", "")}),
        ("metrics/definitions.py", "every_definition", EVALUATION),
        ("metrics/roc.py", "best_f1", EVALUATION),
        ("anomaly_map.py", "anomaly_maps", EVALUATION | {("panel", ""), ("failures", "")} | SPEED),
        ("anomaly_map.py", "image_scores", EVALUATION | SPEED),
        ("audit.py", "audit", EVALUATION),
        ("datasets/masks.py", "nearest", {("prepare", "")}),
        ("pretrain.py", "classify", {("teacher", "")}),
        ("report/verdict.py", "verdict", {("claims", "")}),
        ("report/figures.py", "training", {("figures", "")}),
        ("datasets/mvtec.py", "download", {("download", "")}),
        ("datasets/transfer.py", "fetch", {("download", "")}),
        ("report/explorer.py", "packed", {("explorer", "")}),
        # What describes, stores and times a result.
        ("provenance.py", "environment", set()),
        ("files.py", "write_tensors", set()),
        ("results.py", "write_scores", set()),
        ("report/cost.py", "stage_cost", set()),
        ("steps/fit.py", "fit", set()),
        ("steps/fit.py", "score", set()),
        ("steps/evaluate.py", "evaluate", set()),
        ("steps/data.py", "prepare", set()),
    ],
)
def test_an_edit_changes_the_stages_that_it_reaches(copy, file, function, expected):
    insert(copy / file, function, "edited = 1")
    assert changed(unedited()) == expected


def test_a_stream_of_seeds_counts_for_what_draws_from_it(copy):
    insert(copy / "seeds.py", "stream", "edited = 1")
    seeded = {("fit", f) for f in methods.FILES if methods.module_of(f) and depends_on_seed(f)}
    assert changed(unedited()) == seeded | {("teacher", "")}


def depends_on_seed(file: str) -> bool:
    return any(s.depends_on_seed for s in methods.module_of(file).METHODS.values())


def test_a_method_does_not_reach_another(copy):
    for file in methods.FILES:
        path = copy / "methods" / f"{file}.py"
        text = path.read_text()
        for function in ("fit", "score"):
            insert(path, function, "edited = 1")
        assert changed(unedited()) == {("fit", file), ("score", file)}
        path.write_text(text)


def interpreters() -> list[str]:
    """Return the Pythons from 3.11 on that start here."""
    found = [sys.executable]
    for minor in range(11, 16):
        known = [shutil.which(f"python3.{minor}"), *PYENV.glob(f"3.{minor}.*/bin/python3.{minor}")]
        for path in filter(None, known):
            if subprocess.run([path, "-c", "import ast"], capture_output=True).returncode == 0:
                found.append(str(path))
    return found


HASHES = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("code_version", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["code_version"] = module
spec.loader.exec_module(module)
stages = [module.roots_of(*stage) for stage in json.loads(sys.argv[2])]
print(json.dumps([module.code_version(*roots) for roots in stages]))
"""


@pytest.mark.parametrize("python", interpreters())
def test_every_python_gives_the_same_hashes(python):
    """The module needs the standard library alone, so that any interpreter runs it."""
    command = [str(python), "-c", HASHES, str(PACKAGE / "code_version.py"), json.dumps(STAGES)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == list(unedited().values())


def test_docstrings_layout_and_annotations_do_not_count(copy):
    path = copy / "split.py"
    text = path.read_text().replace('"""Choose a fraction', '"""Take a fraction')
    text = text.replace("seed: int\n", "seed: float\n").replace("fraction: float", "fraction: int")
    path.write_text("# a comment\n\n\n" + text.replace("    roles = ", "\n    roles = "))
    assert changed(unedited()) == set()


def test_constants_and_lines_that_run_on_import_count(copy):
    path = copy / "backbone.py"
    path.write_text(path.read_text().replace("IMAGENET_MEAN = ", "IMAGENET_MEAN = 2 * "))
    stages = changed(unedited())
    assert stages >= STPM | {("teacher", "")}
    assert ("evaluate", "") not in stages
    before = hashes()
    path = copy / "metrics" / "roc.py"
    path.write_text(path.read_text() + "\n\nprint('imported')\n")
    assert changed(before) == EVALUATION


def test_hashes_are_kept_until_a_file_of_the_package_changes(copy):
    kept = copy / "__pycache__" / "code_version.json"
    for stage in (("fit", "stpm"), ("evaluate", "")):
        forget()
        assert version_of(*stage) == unedited()[stage]
    versions = {"fit stpm": unedited()["fit", "stpm"], "evaluate": unedited()["evaluate", ""]}
    assert json.loads(kept.read_text())["versions"] == versions
    forget()
    with pytest.MonkeyPatch.context() as patch:  # nothing is parsed again
        patch.setattr(module, "code_version", None)
        assert version_of("fit", "stpm") == versions["fit stpm"]
    insert(copy / "methods" / "student.py", "train", "edited = 1")
    (copy / ".#split.py").symlink_to("user@machine.1:1")  # as Emacs marks a file that is edited
    forget()
    edited = version_of("fit", "stpm")
    assert edited == code_version(*roots_of("fit", "stpm")) != versions["fit stpm"]
    # An edit while a process runs: what it read is not kept under what the files were.
    insert(copy / "methods" / "student.py", "train", "edited = 2")
    before = kept.read_text()
    version_of("evaluate")
    assert kept.read_text() == before
    for damaged in ("", "[]", "{}", '{"sources": 1, "versions": 2}', before[:40]):
        kept.write_text(damaged)
        forget()
        assert version_of("evaluate") == versions["evaluate"]


def test_an_installation_that_cannot_be_written_to_keeps_no_hashes(copy):
    (copy / "__pycache__").write_text("no folder")
    forget()
    assert version_of("evaluate") == unedited()["evaluate", ""]


def test_a_definition_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"stpm_bench/split.py: has no .* 'no_function'"):
        code_version(("split", "no_function"))


# What a step runs besides what its stage's hash is rooted at: it reads, records, writes, and sets
# up the process. None of it computes a result.
AROUND = {
    *(("device", name) for name in ("set_up", "keep_freed_memory", "choose_device")),
    *(("device", name) for name in ("choose_precision", "cpu_capabilities")),
    *(("grid", name) for name in ("read", "teacher_files")),
    ("levels", "parse_layers"),
    # The settings come as params; which of them a stage reads is in its code.
    *(("methods", name) for name in ("built_in", "differing", "module_of", "schema")),
    ("methods.stpm", "Stpm"),
}
READING = ("steps", "config", "schema")  # modules that are around it as a whole


def test_what_a_step_runs_is_what_its_hash_holds(finished, tmp_path):
    """The tracer is the reference: whatever of the package is called must be reached."""
    results = finished / "results"
    prepared = results / "prepared" / "alpha"
    fit, cell = tmp_path / "results" / "fits" / "f", tmp_path / "results" / "cells" / "c"
    teacher = results / "teachers" / "random.pt"
    copied = tmp_path / "copied"
    shutil.copytree(results, copied)
    test, train = prepared / "test", prepared / "train"
    authors = methods.to_dict(methods.built_in()["stpm_authors"])
    settings = json.dumps(authors | {"epochs": 1, "batch_size": 4})
    data = {"root": finished / "data", "category": "alpha", "image_size": 32}
    own = next((copied / "cells").glob("category-alpha*"))
    scored = {"test": test, "teacher": teacher, "fit": fit, "layers": "1+2", "settings": settings}
    calls = {
        ("prepare", ""): data | {"split": "test", "train": train, "output": tmp_path / "test"},
        ("teacher", ""): {"backbone": "resnet18", "output": tmp_path / "random.pt"},
        ("fit", "stpm"): {"train": train, "teacher": teacher, "layers": "1+2"}
        | {"settings": settings, "output": fit},
        ("score", "stpm"): scored,
        ("evaluate", ""): {"test": test, "fit": fit, "cell": cell}
        | {"settings": '{"masks": "bilinear_any", "smoothing": 2.0}'},
        ("studies", ""): {"config": str(results / "config.yaml"), "output": tmp_path / "studies"},
        ("collect", ""): {"results": copied},
        ("tables", ""): {"results": copied, "main": "main"},
        ("claims", ""): {"results": copied, "main": "main"},
        ("figures", ""): {"results": copied, "main": "main"},
        ("panel", ""): {"test": test, "cell": own, "output": tmp_path / "panel"},
        ("failures", ""): {"results": copied, "main": "main"},
        ("explorer", ""): {"test": test, "results": copied, "output": tmp_path / "alpha.html"}
        | {"cells": '[["alpha", "1+2", "random", 1.0, 0, "stpm"]]'},
        ("first_page", ""): {"results": copied, "main": "main", "category": "alpha"},
    }
    by_name = {step.__name__: step for step in steps.STEPS}
    for (stage, file), arguments in calls.items():
        ran = traced(by_name[stage], arguments)
        method = ((f"methods.{file}", stage),) if file else ()
        held = reach(*method, *ROOTS[stage])
        missed = {place for place in ran if place not in held and place[0] not in DESCRIBING}
        missed = {p for p in missed if p[0].split(".")[0] not in READING} - AROUND
        assert not missed, f"{stage} runs what its hash does not hold: {sorted(missed)}"
        assert ran, stage


def traced(function, arguments: dict) -> set[tuple[str, str]]:
    """Call a function; return the (module, top-level name) of all that ran of the package."""
    ran = set()

    def profile(frame, event, argument):
        code = frame.f_code
        name = code.co_qualname.split(".")[0]
        function = code.co_flags & inspect.CO_OPTIMIZED and name[0] != "<"  # no class, no lambda
        if event == "call" and function and code.co_filename.startswith(str(PACKAGE)):
            path = Path(code.co_filename).relative_to(PACKAGE).with_suffix("")
            ran.add((".".join(path.parts).removesuffix(".__init__"), name))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        function(**arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {place for place in ran if place[0] != "code_version"}
