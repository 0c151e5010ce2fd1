# One page per category: its test images and the level maps of some cells, fused in the browser.
from stpm_bench.report import explorer

EXPLORED = explorer.chosen(SUITE.cells, PANEL_CELLS.values())


rule explorer:
    input:
        images=f"{TEST}/images.npy",
        manifest=f"{TEST}/images.csv",
        masks=expand(f"{TEST}/{{file}}", file=MASKS.values(), allow_missing=True),
        maps=lambda wildcards: [
            f"{SUITE.fit_folder(cell)}/level_maps.npz" for cell in EXPLORED[wildcards.category]
        ],
        cells=lambda wildcards: [
            f"{SUITE.cell_folder(cell)}/{file}"
            for cell in EXPLORED[wildcards.category]
            for file in ("metrics.json", "image_scores.csv", "evaluation.json")
        ],
    output:
        page=f"{RESULTS}/explorer/{{category}}.html",
    log:
        f"{RESULTS}/logs/explorer/{{category}}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=with_suite(resources.evaluate_memory),
    params:
        code=version_of("explorer"),
        template=sha256(explorer.TEMPLATE),
        cells=lambda wildcards: json.dumps(EXPLORED[wildcards.category]),
        test=subpath(input.images, parent=True),
        results=subpath(output.page, ancestor=2),
    shell:
        "python -m stpm_bench explorer --test {params.test:q} --results {params.results:q}"
        " --cells {params.cells:q} --output {output.page:q} --log {log:q}"


# The first page of the report; `workflow/report/workflow.rst` includes it.
rule first_page:
    input:
        table=f"{RESULTS}/tables/{MAIN_STUDY}.html",
        claims=f"{RESULTS}/claims.json",
        panel=f"{RESULTS}/figures/anomaly_maps/{SUITE.main_cells[0].category}.png",
    output:
        report(
            f"{RESULTS}/first_page.html",
            category="first page",
            labels={"result": "main table, verdicts, one panel"},
        ),
    log:
        f"{RESULTS}/logs/first_page.log",
    conda:
        "../../environment.yml"
    params:
        code=version_of("first_page"),
        study=MAIN_STUDY,
        category=SUITE.main_cells[0].category,
        results=subpath(input.claims, parent=True),
    shell:
        "python -m stpm_bench first-page --results {params.results:q} --main {params.study}"
        " --category {params.category:q} --log {log:q}"
