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
# # Compared with other methods
#
# The paper says that STPM is ahead of the methods of its time, with all images and with few, and
# dozens of times faster. Here PaDiM, SPADE and PatchCore run in the same harness: the same teacher,
# images, splits, seeds, masks, metrics and clock. PatchCore came after the paper: it is shown, but
# counts for no claim. docs/methods.md describes each method, its settings, and how it differs from
# its paper. A method without a student does not validate: it is also fitted on the images that STPM
# uses for validation.

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
# A method without randomness has one seed; the seeds of a category are averaged before the
# categories are paired.

# %%
for study in found:
    show_table(f"{study}_differences")

# %% [markdown]
# The measured cost of each method is in `tables/cost.md` of the results, not here: this page is the
# same for the same numbers.

# %% [markdown]
# ## The claims

# %%
for claim in ("3c", "5b", "6a"):
    show_claims(claim)
