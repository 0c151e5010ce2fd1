"""The first page of the report: the main table, the verdicts on the paper's claims, one panel."""

import base64
import html
import re
from collections.abc import Mapping

from stpm_bench.report.claims import by_subject
from stpm_bench.report.tables import METRICS
from stpm_bench.report.typeset import html_row, to_html
from stpm_bench.report.verdict import NOT_TESTED

# Snakemake's report puts the text next to the graph of the rules, in a column of 512 pixels centred
# in the window. This style makes the text as wide as a table needs; the graph comes after it.
STYLE = """
.first-page table { border-collapse: collapse; width: auto; font-size: 14px; }
.first-page th, .first-page td { padding: .2em .7em; text-align: right; vertical-align: top; }
.first-page th:first-child, .first-page td:first-child, .first-page .claims td:nth-child(2),
.first-page .claims th:nth-child(2) { text-align: left; }
.first-page td { white-space: nowrap; }
.first-page .claims td:nth-child(2) { white-space: normal; }
.first-page thead { border-top: 2px solid; border-bottom: 1px solid; }
.first-page tbody { border-bottom: 2px solid; }
.first-page p { color: #555; max-width: 65em; }
.first-page img { width: 100%; max-width: 760px; }
.prose:has(.first-page) { max-width: 64rem; }
div:has(> div > .prose .first-page) { flex-direction: column; }
.h-screen:has(> div > div > .prose .first-page) { place-items: start; place-content: start; }
"""

EXPLAINED = (
    "The table of claims in this report (category `claims`) has each comparison, its interval and "
    "the rule of the verdicts."
)


def page(table: str, claims: Mapping, panel: bytes, name: str) -> str:
    """Return the first page as HTML that needs no other file.

    Args:
        table: the page of the main table, as `typeset.webpage` returns it.
        claims: what `claims_table.record` returns.
        panel: a PNG. name: what it shows.
    """
    # Snakemake passes this page to docutils, which rejects lines of 10,000 characters.
    picture = base64.encodebytes(panel).decode("ascii")
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><title>first page</title>',
        '<body><div class="first-page">',
        f"<style>{STYLE}</style>",
        first_section(table),
        *verdicts(claims),
        f"<h2>Anomaly maps of {html.escape(name)}</h2>",
        f'<img alt="anomaly maps of {html.escape(name)}" src="data:image/png;base64,{picture}">',
        "</div></body></html>",
    ]
    return "\n".join([*parts, ""])


def first_section(table: str) -> str:
    """Return the first table of a page of tables, with its title and its caption."""
    return re.search(r"<h2>.*?(?=<h2>|</html>)", table, re.S)[0].strip()


def verdicts(claims: Mapping) -> list[str]:
    """Return the verdicts as lines of HTML: a table of tested claims, then the other claims.

    Args:
        claims: what `claims_table.record` returns.
    """
    rows = claims["claims"]
    tested = [row for row in rows if row["verdict"] != NOT_TESTED]
    others = [row["claim"] for row in rows if row["verdict"] == NOT_TESTED]
    lines = [f"<h2>The paper's claims ({html.escape(claims['data'])})</h2>"]
    if tested:
        lines += ['<table class="claims">', "<thead>"]
        lines += [html_row("th", ["claim", "statement", "metric", "verdict", "effect"])]
        lines += ["</thead>", "<tbody>", *map(claim_row, tested), "</tbody>", "</table>"]
    if others:
        lines.append(
            f"<p>{NOT_TESTED.capitalize()}, for lack of cells to compare: {by_subject(others)}.</p>"
        )
    return [*lines, f"<p>{to_html(EXPLAINED)}</p>"]


def claim_row(row: Mapping) -> str:
    """Return one tested claim, for one metric, as a row of HTML."""
    effect = "" if row["effect"] is None else f"{row['effect']:+.3f}"
    if row["low"] is not None:
        effect += f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    metric = METRICS.get(row["metric"], "")
    return html_row("td", [row["claim"], row["statement"], metric, f"**{row['verdict']}**", effect])
