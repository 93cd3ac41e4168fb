"""Migrations and moves, on SQLite and on PostgreSQL: what was in a database is in it afterwards."""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    Connection,
    Delete,
    Engine,
    MetaData,
    Row,
    Update,
    create_engine,
    delete,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, CreateTable

from db.backup import main as back_up
from db.copy import main as copy
from db.schema import Base, Study, StudyArm
from db.store import LAST_COMMIT_THAT_READS, MIGRATIONS, StoreError, open_database, write_session
from db.surveys.enrolment import enrol
from db.surveys.study import create_study
from db.sweeps.drivers import Drive
from tests.postgres import PostgresServer
from tests.survey_data import add_experiment, answer_all

URL = "https://example.org/schöner Spaß: 猫 🐈\n'; DROP TABLE votes; --"
REVISIONS = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A SQLite file with rows in every table."""
    engine = open_database(tmp_path_factory.mktemp("original") / "huejury.sqlite")
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=6, practice_count=1, sentinel_share=0.2, completion_url=URL)
    for link in (None, {"PROLIFIC_PID": "ünsound", "STUDY_ID": "s"}, {"PROLIFIC_PID": "5f1e" * 6}):
        answer_all(engine, "cats", link=link)
    enrol(engine, "cats", simulated=True)
    Drive(engine, "cats").take()
    with engine.connect() as connection:
        assert all(rows_of(connection, Base.metadata).values())
    yield engine
    engine.dispose()


def rows_of(connection: Connection, tables: MetaData) -> dict[str, list[Row[Any]]]:
    return {table.name: list(connection.execute(select(table).order_by(table.c.id))) for table in tables.sorted_tables}


def path_of(engine: Engine) -> str:
    return str(engine.url.database)


def test_a_new_database_is_as_the_schema_says(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == REVISIONS[-1]
    checked = {table for table in Base.metadata.tables if inspect(empty_engine).get_check_constraints(table)}
    unchecked = Base.metadata.tables.keys() - checked
    assert unchecked == {"datasets", "runs", "drivers", "samples", "study_arms", "sentinel_pictures", "participants"}


def test_a_changed_schema_comes_with_a_migration() -> None:
    dialects = (sqlite.dialect(), postgresql.dialect())  # type: ignore[no-untyped-call]
    tables = Base.metadata.sorted_tables
    indexes = sorted((index for table in tables for index in table.indexes), key=lambda index: str(index.name))
    statements: list[Any] = [*map(CreateTable, tables), *map(CreateIndex, indexes)]
    text = "".join(str(statement.compile(dialect=dialect)) for dialect in dialects for statement in statements)
    assert (REVISIONS[-1], hashlib.sha256(text.encode()).hexdigest()[:16]) == ("0009", "5ab950dbb7c9cddc"), (
        "db.schema has changed: write a migration for the databases that there are, and note its number and this digest"
    )


def test_a_database_of_development_is_refused_and_left_as_it_is(database: str) -> None:
    old = create_engine(database if "://" in database else f"sqlite:///{database}")
    with old.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE experiments (id INTEGER PRIMARY KEY, code_version TEXT)")
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('0008')")
    before = str([(table, inspect(old).get_columns(table)) for table in inspect(old).get_table_names()])
    with pytest.raises(
        StoreError, match=rf"schema 0008\), and commit {LAST_COMMIT_THAT_READS} was the last that reads"
    ):
        open_database(database, say=pytest.fail)
    assert str([(table, inspect(old).get_columns(table)) for table in inspect(old).get_table_names()]) == before
    old.dispose()


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_a_database_is_copied_and_migrated_with_every_row(
    tmp_path: Path, postgres: PostgresServer, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = str(tmp_path / "old.sqlite") if on == "sqlite" else postgres.new_database()
    engine = open_database(database)
    add_experiment(engine, images=12)
    with engine.connect() as connection:
        before = rows_of(connection, Base.metadata)
    later = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    # In SQLite it makes the table anew and drops the old one, on which arms and trials depend by ON DELETE CASCADE.
    (later / "versions" / "9999_later.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '9999'\n"
        f"down_revision = {REVISIONS[-1]!r}\n"
        "def upgrade():\n    with op.batch_alter_table('experiments') as table:\n"
        "        table.add_column(sa.Column('later', sa.String, nullable=False, server_default='x'))\n"
        "        table.alter_column('name', type_=sa.String(1000))\n"
    )
    monkeypatch.setattr("db.store.MIGRATIONS", later)
    said: list[str] = []
    if on == "postgresql":  # where a table is not altered while somebody has it open
        engine.dispose()
    migrated = open_database(database, say=said.append)
    assert f"from schema {REVISIONS[-1]} to 9999" in said[0]
    with migrated.connect() as connection:
        assert rows_of(connection, Base.metadata) == before
        assert set(connection.exec_driver_sql("SELECT later FROM experiments").scalars()) == {"x"}
        if on == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    migrated.dispose()
    engine.dispose()
    open_database(database, say=pytest.fail).dispose()

    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer HueJury"):
        open_database(database)
    for kept in tmp_path.glob("old-schema-*.sqlite"):
        assert str(kept) in said[0]
        copied = open_database(kept, say=pytest.fail)
        with copied.connect() as connection:
            assert rows_of(connection, Base.metadata) == before
        copied.dispose()
    assert len(list(tmp_path.glob("old-schema-*.sqlite"))) == (on == "sqlite")


@pytest.mark.parametrize("left", sorted(Path(__file__).parent.glob("left_by_*.sql")), ids=lambda path: path.stem)
def test_what_an_earlier_schema_left_is_read(left: Path, tmp_path: Path) -> None:
    """Whoever changes the schema adds its migration; a file of each schema before it stays here."""
    file = tmp_path / "left.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(left.read_text())
        before = dict.fromkeys(
            row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        )
        before = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in before}
    engine = open_database(file, say=lambda line: None)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        after = {table: len(rows) for table, rows in rows_of(connection, Base.metadata).items()}
    assert all(after.values())
    assert {table: before[table] for table in after} == after
    engine.dispose()


@pytest.mark.parametrize("statement", [update(Study).values(seed=1), delete(StudyArm)])
def test_triggers_keep_a_study_as_it_is(empty_engine: Engine, statement: Update | Delete) -> None:
    with empty_engine.connect() as connection:
        empty = not rows_of(connection, Base.metadata)["studies"]
    if empty:
        add_experiment(empty_engine, images=12)
        create_study(empty_engine, "cats", question_count=6, practice_count=1)
        answer_all(empty_engine, "cats")
    refused = pytest.raises(IntegrityError, match=r"can only be closed|keeps its contenders")
    with refused, write_session(empty_engine) as session:
        session.execute(statement)


# To PostgreSQL


def test_a_copy_in_postgresql_has_every_row_and_goes_on(
    original: Engine, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.new_database()
    assert copy([path_of(original), url]) == 0
    printed = capsys.readouterr().out
    copied = open_database(url, say=pytest.fail)
    with original.connect() as here, copied.connect() as there:
        rows = rows_of(here, Base.metadata)
        assert rows_of(there, Base.metadata) == rows
    for table, content in rows.items():
        assert f"{len(content)} {table}" in printed
    answer_all(copied, "cats")  # ids go on from the highest
    add_experiment(copied, "dogs", images=12, size=8)
    with pytest.raises(IntegrityError, match="keeps its contenders"), write_session(copied) as session:
        session.execute(delete(StudyArm))
    copied.dispose()

    assert copy([path_of(original), url]) == 2
    assert "has rows in datasets already; give an empty one" in capsys.readouterr().err


def test_a_copy_that_fails_half_way_leaves_nothing(
    original: Engine, postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.sqlite"
    assert back_up([str(path), "--database", path_of(original)]) == 0
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(
            "UPDATE participants SET external_session_id = 'a' || char(0)"
        )  # nothing that PostgreSQL could store
    url = postgres.new_database()
    assert copy([str(path), url]) == 2
    message = capsys.readouterr().err
    assert message.startswith("The database postgresql+psycopg://")
    assert "Traceback" not in message
    target = open_database(url, say=pytest.fail)
    with target.connect() as connection:
        assert not any(rows_of(connection, Base.metadata).values())
    target.dispose()


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("none.sqlite", "postgresql+psycopg://nobody@127.0.0.1:1/x", "none.sqlite; run a sweep first"),
        ("original", "postgresql+psycopg://nobody:secret@127.0.0.1:1/x", "Connection refused"),
        ("original", "other.sqlite", "python -m db.backup"),
    ],
)
def test_copies_that_cannot_be_are_refused_in_one_sentence(
    original: Engine, capsys: pytest.CaptureFixture[str], source: str, target: str, message: str
) -> None:
    assert copy([path_of(original) if source == "original" else source, target]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "secret" not in said
    assert said.count("\n") == 1
