# Fits and scores: models, then level maps of the test images. A fit reads only its rule's inputs, and
# none of them is a test file.
rule fit:
    input:
        images=f"{TRAIN}/images.npy",
        manifest=f"{TRAIN}/images.csv",
        teacher=teacher_of,
    output:
        model=f"{FIT_FOLDER}/model.pt",
        history=f"{FIT_FOLDER}/history.csv",
        split=f"{FIT_FOLDER}/split.csv",
        record=f"{FIT_FOLDER}/fit.json",
    log:
        f"{FIT_FOLDER}/fit.log",
    wildcard_constraints:
        method=name_pattern(SUITE.methods_with_kept_models),
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
        mem_mb=with_suite(resources.fit_memory),
        runtime=with_suite(resources.fit_minutes),
    params:
        code=with_suite(options.fit_code),
        settings=with_suite(options.fit_settings),
        device=CONFIG["device"],
        precision=CONFIG["precision"],
        train=subpath(input.images, parent=True),
        fit=subpath(output.model, parent=True),
    shell:
        "python -m stpm_bench fit --train {params.train:q} --teacher {input.teacher:q}"
        " --layers {wildcards.layers} --fraction {wildcards.fraction} --seed {wildcards.seed}"
        " --settings {params.settings:q} --device {params.device}"
        " --precision {params.precision} --threads {threads}"
        " --output {params.fit:q} --log {log:q}"


# The same for methods whose models are removed after the test images are scored.
use rule fit as fit_temporary with:
    output:
        model=temp(f"{FIT_FOLDER}/model.pt"),
        history=f"{FIT_FOLDER}/history.csv",
        split=f"{FIT_FOLDER}/split.csv",
        record=f"{FIT_FOLDER}/fit.json",
    wildcard_constraints:
        method=name_pattern(SUITE.methods_with_temporary_models),


rule score:
    input:
        images=f"{TEST}/images.npy",
        teacher=teacher_of,
        model=f"{FIT_FOLDER}/model.pt",
    output:
        maps=f"{FIT_FOLDER}/level_maps.npz",
        record=f"{FIT_FOLDER}/score.json",
    log:
        f"{FIT_FOLDER}/score.log",
    # A cell is finished before the next begins, so results come early and few temp() files exist.
    priority: 10
    conda:
        "../../environment.yml"
    threads: CONFIG["threads"]
    resources:
        gpu=1,
        mem_mb=with_suite(resources.score_memory),
        runtime=with_suite(resources.score_minutes),
    params:
        code=with_suite(options.score_code),
        settings=with_suite(options.fit_settings),
        device=CONFIG["device"],
        test=subpath(input.images, parent=True),
        fit=subpath(output.maps, parent=True),
    shell:
        "python -m stpm_bench score --test {params.test:q} --teacher {input.teacher:q}"
        " --fit {params.fit:q} --layers {wildcards.layers} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} --log {log:q}"
