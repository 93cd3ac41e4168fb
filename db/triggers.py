"""What the database itself refuses to change, so that votes stay votes on what was shown: a study may only be closed;
what it may show is fixed as soon as somebody takes part; nor does a picture change that somebody was asked about."""

from sqlalchemy import Connection

from db.schema import Study

TAKING_PART = "EXISTS (SELECT 1 FROM participants WHERE study_id = {row}.study_id)"
ASKED_ABOUT = "NEW.png <> OLD.png AND EXISTS (SELECT 1 FROM questions WHERE sample_id = OLD.id)"


def create_triggers(connection: Connection) -> None:
    definition = ", ".join(column.name for column in Study.__table__.c if column.name not in ("status", "closed_at"))
    _refuse(connection, "studies", f"UPDATE OF {definition}", "TRUE", "a study can only be closed, not changed")
    _refuse(connection, "samples", "UPDATE OF png", ASKED_ABOUT, "a picture that a survey asks about stays as it is")
    for table in ("study_arms", "sentinel_pictures"):
        for event, row in {"INSERT": "NEW", "UPDATE": "OLD", "DELETE": "OLD"}.items():
            message = "a study with participants keeps its contenders and sentinels"
            _refuse(connection, table, event, TAKING_PART.format(row=row), message)


def _refuse(connection: Connection, table: str, event: str, condition: str, message: str) -> None:
    """Let the event fail for rows of the table of which the condition (SQL, of NEW and OLD) is true."""
    verb = event.partition(" ")[0]
    name = f"{table}_fixed_{verb.lower()}"
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        return
    connection.exec_driver_sql(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN "
        f"RAISE EXCEPTION '{message}' USING ERRCODE = 'integrity_constraint_violation'; END IF; "
        f"RETURN {'OLD' if verb == 'DELETE' else 'NEW'}; END $$"
    )
    connection.exec_driver_sql(
        f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )
