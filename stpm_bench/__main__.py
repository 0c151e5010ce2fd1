"""`python -m stpm_bench STEP`: one step for each rule of the workflow."""

import argparse
import errno
import inspect
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from stpm_bench import worker
from stpm_bench.errors import InputError, not_installed

# Before the imports below, which a worker has made already. It has no options of Python (-O, -W).
as_module = __name__ == "__main__" and sys.orig_argv[1] == "-m"
if as_module and (status := worker.delegate(sys.argv[1:])) is not None:
    sys.exit(status)

try:
    from stpm_bench.steps import STEPS
except ModuleNotFoundError as error:
    sys.exit(f"error: {not_installed(error.name)}")

# Disk errors that can occur wherever a file is read or written, and how to fix them.
DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "make the disk writable",
    errno.EIO: "look for this disk in the system's log",
}


def parser() -> argparse.ArgumentParser:
    """Return a parser with a subcommand for each step, whose options are the step's parameters."""
    top = argparse.ArgumentParser(prog="python -m stpm_bench", description=__doc__)
    subparsers = top.add_subparsers(required=True, metavar="STEP")
    for step in STEPS:
        add_step(subparsers, step)
    return top


def add_step(subparsers, step: Callable) -> None:
    """Add one step; a parameter `Annotated[type, help]` is an option if keyword-only."""
    description = inspect.getdoc(step)
    sub = subparsers.add_parser(
        step.__name__.replace("_", "-"),
        help=description,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, parameter in inspect.signature(step).parameters.items():
        kind, text = typing.get_args(parameter.annotation)
        options = {"help": text}
        if typing.get_origin(kind) is typing.Literal:
            options["choices"] = typing.get_args(kind)
        elif isinstance(kind, types.UnionType):  # Path | None
            options["type"] = typing.get_args(kind)[0]
        elif typing.get_origin(kind) is list:  # list[Path]: one or more
            options |= {"type": typing.get_args(kind)[0], "nargs": "+"}
        else:
            options["type"] = kind
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            sub.add_argument(name, **options)
            continue
        if parameter.default is inspect.Parameter.empty:
            options["required"] = True
        else:
            options["default"] = parameter.default
        if kind is bool:
            options = {"help": text, "action": "store_true"}
        sub.add_argument(f"--{name.replace('_', '-')}", **options)
    sub.add_argument("--log", type=Path, help="file for progress and warnings; errors go to both")
    sub.set_defaults(step=step)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step; a user's error gives one line on stderr and exit status 1."""
    options = vars(parser().parse_args(arguments))
    step, log, terminal = options.pop("step"), options.pop("log"), sys.stderr
    for stream in (sys.stdout, sys.stderr):  # file names that the terminal cannot show
        with suppress(AttributeError):  # not a terminal, file or pipe: replaced by a program
            stream.reconfigure(errors="backslashreplace")
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            os.environ.setdefault("TQDM_MININTERVAL", "10")  # few lines in a log, not a live bar
            sys.stderr = log.open("w", buffering=1, encoding="utf-8", errors="backslashreplace")
        return step(**options) or 0  # a step may return an exit status
    except InputError as error:
        message = f"error: {error}\n"
    except ModuleNotFoundError as error:
        is_bug = error.name.partition(".")[0] == "stpm_bench"
        message = traceback.format_exc() if is_bug else f"error: {not_installed(error.name)}\n"
    except FileNotFoundError as error:
        message = (
            f"error: {error.filename}: no such file; expected a file that an earlier step writes\n"
        )
    except PermissionError as error:
        message = f"error: {error.filename}: permission denied; expected files that you may read\n"
    except OSError as error:
        message = traceback.format_exc()
        if error.errno in DISK:
            place = error.filename or log or step.__name__
            message = f"error: {place}: {error.strerror}; {DISK[error.errno]}, then run again\n"
    except Exception:
        message = traceback.format_exc()
    finally:
        log_file, sys.stderr = sys.stderr, terminal
    terminal.write(message)
    if log_file is not terminal:
        with suppress(OSError):  # the log may be on the disk that is full
            log_file.write(message)
            log_file.flush()
    return 1


def serve(address: str, parent: str) -> None:
    """Run a worker: the command of the process that `worker.start` starts."""
    from stpm_bench.methods import FILES

    # These import torch and most of what the steps import inside their functions.
    methods = [f"stpm_bench.methods.{name}" for name in FILES]
    others = [f"stpm_bench.{name}" for name in ("provenance", "unfinished", "split", "evaluation")]
    worker.serve(main, [*methods, *others], Path(address), int(parent))


if __name__ == "__main__":
    sys.exit(main())
