"""The built-in audits against what a few lines of Python say about the same rows."""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_incremental.audits import AcceptedValues, Audit, Between, NotNull, RowCount, SqlCheck, Unique
from tests.unit.audits.rows import audit

UTC = dt.timezone.utc
BIG = 2**53 + 1  # the first integer that a float cannot hold

COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "i": (pa.int64(), [0, 1, 2, -7, BIG, BIG - 1, 2**63 - 1, -(2**63)]),
    "tiny": (pa.int8(), [0, 1, -128, 127]),
    "u": (pa.uint64(), [0, 1, 2**64 - 1]),
    "f": (pa.float64(), [0.0, -0.0, 0.1, 1.0, 1.5, float(BIG), math.nan, math.inf, -math.inf]),
    "g": (pa.float32(), [0.0, 0.1, 1.0, 1.5, math.nan, math.inf, -math.inf, 3.4e38]),
    "d": (pa.decimal128(10, 2), [Decimal("0.00"), Decimal("0.10"), Decimal("-1.25"), Decimal("99999999.99")]),
    "wide": (pa.decimal128(38, 10), [Decimal("0.1"), Decimal(10**28 - 1), Decimal("0.0000000001")]),
    "s": (pa.string(), ["", "a", "A", "a'b", 'a"b', "$a0", "ä\U0001f600", "a\0b"]),
    "b": (pa.bool_(), [True, False]),
    "day": (pa.date32(), [dt.date(1, 1, 1), dt.date(2024, 1, 31), dt.date(2024, 2, 1), dt.date(9999, 12, 31)]),
    "ts": (
        pa.timestamp("us", "UTC"),
        [
            dt.datetime(2024, 1, 1, tzinfo=UTC),
            dt.datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            dt.datetime.max.replace(tzinfo=UTC),
        ],
    ),
    "naive": (pa.timestamp("us"), [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 5), dt.datetime(1, 1, 1)]),  # noqa: DTZ001
}
NUMBERS = ["i", "tiny", "u", "f", "g", "d", "wide"]
SCHEMA = pa.schema(
    [pa.field(name, kind) for name, (kind, _) in COLUMNS.items()]
    + [pa.field("box", pa.struct([("it's", pa.int64()), ("s", pa.string())]))]
)
PATHS = [*COLUMNS, "box.it's", "box.s"]

cells = {name: st.none() | st.sampled_from(values) for name, (_, values) in COLUMNS.items()}
box = st.none() | st.fixed_dictionaries({"it's": st.none() | st.integers(0, 1), "s": st.none() | st.sampled_from("xy")})
tables = st.lists(st.fixed_dictionaries({**cells, "box": box}), max_size=7)

# They lie on, beside and far outside what the columns hold.
NUMBERS_TRIED: list[Any] = [
    *[-3, -1, 0, 1, 2, BIG, BIG - 1, BIG + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 127, 128, -128, -129],
    *[0.1, 0.3, 1.5, -0.0, float(BIG), 1e300, -1e300, 1e-300],
    *[Decimal(t) for t in ("0.1", "0.10", "0.105", "-1.25", "-1.255", "1E+20", "99999999.991", "0.00000000005")],
]
DAYS_TRIED: list[Any] = [dt.date(2024, 1, 30), dt.date(2024, 1, 31), dt.date(2024, 2, 1), dt.date(9999, 12, 31)]
TIMES_TRIED: list[Any] = [dt.datetime(2024, 1, 1, h, 0, 0, us, tzinfo=UTC) for h in (0, 5) for us in (0, 1)]
TRIED: dict[str, list[Any]] = {
    **dict.fromkeys(NUMBERS, NUMBERS_TRIED),
    "day": DAYS_TRIED,
    "ts": TIMES_TRIED,
    "naive": TIMES_TRIED,
}

numbers = st.sampled_from(NUMBERS_TRIED)
days = st.sampled_from(DAYS_TRIED)
zones = st.sampled_from([UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), dt.timezone(dt.timedelta(hours=-8))])
moments = st.builds(lambda moment, zone: moment.astimezone(zone), st.sampled_from(TIMES_TRIED), zones)


def value_of(row: dict[str, Any], path: str) -> Any:
    """Return a cell as SQL sees it: naive times are UTC."""
    if path.startswith("box."):
        return None if row["box"] is None else row["box"][path[4:]]
    value = row[path]
    return value.replace(tzinfo=UTC) if isinstance(value, dt.datetime) else value


def comparable(path: str, bound: Any) -> Any:
    """Return a bound or value of an audit as a number, time or text that compares exactly with cells of the column."""
    if isinstance(bound, (bool, str, dt.date)):
        return bound
    if path not in ("f", "g"):
        return Fraction(str(bound))
    if path == "f" or abs(bound) > 3.5e38:
        return float(bound)
    return struct.unpack("<f", struct.pack("<f", float(bound)))[0]


def cell(path: str, value: Any) -> Any:
    if path == "g" and math.isfinite(value):
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def between(path: str, value: Any, check: Between) -> bool:
    if is_nan(value):
        return False
    value = cell(path, value)
    fine = True
    if check.min is not None:
        low = comparable(path, check.min)
        fine = low <= value if check.inclusive in ("both", "left") else low < value
    if check.max is not None:
        high = comparable(path, check.max)
        fine = fine and (value <= high if check.inclusive in ("both", "right") else value < high)
    return fine


def expected(rows: list[dict[str, Any]], check: Audit) -> tuple[int, int]:
    """Return the rows checked and the rows offending."""
    if isinstance(check, NotNull):
        return len(rows), sum(any(value_of(r, c) is None for c in check.columns) for r in rows)
    if isinstance(check, Unique):
        keys = [k for k in (tuple(value_of(r, c) for c in check.columns) for r in rows) if None not in k]
        same = Counter(
            tuple("nan" if is_nan(v) else cell(c, v) for c, v in zip(check.columns, k, strict=True)) for k in keys
        )
        return len(keys), sum(n for n in same.values() if n > 1)
    if isinstance(check, RowCount):
        least, most = check.min or 0, math.inf if check.max is None else check.max
        return len(rows), int(max(least - len(rows), len(rows) - most, 0))
    assert isinstance(check, (AcceptedValues, Between))
    values = [v for v in (value_of(r, check.column) for r in rows) if v is not None]
    if isinstance(check, Between):
        return len(values), sum(not between(check.column, v, check) for v in values)
    accepted = [comparable(check.column, v) for v in check.values]
    other = sum(not any(cell(check.column, v) == a for a in accepted) for v in values)
    nulls = len(rows) - len(values)
    return (len(values), other) if check.allow_null else (len(rows), other + nulls)


def some_columns(cls: type[NotNull | Unique]) -> st.SearchStrategy[Audit]:
    return st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True).map(lambda columns: cls(*columns))


def pairs(columns: list[str], bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[Audit]:
    def build(column: str, ends: tuple[Any, Any], inclusive: Any) -> Audit:
        low, high = ends
        if None not in ends and low > high:
            low, high = high, low
        return Between(column, low, high, inclusive="both" if low == high else inclusive)

    ends = st.tuples(st.none() | bounds, st.none() | bounds).filter(lambda e: e != (None, None))
    return st.builds(build, st.sampled_from(columns), ends, st.sampled_from(["both", "left", "right", "neither"]))


def accepted(columns: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Audit]:
    lists = st.lists(values, min_size=1, max_size=4)
    return st.builds(AcceptedValues, st.sampled_from(columns), lists, st.booleans())


audits = st.one_of(
    some_columns(NotNull),
    some_columns(Unique),
    pairs(NUMBERS, numbers),
    pairs(["ts", "naive"], moments),
    pairs(["day"], days),
    accepted(NUMBERS, numbers),
    accepted(["s"], st.sampled_from(COLUMNS["s"][1])),
    accepted(["b"], st.booleans()),
    accepted(["day"], days),
    accepted(["ts", "naive"], moments),
    st.tuples(st.integers(0, 4), st.integers(4, 9)).map(lambda bounds: RowCount(*bounds)),
)


def found(rows: list[dict[str, Any]], checks: Iterable[Audit]) -> list[tuple[int, int]]:
    report = audit(pa.Table.from_pylist(rows, SCHEMA), *checks)
    assert report.rows == len(rows)
    assert all(r.passed == (r.offending == 0) for r in report.results)
    return [(r.checked, r.offending) for r in report.results]


@settings(deadline=None, max_examples=60)
@given(rows=tables, checks=st.lists(audits, min_size=1, max_size=12, unique_by=lambda a: a.name))
def test_every_built_in_audit_counts_what_the_oracle_counts(rows: list[dict[str, Any]], checks: list[Audit]) -> None:
    assert found(rows, checks) == [expected(rows, check) for check in checks]


@pytest.mark.parametrize("column", TRIED)
def test_each_bound_and_value_against_each_cell(column: str) -> None:
    empty = dict.fromkeys(SCHEMA.names)
    rows = [{**empty, column: v} for v in [None, *COLUMNS[column][1]]]
    checks: list[Audit] = []
    for n, value in enumerate(TRIED[column]):
        checks += [Between(column, value, inclusive=i, name=f"{n} min {i}") for i in ("left", "right")]
        checks += [Between(column, None, value, inclusive=i, name=f"{n} max {i}") for i in ("left", "right")]
        checks += [
            AcceptedValues(column, [value], allow_null, name=f"{n} is {allow_null}") for allow_null in (True, False)
        ]
    counts = dict(zip([c.name for c in checks], found(rows, checks), strict=True))
    assert counts == {c.name: expected(rows, c) for c in checks}


@pytest.mark.parametrize("columns", [*((c,) for c in PATHS), ("s", "f"), ("box.it's", "box.s"), ("ts", "d", "b")])
def test_keys_that_occur_once_twice_and_three_times(columns: tuple[str, ...]) -> None:
    pools = {
        **{name: values for name, (_, values) in COLUMNS.items()},
        "box": [{"it's": n, "s": t} for n in (0, 1) for t in "xy"],
    }
    whole = [{name: values[n % len(values)] for name, values in pools.items()} for n in (0, 1, 1, 2, 2, 2, 3)]
    rows = [*whole, *({**row, c.partition(".")[0]: None} for row in whole[:3] for c in columns)]
    assert found(rows, [Unique(*columns)]) == [expected(rows, Unique(*columns))]


@settings(deadline=None, max_examples=20)
@given(rows=tables, check=pairs(["i"], st.integers(-3, 3)))
def test_a_check_in_sql_finds_the_rows_the_built_in_one_finds(rows: list[dict[str, Any]], check: Between) -> None:
    low, high = check.min is not None, check.max is not None
    compare = {"both": (">=", "<="), "left": (">=", "<"), "right": (">", "<="), "neither": (">", "<")}[check.inclusive]
    inside = [f"i {compare[0]} {check.min}"] * low + [f"i {compare[1]} {check.max}"] * high
    own = SqlCheck("own", f"SELECT * FROM rows WHERE NOT ({' AND '.join(inside)})")
    (_, built_in), (checked, by_query) = found(rows, [check, own])
    assert (checked, by_query) == (len(rows), built_in)


def test_numbers_are_not_compared_as_floats() -> None:
    rows = [{**dict.fromkeys(SCHEMA.names), "i": BIG, "d": Decimal("0.10")}]
    checks = [
        Between("i", max=float(BIG - 1), name="below"),
        AcceptedValues("i", [float(BIG - 1)], name="float"),
        AcceptedValues("d", [0.1], name="decimal"),
        Between("d", min=0.1, name="least"),
        Between("d", max=0.1, inclusive="left", name="most"),
    ]
    assert [offending for _, offending in found(rows, checks)] == [1, 1, 0, 0, 1]


def test_an_empty_session_passes_all_but_the_row_count() -> None:
    checks = [NotNull("i"), Unique("i", "s"), AcceptedValues("s", ["a"]), Between("f", 0), SqlCheck("own", "FROM rows")]
    assert found([], [*checks, RowCount(1)]) == [(0, 0)] * 5 + [(0, 1)]
