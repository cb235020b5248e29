"""Where in a row there is text: columns of strings, fields of structs, elements of lists, keys and values of maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import pyarrow as pa

from airflow_incremental.audits.columns import Column, resolve
from airflow_incremental.engines.filters import quote
from airflow_incremental.engines.types import is_text


@attrs.frozen(kw_only=True)
class Texts:
    """Texts of a row in one place.

    :param path: for people and for samples: the column, fields of structs after dots, elements as ``[]``.
    :param sql: the text, or the list of texts.
    :param many: whether it is a list.
    """

    path: str
    sql: str
    many: bool

    def among(self, values: str) -> str:
        """Return a predicate that is true if one of the texts is among those that a query of one column returns."""
        if self.many:
            return f"list_has_any({self.sql}, (SELECT list(v) FROM ({values}) AS t(v)))"  # noqa: S608
        return f"{self.sql} IN ({values})"

    @property
    def each(self) -> str:
        """An expression of select lists that gives every text."""
        return f"unnest({self.sql})" if self.many else self.sql


def texts_of(schema: pa.Schema, columns: Sequence[str] | None, *, audit: str) -> list[Texts]:
    """Return where there is text.

    :param columns: columns, or dotted paths of fields, to look at; None for all columns.
    :param audit: name of the audit that asks.
    :raises AuditFailed: a column does not exist.
    """
    if columns is None:
        found = [Column(f.name, quote(f.name), f.type) for f in schema]
    else:
        found = [resolve(schema, path, audit=audit) for path in columns]
    return [t for column in found for t in _within(column.path, column.sql, column.type, 0)]


def _within(path: str, sql: str, kind: pa.DataType, depth: int) -> Iterator[Texts]:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if is_text(kind):
        yield Texts(path=path, sql=sql, many=False)
    elif pa.types.is_struct(kind):
        for field in (kind.field(i) for i in range(kind.num_fields)):
            name = field.name.replace("'", "''")
            yield from _within(f"{path}.{field.name}", f"struct_extract({sql}, '{name}')", field.type, depth)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _elements(f"{path}[]", sql, kind.value_type, depth)
    elif pa.types.is_map(kind):
        yield from _elements(f"{path}.key", f"map_keys({sql})", kind.key_type, depth)
        yield from _elements(f"{path}.value", f"map_values({sql})", kind.item_type, depth)


def _elements(path: str, sql: str, kind: pa.DataType, depth: int) -> Iterator[Texts]:
    element = f"element{depth}"
    for inner in _within(path, element, kind, depth + 1):
        lists = f"list_transform({sql}, lambda {element}: {inner.sql})"
        yield Texts(path=inner.path, sql=f"flatten({lists})" if inner.many else lists, many=True)
