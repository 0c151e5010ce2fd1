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
# # Which levels carry the method
#
# The paper's first question: does matching several levels of the pyramid beat each one alone, and
# which level matters most? Level 1 sees fine texture at stride 4, level 3 shapes at stride 16;
# their product keeps what all of them find odd.

# %%
import pandas as pd

from stpm_bench.files import verified
from stpm_bench.report.notebooks import (
    RESULTS,
    show_claims,
    show_figure,
    show_frame,
    show_table,
    studies_of,
)

EXAMPLE = """layers:
    category: all
    layers: [[1], [2], [3], [1, 2, 3]]
    teacher: [imagenet]
    fraction: [1.0]
    seed: [0, 1, 2]"""
found = studies_of("layers", EXAMPLE)

# %%
for study in found:
    show_table(study)
    show_figure(study)

# %% [markdown]
# ## The differences, paired
#
# Two subsets are compared on the same categories and seeds: an easy category favours neither.

# %%
for study in found:
    show_table(f"{study}_differences")

# %% [markdown]
# ## How often each subset is the best
#
# The number of categories in which a subset has the highest mean. If a subset has the best average
# but wins in few categories, those few decide its rank.

# %%
for study in found:
    wide = pd.read_csv(verified(RESULTS / "tables" / f"{study}_by_category.csv"))
    wide = wide[wide["kind"] == "category"].set_index("metric")
    settings = [name for name in wide.columns[2:] if not name.endswith(" sd")]
    wide = wide[settings].dropna()
    if wide.empty:
        continue
    best = wide.idxmax(axis=1)
    counts = pd.crosstab(best.index, best).rename_axis(index="metric", columns=None)
    show_frame(counts.add_prefix("best: ").reset_index())

# %% [markdown]
# ## By category

# %%
for study in found:
    show_table(f"{study}_by_category")

# %% [markdown]
# ## The claims

# %%
show_claims("1")
