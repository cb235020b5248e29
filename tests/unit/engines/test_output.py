"""What fits the target and what does not: matched by name, converted without loss, and refused with a table of differences."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.errors import TransformError
from airflow_incremental.engines.output import Fitter

D = decimal.Decimal
UTC = dt.timezone.utc
NOON = dt.datetime(2024, 1, 1, 12, 0, 0, 5)  # noqa: DTZ001
WIDE = pa.decimal128(38, 0)
US, NS = pa.timestamp("us"), pa.timestamp("ns")


def fit_array(array: pa.Array, want: pa.DataType, *, nullable: bool = True) -> pa.Array:
    schema = pa.schema([pa.field("x", want, nullable=nullable)])
    fitted = Fitter.between(pa.schema([("x", array.type)]), schema).fit(pa.record_batch({"x": array}))
    assert fitted.schema == schema
    fitted.validate(full=True)
    return fitted.column(0)


def fit(values: Any, want: pa.DataType, *, nullable: bool = True) -> Any:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return fit_array(array, want, nullable=nullable).to_pylist()


@pytest.mark.parametrize(
    ("array", "want", "values"),
    [
        (pa.array([1, None], pa.int8()), pa.int32(), [1, None]),
        (pa.array([2**31 - 1], pa.int32()), pa.int64(), [2**31 - 1]),
        (pa.array([2**32 - 1], pa.uint32()), pa.int64(), [2**32 - 1]),
        (pa.array([2**63 - 1], pa.uint64()), pa.int64(), [2**63 - 1]),
        (pa.array([2**31 - 1], pa.int32()), pa.float64(), [float(2**31 - 1)]),
        (pa.array([2**15 - 1], pa.int16()), pa.float32(), [float(2**15 - 1)]),
        (pa.array([2**63 - 1], pa.int64()), pa.decimal128(21, 2), [D("9223372036854775807.00")]),
        (pa.array([0.1], pa.float32()), pa.float64(), [pa.scalar(0.1, pa.float32()).as_py()]),
        (pa.array([D(-(2**63)), D(2**63 - 1), None], WIDE), pa.int64(), [-(2**63), 2**63 - 1, None]),
        (pa.array([D("1.5")], pa.decimal128(38, 1)), pa.decimal128(9, 2), [D("1.50")]),
        (pa.array([D("1.5")], pa.decimal128(4, 1)), pa.decimal128(9, 2), [D("1.50")]),
        (pa.array(["a", None, ""], pa.string()), pa.large_string(), ["a", None, ""]),
        (pa.array(["a", None], pa.string_view()), pa.string(), ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), pa.large_string(), ["a", None, "a"]),
        (pa.array([b"12345", None], pa.binary()), pa.binary(5), [b"12345", None]),
        (pa.array([b"12345"], pa.binary(5)), pa.large_binary(), [b"12345"]),
        (pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("s")), US, [dt.datetime(2024, 1, 1)]),  # noqa: DTZ001
        (pa.array([NOON], NS), US, [NOON]),
        (
            pa.array([dt.datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("ms", "Europe/Amsterdam")),
            pa.timestamp("us", "UTC"),
            [dt.datetime(2024, 1, 1, tzinfo=UTC)],
        ),
        (pa.array([dt.time(1, 2, 3)], pa.time32("s")), pa.time64("us"), [dt.time(1, 2, 3)]),
        (pa.array([dt.date(2024, 1, 1)], pa.date64()), pa.date32(), [dt.date(2024, 1, 1)]),
        (pa.nulls(2), pa.large_string(), [None, None]),
        (pa.nulls(1), pa.large_list(pa.int32()), [None]),
        (pa.nulls(1), pa.struct([("a", pa.int32())]), [None]),
        (pa.nulls(1), pa.uuid(), [None]),
    ],
    ids=lambda v: str(v.type) if isinstance(v, pa.Array) else str(v) if isinstance(v, pa.DataType) else "",
)
def test_values_are_kept(array: pa.Array, want: pa.DataType, values: list[Any]) -> None:
    assert fit(array, want) == values


@pytest.mark.parametrize(
    ("have", "want", "names", "hint"),
    [
        (pa.int64(), pa.int32(), ("BIGINT", "INTEGER"), "return CAST(x AS INTEGER) AS x"),
        (pa.int64(), pa.float64(), ("BIGINT", "DOUBLE"), "return CAST(x AS DOUBLE) AS x"),
        (pa.int64(), pa.decimal128(20, 2), ("BIGINT", "DECIMAL(20,2)"), "return CAST(x AS DECIMAL(20,2)) AS x"),
        (pa.float64(), pa.float32(), ("DOUBLE", "FLOAT"), "return CAST(x AS FLOAT) AS x"),
        (pa.float64(), pa.int64(), ("DOUBLE", "BIGINT"), "return CAST(x AS BIGINT) AS x"),
        (pa.decimal128(9, 2), pa.float64(), ("DECIMAL(9,2)", "DOUBLE"), "return CAST(x AS DOUBLE) AS x"),
        (pa.decimal128(38, 2), pa.int64(), ("DECIMAL(38,2)", "BIGINT"), "return CAST(x AS BIGINT) AS x"),
        (
            pa.decimal128(9, 3),
            pa.decimal128(9, 2),
            ("DECIMAL(9,3)", "DECIMAL(9,2)"),
            "return CAST(x AS DECIMAL(9,2)) AS x",
        ),
        (pa.string(), pa.int64(), ("VARCHAR", "BIGINT"), "return CAST(x AS BIGINT) AS x"),
        (pa.int64(), pa.large_string(), ("BIGINT", "VARCHAR"), "return CAST(x AS VARCHAR) AS x"),
        (pa.bool_(), pa.int32(), ("BOOLEAN", "INTEGER"), "return CAST(x AS INTEGER) AS x"),
        (pa.date32(), US, ("DATE", "TIMESTAMP"), "return CAST(x AS TIMESTAMP) AS x"),
        (US, pa.date32(), ("TIMESTAMP", "DATE"), "return CAST(x AS DATE) AS x"),
        (US, pa.timestamp("us", "UTC"), ("TIMESTAMP", "TIMESTAMPTZ"), "return x AT TIME ZONE 'UTC' AS x"),
        (pa.timestamp("us", "UTC"), US, ("TIMESTAMPTZ", "TIMESTAMP"), "return x AT TIME ZONE 'UTC' AS x"),
        (pa.binary(), pa.large_string(), ("BLOB", "VARCHAR"), "return CAST(x AS VARCHAR) AS x"),
        (pa.list_(pa.int32()), pa.int32(), ("INTEGER[]", "INTEGER"), ""),
        (pa.string(), pa.struct([("a", pa.int32())]), ("VARCHAR", "STRUCT(a INTEGER)"), ""),
        (pa.int64(), pa.uuid(), ("BIGINT", "UUID"), "return CAST(x AS UUID) AS x"),
    ],
    ids=str,
)
def test_what_would_lose_something_is_left_to_the_transform(
    have: pa.DataType, want: pa.DataType, names: tuple[str, str], hint: str
) -> None:
    with pytest.raises(TransformError) as caught:
        Fitter.between(pa.schema([("x", have)]), pa.schema([("x", want)]))
    cells = [c.strip() for c in caught.value.found.splitlines()[2].split("  ") if c.strip()]
    assert cells == ["x", *names]
    assert caught.value.hint == (hint or "return exactly the target's columns, or change the target's schema")


@pytest.mark.parametrize(
    ("array", "want", "name"),
    [
        (pa.array([D(2**63)], WIDE), pa.int64(), "BIGINT"),
        (pa.array([2**63], pa.uint64()), pa.int64(), "BIGINT"),
        (pa.array([-1], pa.int64()), pa.uint64(), "UBIGINT"),
        (pa.array([D("12345678.5")], pa.decimal128(38, 1)), pa.decimal128(9, 2), "DECIMAL(9,2)"),
        (pa.array([1], pa.int64()).cast(NS), US, "TIMESTAMP"),
        (pa.array([b"1234"], pa.binary()), pa.binary(5), "BLOB"),
        (pa.array(["no uuid"]), pa.uuid(), "UUID"),
        (pa.array(["0" * 31 + "é"]), pa.uuid(), "UUID"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused_without_being_shown(array: pa.Array, want: pa.DataType, name: str) -> None:
    with pytest.raises(TransformError) as caught:
        fit(array, want)
    assert caught.value.found == (
        f"the transform returned rows that do not fit the target: values of 'x' do not fit {name} (in a batch of 1 rows)"
    )


def test_columns_are_matched_by_name_in_any_order() -> None:
    have = pa.record_batch({"b": ["x"], "a": [1]})
    want = pa.schema([("a", pa.int64()), ("b", pa.large_string())])
    fitted = Fitter.between(have.schema, want).fit(have)
    assert (fitted.schema, fitted.to_pylist()) == (want, [{"a": 1, "b": "x"}])


def test_the_difference_is_shown_as_a_table() -> None:
    have = pa.schema(
        [
            ("Origin", pa.string()),
            ("departures", pa.float64()),
            ("extra", pa.int32()),
            ("place", pa.struct([("lat", pa.string()), ("height", pa.int32())])),
            ("at", US),
        ]
    )
    want = pa.schema(
        [
            ("origin", pa.large_string()),
            ("departures", pa.int64()),
            ("place", pa.struct([("lat", pa.float64()), ("lon", pa.float64())])),
            ("at", pa.timestamp("us", "UTC")),
            ("delay", pa.float64()),
        ]
    )
    with pytest.raises(TransformError) as caught:
        Fitter.between(have, want)
    assert caught.value.found.splitlines() == [
        "the transform's columns do not fit the target:",
        "  column        transform returns  target has",
        "  origin        (missing)          VARCHAR",
        "  departures    DOUBLE             BIGINT",
        "  place.lat     VARCHAR            DOUBLE",
        "  place.lon     (missing)          DOUBLE",
        "  place.height  INTEGER            (no such column)",
        "  at            TIMESTAMP          TIMESTAMPTZ",
        "  delay         (missing)          DOUBLE",
        "  Origin        VARCHAR            (no such column)",
        "  extra         INTEGER            (no such column)",
    ]
    assert caught.value.expected == "the target's columns by name, in any order, with types that fit without loss"
    assert caught.value.hint == (
        "return CAST(departures AS BIGINT) AS departures, return at AT TIME ZONE 'UTC' AS at, rename Origin to origin, "
        "return delay too, leave extra out"
    )


def test_a_column_comes_once() -> None:
    batch = pa.schema([("a", pa.int32()), ("a", pa.int32())])
    with pytest.raises(TransformError, match="the transform returns 'a' more than once"):
        Fitter.between(batch, pa.schema([("a", pa.int32())]))


def test_nulls_in_a_required_column_are_counted() -> None:
    with pytest.raises(TransformError) as caught:
        fit([1, None, None], pa.int64(), nullable=False)
    assert str(caught.value) == (
        "the transform returned 2 nulls in column 'x' (in a batch of 3 rows). Expected: no nulls: the target requires 'x'. "
        "What to do: fill or filter them in the transform, or make the column optional."
    )


@pytest.mark.parametrize(
    ("array", "want", "column"),
    [
        (pa.array([{"a": None}, None, {"a": 1}]), pa.struct([pa.field("a", pa.int64(), nullable=False)]), "x.a"),
        (pa.array([[1, None], None]), pa.large_list(pa.field("element", pa.int64(), nullable=False)), "x.element"),
        (
            pa.array([[("k", None)], None], pa.map_(pa.string(), pa.int64())),
            pa.map_(pa.string(), pa.field("value", pa.int64(), nullable=False)),
            "x.value",
        ),
    ],
    ids=["struct", "list", "map"],
)
def test_nulls_in_required_fields_inside_are_counted(array: pa.Array, want: pa.DataType, column: str) -> None:
    with pytest.raises(TransformError, match=f"1 values of '{column}' are null, which the target does not allow"):
        fit(array, want)
    fine = array.filter(pa.array([i > 0 for i in range(len(array))]))
    assert fit(fine, want) == fine.to_pylist()


NESTED_HAVE = pa.struct(
    [
        ("m", pa.map_(pa.string(), pa.list_(pa.int32()))),
        ("l", pa.list_(pa.struct([("b", pa.string()), ("a", pa.int8())]))),
        ("f", pa.list_(pa.int16(), 2)),
        ("u", pa.list_(pa.string())),
    ]
)
NESTED_WANT = pa.struct(
    [
        ("l", pa.large_list(pa.struct([("a", pa.int64()), ("b", pa.large_string())]))),
        ("u", pa.large_list(pa.uuid())),
        ("m", pa.map_(pa.large_string(), pa.large_list(pa.int64()))),
        ("f", pa.large_list(pa.int32())),
    ]
)
NESTED_AGAIN = pa.struct(
    [
        ("u", pa.list_(pa.uuid())),
        ("l", pa.list_(pa.struct([("b", pa.large_string()), ("a", pa.int64())]))),
        ("f", pa.list_(pa.int32())),
        ("m", pa.map_(pa.string(), pa.list_(pa.int64()))),
    ]
)
_ids = st.none() | st.uuids().map(str)
_nested = st.none() | st.fixed_dictionaries(
    {
        "m": st.none()
        | st.dictionaries(
            st.text(max_size=2), st.none() | st.lists(st.none() | st.integers(-5, 5), max_size=3), max_size=3
        ).map(lambda d: list(d.items())),
        "l": st.none()
        | st.lists(
            st.none()
            | st.fixed_dictionaries({"b": st.none() | st.text(max_size=3), "a": st.none() | st.integers(-9, 9)}),
            max_size=3,
        ),
        "f": st.none() | st.lists(st.none() | st.integers(-5, 5), min_size=2, max_size=2),
        "u": st.none() | st.lists(_ids, max_size=3),
    }
)


def with_texts(rows: list[Any]) -> list[Any]:
    """Return rows with UUIDs as the text they were made from."""
    for row in rows:
        if row is not None and row["u"] is not None:
            row["u"] = [None if u is None else str(u) for u in row["u"]]
    return rows


@given(st.lists(_nested, max_size=8), st.integers(0, 3), st.integers(0, 3))
def test_nested_values_are_kept_in_whatever_slice_they_come(rows: list[Any], skip: int, leave: int) -> None:
    array = pa.array(rows, NESTED_HAVE)
    kept = array.slice(skip, max(0, len(rows) - leave - skip))
    fitted = fit_array(kept, NESTED_WANT)
    assert with_texts(fitted.to_pylist()) == kept.to_pylist()
    half = fitted.slice(len(fitted) // 2)
    assert with_texts(fit_array(half, NESTED_AGAIN).to_pylist()) == kept.to_pylist()[len(kept) // 2 :]
