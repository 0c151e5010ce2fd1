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
# What the study `main` found: each category by each metric, the mean and standard deviation over
# seeds, and the paper's value where there is one. Everything is read from the results folder.

# %%
import os
from pathlib import Path

import pandas as pd
import yaml
from IPython.display import Image, Markdown, display

RESULTS = Path(os.environ.get("STPM_BENCH_RESULTS", "results"))
config = yaml.safe_load((RESULTS / "config.yaml").read_text())
metrics = pd.read_csv(RESULTS / "metrics.csv", dtype={"category": str, "layers": str})
study = "main" if "main" in config["studies"] else next(iter(config["studies"]))

# %%
display(Markdown((RESULTS / "tables" / f"{study}.md").read_text()))
display(Image(RESULTS / "figures" / f"{study}.png", width=700))

# %% [markdown]
# ## How far the seeds lie apart
#
# The range over seeds (highest less lowest) of each metric, in the cells that differ in nothing but
# their seed. A difference between two methods that is smaller than this is no difference.

# %%
cells = ["category", "layers", "teacher", "fraction", "protocol"]
spread = metrics.groupby([*cells, "metric"])["value"].agg(["count", "min", "max"])
spread["range"] = spread["max"] - spread["min"]
spread = spread[spread["count"] > 1].reset_index()
if spread.empty:
    display(Markdown("Only one seed was run."))
else:
    display(spread.pivot_table(index="category", columns="metric", values="range").round(3))

# %% [markdown]
# ## What the maps look like

# %%
for figure in sorted((RESULTS / "figures" / "anomaly_maps").glob("*.png")):
    display(Markdown(f"### {figure.stem}"), Image(figure, width=700))
