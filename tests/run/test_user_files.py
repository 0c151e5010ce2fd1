"""A user's files count by their names and contents, and each is read once."""

import json
import os
import shutil
from pathlib import Path

import pytest

from stpm_bench.run import user_files
from stpm_bench.run.user_files import RECORD, content_hash


@pytest.fixture
def images(tmp_path):
    """A folder of three files, one of them in a folder of its own."""
    folder = tmp_path / "set" / "train"
    (folder / "good").mkdir(parents=True)
    for name in ("a.png", "b.png", "good/c.png"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read, in their order."""
    names = []
    sha256 = user_files.sha256
    monkeypatch.setattr(
        user_files, "sha256", lambda path: names.append(Path(path).name) or sha256(path)
    )
    return names


def restarted(*arguments) -> str:
    """The hash in a new process, which knows only the record."""
    user_files.recorded.cache_clear()
    return content_hash(*arguments)


def test_a_file_is_read_again_only_if_its_size_or_time_differs(tmp_path, images, read):
    first = content_hash(tmp_path, images)
    assert sorted(read) == ["a.png", "b.png", "c.png"]
    assert content_hash(tmp_path, images) == restarted(tmp_path, images) == first
    assert len(read) == 3
    os.utime(images / "b.png", (1, 1))
    assert restarted(tmp_path, images) == first
    assert read[3:] == ["b.png"]
    assert restarted(tmp_path, images) == first
    assert len(read) == 4


def test_a_copy_elsewhere_with_other_times_is_the_same(tmp_path, images):
    first = content_hash(tmp_path, images, images / "good" / "c.png")
    shutil.copytree(images, tmp_path / "disk" / "train", copy_function=shutil.copyfile)
    images = tmp_path / "disk" / "train"
    for path in images.rglob("*"):
        os.utime(path, (4e9, 4e9))  # in the future
    assert content_hash(tmp_path, images, images / "good" / "c.png") == first
    assert content_hash(tmp_path / "other", images, images / "good" / "c.png") == first


def test_a_change_of_content_name_or_folder_is_another_state(tmp_path, images):
    found = [content_hash(tmp_path, images)]
    (images / "a.png").write_text("A.png")  # of the same size
    os.utime(images / "a.png", (1, 1))
    found.append(content_hash(tmp_path, images))
    (images / "a.png").rename(images / "z.png")
    found.append(content_hash(tmp_path, images))
    (images / "z.png").rename(images / "good" / "z.png")
    found.append(content_hash(tmp_path, images))
    (images / "scratch").mkdir()
    found.append(content_hash(tmp_path, images))
    (images / "b.png").unlink()
    found.append(content_hash(tmp_path, images))
    assert len(set(found)) == len(found)


def test_what_cannot_be_read_is_left_to_the_step(tmp_path, images, monkeypatch):
    first = content_hash(tmp_path, images)
    assert content_hash(tmp_path, images, tmp_path / "nothing") == first
    (images / "broken.png").symlink_to("nowhere")
    assert content_hash(tmp_path, images) == first
    (images / "secret.png").touch()

    def refused(path):
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(user_files, "sha256", refused)
        without = content_hash(tmp_path, images)
    assert without != first  # it is there
    assert content_hash(tmp_path, images) not in (first, without)  # tried again


@pytest.mark.parametrize("text", ["", "{", "[1"])
def test_a_damaged_record_is_made_again(tmp_path, images, read, text):
    first = content_hash(tmp_path, images)
    (tmp_path / RECORD).write_text(text)
    assert restarted(tmp_path, images) == first
    assert len(read) == 6
    assert len(json.loads((tmp_path / RECORD).read_text())) == 3


def test_a_long_reading_is_announced_once(tmp_path, images, monkeypatch, capsys):
    content_hash(tmp_path / "quick", images)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(user_files, "MANY_BYTES", 10)
    content_hash(tmp_path / "long", images)
    said = capsys.readouterr().err
    assert "3 files" in said
    assert str(images.parent) in said
    content_hash(tmp_path / "long", images)
    assert capsys.readouterr().err == ""
