"""The step 'predict': the same numbers as the pipeline, and inputs that it rejects."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from stpm_bench import grid, predict
from stpm_bench.__main__ import main
from stpm_bench.anomaly_map import anomaly_maps
from stpm_bench.errors import InputError
from stpm_bench.results import anomaly_maps_of, read_scores

FIT = "category-alpha_layers-1+2_teacher-random_fraction-1.0_seed-0_method-stpm"


@pytest.fixture
def results(finished, tmp_path) -> Path:
    """The results of a whole run, to be changed."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return tmp_path / "results"


def predicted(capsys, model: Path, *images: Path, output: Path, options=()) -> dict[Path, float]:
    """Run the step; return the scores that it prints."""
    paths = [str(path) for path in (model, *images)]
    assert main(["predict", *paths, "--output", str(output), "--threads", "1", *options]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    return {Path(file): np.float32(score) for file, score in lines}


def refused(capsys, model: Path, *images: Path, output: Path, options=()) -> str:
    """Run the step; return its error."""
    paths = [str(path) for path in (model, *images)]
    assert main(["predict", *paths, "--output", str(output), *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    return said


def test_a_test_image_has_the_pipelines_map_and_score(finished, tmp_path, capsys):
    cell = finished / "results" / "cells" / FIT
    table = pd.read_csv(cell / "image_scores.csv", dtype={"score": np.float32})
    images = [finished / "data" / "alpha" / file for file in table["file"]]
    model = finished / "results" / "fits" / FIT / "model.pt"
    scores = predicted(capsys, model, *images, output=tmp_path)
    assert list(scores) == images
    assert np.array_equal(list(scores.values()), table["score"])
    _, maps = anomaly_maps_of(cell)
    for image, expected in zip(images, maps, strict=True):
        # The names are those below the folder that all images share: test/.
        written = tmp_path / image.parent.name / f"{image.stem}_map.npy"
        found = np.load(written)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
        assert Image.open(written.with_suffix(".png")).width > 500


def test_images_of_other_sizes_and_modes(finished, tmp_path, capsys):
    source = Image.open(finished / "data" / "alpha" / "test" / "square" / "000.png")
    grey = source.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    wide = source.resize((300, 100))
    variants = {"colour": source, "opaque": source.convert("RGBA"), "grey": grey, "deep": deep}
    variants["wide"] = wide
    files = [tmp_path / f"{name}.png" for name in variants]
    for file, image in zip(files, variants.values(), strict=True):
        image.save(file)
    model = finished / "results" / "fits" / FIT
    options = ["--intensity", "0,65535"]
    scores = predicted(capsys, model, *files, output=tmp_path / "maps", options=options)
    colour, opaque, grey, deep, wide = scores.values()
    assert colour == opaque
    assert grey == deep
    assert len({colour, grey, wide}) == 3
    assert np.load(tmp_path / "maps" / "wide_map.npy").shape == (64, 64)
    # The training images have 8 bits: they do not say what the values of a deeper one mean.
    said = refused(capsys, model, files[3], output=tmp_path / "maps")
    assert str(files[3]) in said
    assert "--intensity 0,4095" in said


def test_a_deep_image_is_scaled_as_the_training_images_were(finished, tmp_path):
    from stpm_bench.steps.predict import training_range

    folder = tmp_path / "data" / "alpha" / "train" / "good"
    folder.mkdir(parents=True)
    for value in (100, 4000):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(folder / f"{value}.png")
    place = predict.find(finished / "results" / "fits" / FIT)
    config = place.config | {"data": place.config["data"] | {"mvtec_ad": str(tmp_path / "data")}}
    assert training_range(place._replace(config=config), Path("x.png")) == (100, 4000)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(InputError, match=r"^x\.png: .*--intensity"):
        training_range(place._replace(config=config), Path("x.png"))


def test_a_method_that_shares_the_fit_evaluates_as_it_says(results, finished, tmp_path, capsys):
    config = yaml.safe_load((results / "config.yaml").read_text())
    config["methods"] = {"summed": {"like": "stpm", "fusion": "sum"}}
    (results / "config.yaml").write_text(yaml.safe_dump(config))
    studies = grid.read(results / "studies.csv")
    pd.concat([studies, studies.assign(method="summed")]).to_csv(
        results / "studies.csv", index=False
    )
    (results / "studies.sha256").unlink()
    fit, image = results / "fits" / FIT, finished / "data/alpha/test/good/000.png"
    cell = pd.read_csv(results / "cells" / FIT / "image_scores.csv")
    row = list(cell["file"]).index("test/good/000.png")
    levels = [maps[row : row + 1] for maps in read_scores(fit).level_maps.values()]
    for options, fusion in (((), "product"), (("--method", "summed"), "sum")):
        predicted(capsys, fit, image, output=tmp_path, options=options)
        expected = anomaly_maps(levels, 64, fusion)[0]
        np.testing.assert_allclose(np.load(tmp_path / "000_map.npy"), expected, rtol=1e-4)
    said = refused(capsys, fit, image, output=tmp_path, options=("--method", "stpm_authors"))
    assert "'stpm_authors'" in said
    assert "stpm, summed" in said
    # Where the fit's own name is no cell of the studies, its cells say how it is evaluated.
    studies.assign(method="summed").to_csv(results / "studies.csv", index=False)
    assert predict.find(fit).settings.fusion == "sum"


def test_a_model_outside_its_results(finished, tmp_path, capsys):
    fit = shutil.copytree(finished / "results" / "fits" / FIT, tmp_path / "mine")
    image = finished / "data/alpha/test/good/000.png"
    teacher = finished / "results" / "teachers" / "random.pt"
    here = predicted(capsys, finished / "results" / "fits" / FIT, image, output=tmp_path)
    options = ("--teacher", str(teacher), "--method", "stpm")
    assert predicted(capsys, fit, image, output=tmp_path, options=options) == here
    assert "--method is missing" in refused(
        capsys, fit, image, output=tmp_path, options=options[:2]
    )
    assert "--teacher is missing" in refused(capsys, fit, image, output=tmp_path)


def test_what_is_not_a_model_is_rejected(results, finished, tmp_path, capsys):
    fit, image = results / "fits" / FIT, finished / "data/alpha/test/good/000.png"

    def said(model: Path, *options: str) -> str:
        return refused(capsys, model, image, output=tmp_path, options=options)

    nothing = results / "fits" / "nothing" / "model.pt"
    assert f"{nothing}: no such model" in said(nothing)
    assert "expected a file model.pt" in said(fit / "fit.json")
    other = tmp_path / "other.pt"
    assert main(["teacher", "--backbone", "resnet18", "--seed", "1", "--output", str(other)]) == 0
    capsys.readouterr()
    assert f"was fitted on another teacher than {other}" in said(fit, "--teacher", str(other))
    text = said(fit, "--method", "padim")
    assert f"{fit}: is not a fit of the method 'padim'" in text
    teacher = results / "teachers" / "random.pt"
    teacher.rename(tmp_path / "moved.pt")
    text = said(fit)
    assert f"{teacher}: no such file" in text
    assert str(fit / "model.pt") in text
    (tmp_path / "moved.pt").rename(teacher)
    (fit / "model.pt").unlink()
    text = said(fit)
    assert f"{fit / 'model.pt'}: is missing" in text
    assert "keep_models" in text
    record = json.loads((fit / "fit.json").read_text())
    (fit / "fit.json").write_text(json.dumps(record | {"failure": "the loss is not finite"}))
    (fit / "fit.sha256").unlink()
    assert f"{fit}: has no model: the fit failed: the loss is not finite" in said(fit)


def test_what_is_not_an_image_is_rejected(finished, tmp_path, capsys):
    fit = finished / "results" / "fits" / FIT
    missing, text = tmp_path / "missing.png", tmp_path / "text.png"
    text.write_text("no image")
    output = tmp_path / "maps"
    assert f"{missing}: no such file" in refused(capsys, fit, missing, output=output)
    assert str(text) in refused(capsys, fit, text, output=output)
    one, other = tmp_path / "a.png", tmp_path / "a.jpg"
    one.touch()
    other.touch()
    said = refused(capsys, fit, one, other, output=output)
    assert str(one) in said
    assert str(other) in said
    assert not output.exists()


def test_maps_lie_below_the_output_and_replace_no_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = predict.outputs([Path("../x/a.b.png"), Path("good/0.png")], Path("maps"))
    own = Path("maps") / tmp_path.name / "good" / "0_map"
    assert found == [Path("maps/x/a.b_map"), own]
    with pytest.raises(InputError, match=r"0_map\.png: is one of the images"):
        predict.outputs([Path("0.png"), Path("0_map.png")], tmp_path)
