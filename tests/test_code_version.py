"""The hash of a step's code: against what really runs, and against edits of a copy."""

import ast
import inspect
import shutil
import sys
import threading
from pathlib import Path

import pytest

from stpm_bench import code_version as module
from stpm_bench import steps
from stpm_bench.code_version import DESCRIBING, PACKAGE, code_version, reach

NAMES = [step.__name__ for step in steps.STEPS]
EVALUATION = {"metrics"}
TRAINING = {"student", "anomaly_maps"}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package, from which the hashes are made."""
    folder = tmp_path / "stpm_bench"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "PACKAGE", folder)
    yield folder
    forget()


def forget() -> None:
    module.read.cache_clear()
    module.parsed.cache_clear()


def hashes() -> dict[str, str]:
    forget()
    return {name: code_version(name) for name in NAMES}


def changed(before: dict[str, str]) -> set[str]:
    after = hashes()
    return {name for name in NAMES if before[name] != after[name]}


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
        ("student.py", "train", {"student"}),
        ("student.py", "validate", {"student"}),  # inside another
        ("split.py", "split", {"student"}),  # a parameter of another step has its name
        ("anomaly_map.py", "score", {"anomaly_maps"}),
        ("anomaly_map.py", "squared", TRAINING | {"benchmark"}),  # by a table of distances
        ("metrics/pro.py", "pro", EVALUATION),  # by definitions.py
        ("metrics/roc.py", "best_f1", EVALUATION),
        ("claims.py", "verdict", {"claims", "interim"}),
        ("figures.py", "training", {"figures", "interim"}),
        ("datasets/download.py", "download", {"download"}),
        ("provenance.py", "environment", set()),  # it describes
    ],
)
def test_an_edit_changes_the_steps_that_it_reaches(copy, file, function, expected):
    before = hashes()
    insert(copy / file, function, "edited = 1")
    assert changed(before) - {"benchmark"} == expected - {"benchmark"}


def test_docstrings_layout_and_annotations_do_not_count(copy):
    before = hashes()
    path = copy / "split.py"
    text = path.read_text().replace('"""Choose a fraction', '"""Take a fraction')
    text = text.replace("seed: int\n", "seed: float\n").replace("fraction: float", "fraction: int")
    path.write_text("# a comment\n\n\n" + text.replace("    roles = ", "\n    roles = "))
    assert changed(before) == set()


def test_constants_and_lines_that_run_on_import_count(copy):
    before = hashes()
    path = copy / "backbone.py"
    path.write_text(path.read_text().replace("IMAGENET_MEAN = ", "IMAGENET_MEAN = 2 * "))
    assert changed(before) >= TRAINING | {"teacher"}
    assert "metrics" not in changed(before)
    before = hashes()
    path = copy / "metrics" / "roc.py"
    path.write_text(path.read_text() + "\n\nprint('imported')\n")
    assert changed(before) == EVALUATION


def test_a_definition_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"stpm_bench/steps.py: has no .* 'no_step'"):
        code_version("no_step")


def test_what_a_step_runs_is_what_its_hash_holds(finished, tmp_path):
    """The tracer is the reference: whatever of the package is called must be reached."""
    results = finished / "results"
    prepared = results / "prepared" / "alpha"
    cell = tmp_path / "cell"
    teacher = results / "teachers" / "random.pt"
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    test, train = prepared / "test", prepared / "train"
    protocol = '{"like": "authors", "epochs": 1, "batch_size": 4}'
    data = {"root": finished / "data", "category": "alpha", "image_size": 32}
    calls = {
        "plan": {"config": str(results / "config.yaml")},
        "studies": {"config": str(results / "config.yaml"), "output": tmp_path / "studies"},
        "prepare": data | {"split": "test", "train": train, "output": tmp_path / "test"},
        "teacher": {"backbone": "resnet18", "output": tmp_path / "random.pt"},
        "student": {"train": train, "teacher": teacher, "layers": "1+2", "protocol": protocol}
        | {"output": cell},
        "anomaly_maps": {"test": test, "teacher": teacher, "cell": cell, "protocol": protocol},
        "metrics": {"test": test, "masks": "bilinear_any", "cell": cell},
        "collect": {"results": copied},
        "tables": {"results": copied, "main": "main"},
        "claims": {"results": copied, "main": "main"},
        "figures": {"results": copied, "main": "main"},
        "panel": {"test": test, "cell": cell, "output": tmp_path / "panel"},
        "failures": {"results": copied, "main": "main"},
    }
    for name, arguments in calls.items():
        ran = traced(getattr(steps, name), arguments)
        missed = {place for place in ran if place not in reach(name) and place[0] not in DESCRIBING}
        missed -= {("cost", "host_bytes")}  # called by what describes
        assert not missed, f"{name} runs what its hash does not hold: {sorted(missed)}"
        assert ("steps", name) in ran


def traced(function, arguments: dict) -> set[tuple[str, str]]:
    """Call a function; return the (module, top-level name) of all that ran of the package."""
    ran = set()

    def profile(frame, event, argument):
        code = frame.f_code
        name = code.co_qualname.split(".")[0]
        function = code.co_flags & inspect.CO_OPTIMIZED and name[0] != "<"  # no class, no lambda
        if event == "call" and function and code.co_filename.startswith(str(PACKAGE)):
            path = Path(code.co_filename).relative_to(PACKAGE).with_suffix("")
            ran.add((".".join(path.parts), name))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        function(**arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {place for place in ran if place[0] != "code_version"}
