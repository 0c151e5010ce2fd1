import gzip
import pickle
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from stpm_bench.datasets import pretraining
from stpm_bench.errors import InputError

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def check(loaded, side, classes):
    """What every source promises."""
    assert loaded.classes == classes
    for images, labels in (loaded[:2], loaded[2:4]):
        assert isinstance(images, np.ndarray)
        assert images.dtype == np.uint8
        assert images.shape == (len(labels), side, side, 3)
        assert images.flags.c_contiguous
        assert isinstance(labels, np.ndarray)
        assert labels.dtype == np.int64
    assert set(loaded.train_labels) == set(range(len(classes)))
    assert set(loaded.test_labels) <= set(range(len(classes)))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# digits


def test_digits(no_network):
    loaded = pretraining.load("digits")
    check(loaded, 32, [str(digit) for digit in range(10)])
    assert len(loaded.train_labels) + len(loaded.test_labels) == 1797
    assert len(loaded.test_labels) == pytest.approx(0.2 * 1797, abs=5)
    assert np.bincount(loaded.test_labels).min() >= 34
    assert loaded.train_images.min() == 0
    assert loaded.train_images.max() == 255
    assert same(loaded, pretraining.load("digits"))


def test_digits_keep_their_labels():
    loaded = pretraining.load("digits")
    means = [loaded.train_images[loaded.train_labels == k].mean(0) for k in range(10)]
    distance = [((loaded.test_images - mean) ** 2).sum((1, 2, 3)) for mean in means]
    assert (np.argmin(distance, 0) == loaded.test_labels).mean() > 0.85


def test_photographs_ship_with_scikit_image(no_network):
    images = pretraining.photographs(64)
    assert images.shape == (15, 64, 64, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 15


# torchvision's sources, in their real files' format


def cifar_rows(rng, count):
    return rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def any_md5(monkeypatch):
    """Let torchvision take files that are not the originals, as long as they exist."""
    from torchvision.datasets import cifar, svhn

    for module in (cifar, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).exists())


def test_cifar10(tmp_path, any_md5):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    names = [f"class {k}" for k in range(10)]
    batches = [cifar_rows(rng, 10) for _ in range(6)]
    for number, batch in enumerate(batches[:5], 1):
        content = {"data": batch, "labels": list(range(10)), "filenames": [""] * 10}
        dump(folder / f"data_batch_{number}", content)
    dump(folder / "test_batch", {"data": batches[5], "labels": [3] * 10})
    dump(folder / "batches.meta", {"label_names": names})
    loaded = pretraining.load("cifar10", tmp_path)
    check(loaded, 32, names)
    assert loaded.train_images.shape == (50, 32, 32, 3)
    assert loaded.train_labels.tolist() == list(range(10)) * 5
    assert loaded.test_labels.tolist() == [3] * 10
    # A row holds the red plane, then the green, then the blue.
    np.testing.assert_array_equal(loaded.train_images[10, :, :, 0].ravel(), batches[1][0, :1024])
    np.testing.assert_array_equal(loaded.test_images[9, :, :, 2].ravel(), batches[5][9, 2048:])


def test_cifar100_takes_the_fine_labels(tmp_path, any_md5):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-100-python"
    fine, coarse = list(range(100)), [k // 5 for k in range(100)]
    for name in ("train", "test"):
        content = {"data": cifar_rows(rng, 100), "fine_labels": fine, "coarse_labels": coarse}
        dump(folder / name, content)
    names = [f"class {k}" for k in range(100)]
    dump(folder / "meta", {"fine_label_names": names, "coarse_label_names": ["x"] * 20})
    loaded = pretraining.load("cifar100", tmp_path)
    check(loaded, 32, names)
    assert loaded.train_labels.tolist() == fine


def test_svhn_label_10_is_the_digit_0(tmp_path, any_md5):
    rng = np.random.default_rng(0)
    images = {}
    for split, count in (("train", 20), ("test", 10)):
        images[split] = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": images[split], "y": labels})
    loaded = pretraining.load("svhn", tmp_path)
    check(loaded, 32, [str(digit) for digit in range(10)])
    assert loaded.train_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    np.testing.assert_array_equal(loaded.train_images[7], images["train"][..., 7])
    np.testing.assert_array_equal(loaded.test_images[9], images["test"][..., 9])


def write_mnist(folder, images, labels, name):
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">4i", 0x803, len(images), 28, 28)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">2i", 0x801, len(labels))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_mnist(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    write_mnist(tmp_path / "MNIST" / "raw", images, labels, "train")
    write_mnist(tmp_path / "MNIST" / "raw", images[:5], labels[:5], "t10k")
    loaded = pretraining.load("mnist", str(tmp_path))
    check(loaded, 28, [str(digit) for digit in range(10)])
    for channel in range(3):
        np.testing.assert_array_equal(loaded.train_images[..., channel], images)
    assert loaded.test_labels.tolist() == [0, 1, 2, 3, 4]


def test_real_mnist():
    if not (SHARED_DATA / "MNIST").is_dir():
        pytest.skip(f"the original MNIST files are not in {SHARED_DATA}")
    loaded = pretraining.load("mnist", SHARED_DATA)
    check(loaded, 28, [str(digit) for digit in range(10)])
    assert len(loaded.train_labels) == 60000
    assert np.bincount(loaded.test_labels).tolist() == [
        *[980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    ]


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("mnist", "MNIST/raw/"),
        ("cifar10", "cifar-10-batches-py/"),
        ("cifar100", "cifar-100-python/"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_a_failed_download_says_where_to_put_what(tmp_path, no_network, source, file):
    with pytest.raises(InputError) as caught:
        pretraining.load(source, tmp_path / "empty")
    for word in (source, file, str(tmp_path / "empty"), "data.folder", "no network in tests"):
        assert word in str(caught.value)


def test_damaged_mnist_is_an_input_error(tmp_path, no_network):
    images, labels = np.zeros((30, 28, 28), np.uint8), np.zeros(30, np.uint8)
    for name in ("train", "t10k"):
        write_mnist(tmp_path / "MNIST" / "raw", images, labels, name)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    for damaged in (file.read_bytes()[:-1000], b"", gzip.compress(file.read_bytes())):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="is not complete in"):
            pretraining.load("mnist", tmp_path)


def test_a_damaged_svhn_file_is_an_input_error(tmp_path, any_md5, no_network):
    for split in ("train", "test"):
        (tmp_path / f"{split}_32x32.mat").write_bytes(b"<html>moved</html>" * 50)
    with pytest.raises(InputError, match="is not complete in"):
        pretraining.load("svhn", tmp_path)


@pytest.mark.parametrize("source", ["mnist", "cifar10", "cifar100", "svhn"])
def test_a_source_without_its_folder_names_the_key(source):
    with pytest.raises(InputError, match=rf"{source}.*data\.folder"):
        pretraining.load(source)


def test_an_unknown_source_lists_what_is_allowed():
    with pytest.raises(InputError) as caught:
        pretraining.load("cifar-10")
    for word in ("'cifar-10'", *pretraining.SOURCES):
        assert word in str(caught.value)


def test_torchvision_is_not_imported_before_it_is_needed():
    code = (
        "import sys, stpm_bench.datasets.pretraining as p; p.load('digits'); "
        "sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# imagefolder


def write_image(path, mode="RGB", size=(40, 30), grey=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        image = Image.fromarray(np.full(size[::-1], grey * 257, np.uint16))
    else:
        image = Image.new("L", size, grey).convert(mode)
    image.save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, 20 and 10 training images, no test folder."""
    for name, count in (("cat", 20), ("dog", 10)):
        for index in range(count):
            write_image(tmp_path / "train" / name / f"{index:02d}.png", grey=100 + index)
    return tmp_path


def test_imagefolder_with_a_test_folder(folder):
    write_image(folder / "test" / "dog" / "a.jpg", size=(8, 9), grey=7)
    loaded = pretraining.load_folder(folder)
    check(loaded, 32, ["cat", "dog"])
    assert loaded.train_labels.tolist() == [0] * 20 + [1] * 10
    assert (loaded.train_images[:20, 0, 0, 0] == 100 + np.arange(20)).all()
    assert loaded.test_labels.tolist() == [1]
    assert (loaded.test_images == 7).all()


def test_imagefolder_without_a_test_folder_holds_out_a_tenth(folder):
    loaded = pretraining.load_folder(folder, size=16)
    check(loaded, 16, ["cat", "dog"])
    assert np.bincount(loaded.train_labels).tolist() == [18, 9]
    assert np.bincount(loaded.test_labels).tolist() == [2, 1]
    levels = [
        (label, image[0, 0, 0])
        for images, labels in (loaded[:2], loaded[2:4])
        for image, label in zip(images, labels, strict=True)
    ]
    assert len(set(levels)) == 30  # each image once
    assert same(loaded, pretraining.load_folder(folder, size=16))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_imagefolder_reads_any_mode(folder, mode):
    suffix = ".tif" if mode == "CMYK" else ".PNG"
    grey = 255 if mode == "1" else 102
    write_image(folder / "test" / "cat" / f"a{suffix}", mode, size=(50, 20), grey=grey)
    image = pretraining.load_folder(folder).test_images[0]
    assert image.shape == (32, 32, 3)
    np.testing.assert_allclose(image.astype(int), grey, atol=3)


def test_imagefolder_ignores_other_files(folder):
    (folder / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "train" / "README.txt").write_text("x")
    assert len(pretraining.load_folder(folder).train_labels) == 27


def test_imagefolder_without_train(tmp_path):
    with pytest.raises(
        InputError, match=r"train: no such folder.*teachers\.NAME\.pretrain\.folder"
    ):
        pretraining.load_folder(tmp_path)


def test_imagefolder_with_one_class(tmp_path):
    write_image(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(InputError, match="at least two classes, found cat"):
        pretraining.load_folder(tmp_path)


def test_imagefolder_with_an_empty_class(folder):
    (folder / "train" / "eel").mkdir()
    with pytest.raises(InputError, match="eel: is a class without images"):
        pretraining.load_folder(folder)


def test_imagefolder_with_a_test_class_that_train_lacks(folder):
    write_image(folder / "test" / "eel" / "a.png")
    with pytest.raises(InputError, match=r"eel.*not in train/, which has cat, dog"):
        pretraining.load_folder(folder)


def test_imagefolder_with_an_empty_test_folder(folder):
    (folder / "test").mkdir()
    with pytest.raises(InputError, match="test: contains no class folders"):
        pretraining.load_folder(folder)


def test_imagefolder_with_one_image_to_split(folder):
    write_image(folder / "train" / "eel" / "a.png")
    with pytest.raises(InputError, match="eel: only one image"):
        pretraining.load_folder(folder)


@pytest.mark.parametrize("content", ["empty", "text", "cut off"])
def test_imagefolder_with_an_unreadable_image(folder, content):
    file = folder / "train" / "dog" / "05.png"
    whole = file.read_bytes()
    damaged = {"empty": b"", "text": b"not an image", "cut off": whole[: len(whole) // 2]}
    file.write_bytes(damaged[content])
    with pytest.raises(InputError, match=r"05\.png: is (empty|not a complete image)"):
        pretraining.load_folder(folder)


def test_deep_images_of_a_folder_are_scaled_by_the_range_of_train(folder):
    """12 bits in 16, of which 17 grey levels of 256 were left."""
    levels = np.linspace(0, 4095, 32 * 32).astype(np.uint16).reshape(32, 32)
    write_image(folder / "test" / "dog" / "a.png")
    for file in folder.glob("*/*/*.png"):
        Image.fromarray(levels * 2 if file.name == "a.png" else levels).save(file)
    loaded = pretraining.load_folder(folder, size=32)
    shown = np.round(levels * (255 / 4095))
    clipped = np.round(np.minimum(levels * 2, 4095) * (255 / 4095))
    assert (loaded.train_images[0] == shown[..., None]).all()
    assert (loaded.test_images[0] == clipped[..., None]).all()


@pytest.mark.parametrize("frames", [2, 3])
def test_an_animation_in_a_folder_of_images_is_refused(folder, frames):
    images = [Image.fromarray(np.full((32, 32, 3), 80 * i, np.uint8)) for i in range(frames)]
    path = folder / "train" / "dog" / "moving.gif"
    images[0].save(path, save_all=True, append_images=images[1:])
    with pytest.raises(InputError, match=rf"moving\.gif: contains {frames} images"):
        pretraining.load_folder(folder, size=32)
