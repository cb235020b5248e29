"""The keys that a ``merge`` session computes, and the rows of a source that have one of them.

Spark's joins do not tell Iceberg which files may hold a key, so conditions on the key columns do: a few keys are listed, of more
the spans in which they lie are. What is left is joined exactly.
"""

from __future__ import annotations

from typing import Any, Mapping

from airflow_incremental_spark.changes import changed_keys
from airflow_incremental_spark.conditions import any_of
from airflow_incremental_spark.document import quote
from airflow_incremental_spark.reads import SourceReader, union
from airflow_incremental_spark.settings import functions_of

#: Keys that are listed; Iceberg compares no more values than this with the bounds of a file.
LISTED = 200
#: Keys of which spans are made.
SPANNED = 100_000
#: Spans that are given to Iceberg.
SPANS = 64
_SPANNED_TYPES = frozenset({"integer", "long", "date", "decimal"})
#: Type -> how its values are fetched and how Spark makes them again of that. Python would read times in its own zone, where an hour
#: of autumn comes twice, knows fewer years, and cannot put bytes into a set.
_EXACTLY = {
    "date": ("unix_date({})", "date_from_unix_date({})"),
    "timestamp": ("unix_micros({})", "timestamp_micros({})"),
    "timestamp_ntz": ("unix_micros(CAST({} AS TIMESTAMP))", "CAST(timestamp_micros({}) AS TIMESTAMP_NTZ)"),
    "binary": ("hex({})", "X'{}'"),
}


class Keys:
    """Distinct keys, under the names of the target's columns, kept by Spark until :meth:`forget`."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame.persist()
        self.columns: list[str] = list(frame.columns)
        self.count: int = self.frame.count()
        self._kinds: dict[str, str] = {f.name: f.dataType.typeName() for f in self.frame.schema.fields}
        self._first: list[tuple[Any, Any]] | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any], readers: Mapping[str, SourceReader]) -> Keys | None:
        """Find the keys of the rows that changed in the drivers; None for a job that computes no keys."""
        wanted = document.get("keys")
        if wanted is None:
            return None
        found = []
        for name, columns in wanted["sources"].items():
            source, reader = document["sources"][name], readers[name]
            if not source["added"] and not source["removed"]:
                continue
            removed = reader.frame(source["removed"]) if source["removed"] else None
            pairs = dict(zip(wanted["columns"], columns))
            found.append(changed_keys(reader.frame(source["added"]), removed, pairs))
        if not found:
            name = next(iter(wanted["sources"]))
            found = [changed_keys(readers[name].empty, None, dict(zip(wanted["columns"], wanted["sources"][name])))]
        return cls(union(found).distinct() if len(found) > 1 else found[0])

    def rows(self, frame: Any, columns: list[str]) -> Any:
        """Return the rows of a DataFrame that have one of the keys.

        :param columns: its columns that hold the key, in the order of the keys' columns.
        """
        return self._joined(self._pruned(frame, columns), columns, "left_semi")

    def others(self, frame: Any) -> Any:
        """Return the rows of a DataFrame with the keys' own columns that have none of the keys, or no whole key."""
        return self._joined(frame, self.columns, "left_anti")

    def forget(self) -> None:
        """Let Spark drop the keys."""
        self.frame.unpersist()

    def _joined(self, frame: Any, columns: list[str], how: str) -> Any:
        functions = functions_of(frame)
        names = {c: f"__incremental_key_{i}" for i, c in enumerate(self.columns)}
        keys = self.frame.selectExpr(*(f"{quote(c)} AS {n}" for c, n in names.items()))
        on = " AND ".join(f"{quote(c)} = {n}" for c, n in zip(columns, names.values()))
        return frame.join(keys, functions.expr(on), how)

    def _pruned(self, frame: Any, columns: list[str]) -> Any:
        """Return no fewer rows than have a key, by conditions that Iceberg can prune by."""
        functions = functions_of(frame)
        if self.count == 0:
            return frame.where("false")
        if self.count <= LISTED:
            listed = self.frame.selectExpr(*(self._fetched(name, quote(name)) for name in self.columns)).collect()
            for position, (name, column) in enumerate(zip(self.columns, columns)):
                values = [self._made(functions, name, v) for v in sorted({row[position] for row in listed})]
                frame = frame.where(functions.col(quote(column)).isin(values))
            return frame
        first, *others = self.columns
        by_spans = self._kinds[first] in _SPANNED_TYPES and self.count <= SPANNED
        frame = frame.where(
            self._within(functions, first, columns[0], self._spans() if by_spans else [self._ends(first)])
        )
        for name, column in zip(others, columns[1:]):
            frame = frame.where(self._within(functions, name, column, [self._ends(name)]))
        return frame

    def _ends(self, name: str) -> tuple[Any, Any]:
        row = self.frame.selectExpr(
            *(self._fetched(name, f"{end}({quote(name)})") for end in ("min", "max"))
        ).collect()[0]
        return row[0], row[1]

    def _spans(self) -> list[tuple[Any, Any]]:
        """Return at most ``SPANS`` spans that hold the first key column's values, with the widest gaps between them."""
        if self._first is None:
            first = self.columns[0]
            rows = self.frame.selectExpr(self._fetched(first, quote(first))).distinct().collect()
            values = sorted(row[0] for row in rows)
            gaps = [values[i] - values[i - 1] for i in range(1, len(values))]
            least = min(gaps, default=None)
            wide = [i for i, gap in enumerate(gaps, 1) if gap > least]
            wide.sort(key=lambda i: gaps[i - 1], reverse=True)
            starts = [0, *sorted(wide[: SPANS - 1]), len(values)]
            self._first = [(values[a], values[b - 1]) for a, b in zip(starts, starts[1:])]
        return self._first

    def _within(self, functions: Any, name: str, column: str, spans: list[tuple[Any, Any]]) -> Any:
        """Return the condition that a column lies in one of some spans of a key's values, as they were fetched."""
        value = functions.col(quote(column))
        made = [(self._made(functions, name, low), self._made(functions, name, high)) for low, high in spans]
        return any_of(functions, [value.between(low, high) for low, high in made])

    def _fetched(self, name: str, expression: str) -> str:
        """Return the SQL that fetches values of a key's column."""
        return _EXACTLY.get(self._kinds[name], ("{}",))[0].format(expression)

    def _made(self, functions: Any, name: str, value: Any) -> Any:
        """Return what was fetched as a value of the key's type again, one that Spark hands to Iceberg."""
        kind = self._kinds[name]
        return functions.expr(_EXACTLY[kind][1].format(value)) if kind in _EXACTLY else value
