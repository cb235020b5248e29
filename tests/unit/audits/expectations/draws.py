"""Random tables of the types that Iceberg gives to Arrow, and random arguments of expectations of them."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from random import Random
from typing import Any

import attrs
import pyarrow as pa

_TEXTS = (
    "",
    "a",
    "b",
    "ab",
    "A1",
    "12",
    "x y",
    "é",
    "日本",
    "e\u0301",
    "a\n",
    "line\nbreak",
    "\x0b",
    "None",
    "nan",
    "a" * 40,
    "٣",
)
_DAYS = [dt.date(2026, 1, d) for d in range(1, 5)] + [dt.date(1969, 12, 31), dt.date(2400, 2, 29)]
_UTC = [
    *(dt.datetime(2026, 1, d, h, tzinfo=dt.timezone.utc) for d in (1, 2) for h in (0, 5)),
    dt.datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=dt.timezone.utc),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.timezone.utc),
]
_TIMES = [t.replace(tzinfo=None) for t in _UTC]
_INTS = (0, 1, 1, 2, 3, 5, -1, -7, 100, 2**31 - 1, -(2**31))
_LONGS = (*_INTS, 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, 1.5, 0.1, -2.5, 100.0, 1e300, -1e300, 1e-9, math.nan, math.inf, -math.inf)
_DECIMALS = [Decimal(t) for t in ("0.00", "0.10", "1.10", "1.00", "-2.50", "9999999.99", "0.01")]
#: Column: its type, and the values it is filled with, the plain ones first.
COLUMNS: dict[str, tuple[Any, tuple[Any, ...], int]] = {
    "i": (pa.int32(), _INTS, 8),
    "j": (pa.int32(), _INTS, 6),
    "n": (pa.int64(), _LONGS, 9),
    "m": (pa.int64(), _LONGS, 6),
    "f": (pa.float64(), _FLOATS, 7),
    "g": (pa.float64(), _FLOATS, 7),
    "h": (pa.float32(), tuple(v for v in _FLOATS if not 1e200 < abs(v) < math.inf), 7),
    "d": (pa.decimal128(9, 2), tuple(_DECIMALS), 7),
    "e": (pa.decimal128(38, 4), tuple(d * 10**10 for d in _DECIMALS), 7),
    "s": (pa.string(), _TEXTS, 7),
    "t": (pa.large_string(), _TEXTS, 7),
    "b": (pa.bool_(), (True, False), 2),
    "day": (pa.date32(), tuple(_DAYS), 4),
    "time": (pa.timestamp("us"), tuple(_TIMES), 4),
    "utc": (pa.timestamp("us", "UTC"), tuple(_UTC), 4),
    "raw": (pa.binary(), (b"", b"a", b"\xff", b"ab"), 2),
}


def table_of(random: Random) -> pa.Table:
    """Return a table: often small, sometimes without a row, with few or many nulls, plain or odd values."""
    rows = random.choice((0, 1, 2, 3, 5, 8, 13, 40, 150))
    columns = {}
    for name, (kind, values, plain) in COLUMNS.items():
        nulls = random.choice((0, 0, 0.1, 0.5, 1))
        chosen = values[:plain] if random.random() < 0.75 else values
        if random.random() < 0.2:
            chosen = chosen[:2]
        column = [None if random.random() < nulls else random.choice(chosen) for _ in range(rows)]
        if kind in (pa.int32(), pa.int64()) and random.random() < 0.3:
            column = [None if v is None else i * 7 % 1000 for i, v in enumerate(column)]  # few doubles
        columns[name] = pa.array(column, kind)
    return pa.table(columns)


@attrs.frozen
class Draw:
    """Draws arguments for a column of a table."""

    random: Random

    def any_of(self, *names: str) -> str:
        """Return a column, now and then one of a type that fits less."""
        return self.random.choice(list(COLUMNS) if self.random.random() < 0.1 else names or list(COLUMNS))

    def value(self, column: str) -> Any:
        """Return a value for a column as a suite's file has it, now and then one of another kind."""
        column = self.any_of(column)
        _, values, plain = COLUMNS[column]
        value = self.random.choice(values[:plain] if self.random.random() < 0.8 else values)
        if isinstance(value, Decimal):
            return float(value)
        if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
            return 1
        return value.isoformat() if isinstance(value, dt.date) else value

    def values(self, column: str) -> list[Any]:
        """Return a set of them."""
        return [self.value(column) for _ in range(self.random.choice((1, 2, 3, 5)))]

    def mostly(self) -> dict[str, Any]:
        """Return how much has to be right, if not all."""
        return self.random.choice(({}, {}, {"mostly": self.random.choice((0, 0.5, 0.9, 0.75, 2 / 3, 1, 1.0))}))

    def bounds(self, column: str) -> dict[str, Any]:
        """Return bounds of a column's values."""
        low, high = self.value(column), self.value(column)
        if self.random.random() < 0.9 and isinstance(low, type(high)) and low > high:
            low, high = high, low
        return self.limits(low, high)

    def limits(self, low: Any, high: Any) -> dict[str, Any]:
        """Return both bounds, or one, or none."""
        found = {"min_value": low, "max_value": high}
        for name in list(found):
            if self.random.random() < 0.25:
                del found[name]
        if self.random.random() < 0.3:
            found["strict_min"] = self.random.random() < 0.5
        if self.random.random() < 0.3:
            found["strict_max"] = self.random.random() < 0.5
        return found

    def ignored(self, *words: str) -> dict[str, Any]:
        """Return which rows are not looked at."""
        word = self.random.choice((None, *words, words[1]))
        return {} if word is None else {"ignore_row_if": word}

    def condition(self) -> dict[str, Any]:
        """Return a row condition, in one of the ways to write one."""
        if self.random.random() < 0.7:
            return {}
        form = self.random.choice((self._gx, self._pandas, self._object))
        return form()

    def _gx(self) -> dict[str, Any]:
        name = self.any_of("i", "n", "f", "s", "t")
        text = self.random.choice(
            (f'col("{name}").notnull()', f'col("{name}") {self._operator()} {self._literal(name)}')
        )
        return {"row_condition": text, "condition_parser": "great_expectations"}

    def _pandas(self) -> dict[str, Any]:
        parts = []
        for _ in range(self.random.choice((1, 1, 2))):
            name = self.any_of("i", "n", "f", "s", "t")
            parts.append(
                self.random.choice(
                    (
                        f"{name}.notnull()",
                        f"{name}.isnull()",
                        f"{name} {self._operator()} {self._literal(name)}",
                        f"{name} {self._operator()} {self._literal(name)}",
                    )
                )
            )
        return {"row_condition": " and ".join(parts), "condition_parser": "pandas"}

    def _object(self) -> dict[str, Any]:
        parts = [self._leaf() for _ in range(self.random.choice((1, 2, 3)))]
        if len(parts) == 1:
            return {"row_condition": parts[0]}
        kind = self.random.choice(("and", "or"))
        if kind == "or" and self.random.random() < 0.3:
            parts = [{"type": "and", "conditions": parts[:2]}, *parts[2:], parts[0]]
        return {"row_condition": {"type": kind, "conditions": parts}}

    def _leaf(self) -> dict[str, Any]:
        name = self.any_of("i", "n", "f", "s", "t")
        if self.random.random() < 0.3:
            return {"type": "nullity", "column": {"name": name}, "is_null": self.random.random() < 0.3}
        operator = self.random.choice(("==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"))
        value = self.values(name) if "IN" in operator else self.value(name)
        return {"type": "comparison", "column": {"name": name}, "operator": operator, "parameter": value}

    def _operator(self) -> str:
        return self.random.choice(("==", "!=", "<", "<=", ">", ">="))

    def _literal(self, name: str) -> str:
        if name in ("s", "t"):
            return f'"{self.random.choice(("a", "ab", "x y", ""))}"'
        return str(self.random.choice((0, 1, 2, -1, 5, 1.5, 0.1)))
