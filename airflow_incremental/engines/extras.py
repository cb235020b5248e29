"""What a transform can read of a driver besides its rows: what changed in it, in which event times, and between which values.

Nothing of it is looked for before the transform names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import duckdb

from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.reads import Changes, SourceRead, bounds_name, changes_name, ranges_name
from airflow_incremental.engines.changes import CHANGE_TYPE, changes_query
from airflow_incremental.engines.filters import quote, text_literal
from airflow_incremental.engines.relations import bind, ranges_table, sql_types


@attrs.define
class Extras:
    """Relations that are bound when they are asked for.

    :param reads: what is bound already; gets what is bound here.
    :param empty: bind without rows, to learn columns only.
    """

    con: duckdb.DuckDBPyConnection
    reads: list[SourceRead]
    empty: bool
    _pending: dict[str, Callable[[], None]] = attrs.field(factory=dict, init=False)

    def offer(self, changes: Sequence[Changes]) -> None:
        """Take in what may be asked of the drivers; bounds, which an author has asked for already, are set at once."""
        for item in changes:
            self._pending[changes_name(item.name).lower()] = partial(self._changes, item)
            self._pending[ranges_name(item.name).lower()] = partial(self._ranges, item)
            if item.bounds:
                self._bounds(item)
                # There already, for SQL; a function asks for it as for the others.
                self._pending[bounds_name(item.name).lower()] = lambda: None

    def bind_mentioned(self, sql: str) -> None:
        """Bind what a query may mean: every offered name that occurs in its text."""
        text = sql.lower()
        for name in [n for n in self._pending if re.search(rf"\b{re.escape(n)}\b", text)]:
            self.bind(name)

    def bind(self, name: str) -> bool:
        """Bind a name if it is offered, and say so."""
        found = self._pending.pop(name.lower(), None)
        if found is None:
            return False
        found()
        return True

    def _changes(self, item: Changes) -> None:
        rows = item.find()
        for read in (rows.added, rows.removed):
            if CHANGE_TYPE in (c.lower() for c in read.schema.names):
                raise TransformError(
                    f"source {item.name!r} has a column {CHANGE_TYPE!r}, which {changes_name(item.name)!r} adds to its columns",
                    expected="another name",
                    hint="rename the column in the source table",
                )
            bound = attrs.evolve(read, parts=()) if self.empty else read
            bind(self.con, bound)
            self.reads.append(bound)
        query = changes_query(rows.added, rows.removed)
        self.con.execute(f"CREATE VIEW {quote(changes_name(item.name))} AS {query}")

    def _ranges(self, item: Changes) -> None:
        ranges_table(self.con, ranges_name(item.name), item.ranges)

    def _bounds(self, item: Changes) -> None:
        """Make a relation of one row, and a variable of each value: ``getvariable('<source>_min_<column>')``."""
        schema = next(read.schema for read in self.reads if read.name == item.name)
        types = dict(zip(schema.names, sql_types(self.con, schema), strict=True))
        columns = []
        for column, ends in item.bounds.items():
            for which, value in zip(("min", "max"), ends or (None, None), strict=True):
                variable = f"{item.name}_{which}_{column}"
                self.con.execute(f"SET VARIABLE {quote(variable)} = CAST(? AS {types[column]})", [_text(value)])
                columns.append(f"getvariable({text_literal(variable)}) AS {quote(f'{which}_{column}')}")
        self.con.execute(f"CREATE TABLE {quote(bounds_name(item.name))} AS SELECT {', '.join(columns)}")


def _text(value: object) -> str | None:
    return None if value is None else str(value)
