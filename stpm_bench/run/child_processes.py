"""Environment variables for the processes that a run starts."""

import os
import sys
from pathlib import Path


def prepare() -> None:
    """Make each Python that this process starts find this package and read and write UTF-8.

    The package need not be installed, and the run need not start in the folder of the Snakefile.
    """
    folder = str(Path(__file__).parents[2])
    paths = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.environ.setdefault("PYTHONUTF8", "1")
    for stream in (sys.stdout, sys.stderr):  # replaces characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
