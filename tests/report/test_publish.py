"""The part of a run that is published in git, and the block of README.md about it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from builders import write_category
from conftest import REPOSITORY, made_once
from stpm_bench import audit, config, grid, provenance
from stpm_bench.__main__ import main
from stpm_bench.errors import InputError
from stpm_bench.files import write_arrays
from stpm_bench.metrics.definitions import DEFINITIONS
from stpm_bench.report import compare, publish, readme
from stpm_bench.report.claims import RESAMPLED
from stpm_bench.results import cell_folder, fit_folder
from stpm_bench.steps import evaluate
from stpm_bench.steps import report as reporting

ENVIRONMENT = {
    "git_commit": "0" * 40,
    "python": "3.11.7",
    "packages": {"torch": "2.15.0", "numpy": "2.4.6"},
    "platform": "Linux",
    "processor": "AMD EPYC",
    "capability": "AVX-512 BF16",
    "device": "cpu",
}
COST = {
    "images": 83,
    "seconds": 36.0,
    "images_per_second": 50.0,
    "peak_memory": {"host_bytes": 10**9},
    "device": "cpu",
    "threads": 1,
}
FAILED = "category-bottle_layers-1+2+3_teacher-imagenet_fraction-1.0_seed-0_method-stpm"
MISSING = "category-screw_layers-1+2+3_teacher-imagenet_fraction-0.1_seed-2_method-stpm"


@pytest.fixture(scope="session")
def made_up(tmp_path_factory) -> Path:
    """Results of two categories at the paper's setting, made up; a fit failed, one did not run."""

    def make(folder: Path) -> None:
        for category in ("bottle", "screw"):
            write_category(folder / "data", category, train=2, test=1)
        results, axes = folder / "results", {"category": "all", "teacher": ["imagenet"]}
        axes |= {"layers": [[1, 2, 3]], "seed": [0, 1, 2]}
        given = {
            "results": str(results),
            "data": {"mvtec_ad": str(folder / "data")},
            "teachers": {"imagenet": {"backbone": "resnet18", "weights": "IMAGENET1K_V1"}},
            "studies": {
                "main": axes | {"fraction": [1.0]},
                "few_shot": axes | {"fraction": [0.1, 1.0]},
            },
        }
        reporting.studies(config=json.dumps(given), output=results)
        (results / "teachers").mkdir()
        # Its weights were only copied, on another machine.
        teacher = COST | ENVIRONMENT | {"processor": "the login node's", "weights_sha256": "f" * 64}
        (results / "teachers" / "imagenet.json").write_text(json.dumps(teacher))
        rng = np.random.default_rng(0)
        for cell, fit in grid.fit_names(grid.read(results / "studies.csv")).items():
            if cell.folder != MISSING:
                make_cell(cell_folder(results, cell), fit_folder(results, fit), rng)
        interim(results)

    return made_once(tmp_path_factory, "to_publish", make) / "results"


def make_cell(folder: Path, of_fit: Path, rng: np.random.Generator) -> None:
    for path in (folder, of_fit):
        path.mkdir(parents=True)
    failure = "made up" if folder.name == FAILED else None
    fit = {"failure": failure, "settings": {"file": "stpm"}, "precision": "float32", "code": "a1"}
    write(of_fit / "fit.json", COST | fit | ENVIRONMENT)
    history = pd.DataFrame({"epoch": [1, 2], "validation_loss": [0.4, 0.2], "kept": [False, True]})
    history.assign(train_loss=0.3).to_csv(of_fit / "history.csv", index=False)
    stage = {"settings": {"file": "stpm"}, "code": "b2"}
    write(of_fit / "score.json", stage | ({"failure": failure} if failure else COST | ENVIRONMENT))
    write(folder / "evaluation.json", {"code": "c3"} | (COST if not failure else {}))
    level = 0.95 + rng.normal(0, 0.005)
    values = dict.fromkeys(("image_auroc", "pixel_auroc", "pro"), level)
    write(folder / "metrics.json", {"failure": failure} if failure else values)
    rows = [(name, "nearest", level, level) for name in DEFINITIONS if not failure]
    pd.DataFrame(rows, columns=audit.COLUMNS).to_csv(folder / "pro_definitions.csv", index=False)
    curve = pd.DataFrame({"fpr": [0.0, 0.3], "overlap": [0.0, level]})
    curve.to_csv(folder / "pro_curve.csv", index=False)


def write(path: Path, record: dict) -> None:
    path.write_text(json.dumps(record))


def interim(results: Path) -> None:
    """Make metrics.csv, tables, claims and figures of the cells that are done."""
    evaluate.collect(results=results)
    for step in (reporting.tables, reporting.claims, reporting.figures):
        step(results=results, main="main")


@pytest.fixture
def results(made_up, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made_up, tmp_path / "results"))


def change(path: Path, **values) -> None:
    write(path, json.loads(path.read_text()) | values)


def first_fit(results: Path, category: str = "screw") -> Path:
    return next(path for path in sorted((results / "fits").iterdir()) if category in path.name)


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_published_folder_has_these_files_and_is_small(made_up, tmp_path, capsys):
    assert main(["publish", str(made_up), "two", "--to", str(tmp_path)]) == 0
    found = files_in(tmp_path / "two")
    tables = {"main", "few_shot", "few_shot_by_category", "few_shot_differences", "reproductions"}
    tables |= {"cost", "pro_definitions"}
    expected = {f"tables/{name}.{suffix}" for name in tables for suffix in ("csv", "md")}
    expected |= {"tables/main_methods.csv", "claims.json", "claims.md"}
    expected |= {"config.yaml", "metrics.csv", "record.json", "README.md"}
    shown = ("main", "training/main", "difference_to_paper", "few_shot")
    expected |= {f"figures/{name}.png" for name in shown}
    assert set(found) == expected
    assert sum((tmp_path / "two" / name).stat().st_size for name in found) < 1e6
    for name in ("config.yaml", "metrics.csv", "tables/main.csv", "figures/main.png"):
        assert (tmp_path / "two" / name).read_bytes() == (made_up / name).read_bytes()
    # The paths of this config are this machine's.
    warned = capsys.readouterr().err
    assert f"data.mvtec_ad: {made_up.parent / 'data'}" in warned
    assert f"results: {made_up}" in warned


def test_the_record_counts_cells_and_adds_up_hours(made_up):
    record = json.loads(publish.contents(made_up, "two")["record.json"])
    assert record["cells"] == {"planned": 12, "done": 10, "failed": 1, "missing": 1}
    assert record["studies"]["main"] == {"planned": 6, "done": 5, "failed": 1, "missing": 0}
    assert (record["failed"], record["missing"]) == ([FAILED], [MISSING])
    # 36 s each: a teacher, 11 fits, and the scores and evaluations of the 10 that did not fail.
    hours = {"teacher": 0.01, "fit": 0.11, "score": 0.1, "evaluate": 0.1, "together": 0.32}
    assert record["hours"] == hours
    assert record["kind"] == "AMD EPYC (AVX-512 BF16)"
    assert record["versions"]["the code of fit stpm"] == ["a1"]
    assert record["versions"]["torch"] == ["2.15.0"]
    assert record["git_commits"] == {"0" * 40: 22}
    assert record["teachers"] == {"imagenet": {"weights_sha256": "f" * 64}}
    assert record["deviations_from_the_papers_setting"] == []


def test_the_readme_of_a_folder_says_what_ran_and_where_and_what_is_missing(made_up):
    text = publish.contents(made_up, "two", note="The images were resampled.")["README.md"].decode()
    command = "snakemake --cores all --configfile results/published/two/config.yaml"
    assert command in text
    assert "10 of 12 planned cells" in text
    assert "| few_shot | 12 | 10 | 1 | 1 |" in text
    assert f"- Planned cells that have not run: 1 ({MISSING})" in text
    assert f"- Planned cells that failed in their fit: 1 ({FAILED})" in text
    assert "None: it is the paper's setting" in text
    assert f"| `data.mvtec_ad` | `{made_up.parent / 'data'}` | a copy of MVTec AD" in text
    assert "| `teachers.imagenet.weights` | `IMAGENET1K_V1` | torchvision's weights" in text
    assert "AMD EPYC (AVX-512 BF16)" in text
    assert "0.32 (teacher 0.01, fit 0.11, score 0.10, evaluate 0.10)" in text
    assert "Students' precision: float32" in text
    assert "torch 2.15.0" in text
    assert "0" * 40 in text
    assert "The images were resampled." in text
    assert "### Study: main" in text
    assert "MIXED" not in text


def test_differences_from_the_papers_setting_are_listed(results):
    change(results / "claims.json", deviations_from_the_papers_setting=["epochs 10"])
    (results / "claims.sha256").unlink()
    files = publish.contents(results, "two")
    assert "\n- epochs 10\n" in files["README.md"].decode()
    assert b"it is the paper's setting" not in files["README.md"]


def test_the_published_config_asks_for_the_same_cells(made_up):
    text = publish.contents(made_up, "two")["config.yaml"]
    again = grid.studies(config.complete(yaml.safe_load(text)))
    assert grid.cells(again) == grid.cells(grid.read(made_up / "studies.csv"))


@pytest.mark.parametrize(
    "other",
    [{"capability": "AVX2"}, {"processor": "Intel"}, {"device": "NVIDIA", "capability": "9.0"}],
    ids=str,
)
@pytest.mark.parametrize("stage", ["fit", "score"])
def test_two_kinds_of_processor_are_refused_with_their_cells(results, stage, other):
    fit = first_fit(results)
    change(fit / f"{stage}.json", **other)
    with pytest.raises(InputError) as error:
        publish.contents(results, "two", mixed=True)
    expected = ENVIRONMENT | other
    name = expected["device"] if "device" in other else expected["processor"]
    assert "AMD EPYC (AVX-512 BF16): " in str(error.value)
    assert f"{name} ({expected['capability']}): 1 cells ({fit.name})" in str(error.value)


def test_the_speed_is_published_if_it_was_measured_on_the_same_processor(results):
    speed = {"machine": {"processor": "AMD EPYC", "device": "cpu"}}
    write(results / "speed.json", speed)
    (results / "speed.csv").write_text("method\n")
    assert {"speed.json", "speed.csv"} <= set(publish.contents(results, "two"))
    speed["machine"]["processor"] = "Intel"
    write(results / "speed.json", speed)
    with pytest.raises(InputError, match=r"speed.json: .* timed on Intel, .* AMD EPYC"):
        publish.contents(results, "two")


def test_a_teacher_that_was_trained_counts_as_computed(results):
    change(results / "teachers" / "imagenet.json", training_seconds=9, train_images=1, epochs=1)
    with pytest.raises(InputError, match="the login node's"):
        publish.contents(results, "two")


@pytest.mark.parametrize(
    ("stage", "other", "what"),
    [
        ("fit", {"code": "a0"}, "the code of fit stpm"),
        ("score", {"packages": {"torch": "2.14.0", "numpy": "2.4.6"}}, "torch"),
        ("fit", {"python": "3.12.1"}, "Python"),
        ("fit", {"precision": "bfloat16"}, "the students' precision"),
    ],
)
def test_mixed_versions_are_refused_or_named(results, stage, other, what):
    fit = first_fit(results)
    change(fit / f"{stage}.json", **other)
    with pytest.raises(InputError) as error:
        publish.contents(results, "two")
    (version,) = [v["torch"] if isinstance(v, dict) else v for v in other.values()]
    told = f"{version}: 1 cells ({fit.name})"
    assert f"{what}: " in str(error.value)
    assert told in str(error.value)
    assert "--mixed" in str(error.value)
    files = publish.contents(results, "two", mixed=True)
    assert re.search(rf"- MIXED, {what}: .*{re.escape(told)}", files["README.md"].decode())
    assert what in json.loads(files["record.json"])["mixed"]


def test_results_of_another_version_of_the_code_are_published(made_up):
    """No checkout has the version 'a1' of the code."""
    assert publish.contents(made_up, "two")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "ä", ".x", "x" * 81])
def test_a_name_with_other_characters_is_refused(made_up, name):
    with pytest.raises(InputError, match="the name") as error:
        publish.contents(made_up, name)
    assert ascii(name) in str(error.value)


@pytest.mark.parametrize("file", ["metrics.csv", "figures/main.png"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(results, file):
    (results / file).unlink()
    with pytest.raises(InputError, match="no such file") as error:
        publish.contents(results, "two")
    assert str(results / file) in str(error.value)
    assert f"interim --results {results}" in str(error.value)


def test_a_cell_that_was_done_since_is_refused(results):
    cell = results / "cells" / MISSING
    make_cell(cell, results / "fits" / MISSING, np.random.default_rng(1))
    said = f"metrics.csv: has 10 cells, and 11 are done ({MISSING})"
    with pytest.raises(InputError, match=re.escape(said)):
        publish.contents(results, "two")
    evaluate.collect(results=results)
    with pytest.raises(InputError, match=r"tables: are of 10 cells, and metrics.csv of 11"):
        publish.contents(results, "two")
    interim(results)
    record = json.loads(publish.contents(results, "two")["record.json"])
    assert record["cells"]["missing"] == 0


def test_a_damaged_file_is_refused(results):
    path = results / "tables" / "main.csv"
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    with pytest.raises(InputError, match=r"main.csv: is not what was written"):
        publish.contents(results, "two")


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path):
    folder = tmp_path / "two"
    publish.write(folder, {"a": b"1", "b/c": b"2"})
    assert files_in(folder) == ["a", "b/c"]
    with pytest.raises(InputError, match="--replace") as error:
        publish.write(folder, {"a": b"3"})
    assert str(folder) in str(error.value)
    with pytest.raises(InputError, match="cannot be written"):
        publish.write(folder, {"a": b"3", "a/b": b"4"}, replace=True)
    assert (folder / "a").read_bytes() == b"1"
    publish.write(folder, {"d": b"5"}, replace=True)
    assert files_in(tmp_path) == ["two/d"]
    with pytest.raises(InputError, match="cannot be written"):
        publish.write(tmp_path / "new", {"a": b"3", "a/b": b"4"})
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_git_takes_published_folders_and_nothing_else_of_the_results():
    def ignored(path: str) -> bool:
        command = ["git", "-C", str(REPOSITORY), "check-ignore", "--quiet", "--no-index", path]
        return subprocess.run(command).returncode == 0

    assert not ignored("results/published/two/figures/main.png")
    assert not ignored("results/README.md")
    for path in ("results/metrics.csv", "results/two/metrics.csv", "results/cells/x/metrics.json"):
        assert ignored(path)


def test_an_environment_says_what_its_processor_computes_natively():
    found = provenance.environment(torch.device("cpu"))["capability"]
    assert found in {"AMX BF16", "AVX-512 BF16", torch.backends.cpu.get_cpu_capability()}


# The block of README.md


def test_the_readme_has_the_block_of_the_published_files():
    text = (REPOSITORY / "README.md").read_text()
    made = readme.block(REPOSITORY / publish.FOLDER)
    assert made in text, "README.md differs from results/published: python -m stpm_bench readme"


def test_without_a_published_folder_the_block_says_so(tmp_path):
    assert "No results are published yet" in readme.block(tmp_path)


def test_the_block_compares_ours_with_the_paper_and_names_each_claim(made_up, tmp_path):
    publish.write(tmp_path / "two", publish.contents(made_up, "two", note="Resampled."))
    text = readme.block(tmp_path)
    assert "**[two](results/published/two/README.md)**: MVTec AD, 2 of 15 categories" in text
    assert "10 of 12 planned cells, 0.3 hours of computing on AMD EPYC (AVX-512 BF16)" in text
    assert "Resampled." in text
    table = pd.read_csv(made_up / "tables" / "main.csv").set_index("category")
    mean, sd = table.loc["screw", ["pro", "pro_sd"]]
    (row,) = (line for line in text.splitlines() if re.match(r"\| PRO +\| screw ", line))
    values = [value.strip() for value in row.strip("|").split("|")]
    assert values[2] == "0.930"
    assert values[4:] == [f"{mean:.3f} ± {sd:.3f}", f"{mean - 0.93:+.3f}", "n/a"]
    mean = table.loc["screw", "pixel_auroc"]
    (row,) = (line for line in text.splitlines() if re.match(r"\| pixel AUROC +\| screw ", line))
    assert row.strip("|").split("|")[-1].strip() == f"{mean - 0.988481:+.3f}"  # their README's
    assert not re.search(r"\| PRO +\| carpet", text)  # not run
    assert "(results/published/two/claims.md)" in text
    claims = json.loads((made_up / "claims.json").read_text())["claims"]
    lines = re.findall(r"^- (.*)$", text, re.M)
    tested = {c["claim"] for c in claims if c["verdict"] != "not tested"}
    assert [line.split(". ")[0] for line in lines[:-1]] == list(
        dict.fromkeys(c["claim"] for c in claims if c["claim"] in tested)
    )
    for claim in claims:
        if claim["claim"] in tested:
            line = f"{claim['claim']}. {claim['statement']}: "
            assert any(text.startswith(line) and claim["verdict"] in text for text in lines)
        else:
            assert re.search(rf"\b{re.escape(claim['claim'])}\b", lines[-1])


def test_beyond_the_largest_folders_the_block_has_a_line_each(made_up, tmp_path):
    publish.write(tmp_path / "two", publish.contents(made_up, "two"))
    own = pd.read_csv(tmp_path / "two" / "metrics.csv")
    for name, seeds in (("a_part", 1), ("more", 2)):
        shutil.copytree(tmp_path / "two", tmp_path / name)
        own[own["seed"] < seeds].to_csv(tmp_path / name / "metrics.csv", index=False)
    change(tmp_path / "a_part" / "record.json", kind="NVIDIA H100")
    text = readme.block(tmp_path)
    entries = re.findall(r"^\*\*\[(\w+)\]", text, re.M)
    lines = re.findall(r"^- \*\*\[(\w+)\].*on NVIDIA H100\. (.*)$", text, re.M)
    assert entries == ["more", "two"]
    wide = own[own["seed"] < 1].assign(category=own["category"].replace("screw", "cable"))
    wide = pd.concat([own[own["seed"] < 1], wide])  # fewer cells, more of the paper's categories
    wide.to_csv(tmp_path / "a_part" / "metrics.csv", index=False)
    assert re.findall(r"^\*\*\[(\w+)\]", readme.block(tmp_path), re.M)[0] == "a_part"
    own[own["seed"] < 1].to_csv(tmp_path / "a_part" / "metrics.csv", index=False)
    folders = [compare.read(tmp_path / name) for name in ("a_part", "more")]
    count = sum(len(study.comparisons) for study in compare.studies_of(*folders))
    assert count >= 3  # of the same cells
    ((name, compared),) = lines
    assert name == "a_part"
    assert compared.startswith("more has the same cells")
    assert f"{count} reproduced" in compared
    assert text.count("The paper's [claims]") == 2
    for name in ("more", "two"):  # another setting: its cells are others
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        config["training"]["epochs"] = 3
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert "has the same cells" not in readme.block(tmp_path)


def test_other_readings_have_a_column_in_the_block(made_up, tmp_path):
    publish.write(tmp_path / "two", publish.contents(made_up, "two"))
    path = tmp_path / "two" / "tables" / "reproductions.csv"
    table = pd.read_csv(path)
    table["ours: stpm_authors"], table["ours: stpm_authors sd"] = 0.91234, 0.00456
    table.to_csv(path, index=False)
    body = readme.compared_with_paper(tmp_path / "two")
    assert set(body["ours: stpm_authors"]) == {"0.912 ± 0.005"}
    table["ours: stpm_authors"] = float("nan")
    table.to_csv(path, index=False)
    assert "ours: stpm_authors" not in readme.compared_with_paper(tmp_path / "two")


def test_a_line_has_a_claims_statement_and_the_metrics_of_each_verdict():
    rows = [
        ("1a", "All beat one", "image_auroc", "undecided"),
        ("1a", "All beat one", "pro", "supported"),
        ("2a", "unused", "pro", "not tested"),
        ("2c", "unused", "pro", "not tested"),
        ("5a", "100 frames per second", "", "undecided"),
    ]
    keys = ("claim", "statement", "metric", "verdict")
    claims = [dict(zip(keys, row, strict=True)) for row in rows]
    tested = [
        "1a. All beat one: supported (PRO), undecided (image AUROC)",
        "5a. 100 frames per second: undecided",
    ]
    untested = "not tested here: pretraining of the teacher (2a, 2c)"
    assert readme.verdict_lines(claims) == [*tested, untested]
    assert readme.verdict_lines([claims[0], claims[1], claims[4]]) == tested


def test_one_seed_has_no_spread_in_the_heading_of_the_block(made_up, tmp_path):
    publish.write(tmp_path / "two", publish.contents(made_up, "two"))
    path = tmp_path / "two" / "tables" / "reproductions.csv"
    heading = "ours, mean ± standard deviation over seeds"
    assert heading in readme.compared_with_paper(tmp_path / "two")
    pd.read_csv(path).assign(**{"ours sd": float("nan")}).to_csv(path, index=False)
    body = readme.compared_with_paper(tmp_path / "two")
    assert "ours, one seed, no spread" in body
    assert not any("±" in column for column in body)


def test_the_readme_says_what_auto_was(results):
    files = publish.contents(results, "two")
    text = files["README.md"].decode()
    assert "- `device: auto` in config.yaml was here: the CPU (11 fits)" in text
    assert "- `precision: auto` in config.yaml was here: float32 (11 fits)" in text
    assert json.loads(files["record.json"])["auto"]["precision"] == {"float32": 11}
    change(first_fit(results) / "fit.json", precision="bfloat16")
    text = publish.contents(results, "two", mixed=True)["README.md"].decode()
    line = next(line for line in text.splitlines() if line.startswith("- `precision: auto`"))
    assert "MIXED" in line
    assert "float32 (10 fits)" in line
    assert "bfloat16 (1 fit)" in line
    (results / "studies.sha256").unlink()
    given = yaml.safe_load((results / "config.yaml").read_text()) | {"device": "cpu"}
    (results / "config.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    text = publish.contents(results, "two", mixed=True)["README.md"].decode()
    assert "`device: auto`" not in text


def test_images_resampled_before_the_run_are_a_deviation(results):
    folder = results / "prepared" / "bottle" / "test"
    folder.mkdir(parents=True)
    masks = {str(index): np.zeros((448, 448), bool) for index in range(2)}
    write_arrays(folder / "masks_own.npz", masks, compress=True)
    interim(results)
    files = publish.contents(results, "two")
    said = f"{RESAMPLED} bottle from 900 to 448 pixels"
    assert json.loads(files["record.json"])["deviations_from_the_papers_setting"] == [said]
    assert f"- {said}" in files["README.md"].decode()
    for file in ("claims.md", "tables/main.md"):
        assert said in files[file].decode(), file
    (folder / "masks_own.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"bottle/test/masks_own\.npz"):
        reporting.claims(results=results, main="main")


def test_a_run_at_another_setting_is_not_compared_with_the_paper(results, tmp_path):
    (results / "claims.sha256").unlink()
    for deviations, shown in (
        (["precision bfloat16 in training"], True),
        ([f"{RESAMPLED} bottle from 900 to 448 pixels"], True),
        (["precision bfloat16 in training", "image_size 128"], False),
    ):
        change(results / "claims.json", deviations_from_the_papers_setting=deviations)
        publish.write(tmp_path / "p" / "two", publish.contents(results, "two"), replace=True)
        text = readme.block(tmp_path / "p")
        assert ("ours less paper" in text) is shown
        assert f"Differences from the paper's setting: {'; '.join(deviations)}." in text


def test_the_step_readme_writes_only_the_block_between_the_markers(made_up, tmp_path):
    publish.write(tmp_path / "p" / "two", publish.contents(made_up, "two"))
    file = tmp_path / "README.md"
    file.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    options = ["--published", str(tmp_path / "p"), "--file", str(file)]
    assert main(["readme", *options]) == 0
    assert file.read_text() == f"before\n{readme.block(tmp_path / 'p')}\nafter\n"
    before = file.read_text()
    assert main(["readme", *options]) == 0
    assert file.read_text() == before


@pytest.mark.parametrize("text", ["no markers", f"{readme.BEGIN}", f"{readme.END}{readme.BEGIN}"])
def test_a_readme_without_its_markers_is_refused(tmp_path, capsys, text):
    file = tmp_path / "README.md"
    file.write_text(text)
    assert main(["readme", "--published", str(tmp_path), "--file", str(file)]) == 1
    assert readme.BEGIN in capsys.readouterr().err
    assert file.read_text() == text
