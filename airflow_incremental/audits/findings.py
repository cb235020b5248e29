"""Runs the audit for sensitive data: every distinct text of every column once, a batch at a time.

What is found stays in a table of the audit's own database, which is gone with it: the texts, where they are and what they
hold. Counts, and which rows to put aside, are read off the rows by that table.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from airflow_incremental.audits.compile import Measure, measures
from airflow_incremental.audits.detector import Detector, quiet
from airflow_incremental.audits.elsewhere import read_here
from airflow_incremental.audits.masks import mask
from airflow_incremental.audits.offenders import Predicate, predicates
from airflow_incremental.audits.query import attempt, origin
from airflow_incremental.audits.scope import Scope, results
from airflow_incremental.audits.sensitive import SensitiveData
from airflow_incremental.audits.sql import Sql
from airflow_incremental.audits.texts import Texts, texts_of
from airflow_incremental.core.audit import AuditIncomplete, AuditResult
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.engines.filters import quote

log = logging.getLogger(__name__)

#: Distinct texts held in Python at a time, and bytes of them.
BATCH = 10_000
_BYTES = 16 * 1024 * 1024
#: Seconds between two lines about how far it is.
_PROGRESS = 15.0
_MASKS = 3


@measures.register
def _(audit: SensitiveData, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    del sql  # it counts nothing in the one pass
    _places(audit, schema)
    return ()


@read_here.register
def _(audit: SensitiveData, schema: pa.Schema, prefix: str) -> Sequence[tuple[str, str]]:
    del schema, prefix
    return [(audit.name, "its recognisers are in Python")]


@predicates.register
def _(audit: SensitiveData, scope: Scope) -> Mapping[str, Predicate]:
    places = _places(audit, scope.rows.read.schema)
    return {audit.name: Predicate(offends=_offends(places, _table(audit)))}


@results.register
def _(audit: SensitiveData, scope: Scope) -> tuple[AuditResult, ...]:
    places, scan = _places(audit, scope.rows.read.schema), _Scan(audit, scope)
    base = scan.base()
    masks = scan.run(places, base)
    table, rows = _table(audit), scope.rows
    held = [(at, entity) for at in masks for entity in masks[at]]
    columns = ["count(*)", f"count(*) FILTER (WHERE {_offends(places, table)})"]
    columns += [f"count(*) FILTER (WHERE {places[at].among(_values(table, at, e))})" for at, e in held]
    checked, offending, *counts = rows.one_row(f"SELECT {', '.join(columns)} FROM {base}", {})  # noqa: S608
    observed: dict[str, dict[str, int]] = defaultdict(dict)
    for (at, entity), n in zip(held, counts, strict=True):
        observed[places[at].path][entity] = n
    picked: tuple[Mapping[str, Any], ...] = ()
    if scope.samples and offending:
        picked = rows.samples(f"SELECT * FROM {base} WHERE {_offends(places, table)} LIMIT {scope.samples}", {})  # noqa: S608
    what = "; ".join(f"{p}: {', '.join(f'{e} {n:,}' for e, n in found.items())}" for p, found in observed.items())
    sampled = f" ({scope.total:,} were written; the others were not looked at)" if checked < scope.total else ""
    return (
        AuditResult(
            name=audit.name,
            severity=audit.severity,
            passed=offending == 0,
            offending=offending,
            checked=checked,
            message=f"{offending:,} of {checked:,} rows hold sensitive data{f' ({what})' if what else ''}{sampled}",
            samples=picked,
            kind=audit.type,
            path="python",
            observed=dict(observed) or None,
            full={"rows": dict(observed), "masked": {places[at].path: found for at, found in masks.items()}}
            if masks
            else None,
        ),
    )


class _Scan:
    """One look at the texts of a session."""

    def __init__(self, audit: SensitiveData, scope: Scope) -> None:
        self.audit, self.rows, self.total = audit, scope.rows, scope.total
        self.detector = Detector.of(audit)
        self.allow = dict(audit.allow)
        self.said = time.monotonic()

    def _do(self, sql: str) -> None:
        self.rows.guarded(lambda: self.rows.con.execute(sql), doing="look for sensitive data")

    def base(self) -> str:
        """Return the relation that is looked at: all rows, or the sample of them."""
        if self.audit.sample is None or self.audit.sample >= self.total:
            return "rows"
        table = quote(f"incremental sample of {self.audit.name}")
        columns = ", ".join(quote(c) for c in self.rows.read.schema.names)
        self._do(f"CREATE TABLE {table} AS SELECT * FROM rows ORDER BY hash({columns}) LIMIT {self.audit.sample}")  # noqa: S608
        return table

    def run(self, places: list[Texts], base: str) -> dict[int, dict[str, list[str]]]:
        """Fill the table of what was found, and return place -> entity -> a few masks."""
        self._do(f"CREATE TABLE {_table(self.audit)} (place INTEGER, entity VARCHAR, text VARCHAR)")
        masks: dict[int, dict[str, list[str]]] = {}
        for at, place in enumerate(places):
            self._do(
                f"CREATE OR REPLACE TABLE incremental_texts AS SELECT DISTINCT t FROM (SELECT {place.each} AS t FROM {base}) "  # noqa: S608
                "WHERE t IS NOT NULL AND t <> ''"
            )
            count, longest = self.rows.one_row(
                "SELECT count(*), coalesce(avg(strlen(t)), 1) FROM incremental_texts", {}
            )
            step = max(1, min(BATCH, int(_BYTES // max(longest, 1))))
            for start in range(0, count, step):
                self._progress(place, start, count)
                self._batch(at, place, start, start + step, masks)
        return masks

    def _batch(self, at: int, place: Texts, start: int, end: int, masks: dict[int, dict[str, list[str]]]) -> None:
        sql = f"SELECT t FROM incremental_texts WHERE rowid >= {start} AND rowid < {end}"  # noqa: S608
        texts = self.rows.guarded(
            lambda: self.rows.con.sql(sql).to_arrow_table().column(0).to_pylist(), doing="look for sensitive data"
        )
        # In this thread, which an exception such as Airflow's timeout can end; whatever is raised may quote a text.
        outcome = attempt(lambda: self._look(texts, place.path))
        if isinstance(outcome, Exception):
            raise AuditIncomplete(
                f"the detector of audit {self.audit.name!r} stopped in column {place.path!r} with {origin(outcome)}",
                expected="texts that can be looked at to their end",
                hint="retry the task; if it happens again, leave the column or an entity out",
            )
        found = [(entity, text) for text, entities in outcome for entity in entities]
        for text, entities in outcome:
            for entity, places in entities.items():
                kept = masks.setdefault(at, {}).setdefault(entity, [])
                if len(kept) < _MASKS:
                    kept.append(mask(text[places[0] : places[1]]))
        if found:
            listed = pa.table({"entity": [e for e, _ in found], "text": [t for _, t in found]})
            self.rows.guarded(lambda: self._keep(at, listed), doing="keep what was found")

    def _keep(self, at: int, listed: pa.Table) -> None:
        con = self.rows.con
        con.register("incremental_found_in", listed)
        con.execute(f"INSERT INTO {_table(self.audit)} SELECT {at}, entity, text FROM incremental_found_in")  # noqa: S608
        con.unregister("incremental_found_in")

    def _look(self, texts: list[str], path: str) -> list[tuple[str, dict[str, tuple[int, int]]]]:
        """Return the texts that hold something, with each entity and where it is first."""
        allowed = {e for column, entities in self.allow.items() if _lies_in(path, column) for e in entities}
        found = []
        with quiet():
            for text in texts:
                entities: dict[str, tuple[int, int]] = {}
                for one in self.detector.find(text):
                    if one.entity not in allowed:
                        entities.setdefault(one.entity, (one.start, one.end))
                if entities:
                    found.append((text, entities))
        return found

    def _progress(self, place: Texts, done: int, count: int) -> None:
        now = time.monotonic()
        if now - self.said >= _PROGRESS:
            self.said = now
            log.info(
                "audit %r: %s of %s different texts of %s looked at",
                self.audit.name,
                f"{done:,}",
                f"{count:,}",
                place.path,
            )


def _places(audit: SensitiveData, schema: pa.Schema) -> list[Texts]:
    """Return where the audit looks.

    :raises AuditFailed: a column it names is not there or holds no text, or something is allowed where it does not look.
    """
    places = texts_of(schema, audit.columns, audit=audit.name)
    for column in audit.columns or ():
        if not texts_of(schema, [column], audit=audit.name):
            raise AuditFailed(
                f"audit {audit.name!r} looks for sensitive data in the column {column!r}, which holds no text",
                expected=f"one of {', '.join(dict.fromkeys(p.path for p in texts_of(schema, None, audit=audit.name)))}",
                hint="only text is looked at; cast the column in the transform, or leave it out",
            )
    for column, _ in audit.allow:
        if not any(_lies_in(place.path, column) for place in places):
            raise AuditFailed(
                f"audit {audit.name!r} allows entities in {column!r}, where it does not look",
                expected=f"one of {', '.join(dict.fromkeys(p.path for p in places))}",
                hint="correct allow",
            )
    return places


def _lies_in(path: str, column: str) -> bool:
    return path == column or path.startswith((f"{column}.", f"{column}["))


def _table(audit: SensitiveData) -> str:
    return quote(f"incremental findings of {audit.name}")


def _values(table: str, at: int, entity: str | None = None) -> str:
    of = "" if entity is None else f" AND entity = '{entity}'"
    return f"SELECT text FROM {table} WHERE place = {at}{of}"  # noqa: S608


def _offends(places: list[Texts], table: str) -> str:
    found = " OR ".join(f"coalesce({p.among(_values(table, at))}, false)" for at, p in enumerate(places))
    return f"({found or 'false'})"


def check_detectors(audits: Any) -> None:
    """See whether what audits for sensitive data look for is known here, before there is anything to load in vain.

    :raises ArgumentError: the detector is not installed, or does not know an entity.
    """
    for audit in audits:
        if isinstance(audit, SensitiveData):
            Detector.of(audit)
