# Teachers: made once per name, whatever uses them.
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
        options=ask(options.pretraining_set),
        state=ask(options.pretraining_state),
        folder=ask(options.pretraining_folder),
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
        mem_mb=ask(resources.teacher_memory),
        runtime=ask(resources.teacher_minutes),
    params:
        code=version_of("teacher"),
        options=ask(options.teacher),
        state=ask(options.weights_state),
        files=ask(options.teacher_files),
    shell:
        "python -m stpm_bench teacher {params.options} {params.files} --threads {threads}"
        " --output {output.weights:q} --log {log:q}"


PUBLISHED = [name for name, teacher in SUITE.teachers.items() if is_published(teacher)]

# Torchvision's weights are downloaded, and a cluster's nodes often have no network.
if PUBLISHED:

    use rule teacher as published_teacher with:
        wildcard_constraints:
            draw=any_of(PUBLISHED),
        localrule: True

    ruleorder: published_teacher > teacher
