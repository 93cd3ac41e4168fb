"""Where a sweep keeps its checkpoints: a folder, or a URL that pyarrow knows (s3://, gs://, ...).

Below it lie the experiment's folder, a folder for each run of the driver, one for each trial, and in that its
checkpoints. Which of them count is the database's word (`db.schema.Trial.checkpoint`), never what a folder holds.
"""

import re
from collections.abc import Collection
from contextlib import suppress

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from db.errors import UserError

CHECKPOINT_FILE = "checkpoint.pt"
LONGEST_FOLDER_NAME = 40  # characters of an arm's name; some file systems take 143 bytes in all


class StorageError(UserError):
    """Checkpoints cannot be kept there."""


def locate(storage: str) -> tuple[FileSystem, str]:
    """The file system of a folder or URL, and the path there. Raises StorageError for a URL that pyarrow does not
    know or cannot reach."""
    if "://" not in storage:
        return LocalFileSystem(), storage
    try:
        system, path = FileSystem.from_uri(storage)
    except (OSError, ValueError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise StorageError(f"The storage {storage} cannot be used ({first_line}): give another --storage.") from None
    return system, path


def address_in(storage: str, path: str) -> str:
    """The folder or URL of a path that a file system below the storage calls so."""
    _, root = locate(storage)
    return join(storage, path.removeprefix(root.rstrip("/")).lstrip("/"))


def join(storage: str, *parts: str) -> str:
    """The folder or URL below the storage."""
    base, mark, query = storage.partition("?") if "://" in storage else (storage, "", "")
    return "/".join([base.rstrip("/"), *parts]) + mark + query


def has_file(folder: str, name: str) -> bool:
    """Whether the folder or URL, as it is seen from here, has a file of that name."""
    try:
        system, path = locate(folder)
        return bool(system.get_file_info(f"{path.rstrip('/')}/{name}").type == FileType.File)
    except (OSError, StorageError):
        return False


def read_file(folder: str, name: str) -> bytes:
    """Raises OSError or StorageError where it cannot be read."""
    system, path = locate(folder)
    with system.open_input_stream(f"{path.rstrip('/')}/{name}") as stream:
        return bytes(stream.read())


def delete_folder(folder: str) -> None:
    """Delete a checkpoint that is no longer needed; what cannot be deleted costs space and nothing else."""
    with suppress(OSError, StorageError):
        system, path = locate(folder)
        system.delete_dir(path)


def delete_all_but(folder: str, kept: Collection[str]) -> None:
    """Delete what an earlier run of the driver left in its folder and the database does not name: `kept` are
    checkpoints, as folders or URLs."""
    with suppress(OSError, StorageError):
        system, root = locate(folder)
        kept_paths = {locate(checkpoint)[1].rstrip("/") for checkpoint in kept}
        for trial in system.get_file_info(FileSelector(root, allow_not_found=True)):
            if trial.type != FileType.Directory:
                system.delete_file(trial.path)
                continue
            inside = [entry.path for entry in system.get_file_info(FileSelector(trial.path))]
            if not kept_paths & set(inside):
                system.delete_dir(trial.path)
                continue
            for path in set(inside) - kept_paths:
                is_folder = system.get_file_info(path).type == FileType.Directory
                system.delete_dir(path) if is_folder else system.delete_file(path)


def trial_folder(position: int, arm: str, number: int, epochs_done: int) -> str:
    """A folder's name for what a trial trains after so many epochs, whatever its arm is called; `position` tells arms
    apart."""
    words = re.sub("[^A-Za-z0-9]+", "-", arm)[:LONGEST_FOLDER_NAME]
    return f"{position:02d}-{words}-{number:03d}-{epochs_done:03d}"
