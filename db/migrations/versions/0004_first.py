"""The first schema that is kept: what development made until 0003 is not read any more.

Nothing leads to it. A new database is made as `db.schema` says and marked with the newest revision (see `db.store`);
what comes after this one brings an older database there.
"""

revision = "0004"
down_revision = None
