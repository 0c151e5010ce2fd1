"""A process that has PyTorch imported and forks a child for each step of a run of Snakemake.

To start Python and import PyTorch takes longer than a short training. While Snakemake runs, the
first step in an environment (`same_environment`; Snakemake sets OMP_NUM_THREADS to a job's threads,
so that another number of threads is another environment) starts a worker in the background. A step
that finds it listening sends it its arguments and its standard streams (`delegate`); a forked child
executes the step, and the step's own process waits for the exit status. Any other step executes
itself. The child has the step's folder, environment and streams, so that the results are the same
bits, and the steps stay commands that also work alone. If a step's process is interrupted or
killed, so is its child. The worker ends with Snakemake.

Only on Linux: forked children of some of macOS's libraries crash.
"""

import atexit
import ctypes
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
from contextlib import suppress
from pathlib import Path

# Set by `enable` to 'PID:FOLDER': the process of Snakemake, and the folder of its workers' sockets.
# Set by the user to nothing, each step is a process of its own.
VARIABLE = "STPM_BENCH_WORKER"
SERVED = ("fit", "score", "evaluate")  # the steps of a cell
# In a run with more environments than this something differs at every step, so that each worker
# would serve one step.
MOST_WORKERS = 4
SHELLS = {"_", "OLDPWD", "PS1", "PWD", "SHLVL"}  # variables that a shell sets, each time anew
BEGUN = b"\1"  # a child executes the step: from here on nobody else may
INTERRUPTED = b"i"
KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def enable() -> None:
    """Let the steps that this process starts, and their children, share workers."""
    if sys.platform == "linux" and VARIABLE not in os.environ:
        with suppress(OSError):  # a full disk: each step executes itself
            # Not TMPDIR: the name of a socket has at most 107 bytes.
            folder = tempfile.mkdtemp(prefix="stpm_bench-", dir="/tmp")
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
    if not folder or not arguments or arguments[0] not in SERVED:
        return None
    # A job of a cluster inherits the variable, but not the process; a closed stream cannot be sent.
    if not started_by(int(parent)) or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    address = Path(folder, same_environment())
    payload = json.dumps(list(arguments)).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address))
            socket.send_fds(connection, [len(payload).to_bytes(4, "big")], [0, 1, 2])
            connection.sendall(payload)
            begun = connection.recv(1)
        except OSError:
            begun = b""
        if begun != BEGUN:
            start(address, parent)
            return None
        try:
            status = connection.recv(1)
        except KeyboardInterrupt:  # the child removes its temporary files
            connection.sendall(INTERRUPTED)
            status = connection.recv(1)
    if not status:
        print(f"error: the worker of {arguments[0]!r} was killed; run again", file=sys.stderr)
        return 1
    return status[0]


def start(address: Path, parent: str) -> None:
    """Start a worker, unless another step has; the file ADDRESS.started has its process number."""
    program = "import sys; from stpm_bench.__main__ import serve; serve(*sys.argv[1:])"
    with suppress(OSError):  # each step executes itself
        if len(list(address.parent.glob("*.started"))) >= MOST_WORKERS:
            return
        with open(f"{address}.started", "x") as started:
            worker = subprocess.Popen(
                [sys.executable, "-c", program, str(address), parent],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the steps, and they tell the worker
            )
            started.write(str(worker.pid))


def serve(
    run: Callable[[list[str]], int], modules: Sequence[str], address: Path, parent: int
) -> None:
    """Import modules, then execute the steps that are sent, until Snakemake ends.

    Args:
        run: executes a step's arguments and returns the exit status.
        modules: imported beforehand, for speed alone: a child imports what else its step needs.
        address: of the socket. parent: the process of Snakemake.
    """
    snakemake = os.pidfd_open(parent)
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the children that attend are not waited for
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen(64)
        os.rename(f"{address}.new", address)  # only now steps find it
        while snakemake not in select.select([server, snakemake], [], [])[0]:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # without a child, the step executes itself
                if os.fork() == 0:
                    try:
                        server.close()
                        attend(connection, run)
                    finally:
                        os._exit(0)
    shutil.rmtree(address.parent, ignore_errors=True)


def attend(connection: socket.socket, run: Callable[[list[str]], int]) -> None:
    """Execute one step in a child and send its exit status; what ends its sender ends the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    payload = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    arguments, attendant = json.loads(payload), os.getpid()
    ended, held = os.pipe()  # the child holds the other end for as long as it lives
    child = os.fork()
    if child == 0:
        status = 1
        try:
            connection.close()
            ctypes.CDLL(None).prctl(KILL_WITH_PARENT, signal.SIGKILL)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            if os.getppid() == attendant:
                status = execute(run, arguments)
        finally:
            os._exit(status)
    for descriptor in (held, *streams):
        os.close(descriptor)
    watched = [connection, ended]
    with suppress(OSError):
        connection.sendall(BEGUN)
    while ended not in select.select(watched, [], [])[0]:
        message = b""
        with suppress(OSError):
            message = connection.recv(1)
        if message == INTERRUPTED:
            os.kill(child, signal.SIGINT)
        else:  # the step's process was killed
            os.kill(child, signal.SIGKILL)
            watched = [ended]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(OSError):
        connection.sendall(bytes([code if code >= 0 else 128 - code]))  # as a shell reports signals


def execute(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Execute a step and return its exit status, 1 if it raises."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # New objects: Python's own remember what the worker's streams were (/dev/null, no terminal).
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    try:
        status = run(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        status = 1
        with suppress(Exception):  # the streams may be closed
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    return status & 255


def started_by(ancestor: int) -> bool:
    """Return whether a process started this one, or one that did, and so on."""
    process = os.getpid()
    while process not in (0, ancestor):
        try:
            text = Path(f"/proc/{process}/stat").read_bytes()
        except OSError:  # hidden, as another user's, or ended meanwhile
            return False
        process = int(text.rpartition(b")")[2].split()[1])  # the name may have spaces and brackets
    return process == ancestor


def same_environment() -> str:
    """Return a name that two processes share if a child of one can stand for the other: the same
    Python, folder, environment variables, and files of this package."""
    variables = sorted((k, v) for k, v in os.environ.items() if k not in SHELLS)
    files = sorted(Path(__file__).parent.rglob("*.py"))
    code = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    content = repr((sys.executable, sys.path, os.getcwd(), variables, code))
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:16]
