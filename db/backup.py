"""Copies a SQLite database, as it is at one moment, while sweeps and the survey go on writing to it.

python -m db.backup backups/huejury.sqlite
"""

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from db.errors import run_command
from db.store import DATABASE_HELP, StoreError, address, default_database, explain


def back_up(database: str, target: Path) -> int:
    """Copy the SQLite file `database` to `target`, which must not exist yet, and return its size in bytes.

    The copy is what was committed at one moment, checked, and on the disk when this returns; only then does it bear
    its name. Raises StoreError if it cannot be made.
    """
    url = address(database)
    if url.get_backend_name() != "sqlite":
        raise StoreError(
            "A PostgreSQL database is backed up by its own pg_dump, which also runs while others write: "
            "pg_dump --format=custom --file=huejury.dump (and its connection's options)."
        )
    source = Path(str(url.database))
    if not source.is_file():
        raise StoreError(f"There is no database {source}; give another --database.")
    if target.exists():
        raise StoreError(f"There is a {target} already; give the path of a new file.")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of a backup that was interrupted
        # All pages at once: page by page it would start again whenever somebody writes.
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=30)) as original,
            closing(sqlite3.connect(part)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            found = copy.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            raise StoreError(f"The database {source} is damaged ({found.splitlines()[0]}); no backup was made.")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.rename(target)
        return target.stat().st_size
    except sqlite3.Error as error:
        if error.sqlite_errorname == "SQLITE_FULL":
            raise StoreError(f"The disk of the backup {target} is full; give another path.") from error
        raise StoreError(explain(error, str(source))) from error
    except OSError as error:
        raise StoreError(f"The backup {target} cannot be written ({error.strerror}); give another path.") from error
    finally:
        part.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m db.backup",
        description="Copy a SQLite database, whole and consistent, while sweeps and the survey go on. To restore it, "
        "stop them, put the copy in the database's place and remove the files FILE-wal and FILE-shm beside it.",
    )
    parser.add_argument("target", type=Path, metavar="FILE", help="where the copy goes; it must not exist yet")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)

    def body() -> int:
        size = back_up(options.database, options.target)
        print(f"{options.target}: {size:,} bytes, checked.")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
