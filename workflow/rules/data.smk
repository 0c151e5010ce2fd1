# Data sets: the embedded demo, MVTec AD downloaded, or the user's folders; each read into arrays.
rule demo_data:
    output:
        f"{RESULTS}/demo_data/made.json",
    log:
        f"{RESULTS}/logs/demo_data.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=version_of("demo_data"),
        folder=subpath(output[0], parent=True),
    shell:
        "python -m stpm_bench demo-data --output {params.folder:q} --marker {output:q} --log {log:q}"


rule download:
    output:
        # Kept when this rule runs again: it says which categories were unpacked, and which are the
        # user's own.
        update(f"{DATA}/mvtec_ad/download.json"),
    log:
        f"{RESULTS}/logs/download.log",
    # Before anything else: without a network the run then stops at once.
    priority: 100
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=version_of("download"),
        folder=subpath(output[0], parent=True),
        options=with_suite(options.download),
    shell:
        "python -m stpm_bench download --output {params.folder:q} {params.options} --log {log:q}"


# Two rules, so that the DAG shows that training images are made only from training files. The test
# images are compared with them: an image in both would make the results too good.
rule prepare_train:
    input:
        marker_of,
    output:
        images=f"{TRAIN}/images.npy",
        manifest=f"{TRAIN}/images.csv",
    log:
        f"{RESULTS}/logs/prepare/{{category}}_train.log",
    conda:
        "../../environment.yml"
    threads: max(1, CORES // len(CATEGORIES) // 2)
    resources:
        mem_mb=with_suite(resources.prepare_train_memory),
    params:
        code=version_of("prepare"),
        root=with_suite(options.root),
        category=with_suite(options.category, split="train"),
        image_size=CONFIG["image_size"],
        state=with_suite(options.category_state, split="train"),
        folder=subpath(output.images, parent=True),
    shell:
        "python -m stpm_bench prepare --root {params.root:q} {params.category}"
        " --split train --image-size {params.image_size} --threads {threads}"
        " --output {params.folder:q} --log {log:q}"


rule prepare_test:
    input:
        marker_of,
        train=f"{TRAIN}/images.csv",
    output:
        images=f"{TEST}/images.npy",
        masks=expand(f"{TEST}/{{file}}", file=[*MASKS.values(), ORIGINAL_MASKS], allow_missing=True),
        manifest=f"{TEST}/images.csv",
    log:
        f"{RESULTS}/logs/prepare/{{category}}_test.log",
    conda:
        "../../environment.yml"
    threads: max(1, CORES // len(CATEGORIES) // 2)
    resources:
        mem_mb=with_suite(resources.prepare_test_memory),
    params:
        code=version_of("prepare"),
        root=with_suite(options.root),
        category=with_suite(options.category, split="test"),
        image_size=CONFIG["image_size"],
        state=with_suite(options.category_state, split="test"),
        train=subpath(input.train, parent=True),
        folder=subpath(output.images, parent=True),
    shell:
        "python -m stpm_bench prepare --root {params.root:q} {params.category}"
        " --split test --train {params.train:q} --image-size {params.image_size}"
        " --threads {threads} --output {params.folder:q} --log {log:q}"
