"""Addresses of databases as hosts and people give them, and no word of a password."""

import traceback
from pathlib import Path

import pytest

from db.store import StoreError, address, open_database, shown_name
from tests.postgres import PostgresServer


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("/dev/null/x.sqlite", "folder /dev/null of the database cannot be made"),
        ("mysql://localhost/huejury", "SQLite or PostgreSQL, not in mysql"),
        ("://", "is no database URL"),
    ],
)
def test_addresses_that_cannot_work(database: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_database(database)


# What hosts and people give; "tiger" is always a part of the password.
@pytest.mark.parametrize(
    ("text", "shown", "parts"),
    [
        ("postgres://me:tiger@host/x", "postgres://me:***@host/x", ("me", "tiger", "host", None)),
        ("postgresql://me:tiger@host:5432/x", "postgresql://me:***@host:5432/x", ("me", "tiger", "host", 5432)),
        ("postgresql+asyncpg://me:tiger@host/x", "postgresql+asyncpg://me:***@host/x", ("me", "tiger", "host", None)),
        ("postgresql+psycopg2://host/x?password=tiger", "postgresql+psycopg2://host/x", (None, None, "host", None)),
        ("postgresql://me:p@tiger@host:5432/x", "postgresql://me:***@host:5432/x", ("me", "p@tiger", "host", 5432)),
        ("postgresql://me:tiger#tiger@host/x", "postgresql://me:***@host/x", ("me", "tiger#tiger", "host", None)),
        ("postgresql://me:tiger/tiger@host/x", "postgresql://me:***@host/x", ("me", "tiger/tiger", "host", None)),
        ("postgresql://me:tiger?tiger@host/x", "postgresql://***", ("me", "tiger?tiger", "host", None)),
        ("postgresql://me:p%40tiger@host/x", "postgresql://me:***@host/x", ("me", "p@tiger", "host", None)),
        ("postgresql://me:p@tiger/tiger@host/x", "postgresql://me:***@host/x", None),
        ("postgresql://me:p@tiger:tiger@host/x", "postgresql://me:***@host/x", None),
        ("postgresql://me:p@tiger?tiger@host/x", "postgresql://***", None),
        ("postgresql://me:tiger/x", "postgresql://me:***", None),
        ("postgresql://host:abc/x", "postgresql://host:***", None),
        ("postgresql://me:tiger@host:abc/x", "postgresql://me:***@host:***", None),
        ("postgresql:/me:tiger@host/x", "postgresql:***", None),
        ("postgres:me:tiger@host/x", "postgres:***", None),
        ("mysql://me:tiger@host/x", "mysql://me:***@host/x", None),
        ("my sql://me:tiger@host/x", "my sql://me:***@host/x", None),
        ("postgres://host/x?pwd=tiger", "postgres://host/x", (None, None, "host", None)),
        ("sqlite+pysqlcipher://:tiger@/x", "sqlite+pysqlcipher://:***@/x", None),
    ],
)
def test_no_password_is_ever_said(
    text: str, shown: str, parts: tuple[str | None, str | None, str, int | None] | None
) -> None:
    assert shown_name(text) == shown
    if parts is None:
        with pytest.raises(StoreError) as raised:
            open_database(text)
        assert "tiger" not in "".join(traceback.format_exception(raised.value))
        assert "\n" not in str(raised.value)
        return
    url = address(text)
    assert (url.username, url.password, url.host, url.port) == parts
    assert (url.drivername, url.database) == ("postgresql+psycopg", "x")
    assert "tiger" not in shown_name(url)


def test_drivers_of_other_libraries_reach_the_same_database(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    for scheme in ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"):
        engine = open_database(url.replace("postgresql+psycopg", scheme), say=pytest.fail)
        assert engine.driver == "psycopg"
        engine.dispose()
    open_database(f"sqlite+aiosqlite:///{tmp_path}/x@y.sqlite").dispose()
    assert (tmp_path / "x@y.sqlite").is_file()
    with pytest.raises(StoreError) as raised:
        open_database("postgresql://me:p@tiger@127.0.0.1:1/x")
    assert str(raised.value).startswith("The database postgresql+psycopg://me:***@127.0.0.1:1/x cannot be used (conn")
    assert "tiger@" not in str(raised.value)
