"""What an expectation that judges each row by itself counted over parts of the rows, as it counts over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs


@attrs.define
class Summed:
    """Counts of all parts so far.

    :param samples: how many offending rows and values are kept.
    """

    samples: int
    elements: int = 0
    unexpected: int = 0
    #: None for expectations to which a missing value is no less a value.
    missing: int | None = None
    values: list[Any] = attrs.field(factory=list)
    rows: list[Mapping[str, Any]] = attrs.field(factory=list)

    def add(self, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the ``result`` of a validation of one more part, and its offending rows."""
        self.elements += result["element_count"]
        self.unexpected += result["unexpected_count"]
        if "missing_count" in result:
            self.missing = (self.missing or 0) + result["missing_count"]
        self.values = [*self.values, *result.get("partial_unexpected_list", ())][: self.samples]
        self.rows = [*self.rows, *rows][: self.samples]

    def success(self, mostly: float | None) -> bool:
        """Return Great Expectations' verdict: of the rows that count, the given share, in floats, is as expected."""
        present = self.elements - (self.missing or 0)
        if not present:
            return True
        return (present - self.unexpected) / present >= (1.0 if mostly is None else mostly)

    def result(self) -> dict[str, Any]:
        """Return the ``result`` of the validation of all parts, with the keys and the arithmetic Great Expectations has."""
        present = self.elements - (self.missing or 0)
        of_all = self.unexpected / self.elements * 100 if self.elements else None
        of_present = self.unexpected / present * 100 if present else None
        found: dict[str, Any] = {
            "element_count": self.elements,
            "unexpected_count": self.unexpected,
            "unexpected_percent": of_present,
        }
        if self.samples:
            found["partial_unexpected_list"] = self.values
        if self.missing is not None:
            found["missing_count"] = self.missing
            found["missing_percent"] = self.missing / self.elements * 100 if self.elements else None
            found["unexpected_percent_total"] = of_all
            found["unexpected_percent_nonmissing"] = of_present
        return found
