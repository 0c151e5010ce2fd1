"""A process that has PyTorch imported and forks a child for each step of a run of Snakemake.

To start Python and import PyTorch takes longer than a short training. While Snakemake runs, the
first step of a cell starts a worker in the background (`delegate`). Each later step sends it its
arguments and its standard streams; a forked child of the worker executes the step, and the step's
own process waits for the exit status. Folder, environment variables and Python are the same, so
that the results are the same bits; the steps stay commands that also work alone. If a step's
process is interrupted or killed, so is its child. The worker ends with Snakemake.

Only on Linux: forked children of some of macOS's libraries crash.
"""

import atexit
import hashlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

# Set by `enable` to 'PID:FOLDER': the process of Snakemake, and the folder of its workers' sockets.
# Set by the user to nothing, each step is a process of its own.
VARIABLE = "STPM_BENCH_WORKER"
SERVED = ("fit", "score", "evaluate")  # the steps of a cell
SHELLS = {"_", "OLDPWD", "SHLVL"}  # variables that a shell changes for each command


def enable() -> None:
    """Let the steps that this process starts, and their children, share workers."""
    if sys.platform == "linux" and VARIABLE not in os.environ:
        folder = tempfile.mkdtemp(prefix="stpm_bench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[VARIABLE] = f"{os.getpid()}:{folder}"


def delegate(arguments: Sequence[str]) -> int | None:
    """Have a worker execute a step; start one for later steps if there is none.

    Args:
        arguments: of the command line, the step first.

    Returns:
        The exit status; None if this process has to execute the step.
    """
    parent, _, folder = os.environ.get(VARIABLE, "").partition(":")
    # A job of a cluster inherits the variable, but not the process.
    if not folder or arguments[:1] not in [[step] for step in SERVED]:
        return None
    if not started_by(int(parent)):
        return None
    address = Path(folder, same_environment())
    payload = json.dumps(list(arguments)).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address))
            socket.send_fds(connection, [len(payload).to_bytes(4, "big")], [0, 1, 2])
        except OSError:
            start(address, parent)
            return None
        connection.sendall(payload)
        try:
            status = connection.recv(1)
        except KeyboardInterrupt:  # the child removes its temporary files
            connection.sendall(b"i")
            status = connection.recv(1)
    if not status:
        print(f"error: the worker of {arguments[0]!r} was killed; run again", file=sys.stderr)
        return 1
    return status[0]


def start(address: Path, parent: str) -> None:
    """Start a worker, unless another step has."""
    try:
        os.close(os.open(f"{address}.started", os.O_CREAT | os.O_EXCL))
    except OSError:
        return
    program = "import sys; from stpm_bench.__main__ import serve; serve(*sys.argv[1:])"
    subprocess.Popen(
        [sys.executable, "-c", program, str(address), parent],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the steps, and they tell the worker
    )


def serve(
    run: Callable[[list[str]], int], modules: Sequence[str], address: Path, parent: int
) -> None:
    """Import modules, then execute the steps that are sent, until Snakemake ends.

    Args:
        run: executes a step's arguments and returns the exit status.
        modules: that the steps import.
        address: of the socket. parent: the process of Snakemake.
    """
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the children that attend are not waited for
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen(64)
        os.rename(f"{address}.new", address)  # only now steps find it
        server.settimeout(1)
        while address.exists() and Path(f"/proc/{parent}").exists():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                server.close()
                try:
                    attend(connection, run)
                finally:
                    os._exit(0)
            connection.close()
    shutil.rmtree(address.parent, ignore_errors=True)


def attend(connection: socket.socket, run: Callable[[list[str]], int]) -> None:
    """Execute one step in a child and send its exit status; what ends its sender ends the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        arguments = json.loads(stream.read(int.from_bytes(size, "big")))
    ended, held = os.pipe()  # the child holds the other end for as long as it lives
    child = os.fork()
    if child == 0:
        connection.close()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os._exit(execute(run, arguments))
    for descriptor in (held, *streams):
        os.close(descriptor)
    while ended not in select.select([connection, ended], [], [])[0]:
        # The step's process was interrupted, and says so, or it was killed.
        os.kill(child, signal.SIGINT if connection.recv(1) else signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(bytes([code if code >= 0 else 128 - code]))  # as a shell reports signals


def execute(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Execute a step as a process of its own would, and return its exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The worker's own streams remember whether its files are terminals, and can be sought.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    try:
        status = run(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status & 255


def started_by(ancestor: int) -> bool:
    """Return whether a process started this one, or one that did, and so on."""
    process = os.getpid()
    while process not in (0, ancestor):
        try:
            text = Path(f"/proc/{process}/stat").read_text()
        except OSError:  # another user's process, hidden
            return False
        process = int(text.rpartition(")")[2].split()[1])  # the name, in brackets, may have spaces
    return process == ancestor


def same_environment() -> str:
    """Return a name that two processes share if a child of one can stand for the other."""
    variables = sorted((k, v) for k, v in os.environ.items() if k not in SHELLS)
    content = repr((sys.executable, sys.path, os.getcwd(), variables))
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:16]
