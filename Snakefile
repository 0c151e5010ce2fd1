# The entry: config, rules, targets. `snakemake --cores all --use-conda` makes everything.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.3")


# A config given with --configfile is used alone; Snakemake would merge it into this one. Only an
# undocumented attribute tells whether one is given: tests/test_snakemake_attributes.py.
if not workflow.overwrite_configfiles:

    configfile: Path(str(workflow.current_basedir), "workflow/config/paper.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/speed.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/explorer.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        expand(f"{RESULTS}/teachers/{{teacher}}.pt", teacher=SUITE.teachers),
        # The parts of a fit that are useful by themselves; the tables require the cells' metrics.
        fit_files,
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/metrics.csv",
        SPEED,
        rules.tables.output,
        rules.claims.output,
        rules.figures.output,
        rules.failures.output,
        expand(
            f"{RESULTS}/figures/anomaly_maps/{{category}}.{{suffix}}",
            category=PANEL_CELLS,
            suffix=["pdf", "png"],
        ),
        rules.first_page.output,
        expand(f"{RESULTS}/explorer/{{category}}.html", category=PANEL_CELLS),
        expand(f"{RESULTS}/notebooks/{{name}}.{{suffix}}", name=NOTEBOOKS, suffix=["ipynb", "html"]),
    localrule: True


onstart:
    gc.freeze()
    gc.enable()
    try:
        lock_results(RESULTS)
    except InputError as error:
        raise WorkflowError(str(error))
    todo = plan.images_to_do(
        CONFIG, SUITE.fits, {c: SUITE.image_count(c, "train") for c in CATEGORIES}
    )
    print(messages.announcement(SUITE, todo, CORES), file=sys.stderr)
    if len(todo) > 2:  # fits; for fewer a worker takes longer to start than it saves
        worker.enable()
    images = {SUITE.fits[cell]: number for cell, number in todo.items()}
    done = sum(plan.is_done(RESULTS, cell) for cell in SUITE.cells)
    progress.follow(logger, Path(RESULTS, "cells"), images, len(SUITE.cells), done)


onsuccess:
    print(messages.closing(SUITE), file=sys.stderr)


onerror:
    print(messages.after_failure(SUITE, interim_command()), file=sys.stderr)
