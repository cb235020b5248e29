"""Which Arrow types may become which without losing anything, and the functions that do it.

Allowed is what keeps every value: wider numbers, other encodings of the same values (large, view, dictionary), exact
units of time, and the widest types where the values fit, because that is what ``sum()`` returns. What needs a decision
(a float from a decimal, a time with zone from one without, a narrower integer) is left to the transform, where people
can read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc

from airflow_incremental.engines.types import has_required, is_bytes, is_list, is_text, is_uuid, type_name

#: Turns an array of one type into an array of another.
Convert = Callable[[Any], Any]

#: Decimal digits that hold every value of an integer type.
_DIGITS = {"int8": 3, "int16": 5, "int32": 10, "int64": 19, "uint8": 3, "uint16": 5, "uint32": 10, "uint64": 20}
#: Bits of the integers a float holds exactly.
_MANTISSA = {"float": 24, "double": 53}
#: Precision of the decimals that ``sum()`` returns (of integers too: HUGEINT arrives as DECIMAL(38,0)).
_WIDEST = 38
_LONG_BITS = 64
_UUID_BYTES = 16
_UUID_TEXT = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Mismatch:
    """A column, or a field inside one, that does not fit.

    :param column: its path, such as ``address.zip`` or ``tags.element``.
    :param have: type that was returned; None if the column is missing.
    :param want: type of the target; None if the target has no such column.
    :param advice: an expression that would fit; empty if there is none to offer.
    """

    column: str
    have: str | None = None
    want: str | None = None
    advice: str = ""


class Unfit(Exception):
    """Values do not fit although the types are convertible; the text says which and why, without showing them."""


def fields(have: Sequence[Any], want: Sequence[Any], prefix: str, wrong: list[Mismatch]) -> list[Convert]:
    """Match Arrow fields by name, in any order, and return one conversion per wanted field.

    A missing field is a mismatch even if it may be null: a forgotten column would look the same.

    :param prefix: path of what holds the fields, with a dot; empty for columns.
    :param wrong: gets everything that does not fit; the conversions are usable only if it stays empty.
    """
    left = {f.name: f.type for f in have}
    found = []
    for field in want:
        source = left.pop(field.name, None)
        if source is None:
            wrong.append(Mismatch(column=prefix + field.name, want=type_name(field.type)))
        else:
            found.append(conversion(source, field.type, prefix + field.name, wrong))
    wrong += [Mismatch(column=prefix + name, have=type_name(kind)) for name, kind in left.items()]
    return found


def conversion(have: Any, want: Any, column: str, wrong: list[Mismatch]) -> Convert:
    """Return a function that turns arrays of one Arrow type into another.

    :param column: path of the column, for mismatches and for the errors of the function.
    :param wrong: gets what is in the way.
    """
    if have.equals(want) and not has_required(want):
        return lambda array: array
    if pa.types.is_dictionary(have):
        inner = conversion(have.value_type, want, column, wrong)
        return lambda array: inner(array.cast(have.value_type))
    for matches, make in ((pa.types.is_struct, _structs), (pa.types.is_map, _maps), (is_list, _lists)):
        if matches(have) and matches(want):
            return make(have, want, column, wrong)
    if is_uuid(want) and (is_text(have) or have.equals(pa.binary(_UUID_BYTES))):
        return partial(_uuids, column)
    if not _fits(have, want):
        advice = _advice(have, want, column)
        wrong.append(Mismatch(column=column, have=type_name(have), want=type_name(want), advice=advice))
    return partial(_cast, want, column)


def _fits(have: Any, want: Any) -> bool:
    """Whether every value of one type that holds no others is a value of another, or can be told to be none."""
    t = pa.types
    if t.is_null(have) or have.equals(want):
        return True
    if t.is_timestamp(have) and t.is_timestamp(want):
        return bool((have.tz is None) == (want.tz is None))
    encodings = ((is_text, is_text), (is_bytes, is_bytes), (t.is_time, t.is_time), (t.is_date, t.is_date))
    return any(a(have) and b(want) for a, b in encodings) or _number_fits(have, want)


def _number_fits(have: Any, want: Any) -> bool:
    t = pa.types
    fits = False
    if t.is_integer(have) and t.is_integer(want):
        # 64 bits with and without sign are told apart by the values.
        fits = have.bit_width < want.bit_width or have.bit_width == want.bit_width == _LONG_BITS
    elif t.is_integer(have) and t.is_floating(want):
        fits = have.bit_width <= _MANTISSA.get(str(want), 0)
    elif t.is_integer(have) and t.is_decimal(want):
        fits = _DIGITS[str(have)] <= want.precision - want.scale
    elif t.is_floating(have) and t.is_floating(want):
        fits = have.bit_width <= want.bit_width
    elif t.is_decimal(have) and t.is_integer(want):
        fits = have.scale == 0 and have.precision == _WIDEST and want.bit_width == _LONG_BITS
    elif t.is_decimal(have) and t.is_decimal(want):
        whole = have.precision == _WIDEST or have.precision - have.scale <= want.precision - want.scale
        fits = whole and have.scale <= want.scale
    return bool(fits)


def _advice(have: Any, want: Any, column: str) -> str:
    t = pa.types
    if t.is_timestamp(have) and t.is_timestamp(want):
        return f"{column} AT TIME ZONE 'UTC'"
    return "" if t.is_nested(want) or t.is_nested(have) else f"CAST({column} AS {type_name(want)})"


def _cast(want: Any, column: str, array: Any) -> Any:
    try:
        return array.cast(want)
    except pa.ArrowInvalid:
        raise Unfit(f"values of {column!r} do not fit {type_name(want)}") from None


def _uuids(column: str, array: Any) -> Any:
    """Return UUIDs from their text, which is how DuckDB hands them out, or from their 16 bytes."""
    if pa.types.is_fixed_size_binary(array.type):
        return pa.ExtensionArray.from_storage(pa.uuid(), array)
    texts = pc.replace_substring(array.cast(pa.string()), "-", "")
    digits = pc.fill_null(texts, "0" * 2 * _UUID_BYTES).to_pylist()
    if not all(_UUID_TEXT.fullmatch(d) for d in digits):
        raise Unfit(f"values of {column!r} do not fit UUID")
    data = pa.py_buffer(bytes.fromhex("".join(digits)))
    storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_UUID_BYTES), len(array), [None, data])
    storage = pc.if_else(array.is_valid(), storage, pa.scalar(None, storage.type))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _structs(have: Any, want: Any, column: str, wrong: list[Mismatch]) -> Convert:
    steps = fields(list(have), list(want), f"{column}.", wrong)

    def convert(array: Any) -> Any:
        # flatten() lets a null struct make its fields null, whatever lies under it.
        inner = dict(zip((f.name for f in array.type), array.flatten(), strict=True))
        children = []
        for field, step in zip(want, steps, strict=True):
            child = step(inner[field.name])
            if not field.nullable:
                _refuse_nulls(f"{column}.{field.name}", child.null_count - array.null_count)
            children.append(child)
        return pa.StructArray.from_arrays(children, fields=list(want), mask=array.is_null())

    return convert


def _lists(have: Any, want: Any, column: str, wrong: list[Mismatch]) -> Convert:
    step = conversion(have.value_type, want.value_type, f"{column}.element", wrong)
    large = pa.types.is_large_list(want)

    def convert(array: Any) -> Any:
        values = step(_elements(array))
        if not want.value_field.nullable:
            _refuse_nulls(f"{column}.element", values.null_count)
        offsets = _offsets(pc.list_value_length(array), pa.int64() if large else pa.int32())
        kind = pa.LargeListArray if large else pa.ListArray
        return kind.from_arrays(offsets, values, type=want, mask=array.is_null())

    return convert


def _maps(have: Any, want: Any, column: str, wrong: list[Mismatch]) -> Convert:
    to_key = conversion(have.key_type, want.key_type, f"{column}.key", wrong)
    to_value = conversion(have.item_type, want.item_type, f"{column}.value", wrong)

    def convert(array: Any) -> Any:
        # A map cannot be flattened; a list of its entries can.
        entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
        lists = pa.ListArray.from_arrays(array.offsets, entries)
        lists = pc.if_else(array.is_valid(), lists, pa.scalar(None, lists.type))
        keys, values = _elements(lists).flatten()
        values = to_value(values)
        if not want.item_field.nullable:
            _refuse_nulls(f"{column}.value", values.null_count)
        offsets = _offsets(pc.list_value_length(lists), pa.int32())
        return pa.MapArray.from_arrays(offsets, to_key(keys), values, type=want, mask=array.is_null())

    return convert


def _elements(lists: Any) -> Any:
    """Return the elements of lists without what lies outside a slice or under a null."""
    # Arrow cannot flatten nothing but nulls where the elements hold UUIDs.
    return lists.flatten() if lists.null_count < len(lists) else lists.values.slice(0, 0)


def _offsets(lengths: Any, kind: Any) -> Any:
    ends = pc.cumulative_sum(pc.fill_null(lengths, 0).cast(pa.int64()))
    return pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(kind)


def _refuse_nulls(column: str, count: int) -> None:
    if count:
        raise Unfit(f"{count:,} values of {column!r} are null, which the target does not allow")
