# Evaluation: anomaly maps of the test images, then every metric from the stored maps.
rule anomaly_maps:
    input:
        images=f"{TEST}/images.npy",
        teacher=f"{RESULTS}/teachers/{{teacher}}.pt",
        student=f"{CELL}/student.pt",
    output:
        maps=f"{CELL}/anomaly_maps.npy",
        last_epoch=temp(f"{CELL}/last_epoch_maps.npy"),
        levels=f"{CELL}/level_maps.npz",
        scores=f"{CELL}/image_scores.csv",
        cost=f"{CELL}/cost_anomaly_maps.json",
    log:
        f"{CELL}/anomaly_maps.log",
    # A cell is finished before another is begun: its metrics are seen early, temp() files are few.
    priority: 10
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
        mem_mb=test_memory,
    params:
        code=code_version("anomaly_maps"),
        protocol=protocol_part(protocols.map_part),
        device=CONFIG["device"],
        test=subpath(input.images, parent=True),
        cell=subpath(output.maps, parent=True),
    shell:
        "python -m stpm_bench anomaly-maps --test {params.test:q} --teacher {input.teacher:q}"
        " --cell {params.cell:q} --protocol {params.protocol:q} --device {params.device}"
        " --threads {threads} --log {log:q}"


# From stored maps, so that another metric or definition scores no image anew.
rule metrics:
    input:
        masks=expand(f"{TEST}/{{file}}", file=[*MASKS.values(), OWN_MASKS], allow_missing=True),
        maps=f"{CELL}/anomaly_maps.npy",
        last_epoch=f"{CELL}/last_epoch_maps.npy",
    output:
        metrics=f"{CELL}/metrics.json",
        curve=f"{CELL}/pro_curve.csv",
        definitions=f"{CELL}/pro_definitions.csv",
        cost=f"{CELL}/cost_metrics.json",
    log:
        f"{CELL}/metrics.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        mem_mb=test_memory,
    params:
        code=code_version("metrics"),
        ground_truth=ground_truth,
        test=subpath(input[0], parent=True),
        cell=subpath(output.metrics, parent=True),
    shell:
        "python -m stpm_bench metrics --test {params.test:q} {params.ground_truth}"
        " --cell {params.cell:q} --log {log:q}"


rule collect:
    input:
        f"{RESULTS}/studies.csv",
        of_cells("metrics.json", "pro_definitions.csv"),
    output:
        metrics=f"{RESULTS}/metrics.csv",
        definitions=f"{RESULTS}/pro_definitions.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    conda:
        "../../environment.yml"
    params:
        code=code_version("collect"),
        results=subpath(output.metrics, parent=True),
    shell:
        "python -m stpm_bench collect --results {params.results:q} --log {log:q}"
