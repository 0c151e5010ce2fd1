"""The page of measured speeds has each file's rows, and says what they were measured on."""

import json

import pytest

from stpm_bench.__main__ import main
from stpm_bench.benchmarks.page import page
from stpm_bench.errors import InputError


def write(folder, name, capability, results, device="cpu"):
    content = {
        "benchmark": "training",
        "machine": {
            "processor": "EPYC",
            "capability": capability,
            "cores": 2,
            "load": 0.3,
            "device": device,
        },
        "versions": {"torch": "2.15.0", "git_commit": "0123456789"},
        "threads": 1,
        "runs": 3,
        "results": results,
    }
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_every_file_has_its_rows_and_gaps_are_empty(tmp_path):
    folder = tmp_path / "measured"
    write(folder, "a.json", "AVX2", [{"step": "plain", "images/s": 2.75, "ratio": None}])
    write(folder, "b.json", "sm_90", [{"step": "plain", "images/s": 300.0}], device="H100")
    output = tmp_path / "speed.md"
    assert main(["benchmark-docs", "--measured", str(folder), "--output", str(output)]) == 0
    text = output.read_text()
    assert text == page(folder)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0] == ["processor", "step", "images/s", "ratio"]
    assert cells[2:] == [
        ["AVX2, threads: 1", "plain", "2.75", ""],
        ["H100, threads: 1", "plain", "300", ""],
    ]
    assert "[a.json](measured/a.json) (EPYC, 2 cores, load 0.3; 3 runs; PyTorch 2.15.0" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"results": []}'])
def test_another_file_is_named(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(InputError, match=r"other.json: .*--output"):
        page(tmp_path)
