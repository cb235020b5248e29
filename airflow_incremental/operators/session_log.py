"""What a load tells the store: its steps, for the session log, and each publish, as a signal.

The log is for people, so a store that does not answer only leaves a gap in it, which ``airflow-incremental store rebuild`` fills.
The signal is what others wait for: a store that was asked for, by a connection, has to take it, or the task fails and is tried
again, and what was published stays published. What a crash left unsaid, the next plan says.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.errors import ArgumentError, StoreError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.session_log import (
    SOURCE,
    LoadKey,
    ProcessEntry,
    PublishedFacts,
    SessionEntry,
    planned,
    session_signal,
)
from airflow_incremental.core.signals import Emitter

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.audit import AuditReport
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.watermark import Published
    from airflow_incremental.iceberg.seal import Sealed
    from airflow_incremental.sessions.entries import TargetLog
    from airflow_incremental.store.database import Store
    from airflow_incremental.store.emitting import Emission

log = logging.getLogger(__name__)


@attrs.define(kw_only=True)
class SessionLog:
    """The store, as one task of a load sees it.

    :param conn_id: Airflow connection of the store; None keeps no log and sends no signals.
    :param emitter: the running task.
    """

    conn_id: str | None
    key: LoadKey
    emitter: Emitter
    _plan: Plan | None = None
    #: Whether the store did not answer: it is not asked for the log again, because each time may take a while.
    _silent: bool = False
    _opened: Store | None = None

    def reopened(self, plan: Plan) -> None:
        """Take note of the session that the next words are about."""
        self._plan = plan

    def planned(self, plan: Plan) -> None:
        """Say that a session was planned."""
        self._plan = plan
        self._write(planned(plan))

    def progressed(self, done: int, chunks: int) -> None:
        """Say how many of its chunks or steps are computed."""
        self._step(state="planned", chunks=chunks, chunks_done=done)

    def loaded(self, sealed: Sealed) -> None:
        """Say that its rows are sealed."""
        aside = sealed.output.quarantined
        self._step(
            state="loaded",
            rows=sealed.output.rows,
            quarantined_rows=0 if aside is None else aside.rows,
            loaded_at=dt.datetime.now(UTC),
        )

    def audited(self, report: AuditReport) -> None:
        """Say what its audits found."""
        self._step(
            state="audited",
            verdict=report.verdict,
            rows=report.rows,
            quarantined_rows=report.quarantined or None,
            audited_at=dt.datetime.now(UTC),
        )

    def failed(self, error: Exception) -> None:
        """Say that a step failed; a later try may get further."""
        self._step(state="failed", error=str(error))

    def published(self, publish: Published, *, verdict: str) -> None:
        """Say that it was published."""
        from airflow_incremental.sessions.entries import process_entry, published_entry

        now = dt.datetime.now(UTC)
        entry = published_entry(publish, base=None, at=now)
        plan = self._plan
        before = None
        if plan is not None and plan.session == publish.session:
            before = planned(plan).previous_watermark
        self._write(
            attrs.evolve(entry, verdict=verdict, previous_watermark=before),
            attrs.evolve(process_entry(publish, base=None, at=now), previous_watermark=before),
        )

    def found_published(self, catalog: Catalog, publish: Published) -> None:
        """Say that an earlier try has published it, which may not have been able to say so, and maybe long ago."""
        from airflow_incremental.iceberg.commits import load_table
        from airflow_incremental.sessions.entries import entries_of

        if self.conn_id is None or self._silent:
            return
        table = load_table(catalog, self.key.target, role="target")
        found = entries_of(table, self.key.process, publish.snapshot_id)
        if found is not None:
            self._write(*found)

    def ended(self, entry: SessionEntry) -> None:
        """Say that a person ended a session."""
        self._write(entry)

    def acted(self, record: Snapshot) -> None:
        """Say what a person did to what the process has published, and emit its signal, once, however often it is called.

        :param record: the snapshot of a rollback, or of a watermark that was set or reset; one of a load says nothing new.
        :raises StoreError: a store that was asked for does not answer.
        """
        from airflow_incremental.iceberg import naming
        from airflow_incremental.iceberg.state import words_of
        from airflow_incremental.sessions.entries import act_entries, record_facts

        if naming.BY in words_of(record):
            entry, process = act_entries(record)
            self._write(entry, process, forget=process is None)
            self.announce(record_facts(record))

    def announce(self, facts: PublishedFacts) -> bool:
        """Emit the signal of a publish, once, however often it is called.

        Somebody else's signals may have the target's name, and parameters of other kinds, or the name may be none of a signal, as
        one that is too long. That is told as an error in the log, but does not fail the load: nothing that a retry or a person
        could do to the load would mend it.

        :returns: whether the store has it now.
        :raises StoreError: a store that was asked for did not take it.
        """
        from airflow_incremental.store.emitting import emit

        if self.conn_id is None:
            return False
        try:
            emission = _emission(self.key, facts, attrs.evolve(self.emitter, source=SOURCE))
            emitted = emit(self._store(), emission)
        except StoreError as error:
            if self._is_default():
                log.warning("the signal of session %s was not emitted: %s", facts.session, error)
                return False
            raise
        except ArgumentError as error:
            log.error("the publish of session %s has no signal: %s", facts.session, error)  # noqa: TRY400  # it says all there is
            return False
        if emitted.new:
            log.info("emitted signal %s of %r for session %s", emitted.signal.seq, self.key.target, facts.session)
        return True

    def announce_missed(self, catalog: Catalog, session: str | None, *, can_wait: bool = False) -> None:
        """Emit the signals of publishes that a crash, or a store that was down, left unsaid.

        Signals of a process come in the order of its publishes: that of the last one says that none before it is missing. So this
        has to be done before the signal of a later publish is emitted.

        :param session: the last published one; None if there is none.
        :param can_wait: whether it is enough if that is done before this load ends: the load itself does not need the store.
        :raises StoreError: a store that was asked for did not take them.
        """
        from airflow_incremental.sessions.entries import facts_of

        if self.conn_id is None or session is None or (can_wait and self._silent):
            return
        try:
            for publish in self._missed(catalog, session):
                if not self.announce(facts_of(publish)):
                    break  # and the others cannot be said for the same reason
        except StoreError as error:
            if not (can_wait or self._is_default()):
                raise
            log.warning("publishes before this session were not announced again: %s", error)

    def _missed(self, catalog: Catalog, session: str) -> list[Published]:
        """Return the publishes that no signal tells of, up to that of a session, oldest first."""
        from airflow_incremental.iceberg.commits import load_table
        from airflow_incremental.sessions.entries import publishes_since
        from airflow_incremental.store.searching import has_signal

        missed: list[Published] = []
        with self._store().read() as conn:
            if has_signal(conn, self.key.target, session):
                return missed
            table = load_table(catalog, self.key.target, role="target")
            for publish in reversed(publishes_since(table, self.key.process, None)):
                if has_signal(conn, self.key.target, publish.session):
                    break
                missed.append(publish)
        return missed[::-1]

    def _step(self, **known: Any) -> None:
        plan = self._plan
        if plan is not None:
            self._write(SessionEntry(session=plan.session, mode=plan.mode, kind=plan.kind, owner=plan.owner, **known))

    def _write(self, entry: SessionEntry, process: ProcessEntry | None = None, *, forget: bool = False) -> None:
        from airflow_incremental.store.sessions import forget_process, write_process, write_session

        if self.conn_id is None or self._silent:
            return
        try:
            with self._store().write() as conn:
                write_session(conn, self.key, entry)
                if process is not None:
                    write_process(conn, self.key, process)
                if forget:
                    forget_process(conn, self.key, entry.published_at)
        except StoreError as error:
            self._silent = True
            log.warning(
                "the session log does not say that session %s was %s, which 'airflow-incremental store rebuild' mends: %s",
                entry.session,
                entry.state,
                error,
            )

    def _store(self) -> Store:
        if self._opened is None:
            from airflow_incremental.hooks.store import IncrementalStoreHook

            self._opened = IncrementalStoreHook(self.conn_id).store()
        return self._opened

    def _is_default(self) -> bool:
        """Say whether nobody configured a store, so that a file of this machine is used, which may not even be writable."""
        from airflow_incremental.hooks.store import IncrementalStoreHook

        return IncrementalStoreHook(self.conn_id).is_default()


def _emission(key: LoadKey, facts: PublishedFacts, emitter: Emitter) -> Emission:
    from airflow_incremental.store.emitting import Emission

    params, payload = session_signal(key, facts)
    return Emission.read(key.target, params, payload, request_id=facts.session, emitter=emitter)


def rewrite_log(store: Store, *, iceberg_conn_id: str, target: str, found: TargetLog, signals: bool) -> int:
    """Write what a target tells of its sessions over what the log says of them.

    :param signals: whether signals of published sessions are emitted that the store does not have. One that cannot be said, see
        ``SessionLog.announce``, is told as an error in the log.
    :returns: how many were.
    """
    from airflow_incremental.sessions.entries import facts_of
    from airflow_incremental.store.emitting import emit
    from airflow_incremental.store.sessions import forget_processes, write_process, write_session

    def key(process: str) -> LoadKey:
        return LoadKey(iceberg_conn_id=iceberg_conn_id, target=target, process=process)

    with store.write() as conn:
        forget_processes(conn, iceberg_conn_id=iceberg_conn_id, target=target)
        for process, entry in found.sessions:
            write_session(conn, key(process), entry)
        for process, at in found.processes.items():
            write_process(conn, key(process), at)
    emitted = 0
    for process, publish in found.publishes if signals else ():
        try:
            emitted += emit(store, _emission(key(process), facts_of(publish), Emitter(source=SOURCE))).new
        except ArgumentError as error:
            log.error("the publish of session %s has no signal: %s", publish.session, error)  # noqa: TRY400  # it says all there is
    return emitted
