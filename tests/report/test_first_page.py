"""The first page of the report: the main table, the verdicts, one panel."""

import base64
import re

from stpm_bench.report import first_page

TABLES = """<!doctype html>
<html lang="en"><title>main</title>
<h2>Study: main</h2>
<table><tr><td>bottle</td><td>0.988</td></tr></table>
<p>Mean over 3 seeds.</p>
<h2>PRO: published methods and main</h2>
<table><tr><td>0.777</td></tr></table>
</html>
"""


def claim(name: str, verdict: str, effect=None, low=None, high=None, metric="pro") -> dict:
    return {
        "claim": name,
        "statement": f"the statement of {name} & more",
        "metric": metric,
        "verdict": verdict,
        "effect": effect,
        "low": low,
        "high": high,
    }


CLAIMS = {
    "data": "MVTec AD, 2 of 15 categories: bottle, screw",
    "claims": [
        claim("1a", "supported", 0.0214, 0.01, 0.03),
        claim("2a", "not tested"),
        claim("2a", "not tested", metric="image_auroc"),
        claim("5a", "contradicted", 12.0, metric=""),
    ],
}


def test_the_first_page_has_the_main_table_and_no_other():
    text = first_page.page(TABLES, CLAIMS, b"", "bottle")
    assert "<td>0.988</td>" in text
    assert "Mean over 3 seeds." in text
    assert "0.777" not in text


def test_a_tested_claim_is_a_row_and_the_others_are_named_once():
    text = first_page.page(TABLES, CLAIMS, b"", "bottle")
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    rows = [row for row in rows if len(row) == 5]
    statement = "the statement of 1a &amp; more"
    assert ["1a", statement, "PRO", "<b>supported</b>", "+0.021 [+0.010, +0.030]"] in rows
    assert any(row[0] == "5a" and row[3] == "<b>contradicted</b>" for row in rows)
    assert not any(row[0] == "2a" for row in rows)
    assert re.search(r"Not tested[^<]*: pretraining of the teacher \(2a\)\.", text)
    assert CLAIMS["data"] in text


def test_no_line_is_longer_than_docutils_takes():
    panel = bytes(range(256)) * 400
    text = first_page.page(TABLES, CLAIMS, panel, "bottle")
    assert max(map(len, text.splitlines())) < 10_000
    picture = re.search(r'src="data:image/png;base64,([^"]*)"', text)[1]
    assert base64.b64decode(picture) == panel
