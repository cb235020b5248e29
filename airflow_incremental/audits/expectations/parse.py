"""From the JSON of a Great Expectations 1.x suite to its expectations, without loading Great Expectations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.kinds import ROW_WISE
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template

#: Great Expectations' own severities; what an audit calls them.
_SEVERITIES: dict[str, Severity] = {"critical": "block", "warning": "warn", "info": "warn"}
_OLD = ("expectation_suite_name", "data_asset_type", "ge_cloud_id", "evaluation_parameters")
_SHAPE = (
    'a suite of Great Expectations 1.x: {"name": "flights", "expectations": [{"type": '
    '"expect_column_values_to_not_be_null", "kwargs": {"column": "carrier"}}]}'
)
#: Names are cut here, so that a result's name stays one line of a log.
_LONGEST = 190


def read_suite_file(path: str, folders: Sequence[str | Path]) -> dict[str, Any]:
    """Read a suite from a JSON file.

    :param path: absolute, or relative to one of the folders.
    :raises ArgumentError: there is no such file, or no suite in it.
    """
    places = [Path(path)] if Path(path).is_absolute() else [Path(folder) / path for folder in folders]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ArgumentError(
            f"the suite {path!r} is not there",
            expected=f"a file at {' or '.join(map(str, places)) or 'an absolute path'}",
            hint="give its path from the folder of the DAG file, or name its folder in the DAG's template_searchpath",
        )
    try:
        value = json.loads(found.read_text("utf-8"))
    except (ValueError, OSError) as error:
        what = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ArgumentError(
            f"the suite {path!r} is no JSON ({what})",
            expected=_SHAPE,
            hint="write it with json.dump(suite.to_json_dict(), file)",
        ) from None
    return checked_suite(value, what=f"the suite {path!r}")


def checked_suite(value: Any, *, what: str) -> dict[str, Any]:
    """Return a suite as plain JSON values of its own.

    :param what: how an error names it.
    :raises ArgumentError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{what} is a JSON value of type {type(value).__name__}", expected=_SHAPE)
    entries = value.get("expectations")
    old = [key for key in _OLD if key in value]
    if isinstance(entries, Sequence):
        old += ["expectation_type"] if any(isinstance(e, Mapping) and "expectation_type" in e for e in entries) else []
    if old:
        raise ArgumentError(
            f"{what} is in the format of Great Expectations 0.x: it has {', '.join(map(repr, old))}",
            expected=_SHAPE,
            hint="rename 'expectation_suite_name' to 'name' and each 'expectation_type' to 'type', and drop "
            f"'data_asset_type', 'ge_cloud_id' and 'evaluation_parameters'; it then begins {_converted(value)}",
        )
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence) or not entries:
        raise ArgumentError(
            f"{what} has " + ("no expectation" if entries == [] else "no list of 'expectations'"), expected=_SHAPE
        )
    for i, entry in enumerate(entries, 1):
        _check_entry(entry, what=f"expectation {i} of {what}")
    try:
        plain = json.loads(
            json.dumps({k: v for k, v in value.items() if k in ("name", "expectations", "meta", "notes")})
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            f"{what} is no JSON: {error}",
            expected="strings, numbers, booleans, lists and mappings",
            hint="write dates and times as ISO text",
        ) from None
    return dict(plain)


def _check_entry(entry: Any, *, what: str) -> None:
    kind = entry.get("type") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str) or not kind:
        raise ArgumentError(f"{what} is {entry!r}", expected="a mapping with the 'type' of an expectation", hint=_SHAPE)
    kwargs = entry.get("kwargs", {})
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise ArgumentError(f"{what} ({kind}) has the kwargs {kwargs!r}", expected="a mapping of its arguments")
    meta = entry.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise ArgumentError(f"{what} ({kind}) has the meta {meta!r}", expected="a mapping")
    for value, allowed, where in (
        (entry.get("severity") or "critical", tuple(_SEVERITIES), "severity"),
        (meta.get("severity", "block"), get_args(Severity), "meta.severity"),
    ):
        if value not in allowed and not is_template(value):
            raise ArgumentError(
                f"{what} ({kind}) has the {where} {value!r}",
                expected=f"one of {', '.join(map(repr, allowed))}",
                hint="'severity' is Great Expectations' own (critical blocks, warning and info warn); "
                "meta: {'severity': ...} says ask or quarantine",
            )


def _converted(value: Mapping[str, Any]) -> str:
    """Return the first lines of an old suite as the new format has them."""
    entries = value.get("expectations")
    first = entries[0] if isinstance(entries, Sequence) and entries and isinstance(entries[0], Mapping) else {}
    kind = first.get("expectation_type") or first.get("type") or "expect_column_values_to_not_be_null"
    begun = {
        "name": value.get("expectation_suite_name") or value.get("name") or "flights",
        "expectations": [{"type": kind, "kwargs": first.get("kwargs", {"column": "carrier"})}],
    }
    return json.dumps(begun, default=str)


def expectations_of(
    suite: Mapping[str, Any], *, name: str, severity: Severity | None, over: Over
) -> tuple[Expectation, ...]:
    """Return the expectations of a checked suite, each with a name of its own.

    :param name: of the audit, which the names begin with.
    :param severity: of all; None leaves each its own.
    :raises ArgumentError: rows are to be put aside by one that does not look at single rows the session wrote.
    """
    entries = suite["expectations"]
    names = _names(name, entries)
    found = []
    for entry, own in zip(entries, names, strict=True):
        meta = entry.get("meta") or {}
        what = severity or meta.get("severity") or _SEVERITIES.get(entry.get("severity") or "critical", "block")
        if what == "quarantine" and (entry["type"] not in ROW_WISE or over != "rows"):
            where = f"looks over the {over}" if over != "rows" else "looks at no single row that could be put aside"
            raise ArgumentError(
                f"the severity of {own!r} is 'quarantine', and it {where}",
                expected="'block', 'warn' or 'ask'",
                hint="give the others of the suite their severity one by one, as meta: {'severity': 'quarantine'}, "
                "and only where single rows of the session offend",
            )
        kwargs = {k: v for k, v in entry.get("kwargs", {}).items() if k != "batch_id"}
        found.append(Expectation(name=own, type=entry["type"], kwargs=kwargs, severity=what, meta=meta))
    return tuple(found)


def columns_named(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that an expectation's arguments name, without those of its row condition."""
    single = [kwargs[key] for key in ("column", "column_A", "column_B") if isinstance(kwargs.get(key), str)]
    several = kwargs.get("column_list")
    more = [c for c in several if isinstance(c, str)] if isinstance(several, (list, tuple)) else []
    return tuple(dict.fromkeys([*single, *more]))


def _names(name: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    plain = []
    for entry in entries:
        columns = ", ".join(c if c.isprintable() else ascii(c) for c in columns_named(entry.get("kwargs", {})))
        kind = entry["type"].removeprefix("expect_")
        plain.append(f"{name}: {kind}{f'({columns})' if columns else ''}"[:_LONGEST])
    several, seen = Counter(plain), Counter[str]()
    names = []
    for each in plain:
        seen[each] += 1
        names.append(f"{each} #{seen[each]}" if several[each] > 1 else each)
    return names
