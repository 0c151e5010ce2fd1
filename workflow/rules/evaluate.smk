# Evaluation: every metric is computed from the stored level maps, so that another metric, fusion or
# definition reruns no fit and no score.
rule evaluate:
    input:
        manifest=f"{TEST}/images.csv",
        masks=expand(f"{TEST}/{{file}}", file=[*MASKS.values(), ORIGINAL_MASKS], allow_missing=True),
        maps=lambda wildcards: f"{SUITE.fit_folder(grid.cell_of(wildcards))}/level_maps.npz",
    output:
        metrics=f"{CELL_FOLDER}/metrics.json",
        scores=f"{CELL_FOLDER}/image_scores.csv",
        curve=f"{CELL_FOLDER}/pro_curve.csv",
        definitions=f"{CELL_FOLDER}/pro_definitions.csv",
        record=f"{CELL_FOLDER}/evaluation.json",
    log:
        f"{CELL_FOLDER}/evaluate.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        mem_mb=with_suite(resources.evaluate_memory),
    params:
        code=version_of("evaluate"),
        options=with_suite(options.evaluation),
        test=subpath(input.manifest, parent=True),
        fit=subpath(input.maps, parent=True),
        cell=subpath(output.metrics, parent=True),
    shell:
        "python -m stpm_bench evaluate --test {params.test:q} --fit {params.fit:q}"
        " {params.options} --cell {params.cell:q} --log {log:q}"


rule collect:
    input:
        f"{RESULTS}/studies.csv",
        files_of_cells("metrics.json", "pro_definitions.csv"),
    output:
        metrics=f"{RESULTS}/metrics.csv",
        definitions=f"{RESULTS}/pro_definitions.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("collect"),
        results=subpath(output.metrics, parent=True),
    shell:
        "python -m stpm_bench collect --results {params.results:q} --log {log:q}"
