import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stpm_bench.errors import InputError
from stpm_bench.files import (
    atomic_write,
    lock_results,
    sha256,
    write_array,
    write_arrays,
    write_json,
)
from stpm_bench.seeds import stream


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file_and_the_next_write_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    program = (
        "import os, signal, sys\n"
        "from stpm_bench.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "new"


def test_folders_are_made_and_the_suffix_kept(tmp_path):
    with atomic_write(tmp_path / "a" / "b.npy") as temporary:
        assert temporary.suffix == ".npy"
    assert (tmp_path / "a" / "b.npy").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs /proc, a folder nobody can write to")
def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(InputError, match=r"/proc/results/x.json: cannot be written .*'results'"):
        write_json(Path("/proc/results/x.json"), {})


def test_arrays_come_back_and_the_same_arrays_are_the_same_bytes(tmp_path, monkeypatch):
    arrays = {"1": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"])}
    write_arrays(tmp_path / "x.npz", arrays)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *a: time.gmtime(2e9))
    write_arrays(tmp_path / "y.npz", arrays)
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()
    with np.load(tmp_path / "x.npz") as loaded:
        assert list(loaded) == ["1", "names"]
        assert all(np.array_equal(loaded[key], arrays[key]) for key in arrays)
    write_array(tmp_path / "x.npy", arrays["1"])
    assert np.array_equal(np.load(tmp_path / "x.npy"), arrays["1"])


def test_json_and_hash(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_streams_of_random_numbers_differ_by_purpose_and_seed():
    seeds = {stream(seed, purpose) for seed in range(50) for purpose in ("student", "order")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream(0, "student") == 8731285449156984377


def holding(path: Path) -> subprocess.Popen:
    """Start a process that holds a folder, or is writing a file in it, until it is killed."""
    call = "lock_results(path)" if path.is_dir() else "atomic_write(path); kept.__enter__()"
    program = (
        "import time\nfrom stpm_bench.files import lock_results, atomic_write\n"
        f"path = {str(path)!r}\nkept = {call}\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_file_that_another_process_writes_is_left_alone(tmp_path):
    """Two processes on one results folder must not remove each other's temporary files."""
    path = tmp_path / "table.csv"
    process = holding(path)
    try:
        [theirs] = tmp_path.iterdir()
        with atomic_write(path) as temporary:
            temporary.write_text("mine")
            assert theirs.exists()
        assert set(tmp_path.iterdir()) == {path, theirs}
    finally:
        process.kill()
        process.wait()
    with atomic_write(path) as temporary:
        temporary.write_text("mine again")
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_machine_writes_counts_as_abandoned_after_a_day(tmp_path):
    new, old = (tmp_path / f".x.csv.node{i}-1-2.tmp.csv" for i in (1, 2))
    for path, age in ((new, 3600), (old, 90_000)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    write_json(tmp_path / "y.json", {})
    with atomic_write(tmp_path / "x.csv") as temporary:
        temporary.touch()
    assert new.exists()
    assert not old.exists()


def test_the_second_run_says_who_holds_the_folder(tmp_path):
    process = holding(tmp_path)
    try:
        with pytest.raises(InputError, match=f"in use by another run: process {process.pid} on "):
            lock_results(tmp_path)
    finally:
        process.kill()
        process.wait()
    lock_results(tmp_path)  # however the first ended
    with pytest.raises(InputError, match=f"process {os.getpid()} on "):
        lock_results(tmp_path)  # nobody keeps what was opened, and it is held all the same
