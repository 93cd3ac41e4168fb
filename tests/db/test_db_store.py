"""Opening, migrating and sharing the database: real files, real processes, real locks."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import DBAPIError

from db import store
from db.schema import StoredDataset
from db.store import StoreError, open_database, read_session, write_session
from db.sweeps.recording import record_arm, record_dataset, record_experiment
from tests.processes import StartPython, check_integrity, finish, hear_from, say_to


def silent(_message: str) -> None:
    pass


def add_dataset(engine: Engine, fingerprint: str = "f") -> int:
    with write_session(engine) as session:
        return record_dataset(
            session,
            name="photos",
            fingerprint=fingerprint,
            note="0",
            class_names=["a", "b"],
            validation_class_counts=[1, 0],
            colour_counts=b"",
        )


def add_experiment(engine: Engine) -> None:
    dataset_id = add_dataset(engine)
    with write_session(engine) as session:
        experiment_id = record_experiment(
            session,
            name="first",
            dataset_id=dataset_id,
            config={},
            config_yaml="",
            storage_path="/results",
        )
        record_arm(
            session,
            experiment_id=experiment_id,
            name="L2",
            position=0,
            options={"kind": "regression"},
        )


# Opening


def test_new_file_in_new_folder_is_set_up(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "new folder" / "100 % data.sqlite")
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000, "synchronous": 2}
    assert (tmp_path / "new folder" / "100 % data.sqlite").is_file()


@pytest.mark.parametrize("database", ["path", "url"])
def test_what_was_written_is_there_when_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.chdir(tmp_path)
    address = "results.sqlite" if database == "path" else "sqlite:///results.sqlite"
    engine = open_database(address)
    monkeypatch.chdir("/")  # Ray moves trials to other folders
    add_dataset(engine)
    engine.dispose()
    engine = open_database(tmp_path / "results.sqlite", say=pytest.fail)
    with read_session(engine) as session:
        assert session.scalars(select(StoredDataset.name)).all() == ["photos"]
    engine.dispose()


def test_an_exception_rolls_back_all_of_a_write_session(database: str) -> None:
    engine = open_database(database)

    def write_and_fail() -> None:
        with write_session(engine) as session:
            session.execute(text("CREATE TABLE made_on_the_way (id INTEGER)"))
            session.execute(text("INSERT INTO alembic_version VALUES ('made up')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert "made_on_the_way" not in inspect(engine).get_table_names()
    engine.dispose()
    open_database(database, say=pytest.fail).dispose()


def test_a_read_session_sees_one_state_whatever_others_write(database: str) -> None:
    engine = open_database(database)
    add_dataset(engine)
    with read_session(engine) as session:
        assert len(session.scalars(select(StoredDataset.name)).all()) == 1
        add_dataset(engine, "another")
        assert len(session.scalars(select(StoredDataset.name)).all()) == 1
    with read_session(engine) as session:
        assert len(session.scalars(select(StoredDataset.name)).all()) == 2
    engine.dispose()


def not_a_database(path: Path) -> None:
    path.write_text("epoch,loss\n1,0.5\n" * 100)


def someone_elses(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def damaged(path: Path) -> None:
    open_database(path).dispose()
    content = bytearray(path.read_bytes())
    content[100:600] = b"\xff" * 500  # the root page of the table of tables
    path.write_bytes(content)


def newer(path: Path) -> None:
    open_database(path).dispose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_a_database, r"The file .*/x\.sqlite is not a SQLite database; give another path, or move"),
        (someone_elses, r"x\.sqlite belongs to something else \(it has the table 'bookmarks'\); give another path"),
        (damaged, r"x\.sqlite is damaged; put a copy"),
        (newer, r"x\.sqlite was written by a newer HueJury \(schema 9999, this one knows 0\d*\); update HueJury"),
        (folder, r"x\.sqlite cannot be opened; check that you may"),
    ],
)
def test_what_is_no_database_of_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "x.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=message) as raised:
        open_database(path)
    assert "\n" not in str(raised.value)
    assert (path.read_bytes() if path.is_file() else None) == before


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom file permissions bind: root goes as nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not under tmp_path, nor the migrations under the checkout: other users may be unable to look into either.
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o777)
        shutil.copytree(store.MIGRATIONS, home / "migrations")
        monkeypatch.setattr(store, "MIGRATIONS", home / "migrations")
        path = home / "x.sqlite"
        open_database(path).dispose()
        path.chmod(0o444)
        with unprivileged(), pytest.raises(StoreError, match=r"x\.sqlite is read-only; allow writing"):
            open_database(path)
        home.chmod(0o555)
        with unprivileged(), pytest.raises(StoreError, match=r"new\.sqlite cannot be opened; check that you may"):
            open_database(home / "new.sqlite")
        home.chmod(0o777)


# Migrations


def add_migration(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Give the store one more migration than it has, from a folder of its own."""
    shutil.copytree(store.MIGRATIONS, folder)
    newest = sorted(path.stem.partition("_")[0] for path in (folder / "versions").glob("*.py"))[-1]
    code = f"import sqlalchemy as sa\nfrom alembic import op\nrevision = 'next'\ndown_revision = '{newest}'\n"
    (folder / "versions" / "next.py").write_text(f"{code}def upgrade():\n    {body}\n")
    monkeypatch.setattr(store, "MIGRATIONS", folder)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("op.create_table('half', sa.Column('id', sa.Integer)); op.drop_table('no such table')", DBAPIError),
        ("op.create_table('half', sa.Column('id', sa.Integer)); op.execute('DELETE FROM datasets')", StoreError),
    ],
)
def test_failed_migration_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, error: type[Exception]
) -> None:
    path = tmp_path / "results.sqlite"
    engine = open_database(path)
    add_experiment(engine)
    with monkeypatch.context() as patch:
        add_migration(patch, tmp_path / "migrations", body)
        with pytest.raises(StoreError) as raised:
            open_database(path, say=silent)
    assert isinstance(raised.value if error is StoreError else raised.value.__cause__, error)
    assert "half" not in inspect(engine).get_table_names()
    engine.dispose()
    engine = open_database(path, say=pytest.fail)
    with read_session(engine) as session:
        assert session.scalars(select(StoredDataset.name)).all() == ["photos"]
    engine.dispose()


# Several processes

OPEN = """
import sys
from db.store import open_database
print("ready", flush=True)
sys.stdin.readline()
open_database(sys.argv[1]).dispose()
"""


def test_processes_may_open_a_new_database_at_once(database: str, start_python: StartPython) -> None:
    processes = [start_python(OPEN, database) for _ in range(2)]
    for process in processes:
        assert hear_from(process) == "ready"
    for process in processes:
        say_to(process, "go")
    for process in processes:
        finish(process)
    open_database(database, say=pytest.fail).dispose()


def test_opening_a_new_database_waits_while_another_process_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # not in write-ahead mode yet
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        open_database(path).dispose()
        timer.join()


COUNT_UP = """
import sys
from sqlalchemy import select, update
from db.schema import StoredDataset
from db.store import open_database, write_session
engine = open_database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print("writing", flush=True)
for _ in range(40):
    with write_session(engine) as session:
        count = int(session.scalars(select(StoredDataset.note)).one())
        session.execute(update(StoredDataset).values(note=str(count + 1)))
"""


def test_writers_wait_for_each_other_and_lose_nothing(tmp_path: Path, start_python: StartPython) -> None:
    engine = open_database(tmp_path / "results.sqlite")
    add_dataset(engine)
    writers = [start_python(COUNT_UP, tmp_path / "results.sqlite") for _ in range(2)]
    for writer in writers:
        assert hear_from(writer) == "ready"
    with write_session(engine) as session:
        for writer in writers:
            say_to(writer, "go")
        for writer in writers:
            assert hear_from(writer) == "writing"
        with pytest.raises(subprocess.TimeoutExpired):  # both wait for this session's lock
            writers[0].wait(timeout=0.3)
        with read_session(engine) as reader:  # a reader need not wait
            assert reader.scalars(select(StoredDataset.note)).one() == "0"
        session.execute(text("UPDATE datasets SET note = '1000'"))
    for writer in writers:
        finish(writer)
    with read_session(engine) as reader:
        assert reader.scalars(select(StoredDataset.note)).one() == "1080"
    engine.dispose()


HOLD_LOCK = """
import sys
from db.store import open_database, write_session
with write_session(open_database(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_locked_database_is_refused_after_the_timeout(tmp_path: Path, start_python: StartPython) -> None:
    path = tmp_path / "results.sqlite"
    holder = start_python(HOLD_LOCK, path)
    assert hear_from(holder) == "locked"
    with pytest.raises(StoreError, match=r"results\.sqlite is locked by another process; wait for it or stop it"):
        open_database(path, busy_timeout_s=0.1)
    say_to(holder, "go")
    finish(holder)
    open_database(path, say=pytest.fail).dispose()


WRITE_ON_AND_ON = """
import itertools, sys
from db.sweeps.recording import record_dataset
from db.store import open_database, write_session
engine = open_database(sys.argv[1])
for number in itertools.count(int(sys.argv[2])):
    with write_session(engine) as session:
        for part in "ab":
            record_dataset(session, name="photos", fingerprint=f"{number}{part}", note="x" * 2000, class_names=[],
                           validation_class_counts=[], colour_counts=b"")
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_acknowledged(database: str, start_python: StartPython) -> None:
    acknowledged: set[int] = set()
    for lines in (1, 20, 45):
        writer = start_python(WRITE_ON_AND_ON, database, max(acknowledged, default=-1) + 1)
        for _ in range(lines):
            acknowledged.add(int(hear_from(writer)))
        writer.kill()
        output, _ = writer.communicate()
        acknowledged.update(int(line) for line in output.splitlines(keepends=True) if line.endswith("\n"))
    engine = open_database(database, say=pytest.fail)
    check_integrity(engine)
    with read_session(engine) as session:
        stored = session.scalars(select(StoredDataset.fingerprint)).all()
    engine.dispose()
    numbers = {int(fingerprint[:-1]) for fingerprint in stored}
    assert acknowledged <= numbers
    assert sorted(stored) == sorted(f"{number}{part}" for number in numbers for part in "ab")  # both or neither
