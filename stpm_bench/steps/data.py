"""Steps of data.smk: make, download and check data sets; convert images to arrays."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from stpm_bench.errors import InputError
from stpm_bench.files import (
    forget_hashes,
    record_hashes,
    write_array,
    write_arrays,
    write_csv,
    write_json,
)
from stpm_bench.results import MASKS, ORIGINAL_MASKS, read_image_table
from stpm_bench.steps.options import Every, Intensity, Layout, MaskColour, MaxMegapixels, Threads


def demo_data(
    *,
    output: Annotated[Path, "folder of the set, in MVTec AD's layout"],
    marker: Annotated[Path, "file that is written last, when the set is complete"],
    seed: Annotated[int, "seed of crops and defects"] = 0,
) -> None:
    """Make the embedded demo set from photographs that are part of scikit-image."""
    from stpm_bench.datasets import demo

    demo.write(output, seed=seed)
    write_json(marker, {"seed": seed, "categories": list(demo.CATEGORIES)})


def download(
    *,
    archive: Annotated[Path | None, "a copy of the published archive instead of a download"] = None,
    results: Annotated[Path, "the results folder, whose disk must have space too"] = Path(
        "results"
    ),
    results_bytes: Annotated[int, "space needed there, for the prepared images"] = 0,
    mirrors: Annotated[str, "URLs of the archive to try first, separated by spaces"] = "",
    output: Annotated[Path, "folder of the set; download.json is written last"],
) -> None:
    """Download and check MVTec AD, unless it is there already."""
    from stpm_bench.datasets import mvtec

    room = {results: results_bytes}
    mvtec.download(output, archive=archive, room=room, urls=mirrors.split())


def check_data(
    path: Annotated[Path, "folder of a data set: one folder per category, or as in its layout"],
    *,
    layout: Layout = "mvtec",
    every: Every = 1,
    every_test: Every = 1,
    image_size: Annotated[int, "side in pixels at which defects must be visible in masks"] = 256,
    mask_colour: MaskColour = "",
    intensity: Intensity = "",
    max_megapixels: MaxMegapixels = 179,
    threads: Threads = 0,
) -> None:
    """Read a whole data set; print a summary and every problem; status 1 for an error."""
    from stpm_bench.datasets.check import check_folder, in_columns

    taken = {"train": every, "test": every_test}
    read_options = read_options_of(mask_colour, intensity, max_megapixels)
    table, problems = check_folder(
        path, layout, threads or None, sys.stderr.isatty(), taken, image_size, read_options
    )
    if len(table):
        print(in_columns(table))
        images, masks = table["images"].sum(), table["masks"].sum()
        print(f"\n{images} images and {masks} masks in {table['category'].nunique()} categories")
    for problem in problems:
        print(f"{problem.severity}: {problem.text}")
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise InputError(f"{path}: {errors} errors (see above); fix them before training")


def prepare(
    *,
    root: Annotated[Path, "folder with one folder per category"],
    category: Annotated[str, "the category's folder"],
    layout: Layout = "mvtec",
    every: Every = 1,
    split: Annotated[Literal["train", "test"], "which images; training never reads test files"],
    image_size: Annotated[int, "side in pixels after resizing"] = 256,
    mask_colour: MaskColour = "",
    intensity: Intensity = "",
    max_megapixels: MaxMegapixels = 179,
    train: Annotated[Path | None, "for test: prepared training images, to find duplicates"] = None,
    threads: Threads = 0,
    output: Annotated[Path, "folder for images.npy, images.csv and, for test, the masks"],
) -> None:
    """Decode and resize one split of a category into arrays and a manifest."""
    from stpm_bench.datasets.prepare import check_no_leak, prepare

    pixels, masks, manifest = prepare(
        root,
        category,
        split,
        image_size,
        threads or None,
        layout=layout,
        every=every,
        read_options=read_options_of(mask_colour, intensity, max_megapixels),
    )
    if train is not None:
        check_no_leak(read_image_table(train / "images.csv"), manifest, root, category, layout)
    forget_hashes(output / "images.sha256")
    write_array(output / "images.npy", pixels)
    names = ["images.npy", "images.csv"]
    if masks is not None:
        for name, file in MASKS.items():
            write_array(output / file, masks[name])
        original = {str(index): mask for index, mask in enumerate(masks["own"])}
        write_arrays(output / ORIGINAL_MASKS, original, compress=True)
        names += [*MASKS.values(), ORIGINAL_MASKS]
    write_csv(output / "images.csv", manifest)
    record_hashes(output / "images.sha256", *names)


def read_options_of(mask_colour: str, intensity: str, max_megapixels: float):
    """Return how a set's files are read, from the options of a step; '' means not specified."""
    from stpm_bench.datasets.interface import ReadOptions

    def numbers(option: str, text: str, kind: type, count: int) -> tuple | None:
        try:
            found = tuple(kind(part) for part in text.split(",")) if text else None
        except ValueError:
            found = ()
        if found is not None and len(found) != count:
            raise InputError(f"{option} is {text!r}; expected {count} numbers, joined by commas")
        return found

    colour = numbers("--mask-colour", mask_colour, int, 3)
    span = numbers("--intensity", intensity, float, 2)
    if span and not span[0] < span[1]:
        raise InputError(f"--intensity is {intensity!r}; expected the lower value first")
    return ReadOptions(colour, span, max_megapixels)


def pretraining_set(
    *,
    source: Annotated[str, "digits, mnist, cifar10, cifar100, svhn or imagefolder"],
    folder: Annotated[Path, "folder for downloads; for imagefolder its folder"] = Path("data"),
    size: Annotated[int, "side in pixels to which the images of a folder are resized"] = 32,
    output: Annotated[Path, "the .npz to write"],
) -> None:
    """Get a pretraining set and write it as arrays."""
    from stpm_bench.datasets import pretraining

    if source == "imagefolder":
        data = pretraining.load_folder(folder, size)
    else:
        data = pretraining.load(source, folder)
    forget_hashes(output.with_suffix(".sha256"))
    write_arrays(output, data._asdict())
    record_hashes(output.with_suffix(".sha256"), output.name)
