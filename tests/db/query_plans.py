"""How SQLite carries out the queries that a test makes."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event


@contextmanager
def query_plans(engine: Engine) -> Iterator[list[list[str]]]:
    """Gives a list that has, once the block has ended, the steps of EXPLAIN QUERY PLAN for each SELECT made in it."""
    asked: list[tuple[str, object]] = []
    plans: list[list[str]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        for statement, values in asked:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)  # type: ignore[arg-type]
                plans.append([str(row[3]) for row in rows])


def scans(plans: list[list[str]]) -> list[str]:
    """The steps that read a whole table."""
    return [step for plan in plans for step in plan if step.startswith("SCAN")]
