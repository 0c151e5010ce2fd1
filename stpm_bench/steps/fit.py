"""Steps of fit.smk, and `teacher` of teachers.smk: a teacher, a method's fit on it, its scores."""

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from stpm_bench import config, methods, results
from stpm_bench.code_version import version_of
from stpm_bench.errors import InputError
from stpm_bench.files import (
    forget_hashes,
    read_json,
    record_hashes,
    sha256,
    write_csv,
    write_json,
    write_tensors,
)
from stpm_bench.levels import parse_layers
from stpm_bench.results import load_array, load_arrays, read_image_table
from stpm_bench.steps.options import (
    Device,
    FitFolder,
    Levels,
    Precision,
    SettingsText,
    TeacherFile,
    TestFolder,
    Threads,
)


def teacher(
    *,
    backbone: Annotated[
        Literal["resnet18", "resnet34", "resnet50", "wide_resnet50_2", "mobilenet_v2"],
        "torchvision's name",
    ],
    weights: Annotated[
        str, "a file of weights, torchvision's name (IMAGENET1K_V1, ...), or 'embedded'"
    ] = "",
    sha256: Annotated[str, "SHA-256 of the file of weights; '' skips the check"] = "",
    source: Annotated[str, "declared source of the weights in the file"] = "",
    folder: Annotated[Path, "where torchvision's weights are downloaded to"] = Path("data"),
    pretrain: Annotated[str, "name of the pretraining set"] = "",
    data: Annotated[Path | None, "the .npz that 'pretraining-set' wrote"] = None,
    epochs: Annotated[int, "epochs of pretraining"] = 10,
    batch_size: Annotated[int, "images per step of pretraining"] = 128,
    learning_rate: Annotated[float, "highest learning rate of pretraining"] = 0.1,
    input_size: Annotated[int, "side in pixels to which pretraining resizes"] = 32,
    flip: Annotated[
        Literal["auto", "always", "never"],
        "mirror images at random; auto: except digits, mnist and svhn",
    ] = "auto",
    seed: Annotated[int, "seed of an untrained or pretrained teacher"] = 0,
    # Level 1 by default: a file of weights has levels only up to the first that lacks a tensor.
    levels: Annotated[str, "levels that the teacher must have, such as 1+2+3"] = "1",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: Annotated[Path, "the .pt to write; a .json next to it describes it"],
) -> None:
    """Make a teacher: from weights, pretrained on a set, or untrained if neither is given.

    If both are given, the weights are ignored; a config allows only one of them.
    """
    start = time.perf_counter()  # a step's cost includes the imports that it makes
    from stpm_bench import embedded, files, provenance, unfinished
    from stpm_bench import teacher as teachers
    from stpm_bench.datasets.pretraining import photographs
    from stpm_bench.device import choose_device, choose_precision, set_up
    from stpm_bench.levels import EMBEDDED, EMBEDDED_LEVELS, PUBLISHED
    from stpm_bench.pretrain import WITHOUT_FLIPS, train_classifier

    hash_of = files.sha256  # an option has the name sha256
    set_up(threads)
    torch_device = choose_device(device)
    dtype = choose_precision(precision, torch_device)
    report = {"backbone": backbone, "seed": seed}
    resumable = output.with_suffix(".unfinished")
    if pretrain:
        if data is None:
            raise InputError(
                "--pretrain needs --data: expected the .npz that the step 'pretraining-set' wrote"
            )
        state, trained = train_classifier(
            backbone,
            pretrain,
            load_arrays(data),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            input_size=input_size,
            flip=pretrain not in WITHOUT_FLIPS if flip == "auto" else flip == "always",
            seed=seed,
            device=torch_device,
            precision=dtype,
            unfinished_file=resumable,
        )
        report |= {"source": pretrain, "data_sha256": hash_of(data)}
        report |= {"precision": str(dtype).removeprefix("torch."), **trained}
    elif weights in PUBLISHED[backbone]:
        state = teachers.from_torchvision(backbone, weights, folder)
        report |= {"source": f"torchvision {weights}"}
    elif weights == EMBEDDED and backbone in EMBEDDED_LEVELS:
        state = teachers.from_package()
        report |= {"source": embedded.SOURCE, "weights_sha256": embedded.SHA256}
    elif weights:
        state = teachers.from_file(backbone, weights, sha256)
        report |= {"source": weights, "weights_sha256": hash_of(weights)}
        report |= {"declared": source} if source else {}
    else:
        state = teachers.untrained(backbone, seed)
        report |= {"source": "untrained"}
    known = teachers.levels_in(backbone, state)
    if lacking := [level for level in parse_layers(levels) if level not in known]:
        raise InputError(
            f"{weights or output.stem}: has no level {', '.join(map(str, lacking))}, which a study "
            f"requires of the teacher {output.stem} with 'layers' (it has "
            f"{', '.join(map(str, known))}); name another file with the config key 'teachers', or "
            "remove the level from the study"
        )
    # On photographs that come with scikit-image: what each level responds to, if to anything.
    described = teachers.level_report(backbone, state, photographs(), known)
    degenerate = {row["level"]: row["degenerate"] for row in described if row["degenerate"]}
    for level, reason in degenerate.items():
        text = f"warning: {output.stem}: level {level} carries no information: {reason}"
        print(text, file=sys.stderr)
    content = {"backbone": backbone, "weights": state, "levels": list(known)}
    content |= {"source": report["source"], "degenerate": degenerate}
    report |= {"levels": described}
    report |= {"seconds": round(time.perf_counter() - start, 2)}
    report |= {"peak_memory": provenance.peak_memory(torch_device)}
    results.write_teacher(output, content, report | provenance.environment(torch_device))
    unfinished.remove(resumable)


def fit(
    *,
    train: Annotated[Path, "prepared training images: the folder of 'prepare --split train'"],
    teacher: TeacherFile,
    layers: Levels,
    fraction: Annotated[float, "share of the training images to use"] = 1.0,
    seed: Annotated[int, "seed of initialisation, split and order"] = 0,
    settings: SettingsText = methods.DEFAULT,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: FitFolder,
) -> None:
    """Fit a method on a category; write model.pt, history.csv, split.csv and fit.json.

    A fit that fails is a result: fit.json has the reason, model.pt is empty, and later steps pass
    the reason on.
    """
    start = time.perf_counter()  # a step's cost includes the imports that it makes
    from stpm_bench import provenance, unfinished
    from stpm_bench.device import choose_device, choose_precision, set_up
    from stpm_bench.methods.interface import Fitted, no_history
    from stpm_bench.split import divide

    set_up(threads)
    torch_device = choose_device(device)
    method = config.settings(settings)
    dtype = choose_precision(precision if method.reads_precision else "float32", torch_device)
    levels = parse_layers(layers)
    images = load_array(train / "images.npy")
    files = list(read_image_table(train / "images.csv")["file"])
    split, table = divide(files, fraction, method.validation_share(), seed)
    network = results.read_teacher(teacher, levels, torch_device)
    if unusable := results.degenerate(teacher, levels):
        fitted = Fitted({}, no_history(), 0, 0.0, unusable)
    else:
        fitted = methods.module_of(method.module).fit(
            network,
            images,
            split,
            levels=levels,
            settings=method,
            seed=seed,
            device=torch_device,
            precision=dtype,
            title=output.name,
            unfinished=output / results.UNFINISHED,
        )
    if fitted.failure:
        print(f"warning: {output.name}: the fit failed: {fitted.failure}", file=sys.stderr)
    forget_hashes(output / "fit.sha256")
    write_tensors(output / "model.pt", fitted.model)
    write_csv(output / "history.csv", fitted.history)
    write_csv(output / "split.csv", table)
    record = {
        "failure": fitted.failure,
        "settings": {"file": method.module, **method.fit_part(fraction)},
        "layers": layers,
        "fraction": fraction,
        "seed": seed,
        "precision": str(dtype).removeprefix("torch."),
        "image_size": images.shape[1],
        "backbone": network.backbone,
        "split": {"training": len(split.training), "validation": len(split.validation)},
        "teacher_sha256": sha256(teacher),
        "manifest_sha256": sha256(train / "images.csv"),
        "model_sha256": sha256(output / "model.pt"),
        "code": version_of("fit", method.module),
        "images": fitted.images,
        "steps": fitted.steps,
        # `seconds`: the whole step, without what a worker had imported; `images_per_second`: the
        # work alone.
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(fitted.images / fitted.seconds, 1) if fitted.seconds else None,
        "peak_memory": provenance.peak_memory(torch_device),
    }
    write_json(output / "fit.json", record | provenance.environment(torch_device))
    record_hashes(output / "fit.sha256", *results.FIT_FILES, "fit.json")
    unfinished.remove(output / results.UNFINISHED)


def score(
    *,
    test: TestFolder,
    teacher: TeacherFile,
    fit: FitFolder,
    layers: Levels,
    settings: SettingsText = methods.DEFAULT,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score the test images: level_maps.npz and score.json, in the folder of the fit.

    For a failed fit level_maps.npz has no maps. The levels must be those of the fit. The workflow
    passes the settings of the fit, so score.json repeats only their file. They are not compared
    with fit.json: most fields there say how the model was trained, and scoring does not read them.
    """
    start = time.perf_counter()  # a step's cost includes the imports that it makes
    from stpm_bench import provenance
    from stpm_bench.device import choose_device, set_up
    from stpm_bench.methods.interface import Scores

    names = [*results.SCORE_FILES, "score.json"]
    forget_hashes(fit / "score.sha256")
    method = config.settings(settings)
    record = {"code": version_of("score", method.module), "settings": {"file": method.module}}
    fitted = read_json(fit / "fit.json")
    if failure := fitted["failure"]:
        results.write_scores(fit, Scores({}))
        write_json(fit / "score.json", record | {"failure": failure})
        record_hashes(fit / "score.sha256", *names)
        return
    set_up(threads)
    torch_device = choose_device(device)
    levels = parse_layers(layers)
    network, model = results.read_fitted(fit, teacher, levels, torch_device)
    if layers != fitted["layers"]:
        raise InputError(
            f"{fit / 'model.pt'}: was fitted at the levels {fitted['layers']} (fit.json), but "
            f"--layers is {layers}; give the levels of the fit, or fit again"
        )
    images = load_array(test / "images.npy")
    scoring = time.perf_counter()
    scores = methods.module_of(method.module).score(
        network, model, images, levels=levels, settings=method, device=torch_device
    )
    scoring = time.perf_counter() - scoring
    results.write_scores(fit, scores)
    record |= {
        "image_size": images.shape[1],
        "manifest_sha256": sha256(test / "images.csv"),
        "images": len(images),
        # As in `fit`.
        "seconds": round(time.perf_counter() - start, 2),
        "images_per_second": round(len(images) / scoring, 1),
        "peak_memory": provenance.peak_memory(torch_device),
    }
    write_json(fit / "score.json", record | provenance.environment(torch_device))
    record_hashes(fit / "score.sha256", *names)
