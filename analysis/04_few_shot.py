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
# # With few images
#
# The paper's third question: what is left with 5% and 10% of the anomaly-free images? A fraction
# is chosen by a hash of seed and file name, so that the 5% are part of the 10%, and those part of
# the 100%. The number of epochs stays the same, so with fewer images the student takes fewer steps.

# %%
import pandas as pd

from stpm_bench.files import read_json
from stpm_bench.grid import fit_names
from stpm_bench.report.notebooks import (
    RESULTS,
    show_claims,
    show_figure,
    show_frame,
    show_table,
    studies,
    studies_of,
)
from stpm_bench.results import stage_file

EXAMPLE = """few_shot:
    category: all
    layers: [[1, 2, 3]]
    teacher: [imagenet]
    fraction: [0.05, 0.1, 1.0]
    seed: [0, 1, 2]"""
found = studies_of("fraction", EXAMPLE)

# %%
for study in found:
    show_table(study)
    show_figure(study)

# %% [markdown]
# ## The number of images
#
# The numbers of images for training and for choosing the checkpoint, the mean over a study's cells.
# A method without a student uses no images for validation.

# %%
for study in found:
    rows = []
    table = studies()
    for cell, fit in fit_names(table[table["study"] == study]).items():
        path = stage_file(RESULTS, cell.folder, fit, "fit")
        if path.exists():
            images = read_json(path)["split"]
            setting = {"category": cell.category, "method": cell.method, "fraction": cell.fraction}
            rows.append(setting | images)
    if rows:
        keys = ["category", "method", "fraction"]
        show_frame(pd.DataFrame(rows).groupby(keys).mean().reset_index(), digits=1)

# %% [markdown]
# ## What is lost, paired

# %%
for study in found:
    show_table(f"{study}_differences")

# %% [markdown]
# ## By category

# %%
for study in found:
    show_table(f"{study}_by_category")

# %% [markdown]
# ## The claims

# %%
show_claims("3")
