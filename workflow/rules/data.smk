# Data sets: the embedded demo, MVTec AD downloaded, or a folder of the user's; each to arrays.
if CONFIG["data"]["demo"]:
    ROOT, MARKER = f"{RESULTS}/demo_data", f"{RESULTS}/demo_data/made.json"
elif CONFIG["data"]["mvtec_ad"] is None:
    ROOT, MARKER = f"{DATA}/mvtec_ad", f"{DATA}/mvtec_ad/download.json"
else:
    ROOT, MARKER = CONFIG["data"]["mvtec_ad"], None


def images_of(*folders):
    """Return an input function: the marker of a set that is made here, else a split's folders."""

    def inputs(wildcards):
        if MARKER:
            return MARKER
        # A folder that is missing is left to the step, whose error says what was expected.
        paths = [Path(ROOT, wildcards.category, folder) for folder in folders]
        return [str(path) for path in paths if path.is_dir()]

    return inputs


def state_of(*folders):
    """Return a params function: a hash of names, sizes and times of the files of a user's folder.

    Snakemake looks at a folder's own time alone; an image that was replaced inside is seen by this.
    """

    def state(wildcards):
        if MARKER:
            return None
        found = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for folder in folders
            for path in sorted(Path(ROOT, wildcards.category, folder).rglob("*"))
        ]
        return hashlib.sha256(repr(found).encode()).hexdigest()

    return state


def downloads():
    """Return what this run still has to download, with its size."""
    missing = []
    if MARKER == f"{DATA}/mvtec_ad/download.json" and not Path(MARKER).exists():
        missing.append("MVTec AD (4.9 GiB, and as much again unpacked)")
    sizes = {"mnist": "11 MiB", "cifar10": "163 MiB", "cifar100": "161 MiB", "svhn": "235 MiB"}
    for name, teacher in TEACHERS.items():
        source = teacher.get("pretrain")
        if source in sizes and not Path(f"{RESULTS}/pretraining/{source}.npz").exists():
            missing.append(f"{source} ({sizes[source]})")
        if (
            teacher.get("weights") == "torchvision"
            and not Path(f"{RESULTS}/teachers/{name}.pt").exists()
        ):
            missing.append(f"torchvision's ImageNet weights of {teacher['backbone']}")
    return [f"{what}, unless {DATA}/ has it" for what in dict.fromkeys(missing)]


rule demo_data:
    output:
        f"{RESULTS}/demo_data/made.json",
    log:
        f"{RESULTS}/logs/demo_data.log",
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "python -m stpm_bench demo-data --output {params.folder:q} --marker {output:q} --log {log:q}"


rule download:
    output:
        f"{DATA}/mvtec_ad/download.json",
    log:
        f"{RESULTS}/logs/download.log",
    # Before anything else: without a network the run stops here at once.
    priority: 100
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "python -m stpm_bench download --output {params.folder:q} --log {log:q}"


# Two rules, so that what the training images are made of is seen in the DAG: train files alone.
rule prepare_train:
    input:
        images_of("train"),
    output:
        images=f"{RESULTS}/prepared/{{category}}/train/images.npy",
        manifest=f"{RESULTS}/prepared/{{category}}/train/images.csv",
    log:
        f"{RESULTS}/logs/prepare/{{category}}_train.log",
    conda:
        "../../environment.yml"
    params:
        root=ROOT,
        image_size=CONFIG["image_size"],
        state=state_of("train"),
        folder=subpath(output.images, parent=True),
    shell:
        "python -m stpm_bench prepare --root {params.root:q} --category {wildcards.category:q}"
        " --split train --image-size {params.image_size} --output {params.folder:q} --log {log:q}"


rule prepare_test:
    input:
        images_of("test", "ground_truth"),
    output:
        images=f"{RESULTS}/prepared/{{category}}/test/images.npy",
        masks=f"{RESULTS}/prepared/{{category}}/test/masks.npy",
        manifest=f"{RESULTS}/prepared/{{category}}/test/images.csv",
    log:
        f"{RESULTS}/logs/prepare/{{category}}_test.log",
    conda:
        "../../environment.yml"
    params:
        root=ROOT,
        image_size=CONFIG["image_size"],
        state=state_of("test", "ground_truth"),
        folder=subpath(output.images, parent=True),
    shell:
        "python -m stpm_bench prepare --root {params.root:q} --category {wildcards.category:q}"
        " --split test --image-size {params.image_size} --output {params.folder:q} --log {log:q}"
