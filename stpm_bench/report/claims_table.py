"""The claims and the studies' questions as tables and as a record: see `claims` and `questions`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stpm_bench.report.claims import (
    DOZENS,
    FEW_SHOT_LOSS,
    FRAMES_PER_SECOND,
    HEADLINE_LOSS,
    ROUNDING,
)
from stpm_bench.report.tables import METRICS
from stpm_bench.report.typeset import NO_VALUE, Section, interval, number, p_value
from stpm_bench.report.verdict import (
    ALPHA,
    FEWEST_DRAWS,
    NEAR_CHANCE,
    VERDICTS,
    Claim,
    Comparison,
    deciding,
    verdict,
)


def table(found: Sequence[Claim]) -> pd.DataFrame:
    """Return one row per claim and metric, showing the comparison least favourable to the claim.

    Columns `claim, statement, where, metric, comparison, effect, low, high, p, p_holm, values,
    planned, categories, draws, cells, comparisons, verdict, note`. `values`, `planned` and
    `comparisons` count all comparisons that decide the claim; the other columns describe the one
    shown.
    """
    rows = []
    for claim in found:
        counts = deciding(claim.comparisons)
        measured = [c for c in counts if np.isfinite(c.effect)]
        shown = min(measured, key=lambda c: c.effect - c.threshold, default=None)
        shown = shown or Comparison("", np.nan)
        rows.append(
            {
                "claim": claim.claim,
                "statement": claim.statement,
                "where": claim.where,
                "metric": claim.metric,
                "comparison": shown.name,
                **{key: getattr(shown, key) for key in ("effect", "low", "high", "p", "p_holm")},
                "values": sum(c.values for c in counts),
                "planned": sum(c.planned for c in counts),
                "categories": shown.categories,
                "draws": shown.draws,
                "cells": len({cell for c in claim.comparisons for cell in c.cells}),
                "comparisons": len(counts),
                "verdict": verdict(claim.comparisons),
                "note": "; ".join(notes(claim, shown)),
            }
        )
    return pd.DataFrame(rows)


def notes(claim: Claim, shown: Comparison) -> list[str]:
    """Return the notes that a reader of a claim's row needs, most important first.

    Args:
        shown: the comparison that the row shows.
    """
    counts = deciding(claim.comparisons)
    missing = dict.fromkeys(part for c in counts if c.missing for part in c.missing.split("; "))
    doubts = dict.fromkeys(c.doubt for c in counts if c.doubt)
    found = [*missing, *doubts, shown.note]
    split = [c for c in counts if 0 < c.draws_above < c.draws]
    found += [f"{c.name}: above in {c.draws_above} of {c.draws} draws" for c in split]
    absent = [c.name for c in claim.comparisons if c.decides and not c.planned]
    if absent and counts:
        whole = sum(c.decides for c in claim.comparisons)
        these = ", ".join(c.name for c in counts)
        found.append(
            f"judged on {len(counts)} of the claim's {whole} comparisons ({these}); not planned: "
            f"{', '.join(absent)}"
        )
    elif absent:
        found.append(f"not planned: {', '.join(absent)}")
    found.append(claim.note)
    return [text for text in found if text]


def sections(
    found: Sequence[Claim],
    scope: str,
    deviates: Sequence[str],
    questions: pd.DataFrame | None = None,
    remarks: Sequence[str] = (),
) -> list[Section]:
    """Format the claims: one line each, then the questions of the studies, then every comparison.

    Args:
        scope: what `claims.scope` returns. deviates: what `claims.deviations` returns.
        questions: what `questions.questions` returns.
        remarks: sentences for the caption, without a full stop.
    """
    rows = table(found)
    body = pd.DataFrame(
        {
            "claim": rows["claim"],
            "statement": rows["statement"],
            "where": rows["where"],
            "metric": rows["metric"].map(METRICS).fillna(""),
            "verdict": [f"**{v}**" if v != "not tested" else v for v in rows["verdict"]],
            "comparison": [
                f"{name} (weakest of {n})" if n > 1 and name else name
                for name, n in zip(rows["comparison"], rows["comparisons"], strict=True)
            ],
            "effect": [number(effect, signed=True) for effect in rows["effect"]],
            "95% interval": [interval(*v) for v in zip(rows["low"], rows["high"], strict=True)],
            "values": [
                f"{n} of {planned}" if planned else ""
                for n, planned in zip(rows["values"], rows["planned"], strict=True)
            ],
            "categories": [str(n or "") for n in rows["categories"]],
            "draws": [str(n or "") for n in rows["draws"]],
            "note": rows["note"],
        }
    )
    if not rows["draws"].any():
        body = body.drop(columns="draws")
    counts = ", ".join(f"{(rows['verdict'] == v).sum()} {v}" for v in VERDICTS)
    setting = f"Differences from the paper's setting: {'; '.join(deviates)}. " if deviates else ""
    said = "".join(f"{text}. " for text in remarks)
    caption = (
        f"Data: {scope}. {setting}{said}{len(rows)} rows: {counts}. A row is judged on the "
        "comparisons that the config plans, without methods that came after the paper. Supported: "
        "in every comparison the whole 95% interval is on the claimed side, p, where there is a "
        f"test, is at most {ALPHA}, and no planned value is missing. "
        "Contradicted: in at least one comparison the whole interval is on the other side, and p, "
        f"Holm-corrected within the row, is at most {ALPHA}. Undecided: neither. Not tested: there "
        "is nothing to compare. If teachers are drawn for each seed, the sign must be the same in "
        f"every draw, and there must be at least {FEWEST_DRAWS} draws. A teacher whose accuracy is "
        f"less than {NEAR_CHANCE:.0%} of the way from chance to 1 leaves the row undecided. "
        "Settings are compared by category after averaging seeds, with an interval over "
        "categories; printed means are compared with an interval over seeds. Of several "
        "comparisons, a row shows the one that is least favourable to the claim."
    )
    lines = [
        [
            claim.claim,
            METRICS.get(claim.metric, ""),
            c.name,
            number(c.threshold, signed=True) if abs(c.threshold) < 1 else f"{c.threshold:g}",
            number(c.effect, signed=True),
            interval(c.low, c.high),
            p_value(c.p),
            p_value(c.p_holm),
            number(c.rank_biserial, signed=True),
            f"{c.values} of {c.planned}" if c.planned else "",
            str(c.categories or ""),
            f"{c.draws_above} of {c.draws}" if c.draws else "",
            "; ".join(text for text in (c.missing, c.doubt, c.note) if text),
        ]
        for claim in found
        for c in claim.comparisons
    ]
    names = ["claim", "metric", "comparison", "threshold", "effect", "95% interval", "p", "p, Holm"]
    names += ["rank-biserial", "values", "categories", "draws above", "note"]
    comparisons = pd.DataFrame(lines, columns=names)
    if not rows["draws"].any():
        comparisons = comparisons.drop(columns="draws above")
    few, headline = (
        ", ".join(f"{label} {margins[metric]}" for metric, label in METRICS.items())
        for margins in (FEW_SHOT_LOSS, HEADLINE_LOSS)
    )
    thresholds = (
        "Each effect is claimed to be above its threshold: 0, or the claim's margin, which we "
        f"chose. Largest loss with few images (3a, 3b): {few}. Largest distance below a printed "
        f"mean (4): {headline}. A difference from printed values (6a.2, 6a.3) counts if it is "
        f"larger than their rounding, {ROUNDING}. The threshold of 5a is {FRAMES_PER_SECOND} "
        f"frames per second, that of 5b {DOZENS} times SPADE's rate. "
        "`stpm_bench/report/claims.py` gives the reasons. "
        f"{NO_VALUE}: not run, or too few pairs."
    )
    asked = [] if questions is None or questions.empty else [questions_section(questions)]
    return [
        Section(f"The paper's claims ({scope})", body, caption),
        *asked,
        Section("Every comparison", comparisons, thresholds),
    ]


def questions_section(rows: pd.DataFrame) -> Section:
    """Format what `questions.questions` returns."""
    body = pd.DataFrame(
        {
            "study": rows["study"],
            "question": rows["question"],
            "metric": rows["metric"].map(METRICS),
            "setting": rows["setting"],
            "reference": rows["reference"],
            "effect": [number(effect, signed=True) for effect in rows["effect"]],
            "95% interval": [interval(*v) for v in zip(rows["low"], rows["high"], strict=True)],
            "p, Holm": [p_value(p) for p in rows["p_holm"]],
            "values": [
                f"{n} of {planned}"
                for n, planned in zip(rows["values"], rows["planned"], strict=True)
            ],
            "categories": rows["categories"].astype(str),
            "comparisons": rows["comparisons"].astype(str),
            "note": rows["note"],
        }
    )
    caption = (
        "What each study varies, and the largest difference from its reference in either "
        "direction. The column 'comparisons' says how many there are. Settings are paired by "
        "category after averaging seeds. p is Holm-corrected for these comparisons, because the "
        "largest was chosen; the interval is that of one comparison and is not widened for the "
        "choice."
    )
    return Section("The studies' questions", body, caption)


def record(
    found: Sequence[Claim],
    scope: str,
    deviates: Sequence[str],
    questions: pd.DataFrame | None = None,
) -> dict:
    """Return the claims and questions in a form that JSON accepts: NaN becomes None."""

    def plain(row: dict) -> dict:
        return {
            key: None if isinstance(value, float) and np.isnan(value) else value
            for key, value in row.items()
        }

    rows = table(found).to_dict("records")
    return {
        "data": scope,
        "deviations_from_the_papers_setting": list(deviates),
        "claims": [
            plain(row)
            | {
                "cells": sorted({cell for c in claim.comparisons for cell in c.cells}),
                "comparisons": [
                    {key: value for key, value in plain(c._asdict()).items() if key != "cells"}
                    for c in claim.comparisons
                ],
            }
            for claim, row in zip(found, rows, strict=True)
        ],
        "questions": []
        if questions is None
        else [plain(row) for row in questions.to_dict("records")],
    }
