"""Applies a fitted model to images: anomaly maps and scores, computed by the pipeline's code."""

import re
from collections.abc import Callable, Iterator, Sequence
from os.path import abspath, commonpath
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from stpm_bench import anomaly_map, config, grid, methods, results
from stpm_bench.errors import InputError
from stpm_bench.files import read_json, read_verified, sha256
from stpm_bench.levels import parse_layers
from stpm_bench.methods.interface import Scores, Settings

# The name of a fit's folder contains the cell after which it is named.
NAME = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>.+)", grid.CELL))
# Images scored at once, the same as in the step 'score': the same batches give the same bits.
BATCH = 16
# Images (N, S, S, 3) uint8 -> anomaly maps (N, S, S) float32 and image scores (N,) float32.
Predictor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def predictor(scores_of: Callable[[np.ndarray], Scores], settings: Settings) -> Predictor:
    """Return a function from images to anomaly maps and image scores, the same as in evaluation.

    Args:
        scores_of: what `methods.scorer` returns. settings: the method's.
    """
    fields = {key: value for key, value in settings.evaluation_part().items() if key != "masks"}

    def predict(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = scores_of(images)
        level_maps = list(scores.level_maps.values())
        maps = anomaly_map.anomaly_maps(level_maps, images.shape[1], **fields)
        return maps, anomaly_map.image_scores(maps, scores.image_scores)

    return predict


def load(fit: Path, teacher: Path, layers: str, settings: Settings, device) -> Predictor:
    """Return the predictor of a fit, its model on the device; raises as `results.read_fitted`."""
    levels = parse_layers(layers)
    network, model = results.read_fitted(fit, teacher, levels, device)
    scores_of = methods.scorer(network, model, levels=levels, settings=settings, device=device)
    return predictor(scores_of, settings)


class ModelSource(NamedTuple):
    """Where a model comes from.

    Attributes:
        fit: the folder of its fit.
        teacher: the file of its teacher.
        settings: those of the method by which its maps are evaluated.
        layers, size: from fit.json: its levels, and the side in pixels of its input images.
        config, category: those of the results that contain it; None if unknown.
    """

    fit: Path
    teacher: Path
    settings: Settings
    layers: str
    size: int
    config: dict | None
    category: str | None


def find(model: Path, teacher: Path | None = None, method: str = "") -> ModelSource:
    """Find the settings of a model's fit, from its folder and the results that contain it.

    Args:
        model: model.pt, or its folder.
        teacher: its file; None: the one in the results.
        method: which of the methods that share the fit evaluates the maps; '': the method that the
            fit is named after, or else the first.

    Raises:
        InputError: there is no such model, something is neither given nor found in its folder, or
            the method is not one of the fit's.
    """
    fit = model if model.is_dir() else model.parent
    if model != fit and model.name != "model.pt":
        raise InputError(f"{model}: is not a model; expected a file model.pt, or its folder")
    if not (fit / results.STAGES["fit"]).is_file():
        raise InputError(
            f"{model}: no such model; expected RESULTS/fits/FIT/model.pt with the fit.json that "
            "the step 'fit' writes next to it"
        )
    record = read_json(fit / results.STAGES["fit"])
    folder, named = fit.absolute().parents[1], NAME.fullmatch(fit.absolute().name)
    made, sharing = None, []
    if (folder / "config.yaml").is_file():
        made = yaml.safe_load(read_verified(folder / "config.yaml"))
    if (folder / "studies.csv").is_file():
        studies = grid.read(folder / "studies.csv")
        of_fit = studies["fit"] == fit.absolute().name
        sharing = list(studies.loc[of_fit, "method"].unique())
    if named is None and not (teacher and method):
        option = "--method" if teacher else "--teacher"
        raise InputError(
            f"{fit}: its name does not contain its teacher and method; expected a folder "
            f"RESULTS/fits/{grid.CELL}, or both options: {option} is missing"
        )
    if named and not method:
        method = sharing[0] if sharing and named["method"] not in sharing else named["method"]
    if named and not teacher:
        teacher = teacher_of(folder / "teachers", named["teacher"], named["seed"], record)
    known = config.methods(made) if made else methods.built_in()
    if method not in (sharing or known):
        raise InputError(
            f"{fit}: is not a fit of the method {method!r}; expected --method "
            f"{', '.join(sharing or known)}"
        )
    file, fitted = record["settings"]["file"], dict(record["settings"])
    if fitted.pop("file") != known[method].module:
        raise InputError(
            f"{fit}: was fitted by methods/{file}.py, but {method!r} is a method of "
            f"methods/{known[method].module}.py; name the method of the fit with --method"
        )
    # The fit's settings come from its record, those of the evaluation from the method.
    settings = methods.differing(known[method], fitted)
    category = named["category"] if named else None
    return ModelSource(
        fit, teacher, settings, record["layers"], record["image_size"], made, category
    )


def teacher_of(folder: Path, name: str, seed: str, record: dict) -> Path:
    """Return the file of a fit's teacher in the results: one network, or the draw of the seed.

    Args:
        folder: of the teachers. name: the teacher's. record: fit.json.
    """
    files = [folder / f"{name}.pt", folder / f"{name}_seed-{seed}.pt"]
    there = [file for file in files if file.is_file()]
    same = [file for file in there if sha256(file) == record["teacher_sha256"]]
    return (same or there or files)[0]


def predictions(
    predict: Predictor, read: Callable[[Path], np.ndarray], files: Sequence[Path]
) -> Iterator[tuple[Path, np.ndarray, np.float32]]:
    """Yield each file with its anomaly map (S, S) float32 and its score.

    Args:
        read: file -> (S, S, 3) uint8.
    """
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        maps, scores = predict(np.stack([read(file) for file in some]))
        yield from zip(some, maps, scores, strict=True)


def outputs(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return for each image the output path of its map without a suffix: its path relative to the
    folder that all images share.

    Raises:
        InputError: two images would have the same name, or a picture would replace an image.
    """
    whole = [Path(abspath(file)) for file in files]
    root = Path(commonpath([file.parent for file in whole]))
    found: dict[Path, Path] = {}
    for file, path in zip(files, whole, strict=True):
        place = folder / path.relative_to(root).with_name(f"{path.stem}_map")
        if Path(abspath(f"{place}.png")) in whole:
            raise InputError(
                f"{place}.png: is one of the images, and the map of {file} would overwrite it; "
                "name another folder with --output"
            )
        if place in found:
            raise InputError(
                f"{file}: its map would have the same name as that of {found[place]}, {place}.npy; "
                "expected different names, each image once"
            )
        found[place] = file
    return list(found)


def overlay(image, anomaly_map: np.ndarray, score: float, highest: float, title: str):
    """Return a figure: the image, and the image under its anomaly map.

    Args:
        image: Pillow's, of mode 'L' or 'RGB' and any size; anomaly_map: (S, S), of the whole image.
        highest: the value at the end of the colour scale, which is a square root, because a product
            of levels has heavy tails.
    """
    from matplotlib import pyplot as plt
    from matplotlib.colors import PowerNorm

    from stpm_bench.report.style import PAGE_WIDTH, drawing

    shown = image.convert("RGB")
    shown.thumbnail((1024, 1024))
    width, height = shown.size
    with drawing({"axes.grid": False}):
        size = PAGE_WIDTH, 0.5 * PAGE_WIDTH * min(3, height / width) + 0.6
        figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained")
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.imshow(shown, extent=(0, width, height, 0))
        colours = axes[1].imshow(
            anomaly_map,
            cmap="inferno",
            norm=PowerNorm(0.5, vmin=0, vmax=highest or 1.0),
            alpha=0.6,
            extent=(0, width, height, 0),
            interpolation="bilinear",
        )
        figure.colorbar(colours, ax=axes[1], shrink=0.8)
        figure.suptitle(f"{title}\nscore {score:.4g}")
    return figure
