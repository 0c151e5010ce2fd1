# Teachers: once a name, whatever uses them.
def teacher_inputs(wildcards):
    """Return the file that a teacher is made of: its weights, or its pretraining set."""
    teacher = TEACHERS[wildcards.teacher]
    if "pretrain" in teacher:
        return {"data": f"{RESULTS}/pretraining/{teacher['pretrain']}.npz"}
    if teacher.get("weights", "torchvision") != "torchvision":
        return {"weights": teacher["weights"]}
    return {}


def teacher_options(wildcards, input):
    """Return the options of the step 'teacher' for one name."""
    teacher = TEACHERS[wildcards.teacher]
    values = dict(teacher)
    if "pretrain" in teacher:
        values |= {"data": input.data, **CONFIG["pretraining"]}
    return options(values | {"folder": f"{DATA}/weights"})


rule pretraining_set:
    output:
        f"{RESULTS}/pretraining/{{source}}.npz",
    log:
        f"{RESULTS}/logs/pretraining/{{source}}.log",
    conda:
        "../../environment.yml"
    params:
        folder=DATA,
    shell:
        "python -m stpm_bench pretraining-set --source {wildcards.source}"
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
    threads: max(1, (workflow.cores or 1) // len(TEACHERS))
    params:
        options=teacher_options,
        device=CONFIG["device"],
        precision=CONFIG["precision"],
    shell:
        "python -m stpm_bench teacher {params.options} --device {params.device}"
        " --precision {params.precision} --threads {threads}"
        " --output {output.weights:q} --log {log:q}"
