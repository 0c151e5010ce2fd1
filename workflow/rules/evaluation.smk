# Evaluation: anomaly maps of the test images, then every metric from the stored maps.
rule anomaly_maps:
    input:
        images=f"{TEST}/images.npy",
        manifest=f"{TEST}/images.csv",
        teacher=f"{RESULTS}/teachers/{{teacher}}.pt",
        student=f"{CELL}/student.pt",
        provenance=f"{CELL}/provenance.json",
    output:
        maps=f"{CELL}/anomaly_maps.npy",
        last_epoch=temp(f"{CELL}/last_epoch_maps.npy"),
        levels=f"{CELL}/level_maps.npz",
        scores=f"{CELL}/image_scores.csv",
        cost=f"{CELL}/cost_anomaly_maps.json",
    log:
        f"{CELL}/anomaly_maps.log",
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
    params:
        protocol=protocol_part(protocols.map_part),
        device=CONFIG["device"],
        test=subpath(input.images, parent=True),
        cell=subpath(output.maps, parent=True),
    shell:
        "python -m stpm_bench anomaly-maps --test {params.test:q} --teacher {input.teacher:q}"
        " --cell {params.cell:q} --protocol {params.protocol:q} --device {params.device}"
        " --threads {threads} --log {log:q}"


rule metrics:
    input:
        masks=masks_of,
        maps=f"{CELL}/anomaly_maps.npy",
        last_epoch=f"{CELL}/last_epoch_maps.npy",
        scores=f"{CELL}/image_scores.csv",
        provenance=f"{CELL}/provenance.json",
    output:
        metrics=f"{CELL}/metrics.json",
        curve=f"{CELL}/pro_curve.csv",
        cost=f"{CELL}/cost_metrics.json",
    log:
        f"{CELL}/metrics.log",
    conda:
        "../../environment.yml"
    params:
        cell=subpath(output.metrics, parent=True),
    shell:
        "python -m stpm_bench metrics --masks {input.masks:q} --cell {params.cell:q} --log {log:q}"


rule collect:
    input:
        studies=f"{RESULTS}/studies.csv",
        metrics=[f"{RESULTS}/cells/{cell.folder}/metrics.json" for cell in CELLS],
    output:
        f"{RESULTS}/metrics.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    conda:
        "../../environment.yml"
    params:
        results=subpath(output[0], parent=True),
    shell:
        "python -m stpm_bench collect --studies {input.studies:q} --results {params.results:q}"
        " --output {output:q} --log {log:q}"


rule audit:
    input:
        images_of("test"),
        masks=f"{TEST}/masks.npy",
        maps=f"{CELL}/anomaly_maps.npy",
        provenance=f"{CELL}/provenance.json",
    output:
        f"{CELL}/pro_definitions.csv",
    log:
        f"{CELL}/audit.log",
    conda:
        "../../environment.yml"
    params:
        root=root_of,
        category=category_of,
        state=state_of("test"),
        test=subpath(input.masks, parent=True),
        cell=subpath(output[0], parent=True),
    shell:
        "python -m stpm_bench audit --root {params.root:q} {params.category}"
        " --test {params.test:q} --cell {params.cell:q} --log {log:q}"
