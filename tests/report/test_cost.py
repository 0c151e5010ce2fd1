import json
import subprocess
import sys
import time

import pandas as pd

from stpm_bench.grid import Cell
from stpm_bench.report import cost, typeset


def test_costs_are_those_that_each_stage_recorded(tmp_path):
    cells = [Cell("bottle", "1+2+3", "digits", 1.0, seed, "stpm") for seed in (0, 1)]

    def write(path, **record):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"device": "cpu", "threads": 2} | record))

    memory = {"peak_memory": {"host_bytes": 500_000_000}}
    write("teachers/random.json", seconds=0.5, **memory)
    trained = {"training_seconds": 8, "train_images": 400, "epochs": 4}
    write("teachers/digits.json", seconds=9, **trained, **memory)
    write(
        f"fits/{cells[0].folder}/fit.json",
        seconds=20,
        split={"training": 30, "validation": 8},
        images=300,
        steps=40,
        images_per_second=17.5,
        packages={"torch": "2.15.0", "numpy": "2.4.6"},
        peak_memory={"host_bytes": 2_000_000_000, "gpu_bytes": 1_000_000_000},
    )
    write(
        f"cells/{cells[0].folder}/evaluation.json",
        seconds=1.5,
        images=83,
        images_per_second=120.0,
        peak_memory={"host_bytes": 300_000_000},
    )
    # A second method shares the fit: its cost is there for both, and counted once in the table.
    fits = {cell: cell.folder for cell in cells}
    fits[cells[0]._replace(method="summed")] = cells[0].folder
    table = cost.collect(tmp_path, fits, {name: name for name in ("digits", "random", "absent")})
    assert table["stage"].tolist() == ["teacher", "teacher", "fit", "evaluate", "fit"]
    rows = table[:4].set_index("stage")
    assert rows.loc["teacher", "images_per_second"].tolist()[0] == 200
    assert rows.loc["fit", "images"] == 300
    assert rows.loc["fit", "fitted_on"] == 30
    setting = ("1+2+3", "digits", 1.0)
    found = cost.steps_by_setting(table)
    assert found == {(*setting, "stpm"): "40", (*setting, "summed"): "40"}
    assert rows.loc["fit", "gpu_bytes"] == 1e9
    assert rows.loc["fit", "packages"] == "torch 2.15.0, numpy 2.4.6"
    assert pd.isna(rows.loc["evaluate", "packages"])
    assert rows.loc["evaluate", "category"] == "bottle"
    text = typeset.markdown(cost.sections(table, len(cells)), "cost")
    assert "1 of 2 cells" in text
    (fit,) = (line for line in text.splitlines() if line.startswith("| fit"))
    assert [cell.strip() for cell in fit.split("|")[1:-1]] == [
        *("fit", "1+2+3", "digits", "1", "stpm", "cpu", "2", "1", "30", "20", "20.0", "20.0"),
        *("17.5", "2.00", "1.00"),
    ]


def test_peak_memory_is_only_that_of_this_process():
    """Even if the process that started it uses more memory, as Snakemake does on a large grid."""
    child = "from stpm_bench import provenance; print(provenance.host_bytes())"
    parent = (
        "import subprocess, sys; from stpm_bench import provenance; held = bytearray(800_000_000); "
        "print(provenance.host_bytes(), flush=True); "
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    run = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    of_parent, of_child = map(int, run.stdout.split())
    assert of_parent > 800_000_000
    assert of_child < 400_000_000


def test_the_seconds_of_a_step_include_its_imports(tmp_path):
    """Importing PyTorch takes longer than making an untrained teacher."""
    output = tmp_path / "random.pt"
    command = [sys.executable, "-m", "stpm_bench", "teacher", "--backbone", "resnet18"]
    start = time.perf_counter()
    subprocess.run([*command, "--output", str(output)], check=True)
    whole = time.perf_counter() - start
    recorded = json.loads(output.with_suffix(".json").read_text())["seconds"]
    assert whole / 2 < recorded < whole
