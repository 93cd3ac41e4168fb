"""The four sources, with files in the publishers' layouts and failures that really happen."""

import hashlib
import http.server
import io
import itertools
import os
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
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from platform import datasets, image_files, published_images
from platform.datasets import Dataset, DatasetError, DatasetUnavailable, load_dataset

RECORDS = 20  # images in each synthetic CIFAR-10 file
Pixels = npt.NDArray[np.uint8]
ROOT = Path(__file__).parents[1]


def random_images(count: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def pairs(images: Pixels, labels: npt.NDArray[np.int64]) -> Counter[tuple[bytes, int]]:
    return Counter((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def pairs_not_validated(data: Dataset) -> Counter[tuple[bytes, int]]:
    """What was the source's training split: what is trained on and what is kept aside for tuning."""
    return pairs(data.train_images, data.train_labels) + pairs(data.tuning_images, data.tuning_labels)


def refused(name: str, directory: Path) -> str:
    """The one sentence with which a broken dataset is refused, though a later name could be had."""
    with pytest.raises(DatasetError) as caught:
        load_dataset([name, "photos"], data_directory=directory, say=lambda line: None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# CIFAR-10


def cifar10_bytes(images: Pixels, labels: list[int]) -> bytes:
    """The publisher's records: label, 1024 red, 1024 green, 1024 blue values, row by row."""
    records = []
    for image, label in zip(images, labels, strict=True):
        planes = [
            bytes(image[row, column, channel] for row in range(32) for column in range(32)) for channel in range(3)
        ]
        records.append(bytes([label]) + b"".join(planes))
    return b"".join(records)


CIFAR10_IMAGES = {name: random_images(RECORDS, seed) for seed, name in enumerate(published_images.CIFAR10_FILES)}
CIFAR10_LABELS = [number % 10 for number in range(RECORDS)]
CIFAR10_BYTES = {name: cifar10_bytes(images, CIFAR10_LABELS) for name, images in CIFAR10_IMAGES.items()}


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with CIFAR-10 in the publisher's layout, only smaller; returns the folder of the files."""
    monkeypatch.setattr(published_images, "CIFAR10_RECORDS", RECORDS)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, content in CIFAR10_BYTES.items():
        (folder / name).write_bytes(content)
    return folder


def load_cifar10(directory: Path, **options: Any) -> Dataset:
    return load_dataset(["cifar10"], data_directory=directory, say=lambda line: None, **options)


def check_is_synthetic_cifar10(data: Dataset) -> None:
    train = np.concatenate(list(CIFAR10_IMAGES.values())[:5])
    assert pairs_not_validated(data) == pairs(train, np.array(CIFAR10_LABELS * 5))
    np.testing.assert_array_equal(data.validation_images, CIFAR10_IMAGES["test_batch.bin"])
    np.testing.assert_array_equal(data.validation_labels, CIFAR10_LABELS)


def test_cifar10_gives_every_pixel_and_label(cifar10: Path) -> None:
    data = load_cifar10(cifar10.parent)
    check_is_synthetic_cifar10(data)
    assert (data.name, data.class_names[6]) == ("cifar10", "frog")
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.tuning_images, data.tuning_labels),
        (data.validation_images, data.validation_labels),
    ):
        assert (images.dtype.name, labels.dtype.name) == ("uint8", "int64")
        assert images.flags.c_contiguous
    assert "not byte for byte the publisher's" in data.note


def test_seed_fixes_the_order(cifar10: Path) -> None:
    first, again, other = (load_cifar10(cifar10.parent, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert pairs_not_validated(first) == pairs_not_validated(other)
    assert first.train_labels.tolist() != sorted(first.train_labels)


def test_limits_are_balanced_nested_and_said(cifar10: Path) -> None:
    whole = load_cifar10(cifar10.parent, train_images=10**6, validation_images=10**6)
    assert [len(labels) for labels in (whole.train_labels, whole.tuning_labels, whole.validation_labels)] == [
        90,
        10,
        20,
    ]
    small = load_cifar10(cifar10.parent, train_images=20, validation_images=10)
    larger = load_cifar10(cifar10.parent, train_images=35, validation_images=10)
    assert np.bincount(small.train_labels).tolist() == [2] * 10
    assert sorted(small.validation_labels) == list(range(10))
    assert pairs(small.train_images, small.train_labels) <= pairs(larger.train_images, larger.train_labels)
    assert "20 of 90 training images" in small.note
    assert "10 of 20 validation images" in small.note
    assert " of 90" not in whole.note


def test_tuning_images_are_kept_aside_of_training_and_validation(cifar10: Path) -> None:
    seen = []
    for options, size in (
        ({}, 10),
        ({"train_images": 40}, 10),
        ({"tuning_images": 30}, 30),
        ({"validation_images": 5}, 5),
    ):
        data = load_cifar10(cifar10.parent, **options)
        seen.append(data.fingerprint)
        assert f"{size} kept aside of the training split for tuning" in data.note
        assert np.ptp(np.bincount(data.tuning_labels, minlength=10)) <= 1  # balanced by class
        tuning, training = pairs(data.tuning_images, data.tuning_labels), pairs(data.train_images, data.train_labels)
        assert (tuning.total(), training.total()) == (size, options.get("train_images", 100 - size))
        assert not tuning & training
        assert not tuning & pairs(data.validation_images, data.validation_labels)
    assert len(set(seen)) == len(seen)
    # The same ones whatever the cap of training, others with another seed.
    whole, capped, other = (
        load_cifar10(cifar10.parent, **options) for options in ({}, {"train_images": 20}, {"seed": 1})
    )
    np.testing.assert_array_equal(whole.tuning_images, capped.tuning_images)
    assert pairs(whole.tuning_images, whole.tuning_labels) != pairs(other.tuning_images, other.tuning_labels)
    greedy = load_cifar10(cifar10.parent, tuning_images=1000)
    assert (len(greedy.train_labels), len(greedy.tuning_labels)) == (1, 99)


def test_no_copy_of_a_tuning_image_is_trained_on(cifar10: Path) -> None:
    for number in range(2, 6):
        (cifar10 / f"data_batch_{number}.bin").write_bytes(CIFAR10_BYTES["data_batch_1.bin"])
    data = load_cifar10(cifar10.parent)
    assert (len(data.train_labels), len(data.tuning_labels)) == (50, 10)
    assert not pairs(data.train_images, data.train_labels) & pairs(data.tuning_images, data.tuning_labels)
    assert "40 copies of them left out of training" in data.note


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    limit=st.integers(1, 45),
    seed=st.integers(0, 5),
)
def test_balanced_sample_fills_classes_evenly(labels: list[int], limit: int, seed: int) -> None:
    sample = datasets._balanced_sample(np.array(labels, np.int64), limit, np.random.default_rng(seed))
    assert len(set(sample.tolist())) == len(sample) == min(limit, len(labels))
    taken = Counter(labels[index] for index in sample)
    for label, count in Counter(labels).items():  # a class gives fewer than another only when it has no more
        assert taken[label] == count or taken[label] >= max(taken.values()) - 1


def test_validation_images_are_left_out_of_training(cifar10: Path) -> None:
    repeated = CIFAR10_IMAGES["data_batch_2.bin"].copy()
    repeated[3] = CIFAR10_IMAGES["test_batch.bin"][0]
    repeated[4] = CIFAR10_IMAGES["test_batch.bin"][17]
    (cifar10 / "data_batch_2.bin").write_bytes(cifar10_bytes(repeated, CIFAR10_LABELS))
    data = load_cifar10(cifar10.parent, validation_images=1)
    assert len(data.train_images) + len(data.tuning_images) == 98
    assert "stand in the validation split: 2" in data.note
    validation = {image.tobytes() for image in CIFAR10_IMAGES["test_batch.bin"]}
    assert not validation & {image.tobytes() for image in data.train_images}


def test_nothing_left_to_train_on(cifar10: Path) -> None:
    for number in range(1, 6):
        (cifar10 / f"data_batch_{number}.bin").write_bytes(CIFAR10_BYTES["test_batch.bin"])
    assert "Every training image" in refused("cifar10", cifar10.parent)


def test_fingerprint_sees_pixels_labels_and_split(cifar10: Path) -> None:
    fingerprints = {load_cifar10(cifar10.parent).fingerprint}
    name, content = "test_batch.bin", bytearray(CIFAR10_BYTES["test_batch.bin"])
    for position, value in ((0, 1), (3072, content[3072] ^ 1)):  # a label, then a pixel
        changed = bytes(content[:position]) + bytes([value]) + bytes(content[position + 1 :])
        (cifar10 / name).write_bytes(changed)
        fingerprints.add(load_cifar10(cifar10.parent).fingerprint)
    (cifar10 / name).write_bytes(CIFAR10_BYTES["data_batch_1.bin"])
    (cifar10 / "data_batch_1.bin").write_bytes(CIFAR10_BYTES["test_batch.bin"])
    fingerprints.add(load_cifar10(cifar10.parent).fingerprint)
    assert len(fingerprints) == 4


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
    assert "remove it" in message
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
    assert [line.split(maxsplit=1)[0] for line in lines] == ["Downloading", "Data:", "Data:"]
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
    assert lines[3].startswith("Data: photos,")
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


# Photographs


def test_photos_are_many_the_same_every_time_and_need_no_data_directory(tmp_path: Path) -> None:
    first, again = (load_dataset(["photos"], data_directory=tmp_path / "none", say=lambda line: None) for _ in "12")
    assert first.fingerprint == again.fingerprint
    assert len(first.train_images) > 4000
    assert 900 < len(first.validation_images) < 1100
    assert first.class_names == ("astronaut", "cat", "coffee", "motorcycle", "rocket")
    for labels in (first.train_labels, first.validation_labels):
        counts = np.bincount(labels)
        assert counts.min() > 0.7 * counts.max()
    assert not (tmp_path / "none").exists()
    chroma = first.train_images.astype(int).max(axis=-1) - first.train_images.min(axis=-1)
    assert chroma.mean() > 40  # colour photographs, not grey ones


def test_photos_share_no_pixel_between_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three levels of brightness, one for each split's region, no crop may hold anything between."""
    (tmp_path / "data").mkdir()
    for file_name, width in zip(image_files.PHOTOS.values(), range(450, 455), strict=True):
        pixels = np.random.default_rng(0).integers(0, 50, (300, width, 3), dtype=np.uint8)
        pixels[200:, : width // 2] += 75
        pixels[:, width // 2 :] += 150
        Image.fromarray(pixels).save(tmp_path / "data" / Path(file_name).with_suffix(".png"))
        (tmp_path / "data" / Path(file_name).with_suffix(".png")).rename(tmp_path / "data" / file_name)
    monkeypatch.setattr(image_files, "files", lambda package: tmp_path)
    data = load_dataset(["photos"], say=lambda line: None)
    assert data.train_images.max() < 50
    assert 75 <= data.tuning_images.min() <= data.tuning_images.max() < 125
    assert data.validation_images.min() >= 150


def test_photos_are_true_to_the_originals() -> None:
    """The unreduced crops lie pixel for pixel in the photograph, the halved ones are its 2 x 2 means."""
    folder = Path(str(files("skimage"))) / "data"
    coffee = np.asarray(Image.open(folder / "coffee.png"))
    data = load_dataset(["photos"], say=lambda line: None)
    crops = {image.tobytes() for image in data.train_images[data.train_labels == 2]}
    assert np.ascontiguousarray(coffee[:32, :32]).tobytes() in crops
    corner = coffee[:64, :64].astype(float)
    means = (corner[0::2, 0::2] + corner[1::2, 0::2] + corner[0::2, 1::2] + corner[1::2, 1::2]) / 4
    assert np.rint(means).astype(np.uint8).tobytes() in crops
    validation = {image.tobytes() for image in data.validation_images[data.validation_labels == 2]}
    assert np.ascontiguousarray(coffee[:32, 308:340]).tobytes() in validation


def test_missing_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "files", lambda package: tmp_path)
    with pytest.raises(DatasetUnavailable, match=r"astronaut\.png"):
        load_dataset(["photos"])


# A folder


def load_folder(folder: Path, **options: Any) -> Dataset:
    return load_dataset([f"folder:{folder}"], say=lambda line: None, **options)


def fill(folder: Path, count: int = 10, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(random_images(count, seed)):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def all_images(data: Dataset) -> Pixels:
    return np.concatenate([data.train_images, data.tuning_images, data.validation_images])


def all_labels(data: Dataset) -> npt.NDArray[np.int64]:
    return np.concatenate([data.train_labels, data.tuning_labels, data.validation_labels])


def test_folder_classes_and_pixels(tmp_path: Path) -> None:
    fill(tmp_path / "cats", 12, seed=1)
    fill(tmp_path / "dogs" / "old", 8, seed=2)
    fill(tmp_path / ".git", 3, seed=3)
    (tmp_path / "dogs" / "notes.txt").write_text("no image")
    data = load_folder(tmp_path)
    assert data.name == f"folder:{tmp_path}"
    assert data.class_names == ("cats", "dogs")
    expected = pairs(random_images(12, 1), np.zeros(12, np.int64)) + pairs(random_images(8, 2), np.ones(8, np.int64))
    found = pairs(all_images(data), all_labels(data))
    assert found == expected
    assert len(data.validation_images) == 4
    assert "20 images" in data.note
    assert "1 files" in data.note
    assert load_folder(fill(tmp_path / "flat", 5)).class_names == ("all",)


def test_folder_split_follows_content_not_names(tmp_path: Path) -> None:
    first = load_folder(fill(tmp_path / "first", 20))
    renamed = fill(tmp_path / "renamed", 20)
    for path in list(renamed.iterdir()):
        path.rename(renamed / f"{99 - int(path.stem)}.png")
    second = load_folder(renamed)
    assert {image.tobytes() for image in first.validation_images} == {im.tobytes() for im in second.validation_images}


def test_folder_copies_fall_on_one_side(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fill(tmp_path / name, 10)
    data = load_folder(tmp_path)
    assert [len(images) for images in (data.train_images, data.tuning_images, data.validation_images)] == [18, 2, 6]
    assert not {image.tobytes() for image in data.train_images} & {image.tobytes() for image in data.validation_images}
    assert "20 exact copies" in data.note
    assert "left out of training because" not in data.note
    assert "4 copies of them left out of training" in data.note


def test_folder_images_are_upright_square_and_antialiased(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, :, 0] = 255
    wide[:, 64:128] = (0, 255, 0)  # the central square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    lying = np.zeros((640, 640, 3), np.uint8)
    lying[:320] = (255, 0, 0)  # orientation 6: turn clockwise to see it upright, so the top goes to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lying).save(tmp_path / "lying.jpg", quality=95, exif=exif)
    clear = Image.new("RGBA", (40, 40), (0, 0, 255, 0))
    clear.save(tmp_path / "clear.png")
    images = {name: image_files._read_image(tmp_path / name) for name in os.listdir(tmp_path)}  # noqa: PTH208
    assert (images["wide.png"] == (0, 255, 0)).all()
    assert np.abs(images["stripes.png"][:, 2:-2].astype(int) - 128).max() < 8
    assert (images["lying.jpg"][:, :14] < 30).all()
    assert (images["lying.jpg"][:, 18:, 0] > 225).all()
    assert (images["clear.png"] == 255).all()
    assert len(all_images(load_folder(tmp_path))) == 5


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_folder_reads_every_mode_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (50, 40), "white").convert(mode).save(path)
    assert (image_files._read_image(path) == np.full((32, 32, 3), 255)).all()


def test_folder_follows_links_once_and_counts_useless_ones(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", 3, seed=9)
    folder = fill(tmp_path / "folder", 10)
    (folder / "linked").symlink_to(outside)
    (folder / "inside.png").symlink_to(folder / "0.png")
    (folder / "broken.png").symlink_to(folder / "gone.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    data = load_folder(folder)
    assert len(all_images(data)) == 14
    assert data.class_names == ("all", "linked")
    assert "lead nowhere or in a circle: 4 files" in data.note


def test_folder_of_links_to_classes_has_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for seed, name in enumerate(("cats", "dogs", "frogs")):
        (tmp_path / "links" / name).symlink_to(fill(tmp_path / "elsewhere" / name, 4, seed=seed))
    assert load_folder(tmp_path / "links").class_names == ("cats", "dogs", "frogs")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Test")])
def test_folder_of_splits_is_refused_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed, name in enumerate(names):
        fill(tmp_path / name, 4, seed=seed)
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert all(name in message for name in names)
    assert f"folder:{tmp_path / names[0]}" in message
    assert len(load_folder(tmp_path / names[0]).class_names) == 1
    (tmp_path / "cat").mkdir()
    fill(tmp_path / "cat", 3, seed=8)
    assert "cat" in load_folder(tmp_path).class_names  # a class may be called test


GREYS = np.linspace(0, 255, 32 * 32).reshape(32, 32)
DEEP: dict[str, npt.NDArray[Any]] = {
    "grey16.png": np.rint(GREYS * 257).astype(np.uint16),
    "grey16.tif": np.rint(GREYS * 257).astype(np.uint16),
    "float.tif": (GREYS / 255).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_greys_look_like_their_8_bit_twin(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    Image.fromarray(np.rint(GREYS).astype(np.uint8)).save(tmp_path / "twin.png")
    deep, twin = (image_files._read_image(tmp_path / file).astype(int) for file in (name, "twin.png"))
    assert np.ptp(twin) == 255
    assert np.abs(deep - twin).max() <= 1


@pytest.mark.parametrize("values", [(GREYS * 100).astype(np.float32), (GREYS * 100).astype(np.int32)])
def test_greys_of_unknown_range_are_refused_by_name(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    fill(tmp_path, 3)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert "deep.tif" in message
    assert "25500" in message.replace(",", "") or "2.55e+04" in message


# YCbCr is written as JPEG; LAB and HSV cannot be turned into RGB exactly by Pillow, or not be written at all.
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_looks_like_its_rgb_twin(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.asarray(random_images(1, 3))[0]).convert(mode)
    suffix = {"YCbCr": "jpg", "CMYK": "tif"}.get(mode, "png")
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    picture.save(tmp_path / f"picture.{suffix}", **options)
    found = image_files._read_image(tmp_path / f"picture.{suffix}").astype(int)
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(found - expected).mean() < (3 if suffix == "jpg" else 0.5)


def test_all_bad_files_are_named_at_once_and_a_web_page_is_called_one(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for number in range(30):
        (tmp_path / f"page{number:02}.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "text.png").write_text("nothing")
    with pytest.raises(DatasetError) as caught:
        load_folder(tmp_path)
    message = str(caught.value)
    assert message.count("web page") == 20
    assert "page00.jpg is a web page" in message
    assert "and 11 more" in message


def test_much_text_in_a_png_is_no_fault(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    text = PngInfo()
    text.add_text("history", "step " * 1_000_000, zip=True)
    Image.fromarray(np.asarray(random_images(1, 3))[0]).save(tmp_path / "long.png", pnginfo=text)
    assert len(all_images(load_folder(tmp_path))) == 6


def test_cifar10_is_found_one_level_off_and_pythons_version_is_called_by_name(cifar10: Path) -> None:
    data = load_cifar10(cifar10.parent)
    deeper = cifar10.parent / "unpacked" / cifar10.name
    deeper.parent.mkdir()
    cifar10.rename(deeper)
    assert load_cifar10(cifar10.parent).fingerprint == data.fingerprint
    assert load_cifar10(deeper).fingerprint == data.fingerprint
    shutil.rmtree(deeper)
    python = cifar10.parent / "cifar-10-batches-py"
    python.mkdir()
    (python / "data_batch_1").write_bytes(b"pickled")
    message = refused("cifar10", cifar10.parent)
    assert str(python) in message
    assert "version for Python" in message
    assert "remove" not in message


def huge_png(width: int, height: int) -> bytes:
    """A PNG that is a few bytes long and claims to be huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_images(1, 0)[0]).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; get the picture again"),
        (b"not an image", "no picture that HueJury reads"),
        (jpeg()[:-200], "truncated"),
        (huge_png(10_000, 10_000), "pixels; make it smaller"),
        (huge_png(100_000, 100_000), "pixels; make it smaller"),
        (huge_png(100, 100), "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that HueJury reads"),
    ],
    ids=["empty", "text", "short", "bomb", "huge bomb", "too few pixels", "postscript"],
)
def test_broken_image_in_a_folder(tmp_path: Path, content: bytes, words: str) -> None:
    fill(tmp_path, 3)
    (tmp_path / "broken.png").write_bytes(content)
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert str(tmp_path / "broken.png") in message
    assert words in message


def test_folder_without_images_or_with_a_single_picture(tmp_path: Path) -> None:
    assert "holds no images" in refused(f"folder:{tmp_path}", tmp_path)
    fill(tmp_path, 1)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert "too few different pictures (1 of 2 files)" in refused(f"folder:{tmp_path}", tmp_path)
    Image.fromarray(random_images(1, 1)[0]).save(tmp_path / "other.png")
    assert "training, tuning and validation need three" in refused(f"folder:{tmp_path}", tmp_path)
    Image.fromarray(random_images(1, 2)[0]).save(tmp_path / "third.png")
    data = load_folder(tmp_path)
    assert len({image.tobytes() for image in all_images(data)}) == 3


def test_missing_folder_gives_way_to_the_next_name(tmp_path: Path) -> None:
    lines: list[str] = []
    assert load_dataset([f"folder:{tmp_path / 'none'}", "photos"], say=lines.append).name == "photos"
    assert "There is no folder" in lines[0]


def test_folder_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "pictures", 4)
    monkeypatch.chdir(tmp_path)
    assert load_dataset(["folder:pictures"], say=lambda line: None).name == f"folder:{tmp_path / 'pictures'}"


# Names and directories


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["cifar-10"],
            'no dataset "cifar-10": known are cifar10, imagenet32, photos and folder:PATH. Did you mean "ci',
        ),
        (["photos", "imagenet"], 'Did you mean "imagenet32"?'),
        (["folder:"], "folder:PATH"),
        ([], "No dataset is named"),
    ],
)
def test_wrong_names(names: list[str], words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset(names)
    assert words in str(caught.value)


@pytest.mark.parametrize("limit", ["train_images", "tuning_images", "validation_images"])
def test_limits_must_be_positive(limit: str) -> None:
    with pytest.raises(DatasetError, match=f"{limit} is 0"):
        load_dataset(["photos"], **{limit: 0})  # type: ignore[arg-type]


def test_data_directory(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUEJURY_DATA", str(cifar10.parent))
    check_is_synthetic_cifar10(load_dataset(["cifar10"]))
    monkeypatch.setenv("HUEJURY_DATA", "")
    assert datasets.default_data_directory().name == "huejury"


# The real thing


def real(name: str, file_name: str) -> Dataset:
    directory = datasets.default_data_directory()
    if not any(directory.glob(f"**/{file_name}")):
        pytest.skip(f"NOT CHECKED: no {name} under {directory}; set HUEJURY_DATA to check the real images")
    return load_dataset([name], data_directory=directory)


def test_real_cifar10() -> None:
    data = real("cifar10", "data_batch_1.bin")
    assert np.bincount(data.validation_labels).tolist() == [1000] * 10
    assert 49_990 <= len(data.train_labels) <= 50_000
    means = data.train_images[:10_000].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(means, [125.3, 123.0, 113.9], atol=2)  # widely published channel means
    prefix = np.bincount(data.train_labels[:5000])
    assert prefix.min() > 400
    # The bluest classes are aeroplanes and ships: colours and labels belong together.
    some, labels = data.train_images[:10_000], data.train_labels[:10_000]
    by_class = np.stack([some[labels == label].mean(axis=(0, 1, 2)) for label in range(10)])
    assert set((by_class[:, 2] - by_class[:, 0]).argsort()[-2:].tolist()) == {0, 8}


def test_real_imagenet32() -> None:
    data = real("imagenet32", "val_data.npz")
    assert len(np.unique(data.train_labels)) == len(data.class_names)
    assert len(data.train_images) > len(data.validation_images) >= 10_000
    means = data.train_images[:10_000].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(means, [122.7, 116.7, 104.0], atol=4)  # ImageNet's channel means, widely published
    seen = {hashlib.sha256(image).digest() for image in data.validation_images}
    assert not any(hashlib.sha256(image).digest() in seen for image in itertools.islice(data.train_images, 20_000))
