"""What values a column can hold, so that an audit compares in the column's own type and never by a lossy cast.

``x >= 1.5`` on an integer column becomes ``x >= 2``; a bound beyond all values of the column becomes always or never.
Without this, DuckDB would compare integers and decimals with a float as floats, where 9007199254740993 equals
9007199254740992.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.values import Kind, Value
from airflow_incremental.core.ranges import EPOCH, MICROSECOND
from airflow_incremental.engines.types import is_text


@attrs.frozen
class Domain:
    """The values of a column.

    :param kind: what they can be compared with.
    :param sql: DuckDB's name of the type.
    :param scale: for numbers that are whole multiples of ``10 ** -scale``: that scale, with ``low`` and ``high`` the
        least and greatest multiple; None for everything else.
    :param single: whether they are 32-bit floats. Those are compared as 64-bit ones, which is exact, with a value
        rounded to 32 bits.
    """

    kind: Kind
    sql: str
    scale: int | None = None
    low: int = 0
    high: int = 0
    single: bool = False

    @property
    def is_float(self) -> bool:
        """Whether a value can be NaN."""
        return self.kind is Kind.NUMBER and self.scale is None

    def bound(self, value: Value, *, round_up: bool) -> Any:
        """Return what to compare the column with instead of ``value``.

        It is ``inf`` or ``-inf`` if ``value`` is beyond all that a column of integers or decimals can hold.

        :param round_up: to the next value of the column, else to the one before, where ``value`` itself is none.
        """
        if self.scale is None:
            return self._plain(value)
        scaled = _exact(value) * 10**self.scale
        whole = math.ceil(scaled) if round_up else math.floor(scaled)
        if self.low <= whole <= self.high:
            return self._unscaled(whole)
        return math.inf if whole > self.high else -math.inf

    def members(self, values: tuple[Value, ...]) -> list[Any]:
        """Return the values that the column can hold at all, as what to compare it with."""
        if self.scale is None:
            return [self._plain(v) for v in values]
        scaled = [_exact(v) * 10**self.scale for v in values]
        return [self._unscaled(int(s)) for s in scaled if s.denominator == 1 and self.low <= s <= self.high]

    def stored(self, value: Value, *, round_up: bool) -> int | float:
        """Return what the bounds of a file, as Iceberg stores them, are to be compared with instead of ``value``.

        :param round_up: to the next value of the column, else to the one before, where ``value`` itself is none.
        """
        if self.scale is not None:
            scaled = _exact(value) * 10**self.scale
            return int(math.ceil(scaled) if round_up else math.floor(scaled))
        if isinstance(value, dt.datetime):
            return int((value - EPOCH) // MICROSECOND)
        if isinstance(value, dt.date):
            return value.toordinal() - EPOCH.toordinal()
        return float(self._plain(value))

    def _unscaled(self, whole: int) -> int | Decimal:
        if not self.sql.startswith("DECIMAL"):
            return whole
        # Built from its digits, because arithmetic would round to the precision of the context.
        return Decimal((int(whole < 0), tuple(map(int, str(abs(whole)))), -(self.scale or 0)))

    def _plain(self, value: Value) -> Any:
        if self.kind is Kind.NUMBER:
            nearest = float(value)  # type: ignore[arg-type]
            if not self.single:
                return nearest
            try:
                return struct.unpack("<f", struct.pack("<f", nearest))[0]
            except OverflowError:  # beyond all 32-bit floats but the infinite ones
                return nearest
        if self.sql == "TIMESTAMP" and isinstance(value, dt.datetime):
            return value.replace(tzinfo=None)
        return value


def _exact(value: Any) -> Fraction:
    """Return a number as the author wrote it: 0.1 is a tenth, not the float next to it."""
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


_INTEGERS = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}


def domain_of(arrow_type: Any) -> Domain | None:
    """Return what a column of an Arrow type can hold, or None if no audit can be given such values (lists, binary)."""
    if pa.types.is_dictionary(arrow_type):
        return domain_of(arrow_type.value_type)
    if pa.types.is_integer(arrow_type):
        bits, name = arrow_type.bit_width, _INTEGERS[arrow_type.bit_width]
        if pa.types.is_signed_integer(arrow_type):
            return Domain(Kind.NUMBER, name, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return Domain(Kind.NUMBER, f"U{name}", 0, 0, 2**bits - 1)
    if pa.types.is_decimal128(arrow_type):
        most = 10**arrow_type.precision - 1
        return Domain(Kind.NUMBER, f"DECIMAL({arrow_type.precision},{arrow_type.scale})", arrow_type.scale, -most, most)
    if pa.types.is_timestamp(arrow_type):
        return Domain(Kind.TIMESTAMP, "TIMESTAMP" if arrow_type.tz is None else "TIMESTAMPTZ")
    simple = (
        (pa.types.is_boolean, Domain(Kind.BOOLEAN, "BOOLEAN")),
        (pa.types.is_float32, Domain(Kind.NUMBER, "DOUBLE", single=True)),
        (pa.types.is_float64, Domain(Kind.NUMBER, "DOUBLE")),
        (pa.types.is_date32, Domain(Kind.DATE, "DATE")),
        (is_text, Domain(Kind.STRING, "VARCHAR")),
    )
    return next((domain for fits, domain in simple if fits(arrow_type)), None)
