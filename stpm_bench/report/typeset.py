"""Formats one table in three languages: Markdown, LaTeX (booktabs) and HTML.

A cell's text is Markdown with only two marks, `**bold**` and `` `code` ``, which are translated to
the other two languages.
"""

import html
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stpm_bench.files import atomic_write

NO_VALUE = "n/a"
# How many table columns fit into a text column of a paper, and into a full page, in small print.
WIDE, VERY_WIDE = 6, 9
# A cell longer than this many characters is formatted as a paragraph.
SENTENCE = 30

LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "²": "$^2$",
    "–": "--",
}
# A column of sentences takes the width that the others leave; what is short is never broken. With
# such a column a table is as wide as the page.
STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
    "th,td{padding:.2em .5em;text-align:right;vertical-align:top}td{white-space:nowrap}"
    "th:first-child,td:first-child,th.text,td.text{text-align:left}"
    "td.text{white-space:normal;min-width:8em}table:has(.text){width:100%}"
    "thead{border-top:2px solid;border-bottom:1px solid}tbody{border-bottom:2px solid}"
    "p{color:#444;max-width:75em}"
)


class Section(NamedTuple):
    """A table to be formatted: its title, its cells as text, and its caption."""

    title: str
    body: pd.DataFrame
    caption: str


def number(value: float, signed: bool = False) -> str:
    """Return a value to three decimals, 'n/a' for NaN."""
    if np.isnan(value):
        return NO_VALUE
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def spread(mean: float, sd: float) -> str:
    """Return 'mean ± sd', only the mean if there is a single seed, or 'n/a'."""
    return number(mean) if np.isnan(sd) else f"{number(mean)} ± {number(sd)}"


def interval(low: float, high: float) -> str:
    """Return '[low, high]' with signs, or 'n/a'."""
    return NO_VALUE if np.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"


def p_value(p: float) -> str:
    """Return a p to three decimals, '< 0.001' below that, 'n/a' for NaN."""
    return "< 0.001" if p < 0.001 else number(p)


def bold_best(texts: Sequence[str], values: Sequence[float]) -> list[str]:
    """Make the highest of at least two values bold, and those equal to it to three decimals."""
    rounded = np.round(np.asarray(values, float), 3)
    known = ~np.isnan(rounded)
    best = known & (rounded == rounded[known].max()) if known.sum() > 1 else ~known & known
    return [f"**{text}**" if mark else text for text, mark in zip(texts, best, strict=True)]


# What wrote the files that tables are made from, and where each number in them is computed.
WRITTEN_BY = {
    "metrics.csv": "`metrics.csv` collects `metrics.json` of each cell's folder, `cells/CELL/`, by "
    "the rule `evaluate`: `evaluate_cell` of `stpm_bench/evaluation.py`; each metric: "
    "`evaluate_arrays` of `stpm_bench/metrics/evaluate.py`.",
    "pro_definitions.csv": "`pro_definitions.csv` collects the file of that name of each cell's "
    "folder, by the rule `evaluate`: `audit` of `stpm_bench/audit.py`; each column: the function "
    "of its name in `stpm_bench/metrics/definitions.py`.",
    "fits/*/*.json": "The records are written by the rules `teacher`, `fit` (or `fit_temporary`) "
    "and `score`, functions of these names in `stpm_bench/steps/fit.py` (`fit_temporary`: `fit`), "
    "and `evaluate`, in `stpm_bench/steps/evaluate.py`.",
}


def made_by(rule: str, functions: Sequence[Callable], files: Sequence[str]) -> str:
    """Return the line that leads from a number back to its source.

    Args:
        rule: of the workflow. functions: what computed the tables, in the order of the page.
        files: from which they did, of the results folder or of the repository.
    """
    names = ", ".join(
        f"`{f.__qualname__}` of `{f.__module__.replace('.', '/')}.py`" for f in functions
    )
    sources = ", ".join(f"`{file}`" for file in files)
    line = f"Made by the rule `{rule}`: {names}; from {sources}."
    return " ".join([line, *(WRITTEN_BY[file] for file in files if file in WRITTEN_BY)])


def write(
    folder: str | Path, name: str, sections: Sequence[Section], origin: str = ""
) -> list[str]:
    """Write NAME.md, NAME.tex and NAME.html, each atomically; return these names.

    Args:
        origin: the last line, see `made_by`.
    """
    renderers = {f"{name}.md": markdown, f"{name}.tex": latex, f"{name}.html": webpage}
    for file, render in renderers.items():
        with atomic_write(Path(folder, file)) as temporary:
            temporary.write_text(render(sections, name, origin), encoding="utf-8")
    return list(renderers)


def markdown(sections: Sequence[Section], name: str, origin: str = "") -> str:
    """Return sections as Markdown, one after the other."""
    parts = []
    for title, body, caption in sections:
        escaped = body.map(lambda text: text.replace("|", r"\|"))
        table = escaped.to_markdown(index=False, disable_numparse=True)
        parts.append(f"## {title}\n\n{table}\n\n{caption}\n")
    parts += [f"{origin}\n"] if origin else []
    return "\n".join(parts)


def latex(sections: Sequence[Section], name: str, origin: str = "") -> str:
    r"""Return sections as LaTeX floats, ready for \input; the preamble needs only booktabs.

    The labels are tab:NAME, tab:NAME_2 and so on.
    """
    floats = [f"% {origin}\n"] if origin else []
    for i, (title, body, caption) in enumerate(sections, start=1):
        kind = "table*" if body.shape[1] > WIDE else "table"
        lines = [
            f"\\begin{{{kind}}}",
            r"\centering",
            r"\tiny" if body.shape[1] > VERY_WIDE else r"\scriptsize",
            r"\setlength{\tabcolsep}{2pt}",
            f"\\caption{{{to_latex(title)}. {to_latex(caption)}}}",
            f"\\label{{tab:{name}{f'_{i}' if i > 1 else ''}}}",
            f"\\begin{{tabular}}{{{alignment(body)}}}",
            r"\toprule",
            " & ".join(map(heading, body.columns)) + r" \\",
            r"\midrule",
            *(" & ".join(map(to_latex, row)) + r" \\" for row in body.itertuples(index=False)),
            r"\bottomrule",
            r"\end{tabular}",
            f"\\end{{{kind}}}",
        ]
        floats.append("\n".join(lines) + "\n")
    return "\n".join(floats)


def has_sentences(body: pd.DataFrame) -> list[bool]:
    """Return for each column whether one of its cells is longer than `SENTENCE`."""
    return [bool(body[column].map(len).max() > SENTENCE) for column in body]


def alignment(body: pd.DataFrame) -> str:
    """Return the columns' alignment; columns of sentences share part of the page's width."""
    long = has_sentences(body)
    paragraph = f"p{{{0.5 / max(sum(long), 1):.2f}\\textwidth}}"
    marks = "l" + "r" * (len(long) - 1)
    return "".join(paragraph if a else mark for a, mark in zip(long, marks, strict=True))


def heading(text: str) -> str:
    """Return a column's name for LaTeX; long names are split into lines."""
    lines = textwrap.wrap(text.replace("/", "/ "), 12, break_long_words=False)
    if len(lines) < 2:
        return to_latex(text)
    return r"\shortstack{" + r"\\".join(map(to_latex, lines)) + "}"


def to_latex(text: str) -> str:
    """Translate a cell's or caption's text to LaTeX."""
    text = "".join(LATEX.get(character, character) for character in text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)
    return re.sub(r"`(.+?)`", r"\\texttt{\1}", text)


def webpage(sections: Sequence[Section], name: str, origin: str = "") -> str:
    """Return sections as an HTML page that needs no other file."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>',
        f"<style>{STYLE}</style>",
    ]
    for title, body, caption in sections:
        texts = has_sentences(body)
        parts += [f"<h2>{to_html(title)}</h2>", "<table>", "<thead>"]
        parts += [html_row("th", body.columns, texts), "</thead>", "<tbody>"]
        parts += [html_row("td", row, texts) for row in body.itertuples(index=False)]
        parts += ["</tbody>", "</table>", f"<p>{to_html(caption)}</p>"]
    parts += [f"<p>{to_html(origin)}</p>"] if origin else []
    return "\n".join([*parts, "</html>", ""])


def html_row(tag: str, texts: Sequence[str], sentences: Sequence[bool] = ()) -> str:
    """Return one row of a table.

    Args:
        sentences: for each column whether it holds sentences, see `has_sentences`; none if empty.
    """
    marks = [' class="text"' if mark else "" for mark in sentences or [False] * len(texts)]
    cells = zip(marks, texts, strict=True)
    return (
        "<tr>" + "".join(f"<{tag}{mark}>{to_html(text)}</{tag}>" for mark, text in cells) + "</tr>"
    )


def to_html(text: str) -> str:
    """Translate a cell's or caption's text to HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
