"""A worker executes steps as processes of their own would, and never outlives them or Snakemake."""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import small_config, write_nut
from conftest import REPOSITORY, snakemake
from stpm_bench import worker
from stpm_bench.run.suite import suite_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are for Linux only")

SERVER = """
import os, sys, time
from pathlib import Path
from stpm_bench import worker

def run(arguments):
    step, what, *rest = arguments
    print(what, os.getcwd(), os.getpid(), flush=True)
    print("to stderr", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # as `__main__` does
        stream.reconfigure(errors="backslashreplace")
    if what == "raise":
        raise ValueError("a reason")
    if what == "exit":
        sys.exit(int(rest[0]))
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "wait":
        try:
            Path(rest[0], "new").write_text(str(os.getpid()))
            Path(rest[0], "new").rename(Path(rest[0], "began"))
            time.sleep(60)
        except KeyboardInterrupt:
            Path(rest[0], "interrupted").touch()
    return 0

worker.serve(run, ["json"], Path(sys.argv[1]), int(sys.argv[2]))
"""
CLIENT = """
import signal, sys
from stpm_bench import worker
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
sys.exit(worker.delegate(sys.argv[1:]))
"""
NOT_DELEGATED = "from stpm_bench import worker; print(worker.delegate(['fit', 'echo']))"


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The variable is set, and a worker of this process's environment listens."""
    folder = tmp_path / "sockets"
    folder.mkdir()
    monkeypatch.setenv(worker.VARIABLE, f"{os.getpid()}:{folder}")
    code = "from stpm_bench import worker; print(worker.same_environment())"
    name = client(code).stdout.strip()  # the paths of Python are those of `python -c`
    command = [sys.executable, "-c", SERVER, str(folder / name), str(os.getpid())]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment()) as server:
        wait_for((folder / name).exists)
        yield server
        server.kill()


def environment(**changes):
    """Return the environment without what pytest changes between a fixture and its test."""
    return {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | changes


def client(code=CLIENT, *arguments, **changes):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(**changes),
    )


def test_a_step_has_its_streams_folder_and_status(served):
    ran = client(CLIENT, "fit", "echo")
    what, folder, process = ran.stdout.split()
    assert (ran.returncode, what, folder) == (0, "echo", str(REPOSITORY))
    assert ran.stderr == "to stderr\n"
    again = client(CLIENT, "score", "echo").stdout.split()[2]
    assert len({process, again, str(served.pid)}) == 3  # each a child of its own
    assert client(CLIENT, "fit", "exit", "7").returncode == 7
    failed = client(CLIENT, "evaluate", "raise")
    assert failed.returncode == 1
    assert "ValueError: a reason" in failed.stderr
    assert client(CLIENT, "fit", "kill").returncode == 128 + signal.SIGKILL
    # Nobody reads what it prints, and still the step has failed.
    command = f"{shlex.join([sys.executable, '-c', CLIENT, 'fit', 'raise'])} 2>&1 1>&2 | true"
    shell = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    assert subprocess.run(shell, cwd=REPOSITORY, env=environment()).returncode == 1


def test_what_is_not_delegated(served, monkeypatch):
    assert client(NOT_DELEGATED).stdout.startswith("echo")
    assert client(NOT_DELEGATED.replace("'fit'", "'tables'")).stdout == "None\n"
    # Another environment has a worker of its own, which is started for later steps.
    folder = Path(os.environ[worker.VARIABLE].partition(":")[2])
    other = client(NOT_DELEGATED, OMP_NUM_THREADS="7")
    assert other.stdout == "None\n"
    (started,) = folder.glob("*.started")
    os.kill(int(started.read_text()), signal.SIGKILL)
    for number in range(worker.MOST_WORKERS):  # environments that differ in each step
        (folder / f"{number}.started").touch()
    assert client(NOT_DELEGATED, OMP_NUM_THREADS="8").stdout == "None\n"
    assert len(list(folder.glob("*.started"))) == worker.MOST_WORKERS + 1
    # A stream that is closed cannot be sent.
    shell = ["bash", "-c", f"{shlex.join([sys.executable, '-c', NOT_DELEGATED])} <&-"]
    run = subprocess.run(shell, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert run.stdout == "None\n"
    # What a shell changes is no other environment.
    assert client(NOT_DELEGATED, SHLVL="9").stdout.startswith("echo")
    # A job of a cluster inherits the variable, but Snakemake did not start it.
    with subprocess.Popen(["sleep", "60"]) as stranger:
        monkeypatch.setenv(worker.VARIABLE, f"{stranger.pid}:{folder}")
        assert client(NOT_DELEGATED).stdout == "None\n"
        stranger.kill()
    monkeypatch.setenv(worker.VARIABLE, "")
    assert client(NOT_DELEGATED).stdout == "None\n"


def test_what_started_a_process():
    assert worker.started_by(os.getppid())
    assert worker.started_by(1)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not worker.started_by(child.pid)
        child.kill()


def test_a_killed_or_interrupted_step_takes_its_child_with_it(served, tmp_path):
    command = [sys.executable, "-c", CLIENT, "fit", "wait", str(tmp_path)]
    options = {"stdout": subprocess.DEVNULL, "cwd": REPOSITORY, "env": environment()}
    with subprocess.Popen(command, **options) as step:
        wait_for((tmp_path / "began").exists)
        child = Path("/proc", (tmp_path / "began").read_text())
        assert child.exists()
        step.kill()
    wait_for(lambda: not child.exists())
    assert not (tmp_path / "interrupted").exists()
    (tmp_path / "began").unlink()
    with subprocess.Popen(command, **options) as step:
        wait_for((tmp_path / "began").exists)
        step.send_signal(signal.SIGINT)
        assert step.wait(timeout=20) == 0  # what the child returns after its cleanup
    assert (tmp_path / "interrupted").exists()
    assert client(CLIENT, "fit", "echo").returncode == 0  # the worker goes on


def test_a_worker_ends_with_snakemake(tmp_path):
    folder = tmp_path / "others"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as parent:
        command = [sys.executable, "-c", SERVER, str(folder / "a"), str(parent.pid)]
        with subprocess.Popen(command, cwd=REPOSITORY) as other:
            wait_for((folder / "a").exists)
            parent.kill()
            parent.wait()
            other.wait(timeout=20)
    assert not folder.exists()


def test_the_same_bits_with_and_without_a_worker(tmp_path, monkeypatch):
    found = {}
    for name, variable in (("with", f"{os.getpid()}:{tmp_path}/sockets"), ("without", "")):
        monkeypatch.setenv(worker.VARIABLE, variable)
        (tmp_path / "sockets").mkdir(exist_ok=True)
        (tmp_path / name).mkdir()
        config = small_config(tmp_path / name)
        config["studies"]["main"]["seed"] = [0, 1, 2]
        write_nut(tmp_path / name / "data")
        suite = suite_of(config)
        cells = [f"{suite.cell_folder(cell)}/metrics.json" for cell in suite.cells]
        run = snakemake(config, *cells)
        assert run.returncode == 0, run.stderr
        files = [*cells, *(f"{suite.fit_folder(cell)}/level_maps.npz" for cell in suite.cells)]
        found[name] = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    assert found["with"] == found["without"]
    assert len(list((tmp_path / "sockets").glob("*.started"))) == 1
    (started,) = (tmp_path / "sockets").glob("*.started")
    os.kill(int(started.read_text()), signal.SIGKILL)  # its parent here is pytest
