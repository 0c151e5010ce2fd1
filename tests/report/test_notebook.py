"""The kernel of a notebook is this Python, whatever the user has installed."""

import json
import sys

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
