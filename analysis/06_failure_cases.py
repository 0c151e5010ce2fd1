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
# # What it gets wrong
#
# A mean over categories hides which defects are missed. This notebook shows the images whose scores
# are most wrong, and how well each kind of defect is separated from the good images.

# %%
import pandas as pd

from stpm_bench.files import verified
from stpm_bench.report.notebooks import RESULTS, main_cells, show_figure, show_frame

# %% [markdown]
# ## The hardest images
#
# Above, defects that score below the most good images; below, good images that score above the most
# defects. The dashed line is the ground truth. If a category is classified without an error,
# its images are shown only if no other category has worse ones. The share is that of the good
# images that score at least as high as a defect, or of the defects that score at most as high as a
# good image; the ratio orders images with equal shares.

# %%
show_figure("failures", width=900)
table = pd.read_csv(verified(RESULTS / "tables" / "failures.csv"))
names = {"share": "share of the others", "ratio": "score / median score of the others"}
show_frame(table.rename(columns=names))

# %% [markdown]
# ## By kind of defect
#
# Image AUROC of one kind of defect against the good images of its category (the share of pairs in
# the right order, ties count half), the mean over seeds; the lowest first.

# %%
rows = []
for cell, folder in main_cells():
    path = folder / "image_scores.csv"
    if not path.exists():
        continue
    scores = pd.read_csv(verified(path), keep_default_na=False)
    good = scores.loc[scores["defect"] == "good", "score"].to_numpy()
    for defect, group in scores[scores["defect"] != "good"].groupby("defect"):
        ahead = group["score"].to_numpy()[:, None] - good[None, :]
        auroc = (ahead > 0).mean() + (ahead == 0).mean() / 2
        rows.append((cell.category, defect, len(group), auroc))
table = pd.DataFrame(rows, columns=["category", "defect", "images", "image AUROC"])
table = table.groupby(["category", "defect"]).agg({"images": "first", "image AUROC": "mean"})
show_frame(table.sort_values("image AUROC").reset_index())
