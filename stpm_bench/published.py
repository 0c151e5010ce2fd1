"""The literature's numbers: published.csv, each row with its source."""

from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).with_name("published.csv")


def read(path: str | Path = PUBLISHED) -> pd.DataFrame:
    """Return columns source, table, method, category, metric, value (in [0, 1]), checked."""
    return pd.read_csv(path)


def paper(published: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the paper's own STPM values: (category or 'mean', metric) -> value.

    The category 'mean' is the row that the paper prints, which is not always the mean of its rows.
    """
    rows = published[(published["source"] == "paper v3") & (published["method"] == "STFPM")]
    return dict(zip(zip(rows["category"], rows["metric"], strict=True), rows["value"], strict=True))
