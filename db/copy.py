"""Copies a SQLite database into an empty PostgreSQL one, whole.

python -m db.copy huejury.sqlite postgresql+psycopg://user@host/huejury
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, Select, Table, func, insert, select
from sqlalchemy.exc import DBAPIError

from db.errors import run_command
from db.schema import Base
from db.store import StoreError, address, explain, open_database, open_existing, shown_name

ROWS_AT_ONCE = 500


def copy_database(source: str, target: str, *, say: Callable[[str], None] = print) -> dict[str, int]:
    """Copy every row of the SQLite file `source` into `target`, an empty PostgreSQL database, and return how many
    there were by table.

    All of it is one transaction there, in which every row is compared with its original before it is committed:
    whatever interrupts the copy leaves the target empty. The source is read as it was at one moment, and may be in use.
    What is written to it later is not copied. Raises StoreError if either is not what it should be.
    """
    url = address(target)
    if address(source).get_backend_name() != "sqlite" or url.get_backend_name() != "postgresql":
        raise StoreError(
            "A copy goes from a SQLite file to PostgreSQL: python -m db.copy huejury.sqlite "
            "postgresql+psycopg://user@host/huejury (a copy of the file itself: python -m db.backup)."
        )
    from_engine = open_existing(source, say=say)
    to_engine = open_database(target, say=say)
    try:
        with from_engine.connect() as reader, to_engine.begin() as writer:
            for table in Base.metadata.sorted_tables:
                if writer.execute(select(table).limit(1)).first() is not None:
                    raise StoreError(
                        f"The database {shown_name(url)} has rows in {table.name} already; give an empty one."
                    )
            # Triggers keep a study with participants as it is, and the rows come in no order that they could know.
            _set_triggers(writer, "DISABLE")
            copied = {table.name: copy_rows(reader, writer, table) for table in Base.metadata.sorted_tables}
            _set_triggers(writer, "ENABLE")
            for table in Base.metadata.sorted_tables:
                _compare(reader, writer, table)
    except DBAPIError as error:
        raise StoreError(explain(error, shown_name(url))) from error
    finally:
        from_engine.dispose()
        to_engine.dispose()
    return copied


def copy_rows(reader: Connection, writer: Connection, table: Table) -> int:
    """Insert what one database has in this table into the other's, and return how many rows that were. Ids go on from
    there."""
    rows = 0
    for part in reader.execution_options(yield_per=ROWS_AT_ONCE).execute(_in_order(table)).mappings().partitions():
        writer.execute(insert(table), [dict(row) for row in part])
        rows += len(part)
    if rows and writer.dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(table.name, "id")
        writer.execute(select(func.setval(sequence, select(func.max(table.c.id)).scalar_subquery())))
    return rows


def _in_order(table: Table) -> Select[Any]:
    return select(table).order_by(*table.primary_key)


def _compare(reader: Connection, writer: Connection, table: Table) -> None:
    streams = (connection.execution_options(yield_per=ROWS_AT_ONCE) for connection in (reader, writer))
    both = [stream.execute(_in_order(table)) for stream in streams]
    for original, copy in zip_longest(*both):
        if original is None or copy is None or tuple(original) != tuple(copy):
            raise StoreError(
                f"The copy of {table.name} differs from the original; nothing was copied. Does anybody else write to "
                "the new database?"
            )


def _set_triggers(writer: Connection, state: str) -> None:
    for table in Base.metadata.sorted_tables:
        writer.exec_driver_sql(f"ALTER TABLE {table.name} {state} TRIGGER USER")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m db.copy",
        description="Copy a SQLite database into an empty PostgreSQL one, whole. Stop sweeps and the survey before: "
        "what they write meanwhile is not copied.",
    )
    parser.add_argument("source", metavar="SQLITE", help="the path of the SQLite file")
    parser.add_argument("target", metavar="URL", help="of the PostgreSQL database: postgresql+psycopg://user@host/name")
    options = parser.parse_args(arguments)

    def body() -> int:
        for table, rows in copy_database(options.source, options.target).items():
            print(f"{rows:>10,} {table}")
        print("Copied and compared row by row. From now on give this URL: --database, or HUEJURY_DATABASE.")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
