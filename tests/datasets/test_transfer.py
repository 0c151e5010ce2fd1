"""Downloads from a real HTTP server on loopback that misbehaves as a test requests."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import small_config
from stpm_bench import config
from stpm_bench.datasets import layouts, mvtec, pretraining, transfer
from stpm_bench.datasets.mvtec import download
from stpm_bench.datasets.transfer import Mirror, extract, list_mirrors
from stpm_bench.errors import InputError

NAME = "mvtec_anomaly_detection.tar.xz"
COUNTS = {"bolt": (3, 2), "nut": (2, 3)}


def png(seed: int) -> bytes:
    """An image of noise, so that the archive is as large as its content."""
    pixels = np.random.default_rng(seed).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def members(counts=COUNTS, prefix="") -> dict[str, bytes]:
    files = {f"{prefix}license.txt": b"text"}
    for category, (train, test) in counts.items():
        seed = 1000 * len(category)
        for i in range(train):
            files[f"{prefix}{category}/train/good/{i:03}.png"] = png(seed + i)
        for i in range(test):
            kind = "bent" if i else "good"
            files[f"{prefix}{category}/test/{kind}/{i:03}.png"] = png(seed + 100 + i)
            if i:
                mask = png(seed + 200 + i)
                files[f"{prefix}{category}/ground_truth/bent/{i:03}_mask.png"] = mask
    return files


def pack(files: dict[str, bytes], mode: str = "w:xz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    return pack(members())


class Handler(BaseHTTPRequestHandler):
    """The first folder of the path names the behaviour."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        asked = self.headers.get("Range")
        earlier = sum(path == self.path for path, _ in self.server.requests)
        self.server.requests.append((self.path, asked))
        getattr(self, behaviour)(self.server.content, asked, earlier)

    def send(self, content, asked=None, status=200, length=None, kind="application/x-xz"):
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else status)
        if length != "none":
            self.send_header("Content-Length", str(length or len(content) - start))
        if kind:
            self.send_header("Content-Type", kind)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:])

    def good(self, content, asked, earlier):
        self.send(content, asked)

    def cut(self, content, asked, earlier):
        """Break off in the middle of the first two answers."""
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        part = content[: start + 150_000] if earlier < 2 else content
        self.send(part, asked, length=len(content) - start)

    def no_ranges(self, content, asked, earlier):
        """Break off once, and then send everything from the start whatever is asked for."""
        self.send(content if earlier else content[:150_000], length=len(content))

    def half_then_dead(self, content, asked, earlier):
        if earlier:
            self.send_error(404)
        else:
            self.send(content[: len(content) // 2], length=len(content))

    def always_cut(self, content, asked, earlier):
        self.send(content[:150_000], length=len(content))

    def wrong(self, content, asked, earlier):
        self.send(bytes(len(content)), asked)

    def html(self, content, asked, earlier):
        self.send(b"<html>Please log in</html>", kind="text/html; charset=utf-8")

    def html_without_length(self, content, asked, earlier):
        self.send(b"<html>Please log in</html>", kind="text/html", length="none")

    def short(self, content, asked, earlier):
        self.send(content[:-1], asked)

    def short_without_length(self, content, asked, earlier):
        self.send(content[:-1], length="none", kind="")

    def long_without_length(self, content, asked, earlier):
        self.send(content + b"x", length="none", kind="")

    def good_without_length(self, content, asked, earlier):
        self.send(content, length="none", kind="")

    def other_range(self, content, asked, earlier):
        self.send(content, asked="bytes=7-")

    def missing(self, content, asked, earlier):
        self.send_error(404)

    def busy_once(self, content, asked, earlier):
        if earlier:
            self.send(content, asked)
        else:
            self.send_error(503)

    def busy(self, content, asked, earlier):
        self.send_error(503)

    def hang_up_once(self, content, asked, earlier):
        if earlier:
            self.send(content, asked)

    def stall_once(self, content, asked, earlier):
        if earlier:
            self.send(content, asked)
        else:
            self.send(content[:150_000], length=len(content))
            self.wfile.flush()
            self.server.stop.wait(5)

    def hold_once(self, content, asked, earlier):
        """Send a part, then nothing while the client runs."""
        if earlier:
            self.send(content, asked)
        else:
            self.hold(content, asked, earlier)

    def hold(self, content, asked, earlier):
        self.send(content[:150_000], length=len(content))
        self.wfile.flush()
        self.server.stop.wait(60)

    def redirect(self, content, asked, earlier):
        self.send_response(302)
        self.send_header("Location", f"/good/{NAME}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def slow(self, content, asked, earlier):
        time.sleep(0.3)
        self.send(content, asked)


@pytest.fixture
def server(archive, monkeypatch):
    # A proxy named in the environment must not see loopback.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.requests, server.stop = archive, [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def mirrors(server, *behaviours: str, content: bytes | None = None) -> list[Mirror]:
    content = content or server.content
    return [
        Mirror(
            f"http://127.0.0.1:{server.server_port}/{behaviour}/{NAME}",
            hashlib.sha256(content).hexdigest(),
            len(content),
        )
        for behaviour in behaviours
    ]


def get(folder: Path, sources: list[Mirror], counts=COUNTS) -> None:
    download(folder, sources, counts, progress=False)


def assert_whole(folder: Path) -> None:
    assert {c: layouts.count_images(folder, c) for c in COUNTS} == COUNTS
    for name, content in members().items():
        assert (folder / name).read_bytes() == content
    left = {path.name for path in folder.iterdir()}
    assert left - {NAME} == {*COUNTS, "license.txt", "download.json", ".download.lock"}


def assert_nothing(folder: Path) -> None:
    assert layouts.list_categories(folder) == []
    assert not (folder / "download.json").exists()
    assert not (folder / ".extracting").exists()


def test_the_list_of_mirrors():
    newest, earlier = list_mirrors("mvtec_ad")
    assert newest.url.startswith("https://www.mydrive.ch/shares/150996/")
    assert earlier.url.startswith("https://www.mydrive.ch/shares/38536/")
    for mirror in (newest, earlier):
        assert mirror.url.endswith(NAME)
        assert mirror.sha256 == "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
        assert mirror.bytes == 5_264_982_680


def test_good(server, tmp_path, capsys):
    folder = tmp_path / "data" / "mvtec"
    [mirror] = sources = mirrors(server, "good")
    get(folder, sources)
    assert_whole(folder)
    made = json.loads((folder / "download.json").read_text())
    assert made.pop("date").endswith("+00:00")
    assert made == {
        "dataset": "mvtec_ad",
        "url": mirror.url,
        "sha256": mirror.sha256,
        "counts": {"bolt": [3, 2], "nut": [2, 3]},
        "own": [],
    }
    shown = capsys.readouterr().err
    assert shown.count("CC BY-NC-SA 4.0") == 1
    assert "CVPR 2019" in shown
    assert "IJCV" in shown

    get(folder, sources)
    assert len(server.requests) == 1
    assert capsys.readouterr().err == ""


def test_progress_bar(server, tmp_path, capsys):
    download(tmp_path, mirrors(server, "good"), COUNTS)
    shown = capsys.readouterr().err
    assert "MVTec AD" in shown
    assert "Extracting" in shown


def test_data_that_are_there_are_kept(server, tmp_path):
    for name, content in members().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    get(tmp_path, mirrors(server, "good"))
    assert server.requests == []
    assert json.loads((tmp_path / "download.json").read_text())["url"] is None


def test_a_whole_category_is_kept_and_the_rest_fetched(server, tmp_path):
    for name, content in members({"nut": COUNTS["nut"]}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "nut" / "notes.txt").write_text("mine")
    get(tmp_path, mirrors(server, "good"))
    assert_whole(tmp_path)
    assert (tmp_path / "nut" / "notes.txt").read_text() == "mine"


def test_an_incomplete_category_is_not_overwritten(server, tmp_path):
    (tmp_path / "nut" / "train" / "good").mkdir(parents=True)
    (tmp_path / "nut" / "train" / "good" / "mine.png").write_bytes(png(0))
    with pytest.raises(InputError, match=r"nut: has 1 train and 0 test images\. Expected 2 and 3"):
        get(tmp_path, mirrors(server, "good"))
    assert server.requests == []
    assert (tmp_path / "nut" / "train" / "good" / "mine.png").exists()


def test_a_deleted_category_comes_back(server, tmp_path):
    """The marker alone does not suffice: the images are counted."""
    sources = mirrors(server, "good")
    get(tmp_path, sources)
    for path in (tmp_path / "bolt").rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="bolt: has 0 train and 0 test images"):
        get(tmp_path, sources)
    (tmp_path / "bolt").rename(tmp_path.parent / "elsewhere")
    get(tmp_path, sources)
    assert_whole(tmp_path)


# --- misbehaving servers ---


def test_cut_connections_are_resumed(server, tmp_path):
    get(tmp_path, mirrors(server, "cut"))
    assert_whole(tmp_path)
    ranges = [asked for _, asked in server.requests]
    assert ranges[0] is None
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(server.content)


def test_a_part_from_a_killed_run_is_resumed(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(server.content[:100_000])
    get(tmp_path, mirrors(server, "good"))
    assert_whole(tmp_path)
    assert [asked for _, asked in server.requests] == ["bytes=100000-"]


def test_a_killed_process_leaves_what_came_and_no_lock(server, tmp_path):
    [mirror] = sources = mirrors(server, "hold_once")
    code = (
        "from stpm_bench.datasets.mvtec import Mirror, download\n"
        f"download({str(tmp_path)!r}, [Mirror{tuple(mirror)!r}], {COUNTS!r})"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL
    )
    part = tmp_path / f"{NAME}.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size >= 100_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    came = part.stat().st_size
    get(tmp_path, sources)
    assert_whole(tmp_path)
    assert [asked for _, asked in server.requests] == [None, f"bytes={came}-"]


def test_a_part_that_is_already_complete_is_not_requested(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(server.content)
    get(tmp_path, mirrors(server, "good"))
    assert_whole(tmp_path)
    assert server.requests == []


@pytest.mark.parametrize("size", [1000, None, 10_000_000], ids=["part", "whole", "too long"])
def test_a_part_of_something_else_is_thrown_away(server, tmp_path, size):
    (tmp_path / f"{NAME}.part").write_bytes(bytes(size or len(server.content)))
    get(tmp_path, mirrors(server, "good"))
    assert_whole(tmp_path)
    assert server.requests[-1][1] is None


@pytest.mark.parametrize(
    "behaviour",
    [
        "no_ranges",
        "busy_once",
        "hang_up_once",
        "stall_once",
        "redirect",
        "good_without_length",
    ],
)
def test_survived(server, tmp_path, monkeypatch, behaviour):
    monkeypatch.setattr(transfer, "READ_TIMEOUT", 0.5)
    get(tmp_path, mirrors(server, behaviour))
    assert_whole(tmp_path)


FAILURES = {
    "wrong": "sent a file with sha256 [0-9a-f]{64} instead of [0-9a-f]{64}",
    "html": r"sent 26 bytes of text/html; charset=utf-8 instead of \d{6}",
    "html_without_length": r"sent some bytes of text/html instead of \d{6}",
    "short": r"sent \d{6} bytes of application/x-xz instead of \d{6}",
    "short_without_length": r"broke off after \d{6} bytes",
    "long_without_length": r"sent more than \d{6} bytes",
    "always_cut": r"broke off after \d{6} bytes",
    "missing": "HTTP status 404 Not Found",
    "busy": "HTTP status 503 Service Unavailable",
}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_failure_is_named(server, tmp_path, behaviour):
    [mirror] = sources = mirrors(server, behaviour)
    with pytest.raises(InputError, match=FAILURES[behaviour]) as caught:
        get(tmp_path, sources)
    message = str(caught.value)
    assert message.startswith(f"MVTec AD could not be downloaded (tried {mirror.url}: ")
    advice = (
        f"Put the data set's folder (with bolt/, nut/, ... inside) or the archive {NAME} anywhere "
        "and name it with the config key 'data.mvtec_ad'."
    )
    assert advice in message
    assert_nothing(tmp_path)


@pytest.mark.parametrize("behaviour", FAILURES)
def test_the_next_mirror_is_tried(server, tmp_path, behaviour):
    get(tmp_path, mirrors(server, behaviour, "good"))
    assert_whole(tmp_path)
    assert json.loads((tmp_path / "download.json").read_text())["url"].endswith(f"/good/{NAME}")


def test_an_error_page_does_not_replace_a_good_part(server, tmp_path):
    part = tmp_path / f"{NAME}.part"
    part.write_bytes(server.content[:100_000])
    with pytest.raises(InputError, match=r"The 100000 bytes .* are kept"):
        get(tmp_path, mirrors(server, "html", "html_without_length", "missing", "other_range"))
    assert part.read_bytes() == server.content[:100_000]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_connection_refused_fails_at_once(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF", 100)
    url = f"http://127.0.0.1:{closed_port()}/{NAME}"
    sources = [Mirror(url, "0" * 64, 1000)]
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"could not be downloaded .*Connection refused\)\. Put"):
        get(tmp_path, sources)
    assert time.perf_counter() - start < 5
    get(tmp_path, sources + mirrors(server, "good"))
    assert_whole(tmp_path)


def test_a_name_without_an_address_fails_at_once(tmp_path, monkeypatch):
    """The look-up fails by itself here: no name server is asked."""

    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(transfer, "BACKOFF", 100)
    with pytest.raises(InputError, match="Name or service not known"):
        get(tmp_path, [Mirror(f"http://mirror.invalid/{NAME}", "0" * 64, 1000)])


def test_two_at_once_download_once(server, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        for job in [executor.submit(get, tmp_path, mirrors(server, "slow")) for _ in range(2)]:
            job.result()
    assert_whole(tmp_path)
    assert len(server.requests) == 1


# --- the pretraining sets, which torchvision downloads ---


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("wrong", "not found or corrupted"),
        ("html", "not found or corrupted"),
        ("always_cut", "not found or corrupted"),
        ("missing", "HTTP Error 404"),
        ("busy", "HTTP Error 503"),
        ("hold", "timed out"),
    ],
)
def test_a_pretraining_set_that_fails(server, tmp_path, monkeypatch, behaviour, reason):
    from torchvision import datasets

    url = f"http://127.0.0.1:{server.server_port}/{behaviour}/cifar-10-python.tar.gz"
    monkeypatch.setattr(datasets.CIFAR10, "url", url)
    monkeypatch.setattr(transfer, "READ_TIMEOUT", 0.5)
    with pytest.raises(InputError, match=f"source 'cifar10': .*({reason}).*Put cifar-10-pyt"):
        pretraining.load("cifar10", tmp_path / "data")
    assert socket.getdefaulttimeout() is None


def test_two_jobs_download_a_pretraining_set_once(tmp_path, monkeypatch):
    from torchvision import datasets

    fetched = []

    class Slow:
        def __init__(self, root, train, download=False):
            if not (root / "whole").exists():
                if not download:
                    raise RuntimeError("Dataset not found or corrupted.")
                fetched.append(train)
                time.sleep(0.3)
                (root / "whole").touch()
            self.data = np.zeros((1, 32, 32, 3), np.uint8)
            self.targets, self.classes = [0], ["one"]

    monkeypatch.setattr(datasets, "CIFAR10", Slow)
    with ThreadPoolExecutor(2) as executor:
        for job in [executor.submit(pretraining.load, "cifar10", tmp_path) for _ in range(2)]:
            assert job.result().classes == ["one"]
    assert len(fetched) == 1


# --- the disk and the archive ---


def test_too_little_room(server, tmp_path, monkeypatch):
    class Usage:
        free = len(server.content) * 2 - 1

    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(InputError, match="GB are free"):
        get(tmp_path, mirrors(server, "good"))
    assert server.requests == []
    (tmp_path / f"{NAME}.part").write_bytes(server.content[:1])
    # The prepared images count where they lie on the same disk, though their folder is to be made.
    results = tmp_path / "results" / "new"
    options = {"counts": COUNTS, "progress": False}
    with pytest.raises(InputError, match="GB for the archive, its content and the prepared images"):
        download(tmp_path, mirrors(server, "good"), room={results: 1}, **options)
    assert server.requests == []
    download(tmp_path, mirrors(server, "good"), room={results: 0}, **options)
    assert_whole(tmp_path)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written .* config key 'data\.mvtec_ad'"):
        get(tmp_path / "file" / "data", mirrors(server, "good"))


def test_local_archive_instead_of_a_download(server, tmp_path):
    (tmp_path / NAME).write_bytes(server.content)
    get(tmp_path, mirrors(server, "good"))
    assert server.requests == []
    assert_whole(tmp_path)
    assert (tmp_path / NAME).exists()  # the user's own
    made = json.loads((tmp_path / "download.json").read_text())
    assert made["url"] is None
    assert made["sha256"] == hashlib.sha256(server.content).hexdigest()


def test_an_archive_of_the_users_elsewhere(server, tmp_path):
    archive, folder = tmp_path / "my downloads" / "archive.tar.xz", tmp_path / "data"
    archive.parent.mkdir()
    archive.write_bytes(server.content)
    options = {"counts": COUNTS, "progress": False, "archive": archive}
    download(folder, mirrors(server, "good"), **options)
    assert server.requests == []
    assert_whole(folder)
    assert archive.read_bytes() == server.content
    archive.write_bytes(server.content[:-1])
    with pytest.raises(InputError, match=r"archive\.tar\.xz: is not the published archive"):
        download(tmp_path / "other", mirrors(server, "good"), **options)
    archive.unlink()
    with pytest.raises(InputError, match=r"archive\.tar\.xz: no such archive\. Expected a file"):
        download(tmp_path / "other", mirrors(server, "good"), **options)


def test_local_archive_with_wrong_bytes(server, tmp_path):
    (tmp_path / NAME).write_bytes(server.content[:-1])
    with pytest.raises(InputError, match=f"{NAME}: is not the published archive"):
        get(tmp_path, mirrors(server, "good"))
    assert server.requests == []
    assert_nothing(tmp_path)
    assert (tmp_path / NAME).exists()


def test_content_below_one_more_folder(server, tmp_path):
    server.content = pack(members(prefix="mvtec_anomaly_detection/"))
    get(tmp_path, mirrors(server, "good"))
    assert_whole(tmp_path)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def device(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside.png"),
        tarfile.TarInfo("bolt/../../outside.png"),
        link("bolt/link.png", "/etc/hostname"),
        link("bolt/link.png", "../../../outside.png"),
        link("bolt/link.png", "../../outside.png", tarfile.LNKTYPE),
        device("bolt/device"),
    ],
    ids=["parent", "hidden parent", "absolute link", "relative link", "hard link", "device"],
)
def test_members_that_reach_outside_are_refused(server, tmp_path, member):
    buffer = io.BytesIO(pack(members(), "w"))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        tar.addfile(member)
    server.content = buffer.getvalue()
    folder = tmp_path / "a" / "b"
    with pytest.raises(InputError, match=r"cannot be extracted .* members stay in its folder"):
        get(folder, mirrors(server, "good"))
    assert_nothing(folder)
    assert not list(tmp_path.rglob("outside*"))


def test_bomb(server, tmp_path):
    server.content = pack(members() | {"bomb": bytes(5_000_000)})
    with pytest.raises(InputError, match="decompression bomb"):
        get(tmp_path, mirrors(server, "good"))
    assert_nothing(tmp_path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_truncated_archive(tmp_path, mode):
    path = tmp_path / "archive"
    path.write_bytes(pack(members(), mode)[:-30_000])
    with pytest.raises(InputError, match="archive: cannot be extracted"):
        extract(path, tmp_path / "out", 10**9, progress=False)


def test_no_archive_at_all(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(b"not a tar archive" * 100)
    with pytest.raises(InputError, match="archive: cannot be extracted"):
        extract(path, tmp_path / "out", 10**9, progress=False)


def test_wrong_counts_in_the_archive(server, tmp_path):
    server.content = pack(members({"bolt": (3, 2), "nut": (2, 2)}))
    with pytest.raises(InputError, match=r"its nut has 2 train and 2 test images\. Expected 2 and"):
        get(tmp_path, mirrors(server, "good"))
    assert_nothing(tmp_path)


def test_killed_while_renaming(server, tmp_path, monkeypatch):
    """One category in place, the next not: the next call fetches nothing and ends the work."""
    rename = Path.rename

    def break_down(path, target):
        if path.name == "nut":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", break_down)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, mirrors(server, "good"))
    assert not (tmp_path / "download.json").exists()
    get(tmp_path, mirrors(server, "good"))
    assert_whole(tmp_path)
    assert len(server.requests) == 1


# --- links that have changed, and copies of the user's ---


def test_a_dead_link_then_a_half_then_the_rest(server, tmp_path):
    """The third mirror continues the part that the second sent."""
    half = len(server.content) // 2
    [dead] = mirrors(server, "good")
    closed = dead._replace(url=f"http://127.0.0.1:{closed_port()}/{NAME}")
    get(tmp_path, [closed, *mirrors(server, "missing", "half_then_dead", "good")])
    assert_whole(tmp_path)
    path, asked = server.requests[-1]
    assert path.startswith("/good/")
    assert asked == f"bytes={half}-"


def test_a_users_urls_come_first_and_are_held_to_the_same_hash(server, tmp_path):
    [published] = mirrors(server, "good")
    own = [published.url.replace("/good/", f"/{kind}/") for kind in ("wrong", "slow")]
    download(tmp_path, [published], COUNTS, progress=False, urls=own)
    assert_whole(tmp_path)
    kinds = [path.split("/")[1] for path, _ in server.requests]
    assert kinds == ["wrong", "slow"]
    assert json.loads((tmp_path / "download.json").read_text())["url"] == own[1]


def test_a_file_url_is_copied_from_where_the_part_ends(server, tmp_path):
    copy = tmp_path / "an institute's copy" / "mvtec#1.tar.xz"
    copy.parent.mkdir()
    copy.write_bytes(server.content)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(server.content[:100])
    sources = mirrors(server, "good")
    download(folder, sources, COUNTS, progress=False, urls=[copy.as_uri()])
    assert_whole(folder)
    assert server.requests == []
    assert copy.read_bytes() == server.content


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"short", "has 5 bytes instead of")]
)
def test_a_file_url_that_is_not_the_archive(server, tmp_path, content, reason):
    copy = tmp_path / "copy.tar.xz"
    if content:
        copy.write_bytes(content)
    sources = mirrors(server, "missing")
    with pytest.raises(InputError) as caught:
        download(tmp_path / "x", sources, COUNTS, False, urls=[copy.as_uri()])
    text = str(caught.value)
    assert f"{copy.as_uri()}: {reason}" in text
    assert "https://www.mvtec.com/company/research/datasets/mvtec-ad" in text
    assert "data.mirrors" in text
    assert "data.mvtec_ad" in text


def test_categories_that_are_there_need_no_download(tmp_path, monkeypatch):
    """Before and after the others come: else what was made of them would be made again."""
    monkeypatch.setattr(mvtec, "COUNTS", COUNTS)
    monkeypatch.setattr(config.mvtec, "CATEGORIES", tuple(COUNTS))
    monkeypatch.setattr(mvtec.categories_before_download, "__defaults__", (COUNTS,))
    folder = tmp_path / "data" / "mvtec_ad"
    for name, content in members().items():
        if name.startswith("bolt/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    data = {"data": {"folder": str(tmp_path / "data")}}
    found = config.sources(config.complete(small_config(tmp_path, **data)))
    assert found["bolt"].marker is None
    assert found["nut"].marker == f"{folder}/download.json"

    archive = tmp_path / NAME
    archive.write_bytes(pack(members()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    mirror = Mirror(archive.as_uri(), digest, archive.stat().st_size)
    before = (folder / "bolt/train/good/000.png").stat()
    download(folder, [mirror], COUNTS, progress=False)
    assert json.loads((folder / "download.json").read_text())["own"] == ["bolt"]
    assert (folder / "bolt/train/good/000.png").stat() == before
    again = config.sources(config.complete(small_config(tmp_path, **data)))
    assert again == found


def test_the_configs_mirrors_are_urls(tmp_path):
    data = {"folder": str(tmp_path), "mirrors": ["file:///srv/mvtec.tar.xz"]}
    assert config.complete(small_config(tmp_path, data=data))["data"]["mirrors"] == data["mirrors"]
    data["mirrors"] = ["/srv/mvtec.tar.xz"]
    with pytest.raises(InputError, match=r"'data\.mirrors\.0' is '/srv/mvtec.*expected a URL"):
        config.complete(small_config(tmp_path, data=data))
