"""The workflow as a user runs it: through Snakemake, on small sets in MVTec's layout."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from builders import small_config, write_category
from conftest import REPOSITORY, snakemake
from stpm_bench.backbone import create, load, normalise
from stpm_bench.datasets import mvtec
from stpm_bench.methods.distance import distance, unit

CELL = "category-{}_layers-1+2_teacher-random_fraction-1.0_seed-0_method-stpm"


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below a folder with its time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_run_makes_every_file_of_the_readme(finished):
    results = finished / "results"
    for category in ("alpha", "beta"):
        made = {
            kind: {
                path.name
                for path in (results / kind / CELL.format(category)).iterdir()
                if path.suffix not in (".log", ".sha256")
            }
            for kind in ("fits", "cells")
        }
        assert made["fits"] == {
            "model.pt",
            "history.csv",
            "split.csv",
            "fit.json",
            "level_maps.npz",
            "score.json",
        }
        assert made["cells"] == {
            "metrics.json",
            "image_scores.csv",
            "pro_curve.csv",
            "pro_definitions.csv",
            "evaluation.json",
        }
        for suffix in ("pdf", "png"):
            assert (results / "figures" / "anomaly_maps" / f"{category}.{suffix}").exists()
    for name in (
        "config.yaml",
        "studies.csv",
        "tables/main.csv",
        "tables/pro_definitions.md",
        "figures/main.png",
        "figures/training/main.pdf",
        "figures/pro_definitions.pdf",
        "figures/failures.png",
        "claims.md",
        "notebooks/01_main_table.html",
    ):
        assert (results / name).exists()
    assert "| alpha " in (results / "tables" / "main.md").read_text()
    leftovers = [path for path in results.rglob("*") if ".tmp" in path.name]
    assert leftovers == []


def test_the_long_table_holds_every_cell_and_metric(finished):
    table = pd.read_csv(finished / "results" / "metrics.csv")
    assert list(table.columns) == [
        "category",
        "layers",
        "teacher",
        "fraction",
        "seed",
        "method",
        "metric",
        "value",
    ]
    metrics = {"image_auroc", "pixel_auroc", "pro"}
    assert metrics <= set(table["metric"])
    assert not any(name.startswith("last_epoch_") for name in table["metric"])
    assert table.groupby("category")["metric"].count().nunique() == 1
    assert set(table["layers"]) == {"1+2"}
    assert table["value"].between(0, 1).all()


def test_provenance_says_what_made_the_student(finished):
    from stpm_bench.files import sha256

    results = finished / "results"
    record = json.loads((results / "fits" / CELL.format("alpha") / "fit.json").read_text())
    assert record["settings"]["epochs"] == 2
    assert record["split"] == {"training": 6, "validation": 2}
    assert record["images"] == 12
    assert record["packages"]["torch"] == torch.__version__.split("+")[0]
    assert record["teacher_sha256"] == sha256(results / "teachers" / "random.pt")
    assert record["manifest_sha256"] == sha256(results / "prepared/alpha/train/images.csv")
    assert {"device", "threads", "seconds", "peak_memory", "git_commit", "processor"} <= set(record)


def test_the_student_was_trained_on_its_split(finished):
    """The kept student, on the validation files of split.csv, has the loss of history.csv."""
    results = finished / "results"
    fit = results / "fits" / CELL.format("alpha")
    pixels = np.load(results / "prepared/alpha/train/images.npy")
    files = list(pd.read_csv(results / "prepared/alpha/train/images.csv")["file"])
    chosen = pd.read_csv(fit / "split.csv").set_index("role")["file"]
    networks = [create("resnet18", [1, 2], seed=0).eval() for _ in range(2)]
    load(networks[0], torch.load(results / "teachers/random.pt")["weights"], "the teacher")
    load(networks[1], torch.load(fit / "model.pt")["weights"], "the student")
    images = normalise(torch.from_numpy(pixels[[files.index(f) for f in chosen["validation"]]]))
    with torch.no_grad():
        pairs = zip(*(network(images) for network in networks), strict=True)
        loss = sum(distance(unit(t), s).mean().item() for t, s in pairs)
    history = pd.read_csv(fit / "history.csv")
    assert loss == pytest.approx(history.loc[history["kept"], "validation_loss"].item(), rel=1e-3)
    assert sorted(chosen) == files


def test_a_second_run_does_nothing(finished, tmp_path):
    before = files_of(finished / "results")
    run = snakemake(small_config(finished))
    assert run.returncode == 0, run.stderr
    assert "Nothing to be done" in run.stderr
    assert files_of(finished / "results") == before
    # But a student that somebody deleted is seen, though every table is there.
    shutil.copytree(finished / "results", tmp_path / "results", copy_function=os.link)
    copied = small_config(finished) | {"results": str(tmp_path / "results")}
    assert students(snakemake(copied, "--dry-run")) == 0
    (tmp_path / "results" / "fits" / CELL.format("alpha") / "model.pt").unlink()
    assert students(snakemake(copied, "--dry-run")) == 1


def test_the_same_seed_gives_the_same_bits(finished, tmp_path):
    config = small_config(finished) | {"results": str(tmp_path / "results")}
    folder = tmp_path / "results" / "cells" / CELL.format("alpha")
    assert snakemake(config, str(folder / "metrics.json")).returncode == 0
    for kind, name in (
        ("fits", "model.pt"),
        ("fits", "level_maps.npz"),
        ("fits", "split.csv"),
        ("cells", "metrics.json"),
        ("cells", "image_scores.csv"),
    ):
        one, other = (
            (folder / "results" / kind / CELL.format("alpha") / name).read_bytes()
            for folder in (finished, tmp_path)
        )
        assert one == other, name


def test_no_training_rule_can_see_a_test_file(finished):
    """Walk the DAG from each student back to the raw files."""
    config = finished / "config.yaml"
    # Snakemake's own listing of a forced dry run holds every job with its input files.
    run = snakemake(config, "--dry-run", "--forceall", "--printshellcmds")
    jobs = re.findall(
        r"^(?:local)?rule (\w+):\n(?:    input: (.*)\n)?    output: (.*)", run.stdout, re.M
    )
    maker = {
        output: (rule, inputs.split(", ") if inputs else [])
        for rule, inputs, outputs in jobs
        for output in outputs.split(", ")
    }
    assert {rule for rule, _, _ in jobs} >= {"fit", "teacher", "prepare_train", "prepare_test"}

    def ancestors(path: str) -> set[str]:
        inputs = maker.get(path, ("", []))[1]
        return set(inputs).union(*map(ancestors, inputs))

    students = [path for path, (rule, _) in maker.items() if rule == "fit"]
    scored = [path for path, (rule, _) in maker.items() if rule == "score"]
    test_file = re.compile(r"/(test|ground_truth)(/|$)")
    assert len(students) == 8  # four files for each of two categories
    for path in students:
        seen = ancestors(path)
        assert any(name.endswith("/train/images.npy") for name in seen), "it reaches the images"
        assert [name for name in seen if test_file.search(name)] == []
    # What those are made of, the step is told: test_layouts.py shows what it then reads.
    prepared = re.findall(r"stpm_bench prepare .*--split train .*", run.stdout)
    assert len(prepared) == 2
    assert [command for command in prepared if re.search(r"/test\b|ground_truth", command)] == []
    for path in scored:  # the same walk does find the test files where they are used
        assert [name for name in ancestors(path) if test_file.search(name)]


def test_a_failure_leaves_the_other_students_and_the_tables_with_a_gap(small_set):
    image = small_set / "data" / "alpha" / "train" / "good" / "003.png"
    image.write_bytes(image.read_bytes()[:100])
    run = snakemake(small_config(small_set), "--keep-going")
    assert run.returncode != 0
    assert "alpha/train/good/003.png" in run.stderr
    assert "Traceback" not in run.stderr
    results = small_set / "results"
    alpha, beta = (results / "cells" / CELL.format(name) for name in ("alpha", "beta"))
    assert (beta / "metrics.json").exists()
    assert not (results / "fits" / alpha.name / "model.pt").exists()
    assert "\ncells 1 of 2, " in run.stderr  # how far it is, while it runs
    assert "1 of 2 cells are done and kept" in run.stderr
    # It ends with the command that makes the tables, which runs in the rules' environment.
    command = shlex.split(re.search(r"(snakemake interim .*)", run.stderr)[1])
    assert command[:2] == ["snakemake", "interim"]
    made = subprocess.run(
        [sys.executable, "-m", *command, "--nolock"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    table = pd.read_csv(results / "tables" / "main.csv").set_index("category")
    assert np.isnan(table.loc["alpha", "pro"])
    assert table.loc["beta", "pro"] == json.loads((beta / "metrics.json").read_text())["pro"]
    text = (results / "tables" / "main.md").read_text()
    assert "1 of 2 cells; the others failed or have not run: gaps" in text
    assert (results / "claims.md").exists()
    assert (results / "figures" / "main.png").exists()
    # After the fix the run continues and fills the gap.
    write_category(small_set / "data", "alpha")
    model = results / "fits" / beta.name / "model.pt"
    before = model.stat().st_mtime_ns
    assert snakemake(small_config(small_set), str(results / "tables" / "main.md")).returncode == 0
    assert model.stat().st_mtime_ns == before
    assert "2 of 2 cells" in (results / "tables" / "main.md").read_text()


def test_a_new_seed_trains_only_the_new_cells_and_another_image_its_category(finished, tmp_path):
    shutil.copytree(finished / "data", tmp_path / "data", copy_function=shutil.copy2)
    config = small_config(tmp_path)
    target = str(tmp_path / "results" / "metrics.csv")
    assert snakemake(config, target).returncode == 0
    config["studies"]["main"]["seed"] = [0, 1]
    assert students(snakemake(config, "--dry-run", target)) == 2
    config["studies"]["main"]["seed"] = [0]
    for path in (tmp_path / "data").rglob("*"):
        os.utime(path)  # as in a copy
    assert students(snakemake(config, "--dry-run", target)) == 0
    image = tmp_path / "data" / "alpha" / "train" / "good" / "000.png"
    image.write_bytes((tmp_path / "data" / "alpha" / "train" / "good" / "001.png").read_bytes())
    assert students(snakemake(config, "--dry-run", target)) == 1
    moved = config | {"data": config["data"] | {"folder": str(tmp_path / "elsewhere")}}
    assert students(snakemake(moved, "--dry-run", target)) == 1  # another place, the same teacher
    config["training"]["epochs"] = 3
    assert students(snakemake(config, "--dry-run", target)) == 2


def students(run: subprocess.CompletedProcess) -> int:
    """Return how many students a dry run would train."""
    text = run.stdout + run.stderr
    assert run.returncode == 0, text
    # Without fits it either counts other jobs or has none: else nothing was planned.
    assert "Nothing to be done" in text or re.search(r"^total +\d+$", text, re.M), text
    found = re.search(r"^fit +(\d+)$", text, re.M)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "job  count\nfit     3\ntotal   5\n", 3),
        (0, "job  count\ntables  1\ntotal   1\n", 0),
        (0, "Nothing to be done (all requested files are present and up to date).", 0),
        (0, "", None),
        (1, "KeyError in rule fit", None),
    ],
)
def test_a_dry_run_that_planned_nothing_is_not_counted_as_none(status, output, expected):
    run = subprocess.CompletedProcess([], status, stdout=output, stderr="")
    if expected is None:
        with pytest.raises(AssertionError):
            students(run)
    else:
        assert students(run) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "config key 'epochs' is unknown; allowed here: results, image_size,"),
        ({"results": "/proc/results"}, "config key 'results': /proc/results cannot be written ("),
    ],
)
def test_a_config_that_is_wrong_stops_before_anything_runs(small_set, changes, message):
    config = small_config(small_set)
    path = small_set / "config.yaml"
    path.write_text(json.dumps(config | changes))
    run = snakemake(path)
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not (small_set / "results").exists()


def test_a_damaged_or_deleted_file_is_named_and_written_again(finished, tmp_path):
    shutil.copytree(finished / "data", tmp_path / "data", copy_function=shutil.copy2)
    config = small_config(tmp_path)
    fit, cell = (tmp_path / "results" / kind / CELL.format("alpha") for kind in ("fits", "cells"))
    targets = [
        str(path) for path in (fit / "model.pt", fit / "level_maps.npz", cell / "metrics.json")
    ]
    assert snakemake(config, *targets).returncode == 0
    before = [Path(target).read_bytes() for target in targets]
    damaged = bytearray(before[0])
    damaged[len(damaged) // 2] ^= 1  # in the weights: PyTorch would read them
    (fit / "model.pt").write_bytes(damaged)
    run = snakemake(config, *targets)
    assert run.returncode != 0
    assert "model.pt: is not what was written" in run.stderr
    assert "cells are done and kept" in run.stderr  # and what --keep-going would do
    assert f"(snakemake --cores all {fit}/model.pt --configfile" in run.stderr
    assert "Traceback" not in run.stderr
    (fit / "model.pt").unlink()
    assert snakemake(config, targets[0]).returncode == 0
    assert Path(targets[0]).read_bytes() == before[0]
    assert snakemake(config, *targets).returncode == 0
    assert [Path(target).read_bytes() for target in targets] == before


def test_defects_too_small_for_their_masks_leave_the_metric_of_images(tmp_path):
    write_category(tmp_path / "data", "alpha", train=2, test=1, size=256)
    mask = np.zeros((256, 256), np.uint8)
    mask[0, 0] = 255
    Image.fromarray(mask).save(tmp_path / "data/alpha/ground_truth/square/000_mask.png")
    metrics = tmp_path / "results" / "cells" / CELL.format("alpha") / "metrics.json"
    run = snakemake(small_config(tmp_path), str(metrics))
    assert run.returncode == 0, run.stderr
    assert set(json.loads(metrics.read_text())) == {"image_auroc"}
    log = (tmp_path / "results/logs/prepare/alpha_test.log").read_text()
    assert "no defect is visible in its mask" in log
    assert "raise the config key 'image_size'" in log


def test_a_teacher_from_a_file_and_its_errors(small_set):
    weights = small_set / "weights.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), weights)
    teachers = {"random": {"backbone": "mobilenet_v2", "weights": str(weights)}}
    target = str(small_set / "results" / "teachers" / "random.json")
    config = small_config(small_set, teachers=teachers)
    assert snakemake(config, target).returncode == 0
    assert json.loads(Path(target).read_text())["backbone"] == "mobilenet_v2"
    teachers["random"]["backbone"] = "resnet18"
    run = snakemake(config, target)
    assert run.returncode != 0
    assert (
        f"{weights}: does not fit the backbone. The first key that differs is 'conv1." in run.stderr
    )


def test_the_demo_in_small_with_a_pretrained_teacher(tmp_path):
    config = yaml.safe_load((REPOSITORY / "workflow" / "config" / "demo.yaml").read_text())
    config["results"] = str(tmp_path / "results")
    config |= {"image_size": 64, "pretraining": {"epochs": 1}, "training": {"epochs": 1}}
    main = config["studies"]["main"]
    config["studies"] = {"one": main | {"category": ["brick"], "teacher": ["digits"], "seed": [0]}}
    made = ("tables/one.md", "figures/anomaly_maps/brick.png")
    run = snakemake(config, *(f"{tmp_path}/results/{name}" for name in made))
    assert run.returncode == 0, run.stderr
    teacher = json.loads((tmp_path / "results" / "teachers" / "digits.json").read_text())
    assert teacher["source"] == "digits"
    assert 0 < teacher["test_accuracy"] <= 1
    assert teacher["train_images"] + teacher["test_images"] == 1797
    defects = pd.read_csv(tmp_path / "results/prepared/brick/test/images.csv")["defect"]
    assert set(defects) == {"good", "crack", "patch", "smear", "stain", "thread"}
    # The tables and figures are those of the only study, whatever its name.
    assert "| brick " in (tmp_path / "results" / "tables" / "one.md").read_text()


def test_a_whole_copy_in_the_data_folder_is_not_downloaded_again(tmp_path):
    write_category(tmp_path, "source", train=1, test=1)
    image = (tmp_path / "source" / "train" / "good" / "000.png").read_bytes()
    for category, (train, test) in mvtec.COUNTS.items():
        for folder, count in (("train/good", train), ("test/good", test)):
            path = tmp_path / "data" / "mvtec_ad" / category / folder
            path.mkdir(parents=True)
            for i in range(count):
                (path / f"{i:03}.png").write_bytes(image)
    marker = tmp_path / "data" / "mvtec_ad" / "download.json"
    changes = [f"results={tmp_path}/results", f"data={{folder: {tmp_path}/data}}"]
    command = [sys.executable, "-m", "snakemake", str(marker), "--cores", "1", "--nolock"]
    run = subprocess.run(
        [*command, "--config", *changes], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(marker.read_text())["url"] is None


def test_the_demo_has_five_studies_and_needs_no_data():
    run = snakemake(REPOSITORY / "workflow" / "config" / "demo.yaml", "--dry-run", "--forceall")
    assert run.returncode == 0, run.stderr
    assert students(run) == 12  # of STPM; the baselines are fits of temporary models
    assert "demo_data" in run.stdout


def test_the_default_is_the_paper_and_says_what_it_downloads(tmp_path):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock"]
    changes = [f"results={tmp_path}/results", f"data={{folder: {tmp_path}/data}}"]
    run = subprocess.run(
        [*command, "--config", *changes],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert students(run) == 675
    assert re.search(r"^download +1$", run.stdout, re.M)


def offline() -> bool:
    try:
        socket.getaddrinfo("www.mydrive.ch", 443)
    except OSError:
        return True
    return False


@pytest.mark.skipif(not offline(), reason="there is a network: this would download 5 GB")
def test_without_a_network_the_paper_stops_at_once_and_says_what_to_do(tmp_path):
    start = time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]
    changes = [f"results={tmp_path}/results", f"data={{folder: {tmp_path}/data}}"]
    run = subprocess.run(
        [*command, "--config", *changes],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode != 0
    assert "MVTec AD (4.9 GiB" in run.stderr
    assert "They process 11,453,100 images" in run.stderr
    assert "data.mvtec_ad" in run.stderr
    assert "mvtec_anomaly_detection.tar.xz" in run.stderr
    assert "Traceback" not in run.stderr
    assert time.monotonic() - start < 120


def test_lint():
    run = snakemake(REPOSITORY / "workflow" / "config" / "demo.yaml", "--lint")
    assert run.returncode == 0, run.stderr
