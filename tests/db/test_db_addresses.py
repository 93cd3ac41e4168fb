"""Addresses of databases as hosts and people give them, and no word of a password."""

import traceback
from pathlib import Path

import pytest

from db.store import StoreError, address, open_database, shown_name
from tests.postgres import PostgresServer


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:tiger@host/x", "postgresql+psycopg://me:***@host/x"),
        ("postgresql+asyncpg://me:tiger@host:5432/x", "postgresql+psycopg://me:***@host:5432/x"),
        ("postgresql://me:p%40tiger@host/x", "postgresql+psycopg://me:***@host/x"),
        ("postgresql://me:tiger#/?tiger@host/x", "postgresql+psycopg://me:***@host/x"),
        ("postgresql://host/x?password=tiger&sslmode=require", "postgresql+psycopg://host/x?sslmode=require"),
        ("postgresql:///x?host=/tmp", "postgresql+psycopg:///x?host=%2Ftmp"),
        ("sqlite+aiosqlite:////data/x@y.sqlite", "/data/x@y.sqlite"),
        ("/data/100 %/x.sqlite", "/data/100 %/x.sqlite"),
        (":memory:", ":memory:"),
    ],
)
def test_a_database_is_shown_without_its_password(text: str, shown: str) -> None:
    assert shown_name(address(text)) == shown


# "tiger" is always a part of the password.
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("postgresql://me:p@tiger@host:5432/x", "more than one @"),
        ("postgresql://me:p@tiger/tiger@host/x", "more than one @"),
        ("postgresql://me:p@tiger?tiger@host/x", "more than one @"),
        ("postgresql://me:p@tiger:tiger@host/x", "cannot be read"),
        ("postgresql://me:tiger/x", "cannot be read"),
        ("my sql://me:tiger@host/x", "cannot be read"),
        ("://", "cannot be read"),
        ("mysql://me:tiger@host/x", "SQLite or PostgreSQL, not in mysql"),
        ("sqlite://x.sqlite", "given by its path"),
        ("sqlite:///x.sqlite?key=tiger", "given by its path"),
        ("/dev/null/x.sqlite", "folder /dev/null of the database cannot be made"),
    ],
)
def test_addresses_that_cannot_work_are_refused_without_a_password(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        open_database(text)
    assert "tiger" not in "".join(traceback.format_exception(raised.value))
    assert "\n" not in str(raised.value)


def test_drivers_of_other_libraries_reach_the_same_database(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    for scheme in ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"):
        engine = open_database(url.replace("postgresql+psycopg", scheme), say=pytest.fail)
        assert engine.driver == "psycopg"
        engine.dispose()
    open_database(f"sqlite+aiosqlite:///{tmp_path}/x@y.sqlite").dispose()
    assert (tmp_path / "x@y.sqlite").is_file()
    with pytest.raises(StoreError) as raised:
        open_database("postgresql://me:tiger@127.0.0.1:1/x")
    assert str(raised.value).startswith("The database postgresql+psycopg://me:***@127.0.0.1:1/x cannot be used (conn")
    assert "tiger" not in str(raised.value)
