"""CIFAR-10 as its publisher gives it, checked before its bytes count as data: binary version, from
https://www.cs.toronto.edu/~kriz/cifar.html."""

import hashlib
import sys
import tarfile
from pathlib import Path

import numpy as np
import pooch

from platform.data.image_source import (
    ROW_BYTES,
    DatasetError,
    DatasetUnavailable,
    Say,
    Source,
    Split,
    join_splits,
    to_images,
)

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
FILE_RECORDS = 10_000  # in each file
FILES = {  # the publisher's bytes (sha256); the last file is the validation split
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEND = "move it away and run again to have CIFAR-10 downloaded anew"


def open_cifar10(directory: Path, say: Say) -> Source:
    """Read it from its files in the directory or a folder as it unpacks, else from its archive, downloaded if need be.

    Raises DatasetUnavailable where it cannot be downloaded, and DatasetError for files that are not CIFAR-10.
    """
    try:
        contents = _read_files(directory, say)
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read ({error.strerror}); {MEND}.") from error
    note = "CIFAR-10 (Krizhevsky 2009), the publisher's test batch as validation split"
    if any(hashlib.sha256(content).hexdigest() != FILES[path.name] for path, content in contents.items()):
        note += "; its files are not byte for byte the publisher's"
    *train, validation = [_read_records(path, content) for path, content in contents.items()]
    return Source("cifar10", CLASSES, join_splits(train), validation, note)


def _read_files(directory: Path, say: Say) -> dict[Path, bytes]:
    """The six files. The archive is opened only when it is the publisher's byte for byte."""
    for folder in (directory / FOLDER, directory):
        if any((folder / name).exists() for name in FILES):
            return {folder / name: (folder / name).read_bytes() for name in FILES}
    archive = directory / URL.rsplit("/", 1)[1]
    if not archive.exists():
        _download(archive, say)
    if pooch.file_hash(archive) != ARCHIVE_SHA256:
        raise DatasetError(
            f"{archive} is not the publisher's archive (its sha256 differs); {MEND}, or unpack it there if you know "
            "that it is good."
        )
    with tarfile.open(archive) as tar:
        members = {name: tar.extractfile(f"{FOLDER}/{name}") for name in FILES}
        return {archive / name: member.read() for name, member in members.items() if member is not None}


def _read_records(path: Path, content: bytes) -> Split:
    if len(content) != FILE_RECORDS * (1 + ROW_BYTES):
        raise DatasetError(f"{path} has {len(content):,} bytes, not {FILE_RECORDS * (1 + ROW_BYTES):,}; {MEND}.")
    records = np.frombuffer(content, np.uint8).reshape(FILE_RECORDS, 1 + ROW_BYTES)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise DatasetError(f"{path}: record {labels.argmax()} has the label {labels.max()}, of 0 to 9; {MEND}.")
    return Split(to_images(records[:, 1:]), labels)


def _download(archive: Path, say: Say) -> None:
    """Download into a temporary file beside `archive`, which gets its name only with the right checksum."""
    pooch.get_logger().setLevel("WARNING")  # we say it ourselves
    say(f"Downloading CIFAR-10 (162 MiB) from {URL} to {archive.parent}.")
    seconds_to_wait = 5, 30  # to connect, and between two chunks
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**18, timeout=seconds_to_wait)
    try:
        pooch.retrieve(URL, f"sha256:{ARCHIVE_SHA256}", archive.name, path=archive.parent, downloader=downloader)
    except (OSError, ValueError) as error:  # all of requests' errors are OSErrors; a wrong checksum is a ValueError
        reason = "what arrived does not have the publisher's checksum"
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
        raise DatasetUnavailable(
            f"CIFAR-10 is not in {archive.parent} and could not be downloaded from {URL} ({reason}); "
            "run again, or fetch the archive yourself and put it there."
        ) from error
