"""The step that applies a fitted model to images."""

from pathlib import Path
from typing import Annotated

import numpy as np

from stpm_bench.errors import InputError
from stpm_bench.steps.data import read_options_of
from stpm_bench.steps.options import Device, Intensity, MaxMegapixels, Threads


def predict(
    model: Annotated[Path, "model.pt of a fit, or its folder: RESULTS/fits/FIT"],
    image: Annotated[list[Path], "images of any size and mode"],
    *,
    output: Annotated[Path, "folder for NAME_map.npy and NAME_map.png of each image"],
    teacher: Annotated[
        Path | None, "file of the model's teacher; by default that of the results"
    ] = None,
    method: Annotated[str, "method that evaluates the maps, one that shares the fit"] = "",
    intensity: Intensity = "",
    max_megapixels: MaxMegapixels = 179,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score images with a fitted model; print each file and its score, write its anomaly map.

    NAME_map.npy is (S, S) float32 at the size of the model's input; NAME_map.png shows the image
    and the map over it. The colour scale ends at the highest value of all maps of the call.
    """
    from stpm_bench.datasets.bit_depth import deep_levels, to_8_bits
    from stpm_bench.datasets.images import read_image
    from stpm_bench.datasets.prepare import as_prepared
    from stpm_bench.device import choose_device, set_up
    from stpm_bench.files import write_array
    from stpm_bench.predict import find, load, outputs, overlay, predictions
    from stpm_bench.report.style import save

    for path in image:
        if not path.exists():
            raise InputError(f"{path}: no such file; expected an image")
    place = find(model, teacher, method)
    named = outputs(image, output)
    options, span = read_options_of("", intensity, max_megapixels), None

    def opened(path: Path):
        """Return an image, and, if it has more than 8 bits, the values that become 0 and 255."""
        nonlocal span
        _, found = read_image(path, options.max_megapixels)
        if deep_levels(found) is not None and span is None:
            span = options.intensity or training_range(place, path)
        return found, span

    def pixels(path: Path) -> np.ndarray:
        found, span = opened(path)
        return as_prepared(found, path, place.size, span)

    set_up(threads)
    predictor = load(place.fit, place.teacher, place.layers, place.settings, choose_device(device))
    files = dict(zip(image, named, strict=True))
    scores, highest = {}, 0.0
    for file, anomaly_map, score in predictions(predictor, pixels, image):
        write_array(files[file].with_name(f"{files[file].name}.npy"), anomaly_map)
        scores[file], highest = score, max(highest, float(anomaly_map.max()))
        print(f"{file}\t{score!s}")
    for file, path in files.items():
        found, span = opened(file)
        anomaly_map = np.load(path.with_name(f"{path.name}.npy"))
        shown = to_8_bits(found, file, span)
        figure = overlay(shown, anomaly_map, float(scores[file]), highest, str(file))
        save(figure, path.with_name(f"{path.name}.png"))


def training_range(place, path: Path) -> tuple[float, float] | None:
    """Return the values that become 0 and 255 in images with more than 8 bits per channel: those
    given in the config, or the range of the training images.

    Args:
        place: what `predict.find` returns. path: the image, for the message.
    """
    from stpm_bench.config import sources
    from stpm_bench.datasets.bit_depth import span, training_extremes

    advice = "name the values that become 0 and 255 with --intensity, as in --intensity 0,4095"
    if place.config is None or place.category is None:
        raise InputError(
            f"{path}: has more than 8 bits per channel, and the model is not in a results folder "
            f"with the scaling of its training images; {advice}"
        )
    try:
        source = sources(place.config)[place.category]
        said = source.read_options.get("intensity", "")
        limit = float(source.read_options.get("max_megapixels", 179))
        options = read_options_of("", said, limit)
        found = options.intensity or span(
            training_extremes(source.root, source.category, source.layout, options).values()
        )
    except (InputError, KeyError, OSError) as error:
        raise InputError(
            f"{path}: has more than 8 bits per channel, and the training images, whose range it is "
            f"scaled by, cannot be read ({error}); {advice}"
        ) from error
    if found is None:
        raise InputError(
            f"{path}: has more than 8 bits per channel, and no training image has, so that the "
            f"range of its values is unknown; {advice}"
        )
    return found
