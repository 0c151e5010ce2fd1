# Outputs for the reader: the config of the run, tables, figures, notebooks.
rule studies:
    output:
        config=f"{RESULTS}/config.yaml",
        studies=f"{RESULTS}/studies.csv",
    log:
        f"{RESULTS}/logs/studies.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("studies"),
        config=lambda wildcards: json.dumps(CONFIG),
        folder=subpath(output.config, parent=True),
    shell:
        "python -m stpm_bench studies --config {params.config:q} --output {params.folder:q} --log {log:q}"


# metrics.csv represents all files that are read from the cells: each was made with, or before, the
# metrics.json that metrics.csv was made from. Listing each would be 16,200 files for a whole grid.
rule tables:
    input:
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/studies.csv",
        f"{RESULTS}/metrics.csv",
        f"{RESULTS}/pro_definitions.csv",
        expand(f"{RESULTS}/teachers/{{teacher}}.json", teacher=SUITE.teachers),
    output:
        [
            report(
                f"{RESULTS}/tables/{name}.html",
                category=category,
                labels={"result": f"table: {what}"},
                caption="../report/table.rst",
            )
            for name, (category, what) in TABLES.items()
        ],
        expand(f"{RESULTS}/tables/{{name}}.{{suffix}}", name=TABLES, suffix=["csv", "md", "tex"]),
        f"{RESULTS}/tables/{MAIN_STUDY}_methods.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("tables"),
        literature=sha256(PACKAGE / "stpm_bench/report/literature.csv"),
        study=MAIN_STUDY,
        results=subpath(input[0], parent=True),
    shell:
        "python -m stpm_bench tables --results {params.results:q} --main {params.study} --log {log:q}"


rule claims:
    input:
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/studies.csv",
        f"{RESULTS}/metrics.csv",
        f"{RESULTS}/tables/cost.csv",
        SPEED,
    output:
        report(
            f"{RESULTS}/claims.html",
            category="claims",
            labels={"result": "table: the paper's claims, and what these cells say"},
            caption="../report/claims.rst",
        ),
        f"{RESULTS}/claims.json",
        f"{RESULTS}/claims.md",
        f"{RESULTS}/claims.tex",
    log:
        f"{RESULTS}/logs/claims.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("claims"),
        literature=sha256(PACKAGE / "stpm_bench/report/literature.csv"),
        study=MAIN_STUDY,
        results=subpath(input[0], parent=True),
    shell:
        "python -m stpm_bench claims --results {params.results:q} --main {params.study} --log {log:q}"


rule figures:
    input:
        f"{RESULTS}/studies.csv",
        expand(f"{RESULTS}/tables/{{name}}.csv", name=[*CONFIG["studies"], "pro_definitions"]),
        expand(f"{RESULTS}/teachers/{{teacher}}.json", teacher=SUITE.teachers),
        expand(
            f"{RESULTS}/cells/{{cell}}/pro_curve.csv",
            cell=[cell.folder for cell in SUITE.main_cells],
        ),
    output:
        [
            report(
                f"{RESULTS}/figures/{name}.png",
                category=category,
                labels={"result": f"figure: {what}"},
                caption="../report/figure.rst",
            )
            for name, (category, what) in FIGURES.items()
        ],
        expand(f"{RESULTS}/figures/{{name}}.pdf", name=FIGURES),
    log:
        f"{RESULTS}/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("figures"),
        study=MAIN_STUDY,
        results=subpath(input[0], parent=True),
    shell:
        "python -m stpm_bench figures --results {params.results:q} --main {params.study} --log {log:q}"


rule panel:
    input:
        images=f"{TEST}/images.npy",
        masks=f"{TEST}/masks.npy",
        maps=lambda wildcards: f"{SUITE.fit_folder(PANEL_CELLS[wildcards.category])}/level_maps.npz",
        scores=lambda wildcards: f"{SUITE.cell_folder(PANEL_CELLS[wildcards.category])}/image_scores.csv",
        metrics=lambda wildcards: f"{SUITE.cell_folder(PANEL_CELLS[wildcards.category])}/metrics.json",
    output:
        pdf=f"{RESULTS}/figures/anomaly_maps/{{category}}.pdf",
        png=report(
            f"{RESULTS}/figures/anomaly_maps/{{category}}.png",
            category="anomaly maps",
            labels={"result": "figure: {category}"},
            caption="../report/panel.rst",
        ),
    log:
        f"{RESULTS}/logs/figures/anomaly_maps_{{category}}.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("panel"),
        test=subpath(input.images, parent=True),
        cell=subpath(input.scores, parent=True),
        figure=lambda wildcards, output: output.pdf.removesuffix(".pdf"),
    shell:
        "python -m stpm_bench panel --test {params.test:q} --cell {params.cell:q}"
        " --output {params.figure:q} --log {log:q}"


rule failures:
    input:
        f"{RESULTS}/studies.csv",
        expand(
            f"{RESULTS}/prepared/{{category}}/test/{{file}}",
            category=PANEL_CELLS,
            file=["images.npy", "masks.npy"],
        ),
        expand(
            "{cell}/{file}",
            cell=map(SUITE.cell_folder, PANEL_CELLS.values()),
            file=["image_scores.csv", "metrics.json"],
        ),
        [f"{SUITE.fit_folder(cell)}/level_maps.npz" for cell in PANEL_CELLS.values()],
    output:
        report(
            f"{RESULTS}/figures/failures.png",
            category="failures",
            labels={"result": "figure: the hardest misses and false alarms"},
            caption="../report/failures.rst",
        ),
        f"{RESULTS}/figures/failures.pdf",
        f"{RESULTS}/tables/failures.csv",
    log:
        f"{RESULTS}/logs/failures.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("failures"),
        study=MAIN_STUDY,
        results=subpath(input[0], parent=True),
    shell:
        "python -m stpm_bench failures --results {params.results:q} --main {params.study} --log {log:q}"


rule notebook:
    input:
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/metrics.csv",
        expand(f"{RESULTS}/teachers/{{teacher}}.json", teacher=SUITE.teachers),
        rules.tables.output,
        rules.claims.output,
        rules.figures.output,
        rules.failures.output,
        expand(f"{RESULTS}/figures/anomaly_maps/{{category}}.png", category=PANEL_CELLS),
    output:
        ipynb=f"{RESULTS}/notebooks/{{notebook}}.ipynb",
        html=report(
            f"{RESULTS}/notebooks/{{notebook}}.html",
            category="notebooks",
            labels=lambda wildcards: {"notebook": NOTEBOOKS[wildcards.notebook]},
            caption="../report/notebook.rst",
        ),
    log:
        f"{RESULTS}/logs/notebooks/{{notebook}}.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("notebook"),
        text=lambda wildcards: sha256(PACKAGE / f"analysis/{wildcards.notebook}.py"),
        source=lambda wildcards, input: PACKAGE / f"analysis/{wildcards.notebook}.py",
        results=subpath(input[0], parent=True),
        folder=subpath(output.ipynb, parent=True),
    shell:
        "python -m stpm_bench notebook --source {params.source:q} --results {params.results:q}"
        " --output {params.folder:q} --log {log:q}"


# A target that is not part of a whole run: results so far, while other cells are missing or failed.
# It writes files of 'collect', 'tables', 'claims' and 'figures', which a whole run makes again.
rule interim:
    input:
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/studies.csv",
    log:
        f"{RESULTS}/logs/interim.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        study=MAIN_STUDY,
        results=subpath(input[0], parent=True),
    shell:
        "python -m stpm_bench interim --results {params.results:q} --main {params.study} --log {log:q}"
