# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The main table
#
# The results of the main study: for each category and metric the mean and standard deviation over
# seeds, and the paper's value if there is one. Everything is read from the results folder.

# %%
import pandas as pd
from IPython.display import Image, Markdown, display

from stpm_bench import grid
from stpm_bench.files import verified
from stpm_bench.report.notebooks import (
    RESULTS,
    main_cells,
    main_study,
    show_figure,
    show_frame,
    show_table,
)
from stpm_bench.report.tables import METRICS

metrics = pd.read_csv(verified(RESULTS / "metrics.csv"), dtype={"category": str, "layers": str})

# %%
show_table(main_study())
show_figure(main_study())

# %% [markdown]
# ## Compared with the paper
#
# The difference from the paper's own entries, if it has entries for these categories. The paper's
# numbers come from one run with a single seed; the bars show only the spread of our seeds.

# %%
table = pd.read_csv(verified(RESULTS / "tables" / f"{main_study()}.csv"))
if table.reindex(columns=["pixel_auroc_paper", "pro_paper"]).notna().any(axis=None):
    show_figure("difference_to_paper")
else:
    display(Markdown("The paper has no values for these categories."))

# %% [markdown]
# ## Compared with all published runs
#
# The same method, reported by its authors, by others and by us. If the range of a row is wide, a
# single number for the method says little.

# %%
show_table("reproductions")

# %% [markdown]
# ## How much the seeds differ
#
# The range over seeds (highest less lowest) of each metric, in cells that differ only in their
# seed. A difference between two methods that is smaller than this means nothing.

# %%
cells = [axis for axis in grid.AXES if axis != "seed"]
spread = metrics.groupby([*cells, "metric"])["value"].agg(["count", "min", "max"])
spread["range"] = spread["max"] - spread["min"]
spread = spread[spread["count"] > 1].reset_index()
if spread.empty:
    display(Markdown("Only one seed was run."))
else:
    ranges = spread.pivot_table(index="category", columns="metric", values="range")
    show_frame(ranges.rename(columns=METRICS).rename_axis(columns=None).reset_index())

# %% [markdown]
# ## What the maps look like

# %%
for category in dict.fromkeys(cell.category for cell, _ in main_cells()):
    figure = RESULTS / "figures" / "anomaly_maps" / f"{category}.png"
    display(Markdown(f"### {category}"), Image(figure, width=700))

# %% [markdown]
# ## The paper's claims, tested on these cells

# %%
display(Markdown(verified(RESULTS / "claims.md").read_text()))
