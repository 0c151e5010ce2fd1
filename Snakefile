# The entry: config, rules, targets. `snakemake --cores all --use-conda` makes everything.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.3")


# A config named with --configfile stands alone: Snakemake would merge it into this one.
if not workflow.overwrite_configfiles:

    configfile: Path(str(workflow.current_basedir), "workflow/config/paper.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        expand(f"{RESULTS}/teachers/{{teacher}}.pt", teacher=TEACHERS),
        # What a fit is of value for by itself; that a cell's metrics are there, the tables ask.
        of_fits,
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/metrics.csv",
        rules.tables.output,
        rules.claims.output,
        rules.figures.output,
        rules.failures.output,
        expand(
            f"{RESULTS}/figures/anomaly_maps/{{category}}.{{suffix}}",
            category=PANEL_CELLS,
            suffix=["pdf", "png"],
        ),
        expand(f"{RESULTS}/notebooks/{{name}}.{{suffix}}", name=NOTEBOOKS, suffix=["ipynb", "html"]),
    localrule: True


onstart:
    gc.freeze()
    gc.enable()
    try:
        hold(RESULTS)
    except InputError as error:
        raise WorkflowError(str(error))
    todo = images_to_do()
    print(announcement(todo), file=sys.stderr)
    images = {Path(FIT_OF[cell]).name: number for cell, number in todo.items()}
    done = sum(plan.is_done(RESULTS, cell) for cell in CELLS)
    follow(logger, Path(RESULTS, "cells"), images, len(CELLS), done)


onsuccess:
    print(closing(), file=sys.stderr)


onerror:
    print(after_failure(), file=sys.stderr)
