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
# # PRO: one name, many numbers
#
# PRO is the area under the curve of overlap against false-positive rate, up to 0.3. The choice of
# thresholds and the scaling of the axes differ between implementations; the maps below are the same
# in every column. The product of levels has heavy tails, which is the worst case for
# thresholds that are spaced evenly in score.

# %%
import pandas as pd
from IPython.display import Markdown, display

from stpm_bench import grid
from stpm_bench.report.audit_table import equal_treatments
from stpm_bench.report.notebooks import RESULTS, show_figure, show_frame, show_table

definitions = grid.read(RESULTS / "pro_definitions.csv")
# Treatments of the masks that give equal values are shown once.
definitions = definitions[definitions["masks"].isin(equal_treatments(definitions))]

# %%
show_figure("pro_curves", width=480)
show_table("pro_definitions")
show_figure("pro_definitions", width=480)

# %% [markdown]
# ## How much a definition changes a number
#
# Over all cells of all studies: the difference from the exact value. A table that mixes two
# definitions shows differences of this size between methods that are the same.

# %%
exact_name = ("mvtec", "nearest")
wide = definitions.pivot(index=list(grid.AXES), columns=["definition", "masks"], values="pro")
if definitions.empty:  # every training failed
    wide[exact_name] = []
difference = wide.sub(wide[exact_name], axis=0).drop(columns=exact_name)
if difference.empty:
    display(Markdown("No cell has maps."))
else:
    columns = {"count": "cells", "mean": "mean", "min": "lowest", "50%": "median", "max": "highest"}
    described = difference.describe().T[list(columns)].rename(columns=columns).reset_index()
    show_frame(described.astype({"cells": int}))

# %% [markdown]
# ## Does it change who is better?
#
# The share of pairs of cells that a definition ranks in the opposite order to the exact value. A
# change of order changes conclusions, not only numbers.

# %%
exact = wide[exact_name].to_numpy()
apart = exact[:, None] > exact[None, :]
if apart.any():
    swapped = {
        name: f"{((values[:, None] < values[None, :]) & apart).sum() / apart.sum():.1%}"
        for name, values in ((name, wide[name].to_numpy()) for name in difference.columns)
    }
    rows = [(*name, share) for name, share in swapped.items()]
    show_frame(pd.DataFrame(rows, columns=["definition", "masks", "pairs in another order"]))
else:
    display(Markdown("Fewer than two cells have no order."))
