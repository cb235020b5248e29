"""Whether a number that was measured lies between the bounds an expectation gives."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

from airflow_incremental.audits.expectations.given import Finding, Given
from airflow_incremental.audits.expectations.typed import Typed, bound_of


class Verdict:
    """Whether a number lies between the bounds an expectation gives."""

    def __init__(self, given: Given, column: Typed | None = None) -> None:
        if column is not None and column.kind in ("date", "timestamp"):
            self.low, self.high = bound_of(given, "min_value", column), bound_of(given, "max_value", column)
        else:
            low, high = given.number("min_value"), given.number("max_value")
            self.low = None if low is None else float(low)
            self.high = None if high is None else float(high)
        self.above, self.below = given.flag("strict_min"), given.flag("strict_max")

    def of(self, observed: Any, *, error: float = 0.0) -> Finding:
        """Return the finding; nothing observed is never as expected.

        :param error: how far the number may be from Great Expectations' own.
        """
        if observed is None or (isinstance(observed, float) and math.isnan(observed)):
            return Finding(success=False, result={"observed_value": None})
        fits = (self.low is None or (observed > self.low if self.above else observed >= self.low)) and (
            self.high is None or (observed < self.high if self.below else observed <= self.high)
        )
        near = error and any(b is not None and abs(float(observed) - b) <= error for b in (self.low, self.high))
        undecided = "a bound is within the rounding error of the sum" if near else ""
        return Finding(fits, {"observed_value": as_json(observed)}, undecided)


def as_json(value: Any) -> Any:
    """Return a value as Great Expectations writes it into its JSON."""
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, dt.date) else value
