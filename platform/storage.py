"""Where a sweep keeps its checkpoints: a folder, or a URL that pyarrow knows (s3://, gs://, ...)."""

import fcntl
import io
import json
import os
import pickle
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pyarrow import PythonFile
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem, copy_files

from platform.training import load_checkpoint

CHECKPOINT_FILE = "checkpoint.pt"
REPORTS_FILE = "reports.json"


class StorageError(Exception):
    """Checkpoints cannot be kept there; the message is one sentence with what is wrong and what to do."""


class _WholeFile(io.FileIO):
    """A file that has its name only once it is written and closed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._failed = False
        super().__init__(f"{path}.{secrets.token_hex(4)}.part", "xb")

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            self._failed = True
            raise

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._failed:
            os.unlink(self.name)  # noqa: PTH108 - at the interpreter's end there may be no pathlib any more
        else:
            os.replace(self.name, self._path)  # noqa: PTH105


class _WholeFiles(FSSpecHandler):  # type: ignore[misc]
    """Local files, each whole or not there. Ray writes its state again and again over the last one, and whoever is
    killed meanwhile would leave half of it."""

    def __init__(self) -> None:
        super().__init__(LocalFileSystem(auto_mkdir=True))

    def open_output_stream(self, path: str, metadata: Any) -> PythonFile:
        return PythonFile(_WholeFile(path), mode="w")


def located(storage: str) -> tuple[FileSystem, str]:
    """The file system of a folder or URL, and the path there. Raises StorageError for a URL that pyarrow does not
    know or cannot reach."""
    if "://" not in storage:
        return PyFileSystem(_WholeFiles()), storage
    try:
        system, path = FileSystem.from_uri(storage)
    except (OSError, ValueError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise StorageError(f"The storage {storage} cannot be used ({first_line}): give another --storage.") from None
    return (PyFileSystem(_WholeFiles()) if system.type_name == "local" else system), path


def holds(storage: str, name: str) -> bool:
    """Whether the storage, as it is seen from here, has a file of that name."""
    try:
        system, root = located(storage)
        return bool(system.get_file_info(f"{root.rstrip('/')}/{name}").type == FileType.File)
    except (OSError, StorageError):
        return False


@contextmanager
def alone(storage: str, experiment: str) -> Iterator[None]:
    """Hold the experiment for this process, as two sweeps would write each other's files. Ends with the process."""
    if "://" in storage:
        yield
        return
    try:
        Path(storage).mkdir(parents=True, exist_ok=True)
        file = (Path(storage) / f".{experiment}.lock").open("a+")
    except OSError as error:
        raise StorageError(
            f"Checkpoints cannot be kept in {storage} ({error.strerror}): give another --storage."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"Experiment {experiment!r} is being run by another process: wait for it.") from None
        yield


def is_restorable(system: FileSystem, folder: str) -> bool:
    """Whether Ray can go on from its files: with a damaged state it would, unasked, begin anew."""
    files = {file.base_name: file.path for file in system.get_file_info(FileSelector(folder, allow_not_found=True))}
    states = [name for name in files if re.fullmatch(r"experiment_state-.*\.json", name)]
    try:
        with system.open_input_stream(files[max(states, default="")]) as stream:
            return "tuner.pkl" in files and bool(json.loads(stream.read())["trial_data"])
    except (OSError, ValueError, KeyError):
        return False


def newest_checkpoint(
    system: FileSystem, trial_folder: str, into: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Copy the newest whole checkpoint of a trial into the empty folder `into`, and return it and all the reports that
    were made up to it; None if there is none. Ray's state may be older than that.
    """
    for folder in _checkpoints(system, trial_folder):
        with suppress(OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
            copy_files(folder, str(into), source_filesystem=system)
            return load_checkpoint(into / CHECKPOINT_FILE), read_reports(into)
        for part in into.iterdir():
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    return None


def newest_reports(system: FileSystem, trial_folder: str) -> list[dict[str, Any]]:
    """All reports that were made up to a trial's newest checkpoint, without reading that; none if there is none."""
    for folder in _checkpoints(system, trial_folder):
        with suppress(OSError, ValueError), system.open_input_stream(f"{folder}/{REPORTS_FILE}") as stream:
            reports: list[dict[str, Any]] = json.loads(stream.read())
            return reports
    return []


def mend_checkpoint(system: FileSystem, folder: str) -> None:
    """Where a trial's checkpoint is gone, put the trial's newest in its place.

    Ray deletes a checkpoint before its state in the storage names the next: killed in between, it could not go on.
    """
    if system.get_file_info(folder).type == FileType.NotFound:
        for newest in _checkpoints(system, str(Path(folder).parent))[:1]:
            copy_files(newest, folder, source_filesystem=system, destination_filesystem=system)


def _checkpoints(system: FileSystem, trial_folder: str) -> list[str]:
    """The folders of a trial's checkpoints, the newest first."""
    files = system.get_file_info(FileSelector(trial_folder, allow_not_found=True))
    return sorted((file.path for file in files if file.base_name.startswith("checkpoint_")), reverse=True)


def write_reports(folder: Path, reports: list[dict[str, Any]]) -> None:
    """Put a trial's reports so far into a checkpoint's folder: who resumes can tell the database what it has missed."""
    (folder / REPORTS_FILE).write_text(json.dumps(reports))


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The reports that led to a checkpoint, the checkpoint's own last."""
    reports: list[dict[str, Any]] = json.loads((folder / REPORTS_FILE).read_text())
    return reports
