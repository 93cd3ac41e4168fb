"""CIFAR-10 and ImageNet 32x32 in the publishers' layouts: archives, downloads, broken and hostile files."""

import hashlib
import http.server
import io
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform import published_images
from platform.datasets import Dataset, DatasetUnavailable, load_dataset
from tests.test_datasets import (
    CIFAR10_BYTES,
    RECORDS,
    check_is_synthetic_cifar10,
    cifar10,
    load_cifar10,
    pairs,
    pairs_not_validated,
    random_images,
    refused,
)

__all__ = ["cifar10"]  # a fixture

ROOT = Path(__file__).parents[1]


# CIFAR-10


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), ["61,459 bytes instead of 61,460", "cut short"]),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), ["61,461 bytes instead of 61,460"]),
        (lambda path: path.write_bytes(b"\x0a" + path.read_bytes()[1:]), ["record 0 has the label 10", "0 to 9"]),
        (lambda path: path.unlink(), ["No such file"]),
        (lambda path: (path.unlink(), path.mkdir()), []),
    ],
    ids=["short", "long", "label", "missing", "a folder"],
)
def test_broken_cifar10_file(cifar10: Path, spoil: Callable[[Path], object], words: list[str]) -> None:
    spoil(cifar10 / "data_batch_3.bin")
    message = refused("cifar10", cifar10.parent)
    for word in [str(cifar10 / "data_batch_3.bin"), f"move {cifar10} away", *words]:
        assert word in message


def test_cifar10_is_found_some_levels_off_and_pythons_version_is_called_by_name(cifar10: Path) -> None:
    data = load_cifar10(cifar10.parent)
    deeper = cifar10.parent / "unpacked" / cifar10.name
    deeper.parent.mkdir()
    cifar10.rename(deeper)
    assert load_cifar10(cifar10.parent).fingerprint == data.fingerprint
    assert load_cifar10(deeper).fingerprint == data.fingerprint
    deepest = cifar10.parent / "data" / "unpacked" / cifar10.name
    deepest.parent.mkdir(parents=True)
    deeper.rename(deepest)
    assert load_cifar10(cifar10.parent).fingerprint == data.fingerprint
    shutil.rmtree(deepest)
    archive = cifar10.parent / "cifar-10-python.tar.gz"
    archive.write_bytes(b"packed")
    assert f"{archive} is CIFAR-10's version for Python" in refused("cifar10", cifar10.parent)
    archive.unlink()
    python = cifar10.parent / "cifar-10-batches-py"
    python.mkdir()
    (python / "data_batch_1").write_bytes(b"pickled")
    message = refused("cifar10", cifar10.parent)
    assert str(python) in message
    assert "version for Python" in message
    assert "remove" not in message


# CIFAR-10's archive and download


def tar_bytes(
    members: dict[str, bytes], links: dict[str, str] | None = None, kind_of_link: bytes = tarfile.SYMTYPE
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind_of_link, target
            tar.addfile(member)
    return buffer.getvalue()


GOOD_MEMBERS = {f"cifar-10-batches-bin/{name}": content for name, content in CIFAR10_BYTES.items()}
GOOD_ARCHIVE = tar_bytes(GOOD_MEMBERS | {"cifar-10-batches-bin/readme.html": b"<html>"})


def publish(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this archive the publisher's."""
    monkeypatch.setattr(published_images, "CIFAR10_RECORDS", RECORDS)
    monkeypatch.setattr(published_images, "CIFAR10_SHA256", hashlib.sha256(archive).hexdigest())


def test_archive_in_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(GOOD_ARCHIVE, monkeypatch)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(GOOD_ARCHIVE)
    check_is_synthetic_cifar10(load_cifar10(tmp_path))


def test_archive_with_another_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(GOOD_ARCHIVE, monkeypatch)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(GOOD_ARCHIVE[:-1])
    message = refused("cifar10", tmp_path)
    assert str(archive) in message
    assert "move it away" in message
    assert archive.exists()  # it may be somebody's: only its owner removes it


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (GOOD_ARCHIVE[: len(GOOD_ARCHIVE) // 2], "cannot be read"),
        (b"<html>log in first</html>", "cannot be read"),
        (tar_bytes(dict(list(GOOD_MEMBERS.items())[:5])), "lacks test_batch.bin"),
        (tar_bytes(GOOD_MEMBERS | {"cifar-10-batches-bin/test_batch.bin": b"short"}), "5 bytes instead of"),
        (
            tar_bytes(GOOD_MEMBERS | {"cifar-10-batches-bin/test_batch.bin": bytes(1 << 24)}),
            "16,777,216 bytes instead",
        ),
    ],
    ids=["short", "not a tar", "member missing", "member short", "decompression bomb"],
)
def test_broken_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes, words: str) -> None:
    publish(archive, monkeypatch)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(archive)
    message = refused("cifar10", tmp_path)
    assert "cifar-10-binary.tar.gz" in message
    assert words in message


@pytest.mark.parametrize("kind_of_link", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic links", "hard links"])
def test_hostile_archive_writes_nothing_and_reads_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind_of_link: bytes
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CIFAR10_BYTES["test_batch.bin"])
    data_directory = tmp_path / "data"
    data_directory.mkdir()
    members = dict(list(GOOD_MEMBERS.items())[:5]) | {
        "../escaped.bin": b"x",
        str(tmp_path / "absolute.bin"): b"x",
        "cifar-10-batches-bin/../../test_batch.bin": CIFAR10_BYTES["test_batch.bin"],
    }
    archive = tar_bytes(members, {"cifar-10-batches-bin/test_batch.bin": str(secret)}, kind_of_link)
    publish(archive, monkeypatch)
    (data_directory / "cifar-10-binary.tar.gz").write_bytes(archive)
    assert "lacks test_batch.bin" in refused("cifar10", data_directory)  # also where its link leads is not read
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "data", "secret"]


class Server:
    """An HTTP server on the loopback interface that sends `body`, or stops after `stop_after` bytes of it."""

    def __init__(self) -> None:
        self.body = GOOD_ARCHIVE
        self.status = 200
        self.stop_after: int | None = None
        self.stall = threading.Event()  # set: do not stall where `stop_after` ends
        self.stall.set()
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body[: outer.stop_after])
                self.wfile.flush()
                outer.stall.wait(60)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/cifar-10-binary.tar.gz"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(published_images, "CIFAR10_URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    publish(GOOD_ARCHIVE, monkeypatch)
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stall.set()
    server.server.shutdown()
    thread.join()
    server.server.server_close()


def test_download_once_into_a_new_directory(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "not" / "yet"
    lines: list[str] = []
    for _ in range(2):
        check_is_synthetic_cifar10(load_dataset(["cifar10"], data_directory=directory, say=lines.append))
    assert server.requests == 1
    assert [path.name for path in directory.iterdir()] == ["cifar-10-binary.tar.gz"]
    assert [line.split(maxsplit=1)[0] for line in lines] == ["Downloading"]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda server: setattr(server, "stop_after", len(GOOD_ARCHIVE) // 2), "ChunkedEncodingError"),
        (lambda server: setattr(server, "body", GOOD_ARCHIVE[:-1] + b"?"), "publisher's checksum"),
        (lambda server: setattr(server, "status", 404), "HTTPError"),
    ],
    ids=["broken connection", "wrong checksum", "not found"],
)
def test_failed_download_leaves_nothing_and_can_be_repeated(
    server: Server, tmp_path: Path, spoil: Callable[[Server], None], reason: str
) -> None:
    spoil(server)
    with pytest.raises(DatasetUnavailable, match=reason):
        load_cifar10(tmp_path)
    assert server.requests == 1
    assert list(tmp_path.iterdir()) == []
    server.body, server.status, server.stop_after = GOOD_ARCHIVE, 200, None
    check_is_synthetic_cifar10(load_cifar10(tmp_path))


def test_download_killed_half_way_is_no_data(server: Server, tmp_path: Path) -> None:
    server.stop_after = len(GOOD_ARCHIVE) - 1000
    server.stall.clear()
    script = (
        "from pathlib import Path; from platform import datasets, published_images; "
        f"published_images.CIFAR10_URL = {server.url!r}; "
        f"published_images.CIFAR10_SHA256 = {published_images.CIFAR10_SHA256!r}; "
        f"datasets.load_dataset(['cifar10'], data_directory=Path({str(tmp_path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(path.stat().st_size for path in tmp_path.iterdir()):
            time.sleep(0.02)
        assert process.poll() is None
        process.kill()
    server.stall.set()
    assert not (tmp_path / "cifar-10-binary.tar.gz").exists()
    server.stop_after = None
    check_is_synthetic_cifar10(load_cifar10(tmp_path))
    assert server.requests == 2


def test_without_network_the_next_dataset_is_used_and_said(server: Server, tmp_path: Path) -> None:
    server.server.socket.close()  # nobody listens at the port any more
    lines: list[str] = []
    data = load_dataset(["cifar10", "imagenet32", "photos"], data_directory=tmp_path, say=lines.append)
    assert data.name == "photos"
    assert "could not be downloaded" in lines[1]
    assert "ConnectionError" in lines[1]
    assert lines[1].endswith("Trying imagenet32 instead.")
    assert lines[2].startswith("imagenet32: ImageNet 32x32 is not in")
    assert len(lines) == 3
    with pytest.raises(DatasetUnavailable, match=r"cifar10: .* imagenet32: "):
        load_dataset(["cifar10", "imagenet32"], data_directory=tmp_path, say=lines.append)


def test_data_directory_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetUnavailable, match="could not be downloaded"):
        load_cifar10(tmp_path / "file")


# ImageNet 32x32


IMAGENET32_NAMES = [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]


@pytest.fixture
def imagenet32(tmp_path: Path) -> Path:
    """ImageNet 32x32 in the publisher's layout with 6 images a file of the classes 7, 500 and 1000."""
    folder = tmp_path / "imagenet32"
    folder.mkdir()
    for seed, name in enumerate(IMAGENET32_NAMES):
        np.savez(folder / name, **imagenet32_arrays(seed))
    return folder


def imagenet32_arrays(seed: int) -> dict[str, Any]:
    rows = random_images(6, 100 + seed).transpose(0, 3, 1, 2).reshape(6, 3072)
    return {"data": rows, "labels": np.array([7, 500, 1000, 7, 500, 1000]), "mean": rows.mean(axis=0)}


def load_imagenet32(directory: Path, **options: Any) -> Dataset:
    return load_dataset(["imagenet32"], data_directory=directory, say=lambda line: None, **options)


def test_imagenet32_gives_every_pixel_and_label(imagenet32: Path) -> None:
    for directory in (imagenet32.parent, imagenet32):
        data = load_imagenet32(directory)
        train = np.concatenate([random_images(6, 100 + seed) for seed in range(10)])
        assert pairs_not_validated(data) == pairs(train, np.array([0, 1, 2] * 20))
        np.testing.assert_array_equal(data.validation_images, random_images(6, 110))
        assert data.validation_labels.tolist() == [0, 1, 2] * 2
        assert data.class_names == ("class 7", "class 500", "class 1000")
        assert "3 of its 1,000 classes" in data.note
    small = load_imagenet32(imagenet32, train_images=12, validation_images=3)
    assert np.bincount(small.train_labels).tolist() == [4, 4, 4]
    assert pairs(small.train_images, small.train_labels) <= pairs_not_validated(data)


def test_imagenet32_class_names(imagenet32: Path) -> None:
    names = imagenet32 / "map_clsloc.txt"
    names.write_text("n02119789 7 kit_fox\nn02100735 1000 English_setter\n")
    assert load_imagenet32(imagenet32).class_names == ("kit fox", "class 500", "English setter")
    names.write_text("kit fox\n")
    assert "map_clsloc.txt" in refused("imagenet32", imagenet32)


def test_imagenet32_validation_images_are_left_out_of_training(imagenet32: Path) -> None:
    arrays = imagenet32_arrays(3)
    arrays["data"][2] = imagenet32_arrays(10)["data"][5]
    np.savez(imagenet32 / IMAGENET32_NAMES[3], **arrays)
    data = load_imagenet32(imagenet32)
    assert len(data.train_images) + len(data.tuning_images) == 59
    assert "stand in the validation split: 1" in data.note


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # among the pixels: only the checksum can tell
    path.write_bytes(content)


def lie_about_size(path: Path) -> None:
    """A header that promises more rows than the file has."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(6, 3072)", b"(9, 3072)"))


def save(**changes: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **(imagenet32_arrays(4) | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a zip file"),
        (flip, "Bad CRC-32"),
        (lambda path: path.write_bytes(pickle.dumps(imagenet32_arrays(4))), "not a zip file"),
        (save(labels=np.array([1, 2, 3, 4, 5, None])), "never loaded"),
        (save(data=np.array([[None] * 3072] * 6)), "never loaded"),
        (save(labels=np.array([1, 2, 3, 4, 5, 1001])), "image 5 has the label 1001"),
        (save(labels=np.array([1, 2, 0, 4, 5, 6])), "image 2 has the label 0"),
        (save(labels=np.arange(1, 6)), "not uint8 of shape (5, 3072)"),
        (save(labels=np.arange(1.0, 7.0)), "not a list of whole numbers"),
        (save(labels=np.zeros(0, int), data=np.zeros((0, 3072), np.uint8)), "not a list of whole numbers"),
        (save(data=np.zeros((6, 3072), np.float32)), "its pixels are float32"),
        (save(data=np.zeros((6, 64, 64, 3), np.uint8)), "(6, 64, 64, 3)"),
        (lambda path: np.savez(path, data=imagenet32_arrays(4)["data"]), "no array named labels"),
        (lie_about_size, "contradicts"),
        (lambda path: path.unlink(), "lacks train_data_batch_5.npz"),
    ],
    ids=[
        "short", "flipped", "pickle", "pickled labels", "pickled pixels", "label 1001", "label 0", "labels missing",
        "labels float", "empty", "pixels float", "64x64", "no labels", "wrong header", "missing",
    ],
)  # fmt: skip
def test_broken_imagenet32_file(imagenet32: Path, spoil: Callable[[Path], object], words: str) -> None:
    path = imagenet32 / "train_data_batch_5.npz"
    spoil(path)
    message = refused("imagenet32", imagenet32.parent)
    assert "train_data_batch_5.npz" in message
    assert str(imagenet32) in message
    assert "publisher's npz" in message
    assert words in message


def test_hostile_npz_writes_nothing(imagenet32: Path) -> None:
    with zipfile.ZipFile(imagenet32 / "val_data.npz", "a") as batch:
        batch.writestr("../escaped.npy", b"x")
        batch.writestr(str(imagenet32 / "absolute.npy"), b"x")
        link = zipfile.ZipInfo("link.npy")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        batch.writestr(link, "/etc/passwd")
    before = sorted(imagenet32.parent.rglob("*"))
    assert len(load_imagenet32(imagenet32).validation_images) == 6
    assert sorted(imagenet32.parent.rglob("*")) == before


@pytest.mark.parametrize("bomb", ["labels", "header"])
def test_npz_decompression_bombs_are_refused_before_they_unfold(imagenet32: Path, bomb: str) -> None:
    """64 MB of blanks or zeros that are some 64 kB in the file."""
    size = 1 << 26
    if bomb == "labels":
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(size, np.uint8))
        labels = buffer.getvalue()
    else:
        labels = b"\x93NUMPY\x02\x00" + struct.pack("<I", size) + b" " * size
    with zipfile.ZipFile(imagenet32 / "val_data.npz", "w", zipfile.ZIP_DEFLATED) as batch:
        batch.writestr("labels.npy", labels)
    assert (imagenet32 / "val_data.npz").stat().st_size < 100_000
    del labels
    tracemalloc.start()
    try:
        assert "not a sound npz batch" in refused("imagenet32", imagenet32)
        assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
        tracemalloc.stop()
