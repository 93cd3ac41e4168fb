"""CIFAR-10 in the publisher's layout: broken files, archive, downloads."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from platform.data import cifar10 as publisher
from platform.data.datasets import DatasetUnavailable, load_dataset
from tests.data.test_datasets import (
    CIFAR10_BYTES,
    RECORDS,
    check_is_synthetic_cifar10,
    cifar10,
    load_cifar10,
    refused,
)

__all__ = ["cifar10"]  # a fixture

# Files


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "61,459 bytes, not 61,460"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "61,461 bytes, not 61,460"),
        (lambda path: path.write_bytes(b"\x0a" + path.read_bytes()[1:]), "record 0 has the label 10, of 0 to 9"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
    ids=["short", "long", "label", "missing", "a folder"],
)
def test_broken_cifar10_file(cifar10: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(cifar10 / "data_batch_3.bin")
    message = refused("cifar10", cifar10.parent)
    assert str(cifar10 / "data_batch_3.bin") in message
    assert "move it away" in message
    assert words in message


# Archive and download


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


GOOD_ARCHIVE = pack(CIFAR10_BYTES | {"readme.html": b"<html>"})


def publish(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this archive the publisher's."""
    monkeypatch.setattr(publisher, "FILE_RECORDS", RECORDS)
    monkeypatch.setattr(publisher, "ARCHIVE_SHA256", hashlib.sha256(archive).hexdigest())


def test_archive_in_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(GOOD_ARCHIVE, monkeypatch)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(GOOD_ARCHIVE)
    check_is_synthetic_cifar10(load_cifar10(tmp_path))


@pytest.mark.parametrize("archive", [GOOD_ARCHIVE[:-1], b"<html>log in first</html>", pack(CIFAR10_BYTES)])
def test_archive_that_is_not_the_publishers_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes
) -> None:
    publish(GOOD_ARCHIVE, monkeypatch)
    monkeypatch.delattr(tarfile, "open")
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive)
    message = refused("cifar10", tmp_path)
    assert f"{path} is not the publisher's archive" in message
    assert "move it away" in message
    assert path.exists()  # it may be somebody's: only its owner removes it


class Server:
    """An HTTP server on the loopback interface that sends `body`, or stops after `stop_after` bytes of it."""

    def __init__(self) -> None:
        self.body = GOOD_ARCHIVE
        self.status = 200
        self.stop_after: int | None = None
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body[: outer.stop_after])

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/cifar-10-binary.tar.gz"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(publisher, "URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    publish(GOOD_ARCHIVE, monkeypatch)
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
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
