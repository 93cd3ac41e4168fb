"""Opens the database: a SQLite file, or any PostgreSQL by its URL, brought up to the newest schema.

    engine = open_database("huejury.sqlite")
    with write_session(engine) as session:
        record_dataset(session, ...)

Keep a SQLite file on a local disk: its write-ahead log does not work over network file systems.
"""

import json
import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import Base
from db.triggers import create_triggers

MIGRATIONS = Path(__file__).parent / "migrations"
DATABASE_HELP = (
    "path or URL (default: $HUEJURY_DATABASE, else huejury.sqlite in the checkout)"  # without a URL's password
)
CONNECT_TIMEOUT_S = 10
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code for a lock that was waited for in vain
# Nothing was released before the first migration that is kept: what development made until then is not read any more.
LAST_COMMIT_THAT_READS = "66c1005"
URL_ADVICE = (
    "give a path, or a URL like postgresql://user:password@host:5432/huejury, with %40 for an @, %2F for a / and "
    "%3A for a : in the password"
)
MIGRATION_LOCK = 0x487565  # any number that is ours: PostgreSQL's advisory locks are known by one


class StoreError(UserError):
    """The database cannot be used."""


def default_database() -> str:
    """$HUEJURY_DATABASE, else huejury.sqlite in the checkout."""
    return os.environ.get("HUEJURY_DATABASE") or str(Path(__file__).resolve().parent.parent / "huejury.sqlite")


def open_existing(
    database: str | os.PathLike[str], *, say: Callable[[str], None] = print, busy_timeout_s: float = 30.0
) -> Engine:
    """As open_database, but a SQLite file has to be there. Raises StoreError if it is not."""
    url = address(database)
    if url.get_backend_name() == "sqlite" and not os.access(str(url.database), os.F_OK):
        raise StoreError(
            f"There is no database {url.database}; run a sweep first (make sweep), or give another --database."
        )
    return open_database(database, say=say, busy_timeout_s=busy_timeout_s)


def open_database(
    database: str | os.PathLike[str], *, say: Callable[[str], None] = print, busy_timeout_s: float = 30.0
) -> Engine:
    """Open a database, creating or migrating it as needed, and return its engine.

    database: the path of a SQLite file (made, with its folder, if it is not there), ":memory:", or a SQLAlchemy URL
    of SQLite or PostgreSQL. say: is told when an older database is migrated, and where its copy lies.
    busy_timeout_s: how long, in seconds, a statement waits for another process's lock on a SQLite file.

    Raises StoreError if it cannot be read, written, or understood by this version.
    """
    url = address(database)
    shown = shown_name(url)
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        folder = Path(str(url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder {folder} of the database cannot be made ({error.strerror}); give another path."
            ) from error
    engine = _create_engine(url, busy_timeout_s)
    try:
        revisions = sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py"))
        _check_ours(engine, shown, revisions)
        _bring_up_to_date(engine, shown, revisions[-1], say, busy_timeout_s)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, DBAPIError | sqlite3.Error):
            raise StoreError(explain(error, shown)) from error
        raise
    return engine


def shown_name(url: URL) -> str:
    """What messages call a database: its file's path, or its URL without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)


def naming_database(engine: Engine, option: str) -> str:
    """What a command needs to find the database, after a blank; nothing where it is the default one."""
    return "" if engine.url == address(default_database()) else f" {option}{shlex.quote(shown_name(engine.url))}"


@contextmanager
def read_session(engine: Engine) -> Iterator[Session]:
    """A session that sees one state of the database throughout, whatever others write meanwhile."""
    if engine.dialect.name == "postgresql":  # a transaction of SQLite's always does
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(engine) as session:
        yield session


@contextmanager
def write_session(engine: Engine) -> Iterator[Session]:
    """A session that is committed, durably, when the block ends, and rolled back if it raises. Its rows may be read on.

    On SQLite it waits for its turn to write at once, on entry. A transaction that began by reading could not wait:
    as soon as another process has written, its first write would fail.
    """
    now = engine.execution_options(sqlite_begin="IMMEDIATE")
    with Session(now, expire_on_commit=False) as session, session.begin():
        session.connection()  # the session itself would begin no sooner than at its first statement
        yield session


def address(database: str | os.PathLike[str]) -> URL:
    """The URL of a path or URL; a SQLite file's is absolute. Raises StoreError if it can be none of ours.

    Hosts give `postgres://` or the URL of another driver; all go by psycopg. What cannot be read is not quoted: a part
    of it may be a password.
    """
    text = os.fspath(database)
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
    except (ArgumentError, ValueError):
        raise StoreError(f"The database's URL cannot be read; {URL_ADVICE}.") from None
    backend = url.get_backend_name()
    if backend in ("postgres", "postgresql"):
        if text.count("@") > 1:  # the rest of a password would be taken for a host, and shown
            raise StoreError(f"The database's URL has more than one @; {URL_ADVICE}.")
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"HueJury keeps its results in SQLite or PostgreSQL, not in {backend}.")
    if url.host or url.query:
        raise StoreError("A SQLite database is given by its path, as huejury.sqlite, and nothing else; give that.")
    if url.database in (None, "", ":memory:"):
        return url
    path = Path(str(url.database))
    with suppress(RuntimeError):  # there is no such home: it is a name like others
        path = path.expanduser()
    return url.set(drivername="sqlite", database=str(path.absolute()))


def _create_engine(url: URL, busy_timeout_s: float) -> Engine:
    # JSON has no NaN: PostgreSQL refuses it, so SQLite may not hide it either.
    to_json = partial(json.dumps, allow_nan=False, ensure_ascii=False)
    # Errors go to logs: what participants wrote, and their tokens' hashes, do not belong there.
    options: dict[str, Any] = {"json_serializer": to_json, "hide_parameters": True}
    if url.get_backend_name() == "postgresql":
        return _create_postgresql_engine(url, options, busy_timeout_s)
    if url.database in (None, "", ":memory:"):
        # One connection for all threads: every further one would be a database of its own.
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False}, **options)
    else:
        engine = create_engine(url, **options)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # Python's sqlite3 begins no transaction by itself: `begin` below does
        connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1000)}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")

    return engine


def _create_postgresql_engine(url: URL, options: dict[str, Any], busy_timeout_s: float) -> Engine:
    # A server that was started again has closed the pool's connections: each is tried before it is used.
    engine = create_engine(
        url if "connect_timeout" in url.query else url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)}),
        pool_pre_ping=True,
        **options,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = {round(busy_timeout_s * 1000)}")
        connection.commit()

    return engine


def _check_ours(engine: Engine, shown: str, revisions: Sequence[str]) -> None:
    """Raise StoreError if there are somebody else's tables, or a schema that this code does not read."""
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        revision = _revision_of(connection)
    if tables and not {"alembic_version", "experiments"} <= tables:
        raise StoreError(
            f"The database {shown} belongs to something else (it has the table {min(tables)!r}); give another path."
        )
    if revision is None or revision in revisions:
        return
    if revision < revisions[0]:
        raise StoreError(
            f"The database {shown} is of HueJury's development before anything was released (schema {revision}), "
            f"and commit {LAST_COMMIT_THAT_READS} was the last that reads it; move it away, and sweep again."
        )
    raise StoreError(
        f"The database {shown} was written by a newer HueJury (schema {revision}, this one knows {revisions[-1]}); "
        "update HueJury, or give another path."
    )


def _bring_up_to_date(engine: Engine, shown: str, head: str, say: Callable[[str], None], busy_timeout_s: float) -> None:
    """Make the tables, or migrate them to the revision `head`, in one transaction that other processes wait for."""
    sqlite = engine.dialect.name == "sqlite"
    in_file = sqlite and shown != ":memory:"
    with engine.execution_options(sqlite_begin="IMMEDIATE").connect() as connection:
        driver: Any = connection.connection.driver_connection
        if in_file:
            _write_ahead(driver, busy_timeout_s)
        if sqlite:
            # Altering a table in SQLite drops and makes it again, and dropping it would delete what refers to it.
            driver.execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            if not sqlite:  # which has one writer at a time anyway
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            revision = _revision_of(connection)
            if revision == head:
                # Changes nothing, but fails on a file that cannot be written.
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
            elif revision is None:
                Base.metadata.create_all(connection, checkfirst=False)
                create_triggers(connection)
                _with_alembic(connection, "stamp")
            else:
                copy = f" A copy of it is {_copy(Path(shown), revision)}." if in_file else ""
                say(f"Migrating the database {shown} from schema {revision} to {head}.{copy}")
                _with_alembic(connection, "upgrade")
                dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").first() if sqlite else None
                if dangling is not None:
                    raise StoreError(
                        f"The database {shown} was left as it was: migrating it to schema {head} would leave a row "
                        f"of {dangling[0]} that refers to nothing; report this with the database's copy."
                    )
        if sqlite:
            driver.execute("PRAGMA foreign_keys = ON")


def _revision_of(connection: Connection) -> str | None:
    """The schema's, None in a database without tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def _with_alembic(connection: Connection, what: Literal["stamp", "upgrade"]) -> None:
    """Write down that the tables are the newest schema's, or make them so."""
    from alembic import command  # takes half a second, for which a database as it should be need not wait
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    getattr(command, what)(config, "head")


def _write_ahead(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch to the write-ahead log, if that is not done yet. For this SQLite does not wait for locks by itself."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _copy(path: Path, revision: str) -> Path:
    """Copy a SQLite file that others may be using beside itself, and return the copy's path."""
    copy = path.with_name(f"{path.stem}-schema-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}{path.suffix}")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def explain(error: DBAPIError | sqlite3.Error, shown: str) -> str:
    """One sentence for an error of the driver."""
    original = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(original, "sqlite_errorname", "")
    if name == "SQLITE_NOTADB":
        return f"The file {shown} is not a SQLite database; give another path, or move the file away."
    if name.startswith("SQLITE_CORRUPT"):
        return f"The database {shown} is damaged; put a copy of it in its place, or move it away to start a new one."
    if name.startswith("SQLITE_READONLY"):
        return f"The database {shown} is read-only; allow writing to the file and its folder, or give another path."
    if name.startswith("SQLITE_CANTOPEN"):
        return f"The database {shown} cannot be opened; check that you may read and write the file and its folder."
    if name == "SQLITE_FULL":
        return f"The disk of the database {shown} is full; free some space on it, then try again."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or getattr(original, "sqlstate", None) == LOCK_NOT_AVAILABLE:
        return f"The database {shown} is locked by another process; wait for it or stop it, then try again."
    first_line = str(original).partition("\n")[0]
    return f"The database {shown} cannot be used ({first_line}); check its address, rights and free space."
