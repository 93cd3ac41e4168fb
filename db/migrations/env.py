"""How Alembic runs a migration here: on the connection, inside the transaction, that `db.store` hands over.

A new one is a file in `versions/`, written by hand and numbered on. New databases are made by `db.schema` at once.
"""

from alembic import context

from db.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    # SQLite's DDL is transactional once BEGIN is sent, as `db.store` does: a migration happens whole or not at all.
    transactional_ddl=True,
)
context.run_migrations()
