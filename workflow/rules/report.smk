# What a reader opens: the config as it was run, tables, figures, notebooks.
rule plan:
    output:
        config=f"{RESULTS}/config.yaml",
        studies=f"{RESULTS}/studies.csv",
    log:
        f"{RESULTS}/logs/plan.log",
    conda:
        "../../environment.yml"
    params:
        config=json.dumps(CONFIG),
        folder=subpath(output.config, parent=True),
    shell:
        "python -m stpm_bench plan --config {params.config:q} --output {params.folder:q} --log {log:q}"


rule study_table:
    input:
        studies=f"{RESULTS}/studies.csv",
        metrics=f"{RESULTS}/metrics.csv",
    output:
        csv=f"{RESULTS}/tables/{{study}}.csv",
        markdown=f"{RESULTS}/tables/{{study}}.md",
    log:
        f"{RESULTS}/logs/tables/{{study}}.log",
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output.csv, parent=True),
    shell:
        "python -m stpm_bench study-table --study {wildcards.study} --studies {input.studies:q}"
        " --metrics {input.metrics:q} --output {params.folder:q} --log {log:q}"


rule study_figure:
    input:
        f"{RESULTS}/tables/{{study}}.csv",
    output:
        pdf=f"{RESULTS}/figures/{{study}}.pdf",
        png=f"{RESULTS}/figures/{{study}}.png",
    log:
        f"{RESULTS}/logs/figures/{{study}}.log",
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output.pdf, parent=True),
    shell:
        "python -m stpm_bench study-figure --study {wildcards.study} --table {input:q}"
        " --output {params.folder:q} --log {log:q}"


rule training_figure:
    input:
        studies=f"{RESULTS}/studies.csv",
        histories=histories_of,
    output:
        pdf=f"{RESULTS}/figures/training/{{study}}.pdf",
        png=f"{RESULTS}/figures/training/{{study}}.png",
    log:
        f"{RESULTS}/logs/figures/training_{{study}}.log",
    conda:
        "../../environment.yml"
    params:
        cells=not_compared(f"{RESULTS}/cells"),
        folder=subpath(output.pdf, parent=True),
    shell:
        "python -m stpm_bench training-figure --study {wildcards.study} --studies {input.studies:q}"
        " --cells {params.cells:q} --output {params.folder:q} --log {log:q}"


rule audit_table:
    input:
        studies=f"{RESULTS}/studies.csv",
        audits=[f"{RESULTS}/cells/{cell.folder}/pro_definitions.csv" for cell in CELLS],
    output:
        long=f"{RESULTS}/pro_definitions.csv",
        csv=f"{RESULTS}/tables/pro_definitions.csv",
        markdown=f"{RESULTS}/tables/pro_definitions.md",
        pdf=f"{RESULTS}/figures/pro_definitions.pdf",
        png=f"{RESULTS}/figures/pro_definitions.png",
    log:
        f"{RESULTS}/logs/tables/pro_definitions.log",
    conda:
        "../../environment.yml"
    params:
        study=MAIN,
        cells=lambda wildcards, input: str(Path(input.studies).parent / "cells"),
        tables=subpath(output.csv, parent=True),
        figures=subpath(output.pdf, parent=True),
    shell:
        "python -m stpm_bench audit-table --study {params.study} --studies {input.studies:q}"
        " --cells {params.cells:q} --long {output.long:q} --tables {params.tables:q}"
        " --figures {params.figures:q} --log {log:q}"


rule panel:
    input:
        images=f"{TEST}/images.npy",
        masks=f"{TEST}/masks.npy",
        maps=lambda wildcards: f"{PANEL_CELLS[wildcards.category]}/anomaly_maps.npy",
        levels=lambda wildcards: f"{PANEL_CELLS[wildcards.category]}/level_maps.npz",
        scores=lambda wildcards: f"{PANEL_CELLS[wildcards.category]}/image_scores.csv",
        provenance=lambda wildcards: f"{PANEL_CELLS[wildcards.category]}/provenance.json",
    output:
        pdf=f"{RESULTS}/figures/anomaly_maps/{{category}}.pdf",
        png=f"{RESULTS}/figures/anomaly_maps/{{category}}.png",
    log:
        f"{RESULTS}/logs/figures/anomaly_maps_{{category}}.log",
    conda:
        "../../environment.yml"
    params:
        test=subpath(input.images, parent=True),
        cell=subpath(input.maps, parent=True),
        figure=lambda wildcards, output: output.pdf.removesuffix(".pdf"),
    shell:
        "python -m stpm_bench panel --test {params.test:q} --cell {params.cell:q}"
        " --output {params.figure:q} --log {log:q}"


rule notebook:
    input:
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/metrics.csv",
        expand(f"{RESULTS}/tables/{{study}}.md", study=STUDIES),
        expand(f"{RESULTS}/figures/{{study}}.png", study=STUDIES),
        expand(f"{RESULTS}/figures/anomaly_maps/{{category}}.png", category=PANEL_CELLS),
        source="analysis/{notebook}.py",
    output:
        ipynb=f"{RESULTS}/notebooks/{{notebook}}.ipynb",
        html=f"{RESULTS}/notebooks/{{notebook}}.html",
    log:
        f"{RESULTS}/logs/notebooks/{{notebook}}.log",
    conda:
        "../../environment.yml"
    params:
        results=subpath(input[0], parent=True),
    shell:
        "(export STPM_BENCH_RESULTS={params.results:q}; made=$(mktemp -d);"
        " jupytext --to ipynb --set-kernel python3 --execute --run-path ."
        " --output $made/notebook.ipynb {input.source:q}"
        " && jupyter nbconvert --to html $made/notebook.ipynb"
        " && mv $made/notebook.ipynb {output.ipynb:q} && mv $made/notebook.html {output.html:q}"
        ") > {log:q} 2>&1"
