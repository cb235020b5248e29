"""From the plain values that Airflow templates and stores back to audits, and the rules for a list of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import NotNull, RowCount, SqlCheck, Unique
from airflow_incremental.audits.comparisons import AcceptedValues, Between
from airflow_incremental.audits.expectations.suite import Expectations
from airflow_incremental.audits.python import Check, PythonCheck, is_function
from airflow_incremental.audits.sensitive import SensitiveData
from airflow_incremental.audits.statistics import ColumnRange, NullFraction, Volume
from airflow_incremental.audits.trend import Trend
from airflow_incremental.core.errors import ArgumentError

_TYPES: dict[str, type[Audit]] = {
    c.type: c
    for c in (
        NotNull,
        Unique,
        AcceptedValues,
        Between,
        RowCount,
        SqlCheck,
        PythonCheck,
        NullFraction,
        ColumnRange,
        Volume,
        Trend,
        Expectations,
        SensitiveData,
    )
}


def audit_from_dict(value: Mapping[str, Any]) -> Audit:
    """Read what ``Audit.as_dict`` wrote, or the same written by hand; fields with a default may be left out.

    :raises ArgumentError: for an unknown type or field, a missing field, and whatever the audit's constructor refuses.
    """
    if not isinstance(value, Mapping):
        raise ArgumentError(
            f"an audit is {value!r} ({type(value).__name__})", expected="an audit, or what its as_dict() returns"
        )
    kind = value.get("type")
    cls = _TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ArgumentError(f"an audit has the type {kind!r}", expected=f"one of {', '.join(map(repr, _TYPES))}")
    fields = {k: v for k, v in value.items() if k != "type"}
    known = cls.field_names()
    unknown = [k for k in fields if k not in known]
    missing = [k for k in cls.required if k not in fields]
    if unknown or missing:
        what = f"does not know {', '.join(map(repr, unknown))}" if unknown else f"lacks {', '.join(map(repr, missing))}"
        raise ArgumentError(f"an audit of type {kind!r} {what}", expected=f"the fields {', '.join(map(repr, known))}")
    return cls.from_fields(fields)


def digest_of(audits: Iterable[Audit]) -> str:
    """Return a digest of audits as they are declared: of suites their text, of functions their names only."""
    declared = json.dumps([a.as_dict() for a in audits], sort_keys=True, default=str)
    return hashlib.sha256(declared.encode()).hexdigest()[:16]


def validate_audits(
    audits: Iterable[Audit | Mapping[str, Any] | Check], *, functions: Mapping[str, Check] | None = None
) -> tuple[Audit, ...]:
    """Return the audits of one load, built where they are plain values or functions.

    :param functions: of the audits that are functions and come as plain values, by the audits' names.
    :raises ArgumentError: if one is no audit, or two have one name: a report could not tell them apart.
    """
    if isinstance(audits, (Audit, Mapping, str)) or not isinstance(audits, Iterable):
        raise ArgumentError(f"audits is {audits!r}", expected="a list of audits", hint="write audits=[NotNull('id')]")
    found = tuple(_built(a, functions or {}) for a in audits)
    names = Counter(a.name for a in found) | Counter(name for a in found for name in a.result_names)
    double = [name for name, n in names.items() if n > 1]
    if double:
        raise ArgumentError(
            f"several audits are called {', '.join(map(repr, double))}",
            expected="a name of its own for each audit",
            hint="tell them apart with name=...",
        )
    return found


def _built(value: Any, functions: Mapping[str, Check]) -> Audit:
    if is_function(value):
        return PythonCheck(value)
    audit = value if isinstance(value, Audit) else audit_from_dict(value)
    if not isinstance(audit, PythonCheck) or audit.function is not None:
        return audit
    if audit.name not in functions:
        raise ArgumentError(
            f"the audit {audit.name!r} is a function, {audit.calls or 'of no name'}, that is not there",
            expected="the function itself among the audits: plain values cannot hold one",
            hint="write audits=[PythonCheck(my_check)] in the DAG file, and do not template its name",
        )
    return audit.calling(functions[audit.name])
