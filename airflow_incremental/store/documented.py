"""The page on the store's tables, written from the tables themselves: ``make docs-store``."""

from __future__ import annotations

import sys

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from airflow_incremental.store.schema import metadata
from airflow_incremental.store.views import VIEWS

_HEAD = """# The store

A database beside Airflow's: the signals that steps wait for and runs start from, who waited for what and what released it, and
the session log, which says of each load what it read, wrote and found. It is open to plain SQL; every table and column is
described below (and in PostgreSQL itself, as comments). Loads never depend on it: what has been loaded is known from the tables
alone, and `airflow-incremental store rebuild` writes the session log anew from them.

## Where it is

Reached through the Airflow connection `incremental_default` (or another one, as `incremental_conn_id`):

| connection | store |
|---|---|
| none | the SQLite file `incremental.db` in Airflow's home: for one machine |
| type `sqlite`, the path of a file as host | that file, which all components have to reach |
| type `postgres` (or `incremental`): host, port, login, password, database as schema | PostgreSQL, for production |
| any, with `{"url": "postgresql+psycopg2://..."}` in extra | an SQLAlchemy URL |

For PostgreSQL, `pip install 'airflow-incremental[postgres]'` brings the driver. It may be a database of its own, or Airflow's
own one: all names begin with `incremental_`. Tables are made and migrated on first use, by one process at a time, or by
`airflow-incremental store upgrade`; the user of the connection needs the right to create tables for that, and then to read and
write them. A database whose tables a newer version has made is refused.

Containers without the connection each have a file of their own, and what one says the others never hear. So every store has a
random id, which travels with each wait; another id on the other side is an error at once, which says what to configure.

SQLite is written in WAL mode with `synchronous=NORMAL`: a commit survives a killed process; a machine that loses power may lose
the last commits, not their order.

## The session log

```sql
-- how far everything is, and what came last
SELECT process, target, complete_through, published_at FROM incremental_process ORDER BY complete_through;

-- what the loads of a day did, from when to when, and how many of their rows were late
SELECT process, session, state, rows, late_rows, verdict, planned_at, published_at, dag_id, run_id
FROM incremental_session WHERE planned_at >= '2024-03-01' ORDER BY planned_at;
```

Times are UTC: `timestamptz` in PostgreSQL; in SQLite, which has no times, text that sorts as they do, to be subtracted by
`julianday(published_at) - julianday(planned_at)`, in days.

A load whose store does not answer goes on, with a warning; the gap is filled by `airflow-incremental store rebuild TABLE ...`
(or `--namespace NAMESPACE`), which asks the targets: published sessions as far as their snapshots or earlier metadata tell,
open and failed ones, watermarks. What only the log knew (plans of sessions that are over, timings of steps) is not in the
tables. Rows that were made this way say so (`rebuilt`).

A publish is also a signal. If its store was configured and does not take it, the task fails and is tried again; what was
published stays, and whatever was left unsaid, the next session of the process says, before its own publish. Where nobody
configured a store, a warning is all. A new store gets the signals of all publishes that the target still tells of.
`incremental_conn_id=None` keeps no log and emits nothing.

## Tables

"""


def document() -> str:
    """Return the page."""
    tables = "\n".join(_table(table) for table in metadata.sorted_tables)
    views = "".join(f"### {name}\n\n{comment}\n\n" for name, (comment, _) in VIEWS.items())
    return f"{_HEAD}{tables}\n## Views\n\n{views}".rstrip() + "\n"


def _table(table: Table) -> str:
    rows = "".join(f"| `{column.name}` | {_type(column)} | {column.comment} |\n" for column in table.columns)
    return f"### {table.name}\n\n{table.comment}\n\n| column | type | meaning |\n|---|---|---|\n{rows}"


def _type(column: Column[object]) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    kind = column.type.compile(dialect=dialect).split(" COLLATE")[0].lower()
    key = ", key" if column.primary_key else ""
    return f"{kind.replace('timestamp with time zone', 'timestamptz')}{key}{'' if column.nullable or key else ', not null'}"


if __name__ == "__main__":
    sys.stdout.write(document())
