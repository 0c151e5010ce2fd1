"""The documentation: generated pages are up to date, and its commands are run or tried."""

import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY
from stpm_bench.__main__ import parser
from stpm_bench.benchmarks.page import page as speed_page
from stpm_bench.config import SCHEMA, complete
from stpm_bench.config_page import page

DOCS = REPOSITORY / "docs"


# The page of config keys


def test_the_page_of_config_keys_is_what_the_schema_says():
    assert (DOCS / "configuration.md").read_text() == page(), (
        "docs/configuration.md: run `python -m stpm_bench config-docs` and commit what it writes"
    )


def test_the_page_of_measured_speeds_is_what_its_files_say():
    assert (DOCS / "speed.md").read_text() == speed_page(DOCS / "measured"), (
        "docs/speed.md: run `python -m stpm_bench benchmark-docs` and commit what it writes"
    )


def test_every_key_of_that_page_has_a_meaning():
    lines = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(lines) > 60
    assert [line for line in lines if len(line.split(" | ")) != 4 or line.endswith("|  |")] == []


# Commands

PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_its_language(page):
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.M)
    assert "" not in fences[::2], "of commands it is bash"


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page's fenced bash blocks, one by one."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.S | re.M)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [part for line in lines if line for part in line.split(" && ")]
    return [" ".join(re.sub(r"^[A-Z_]+=\S+ ", "", command).split()) for command in found]


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands_of(page)))
CI = ".ci/run"
# Command -> the file that runs it, and what of that file does; 'dry': tried below by a dry run; or
# 'not run' and why. A step of `python -m stpm_bench` needs no entry: its options are parsed below.
RUN = {
    "pip install -e .": (CI, "pip install -e . &&"),
    "pip install -e '.[test]'": (CI, "pip install -e '.[test]'"),
    "pip install -e '.[slurm]'": (CI, "pip install -e '.[slurm]'"),
    "pip install -e '.[dev]'": (CI, "pip install -q -e '.[dev]'"),
    "pip install -e '.[docs]'": (CI, "pip install -q -e '.[docs]'"),
    "mkdocs build --strict": (CI, "mkdocs build --strict"),
    "pytest": (CI, "&& pytest; }"),
    "pytest -n 0 tests/slurm": (CI, "pytest -n 0 tests/slurm"),
    "ruff check .": (CI, "ruff check ."),
    "ruff format --check .": (CI, "ruff format --check ."),
    "snakefmt --check Snakefile workflow": (CI, "snakefmt --check Snakefile workflow"),
    "snakemake --cores all --configfile workflow/config/demo.yaml": (
        CI,
        "snakemake --cores all --configfile workflow/config/demo.yaml",
    ),
    "snakemake --configfile workflow/config/demo.yaml --report results/demo/report.html": (
        CI,
        '"${demo[@]}" --report',
    ),
    "snakemake --cores all": "dry",
    # With a stand-in for conda.
    "snakemake --cores all --use-conda": ("tests/test_environment.py", '"--use-conda"'),
    "snakemake --cores all --config 'data={mvtec_ad: /path/to/mvtec_ad}'": "dry",
    "snakemake --profile workflow/profiles/gpu": "dry",
    "snakemake interim --cores 1": "dry",
    "snakemake --profile workflow/profiles/slurm": (
        "tests/slurm/cluster.py",
        '"--profile", "workflow/profiles/slurm"',
    ),
    "snakemake --snakefile /path/to/stpm_bench/Snakefile --cores all --configfile my.yaml": (
        "tests/test_as_module.py",
        "test_the_workflow_runs_from_another_folder",
    ),
    "snakemake --unlock": ("tests/soak.py", "--unlock"),
    "python tests/gpu.py PREPARED TEACHER": "not run: needs a GPU; --epochs 2 rehearses it",
    "python tests/soak.py": ("tests/test_survival.py", "soak"),
    "snakemake --dry-run --configfile workflow/config/full.yaml": (
        "stpm_bench/benchmarks/grid.py",
        "full.yaml",
    ),
    "snakemake interim --cores 1 --configfile my_config.yaml": (
        "tests/test_environment.py",
        '["snakemake", "interim"]',
    ),
    "git add results/published/my_name README.md": "not run: changes the checkout",
    "sha256sum -c *.sha256": ("tests/test_survival.py", '"sha256sum", "--check"'),
    'python -c "import torch; print(torch.__version__, torch.version.cuda, '
    'torch.cuda.is_available())"': "not run: asks a machine for its GPU",
    ".ci/run": "not run: it runs these tests",
    "python tests/slurm/overhead.py": "not run: minutes on a Slurm of its own",
    "conda env create -f environment.yml": "not run: CI has no conda",
    "conda activate stpm_bench": "not run: CI has no conda",
    "conda activate snakemake": "not run: CI has no conda",
    "conda create -n snakemake -c conda-forge -c bioconda 'snakemake>=9.3'": (
        "not run: CI has no conda"
    ),
    "conda install -n stpm_bench -c conda-forge 'pytorch=*=*cuda*' torchvision": (
        "not run: CI has no conda"
    ),
    "snakemake --cores all --use-conda --conda-create-envs-only": "not run: CI has no conda",
    "docker build -t stpm_bench .": "not run: CI has no docker",
    'docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" stpm_bench '
    "snakemake --cores all --configfile workflow/config/demo.yaml": "not run: CI has no docker",
}
STEP = "python -m stpm_bench "


def test_every_command_is_run_or_tried_or_has_a_reason():
    assert len(COMMANDS) > 30
    others = [command for command in COMMANDS if not command.startswith(STEP)]
    unknown = [command for command in others if command not in RUN]
    assert unknown == [], "add them to RUN, and to .ci/run or a test that runs them"
    assert [command for command in RUN if command not in others] == [], "no page has them"
    for command, how in RUN.items():
        if isinstance(how, tuple):
            assert how[1] in (REPOSITORY / how[0]).read_text(), (command, how)
        else:
            assert re.fullmatch(r"dry|not run: .+", how), command


@pytest.mark.parametrize("command", [c for c, how in RUN.items() if how == "dry"])
def test_snakemake_understands(command, small_set):
    words = shlex.split(command.replace("/path/to/mvtec_ad", str(small_set / "data")))
    run = subprocess.run(
        [sys.executable, "-m", *words, "-n", "--nolock", "--quiet", "rules"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "This was a dry-run" in run.stdout + run.stderr


def inline(page: Path) -> list[str]:
    """Return the steps that a page's text names with their options, outside blocks."""
    return re.findall(rf"`({STEP}[a-z][^`]*)`", page.read_text())


@pytest.mark.parametrize(
    "command",
    dict.fromkeys(
        [c for c in COMMANDS if c.startswith(STEP)] + [c for page in PAGES for c in inline(page)]
    ),
)
def test_a_step_and_its_options_exist(command):
    words = shlex.split(command)[3:]
    if "--help" in words or len(words) == 1:  # named in a sentence, without its options
        words = [words[0], "--help"] if len(words) == 1 and words[0] != "--help" else ["--help"]
    with pytest.raises(SystemExit) if "--help" in words else nullcontext() as stopped:
        parser().parse_args(words)
    assert stopped is None or stopped.value.code == 0


# What else a page says that can be checked


def test_the_config_in_one_view_is_a_config(small_set):
    text = (DOCS / "getting_started.md").read_text().split("## A config in one view")[1]
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    (small_set / "train").mkdir()
    config["teachers"]["mine"]["pretrain"]["folder"] = str(small_set)
    assert set(complete(config)) == set(yaml.safe_load(SCHEMA.read_text())["properties"])


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    named = set(re.findall(r"'([\w/]+\.md)'", str(nav)))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_the_readme_is_short_and_what_it_links_to_exists():
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    links = re.findall(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)", text)
    assert len(links) > 20
    assert [link for link, _ in links if not (REPOSITORY / link).exists()] == []
