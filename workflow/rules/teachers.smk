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
        options=with_suite(options.pretraining_set),
        state=with_suite(options.pretraining_state),
        folder=with_suite(options.pretraining_folder),
    shell:
        "python -m stpm_bench pretraining-set {params.options}"
        " --folder {params.folder:q} --output {output:q} --log {log:q}"


rule teacher:
    input:
        unpack(teacher_inputs),
    output:
        weights=f"{RESULTS}/teachers/{{teacher_file}}.pt",
        description=f"{RESULTS}/teachers/{{teacher_file}}.json",
    log:
        f"{RESULTS}/logs/teachers/{{teacher_file}}.log",
    # Every student waits for its teacher.
    priority: 50
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
        mem_mb=with_suite(resources.teacher_memory),
        runtime=with_suite(resources.teacher_minutes),
    params:
        code=version_of("teacher"),
        options=with_suite(options.teacher),
        state=with_suite(options.weights_state),
        files=with_suite(options.teacher_files),
    shell:
        "python -m stpm_bench teacher {params.options} {params.files} --threads {threads}"
        " --output {output.weights:q} --log {log:q}"


PUBLISHED = [name for name, teacher in SUITE.teachers.items() if has_torchvision_weights(teacher)]

# Torchvision's weights are downloaded, and a cluster's nodes often have no network.
if PUBLISHED:

    use rule teacher as published_teacher with:
        wildcard_constraints:
            teacher_file=name_pattern(PUBLISHED),
        localrule: True

    ruleorder: published_teacher > teacher
