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
# # Beside other methods
#
# The paper says that STPM is ahead of the methods of its time, with all images and with few, and
# dozens of times faster. Here PaDiM, SPADE and PatchCore run in the same harness: the same teacher,
# images, splits, seeds, masks, metrics and clock. PatchCore came after the paper: it is shown, and
# counts for no claim. What each method is, its settings, and where it differs from its paper stands
# in docs/methods.md. A method without a student holds nothing out: it is fitted on the images on
# which STPM validates, too.

# %%
from stpm_bench.report.notebooks import show_claims, show_figure, show_table, studies_of

EXAMPLE = """methods:
    category: all
    layers: [default]
    teacher: [imagenet]
    fraction: [1.0]
    seed: [0, 1, 2]
    method: [stpm, padim, spade, patchcore]"""
found = studies_of("method", EXAMPLE)

# %%
for study in found:
    show_table(study)
    show_figure(study)

# %% [markdown]
# ## The differences, paired
#
# A method that draws nothing has one seed; the seeds of a category are averaged before they are
# paired.

# %%
for study in found:
    show_table(f"{study}_differences")

# %% [markdown]
# What each costs is measured, and stands in `tables/cost.md` of the results: this page is the same
# for the same numbers.

# %% [markdown]
# ## The claims

# %%
for claim in ("3c", "5b", "6a"):
    show_claims(claim)
