# Students: one a cell. What a student is trained on is all among its inputs; no test file is.
rule student:
    input:
        images=f"{TRAIN}/images.npy",
        manifest=f"{TRAIN}/images.csv",
        teacher=f"{RESULTS}/teachers/{{teacher}}.pt",
    output:
        student=f"{CELL}/student.pt",
        history=f"{CELL}/history.csv",
        split=f"{CELL}/split.csv",
        provenance=f"{CELL}/provenance.json",
    log:
        f"{CELL}/student.log",
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
        mem_mb=student_memory,
        runtime=student_minutes,
    params:
        code=code_version("student"),
        protocol=protocol_part(protocols.training_part),
        device=CONFIG["device"],
        precision=CONFIG["precision"],
        train=subpath(input.images, parent=True),
        cell=subpath(output.student, parent=True),
    shell:
        "python -m stpm_bench student --train {params.train:q} --teacher {input.teacher:q}"
        " --layers {wildcards.layers} --fraction {wildcards.fraction} --seed {wildcards.seed}"
        " --protocol {params.protocol:q} --device {params.device}"
        " --precision {params.precision} --threads {threads}"
        " --output {params.cell:q} --log {log:q}"
