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
# # What a teacher must have seen
#
# The paper's second question: ImageNet, small photographs (CIFAR-10, CIFAR-100) or digits (MNIST,
# SVHN)? And a control that the paper lacks: a teacher that has seen nothing. A student that matches
# random features can only find what random features tell apart.

# %%
import pandas as pd

from stpm_bench.report.notebooks import (
    RESULTS,
    show_claims,
    show_figure,
    show_frame,
    show_table,
    studies,
    studies_of,
)
from stpm_bench.results import read_teachers

EXAMPLE = """teachers:
    category: all
    layers: [[1, 2, 3]]
    teacher: [imagenet, mnist, random]
    fraction: [1.0]
    seed: [0, 1, 2]"""
found = studies_of("teacher", EXAMPLE)

# %%
for study in found:
    show_table(study)
    show_figure(study)

# %% [markdown]
# ## The teachers themselves
#
# How accurate each teacher is on its own task. A better classifier is not always the better
# teacher. The epochs and the optimiser of the small teachers are ours: the paper's are not known.

# %%
records = {
    f"{name}, draw {number}" if len(draws) > 1 else name: record
    for name, draws in read_teachers(RESULTS, studies()).items()
    for number, record in enumerate(draws, start=1)
}
columns = ["backbone", "source", "train_images", "epochs", "train_accuracy", "test_accuracy"]
table = pd.DataFrame(records).T.reindex(columns=columns).rename_axis("teacher").reset_index()
show_frame(table)

# %% [markdown]
# ## The differences, paired

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
show_claims("2")
