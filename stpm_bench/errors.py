"""The exception for errors that a user can fix, and the message for a missing package."""


class InputError(ValueError):
    """Something in the user's files or config is wrong.

    The message names the file or key, says what was expected, and how to fix it; the command line
    prints it without a traceback.
    """


def not_installed(package: str) -> str:
    """Return what to install if a package cannot be imported, in one sentence."""
    return (
        f"the package {package!r} is not installed, but needed; in the folder of the Snakefile "
        "type `pip install -e .`, or `conda env create -f environment.yml && conda "
        "activate stpm_bench`, or give snakemake --use-conda, which makes that environment itself"
    )
