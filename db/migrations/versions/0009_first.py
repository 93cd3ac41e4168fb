"""The first schema that is kept; what development made before it, `db.store.LAST_COMMIT_THAT_READS` reads.

Nothing leads to it. A new database is made as `db.schema` says and marked with the newest revision (see `db.store`);
what comes after this one brings an older database there.
"""

revision = "0009"
down_revision = None
