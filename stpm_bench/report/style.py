"""The style of every figure, and how figures are saved."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import matplotlib

matplotlib.use("Agg")  # figures are written, never shown: works without a screen
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

from stpm_bench.files import atomic_write

COLUMN_WIDTH = 3.3  # inches: a column of a two-column paper
PAGE_WIDTH = 6.9
# Three colours of seaborn's palette 'colorblind' that also differ in lightness, for grey printers.
BLUE, ORANGE, GREY = "#0173b2", "#de8f05", "0.55"
STYLE = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "figure.titlesize": 7,
    "legend.fontsize": 6,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "figure.dpi": 200,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: text stays text
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.3,
    "grid.alpha": 0.5,
}


@contextmanager
def drawing(changes: Mapping = MappingProxyType({})) -> Iterator[None]:
    """Draw in this style on top of matplotlib's defaults, ignoring the user's matplotlibrc.

    Args:
        changes: matplotlib settings for this figure alone.
    """
    with plt.rc_context():
        matplotlib.rcdefaults()
        plt.rcParams.update(STYLE | changes)
        yield


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure to each path, in the format of its suffix, without the date in the file.

    Names of categories, defects and files are drawn literally: two $ do not start a formula.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):  # numbers, as 10^-3
                for text in axis.get_ticklabels(which="both"):
                    text.set_parse_math(True)
    for path in paths:
        with atomic_write(path) as temporary, drawing():
            dated = {"CreationDate": None} if Path(path).suffix == ".pdf" else None
            figure.savefig(temporary, metadata=dated, bbox_inches="tight")
    plt.close(figure)
