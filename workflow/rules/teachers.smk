# Teachers: once a name, whatever uses them.
rule pretraining_set:
    output:
        f"{RESULTS}/pretraining/{{source}}.npz",
    log:
        f"{RESULTS}/logs/pretraining/{{source}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=version_of("pretraining_set"),
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
        weights=f"{RESULTS}/teachers/{{draw}}.pt",
        description=f"{RESULTS}/teachers/{{draw}}.json",
    log:
        f"{RESULTS}/logs/teachers/{{draw}}.log",
    # Every student waits for its teacher.
    priority: 50
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
        # Ten epochs of SVHN, the largest set with a name, are 0.7 million images of 0.3 GB in all.
        mem_mb=lambda wildcards, attempt: 4000 * 2 ** (attempt - 1),
        runtime=lambda wildcards, attempt: 240 * 2 ** (attempt - 1),
    params:
        code=version_of("teacher"),
        options=teacher_options,
        state=weights_state,
        files=teacher_files,
    shell:
        "python -m stpm_bench teacher {params.options} {params.files} --threads {threads}"
        " --output {output.weights:q} --log {log:q}"


PUBLISHED = [name for name, teacher in TEACHERS.items() if is_published(teacher)]

# Torchvision's weights are downloaded, and the nodes of a cluster often have no network.
if PUBLISHED:

    use rule teacher as published_teacher with:
        wildcard_constraints:
            draw=any_of(PUBLISHED),
        localrule: True

    ruleorder: published_teacher > teacher
