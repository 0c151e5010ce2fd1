# Teachers: once a name, whatever uses them.
rule pretraining_set:
    input:
        source_inputs,
    output:
        f"{RESULTS}/pretraining/{{source}}.npz",
    log:
        f"{RESULTS}/logs/pretraining/{{source}}.log",
    conda:
        "../../environment.yml"
    params:
        code=code_version("pretraining_set"),
        options=source_options,
        state=source_state,
        folder=source_folder,
    shell:
        "python -m stpm_bench pretraining-set {params.options}"
        " --folder {params.folder:q} --output {output:q} --log {log:q}"


rule teacher:
    input:
        unpack(teacher_inputs),
    output:
        weights=f"{RESULTS}/teachers/{{teacher}}.pt",
        description=f"{RESULTS}/teachers/{{teacher}}.json",
    log:
        f"{RESULTS}/logs/teachers/{{teacher}}.log",
    # Every student waits for its teacher.
    priority: 50
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
    params:
        code=code_version("teacher"),
        options=teacher_options,
        files=teacher_files,
    shell:
        "python -m stpm_bench teacher {params.options} {params.files} --threads {threads}"
        " --output {output.weights:q} --log {log:q}"
