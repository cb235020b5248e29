"""Suites to audit with."""

from __future__ import annotations

from typing import Any


def expect(
    kind: str, *, severity: str | None = None, meta: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Return one expectation as a suite's JSON has it; ``expect_`` is put before its type."""
    found: dict[str, Any] = {"type": f"expect_{kind}", "kwargs": kwargs}
    return {
        **found,
        **({} if severity is None else {"severity": severity}),
        **({} if meta is None else {"meta": meta}),
    }


def suite(*expectations: dict[str, Any], name: str = "people") -> dict[str, Any]:
    """Return a suite as JSON."""
    return {"name": name, "expectations": list(expectations)}
