"""Arrow types in SQL's words, and which of them are encodings of the same values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_SQL_NAMES = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date32[day]": "DATE",
    "null": "NULL",
}
_UNITS = {"s": "_S", "ms": "_MS", "us": "", "ns": "_NS"}


def type_name(arrow_type: Any) -> str:
    """Return an Arrow type in SQL's words, for people who write SQL."""
    t = pa.types
    if t.is_dictionary(arrow_type):
        return type_name(arrow_type.value_type)
    return _nested_name(arrow_type) or _scalar_name(arrow_type)


def _nested_name(arrow_type: Any) -> str:
    if pa.types.is_struct(arrow_type):
        inner = ", ".join(f"{f.name} {type_name(f.type)}" for f in arrow_type)
        return f"STRUCT({inner})"
    if pa.types.is_map(arrow_type):
        return f"MAP({type_name(arrow_type.key_type)}, {type_name(arrow_type.item_type)})"
    return f"{type_name(arrow_type.value_type)}[]" if is_list(arrow_type) else ""


def _scalar_name(arrow_type: Any) -> str:
    t = pa.types
    if t.is_timestamp(arrow_type):
        name = "TIMESTAMP" if arrow_type.tz is None else "TIMESTAMPTZ"
        return name + _UNITS[arrow_type.unit]
    if t.is_decimal(arrow_type):
        return f"DECIMAL({arrow_type.precision},{arrow_type.scale})"
    for name, fits in (("UUID", is_uuid), ("TIME", t.is_time), ("VARCHAR", is_text), ("BLOB", is_bytes)):
        if fits(arrow_type):
            return name
    return _SQL_NAMES.get(str(arrow_type), str(arrow_type))


def is_list(arrow_type: Any) -> bool:
    """Whether values are lists, in any encoding."""
    t = pa.types
    return bool(t.is_list(arrow_type) or t.is_large_list(arrow_type) or t.is_fixed_size_list(arrow_type))


def is_text(arrow_type: Any) -> bool:
    """Whether values are strings, in any encoding but dictionaries."""
    t = pa.types
    return bool(t.is_string(arrow_type) or t.is_large_string(arrow_type) or t.is_string_view(arrow_type))


def is_bytes(arrow_type: Any) -> bool:
    """Whether values are bytes, in any encoding but dictionaries."""
    t = pa.types
    plain = t.is_binary(arrow_type) or t.is_large_binary(arrow_type) or t.is_binary_view(arrow_type)
    return bool(plain or t.is_fixed_size_binary(arrow_type))


def is_uuid(arrow_type: Any) -> bool:
    """Whether values are UUIDs."""
    return bool(arrow_type.equals(pa.uuid()))


def has_required(arrow_type: Any) -> bool:
    """Whether a field inside the type may not be null, so that values have to be looked at."""
    if pa.types.is_map(arrow_type):
        inner = [arrow_type.item_field]
    elif pa.types.is_nested(arrow_type):
        inner = [arrow_type.field(i) for i in range(arrow_type.num_fields)]
    else:
        return False
    return any(not f.nullable or has_required(f.type) for f in inner)
