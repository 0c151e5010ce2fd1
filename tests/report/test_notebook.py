"""The kernel of a notebook is this Python; its tables and its entry in the report have names."""

import json
import re
import sys

import numpy as np
import pandas as pd

from conftest import REPOSITORY
from stpm_bench.report import notebooks
from stpm_bench.run import catalogue
from stpm_bench.steps import report


def test_a_foreign_kernel_and_a_users_profile_are_left_aside(tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    content = {"argv": ["false"], "display_name": "foreign", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(content))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("FOREIGN = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    source = tmp_path / "asks.py"
    source.write_text("# %%\nimport sys\nprint(sys.executable, 'FOREIGN' in globals())\n")
    report.notebook(source=source, results=tmp_path, output=tmp_path / "made")
    assert f"{sys.executable} False" in (tmp_path / "made" / "asks.html").read_text()


def test_every_column_of_a_table_in_a_notebook_has_a_name(monkeypatch):
    shown = []
    monkeypatch.setattr(notebooks, "display", lambda content: shown.append(content.data))
    table = pd.DataFrame({"category": ["a", "b"], "PRO": [0.12345, np.nan]}, index=[7, 8])
    notebooks.show_frame(table)
    (text,) = shown
    assert re.findall(r"<th>(.*?)</th>", text) == ["category", "PRO"]  # no index
    assert re.findall(r"<td>(.*?)</td>", text) == ["a", "0.123", "b", "n/a"]


def test_the_report_names_a_notebook_by_its_file_and_its_title():
    found = catalogue.notebooks(REPOSITORY / "analysis")
    assert list(found) == sorted(path.stem for path in (REPOSITORY / "analysis").glob("*.py"))
    assert found["01_main_table"] == "01_main_table: The main table"
    assert all(re.fullmatch(rf"{name}: \S.*", label) for name, label in found.items())
