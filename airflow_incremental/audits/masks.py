"""Masks over what must not be read: of a text only its punctuation is left, and not how long it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from airflow_incremental.audits.checks import NotNull, Unique
from airflow_incremental.audits.comparisons import AcceptedValues, Between
from airflow_incremental.audits.sensitive import SensitiveData
from airflow_incremental.core.audit import AuditResult

#: Audits whose sample rows have the columns of the table; those of others may have any.
_OF_ROWS = frozenset(c.type for c in (NotNull, Unique, AcceptedValues, Between, SensitiveData))
#: Where results of expectations hold values of rows.
_VALUES = re.compile(r"(partial_)?unexpected_(list|index_list|counts|rows|index_query)|observed_value|details|value")
_LETTERS, _DIGITS = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
_OTHER = re.compile(r"[^*#@.\-+:/ ]+")
_LENGTH = 40


def mask(text: str) -> str:
    """Return what shows the form of a text and nothing of it: ``jane@doe.org`` is ``***@***.***``."""
    shape = _OTHER.sub("***", _DIGITS.sub("#", _LETTERS.sub("***", text)))
    shape = re.sub(r"\*{4,}", "***", shape)
    return shape if len(shape) <= _LENGTH else shape[:_LENGTH] + "..."


def masked_results(results: Sequence[AuditResult], *, earlier: Sequence[AuditResult] = ()) -> tuple[AuditResult, ...]:
    """Return results with everything masked that may come from a column in which sensitive data was found.

    :param earlier: other results that may have found some.
    """
    found = [path for r in (*results, *earlier) if r.kind == SensitiveData.type for path in r.observed or ()]
    return tuple(_masked(r, found) for r in results) if found else tuple(results)


def _masked(result: AuditResult, paths: Sequence[str]) -> AuditResult:
    if result.kind in _OF_ROWS:
        return attrs.evolve(result, samples=_rows(result.samples, paths))
    # What a query calls its columns says nothing about where their values come from.
    return attrs.evolve(
        result,
        samples=tuple({name: _hidden(value) for name, value in row.items()} for row in result.samples),
        observed=_hidden(result.observed),
        full=None if result.full is None else _in_json(result.full),
    )


def _rows(rows: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {name: _hidden(value) if _is_flagged(name, paths) else value for name, value in row.items()} for row in rows
    )


def _is_flagged(column: str, paths: Sequence[str]) -> bool:
    return any(p == column or p.startswith((f"{column}.", f"{column}[")) for p in paths)


def _hidden(value: Any) -> Any:
    """Mask all text in a JSON value."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(k)): _hidden(v) for k, v in value.items()}
    return [_hidden(v) for v in value] if isinstance(value, (list, tuple)) else value


def _in_json(value: Any) -> Any:
    """Mask the text below the keys under which values of rows are."""
    if isinstance(value, Mapping):
        return {k: _hidden(v) if _VALUES.fullmatch(str(k)) else _in_json(v) for k, v in value.items()}
    return [_in_json(v) for v in value] if isinstance(value, (list, tuple)) else value
