"""A step that waits for signals."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_incremental.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseOperatorLink,
    BaseSensorOperator,
    PokeReturnValue,
    TaskDeferred,
    is_deferral_timeout,
)
from airflow_incremental.core.errors import ArgumentError, IncrementalError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_literals import check_dependencies, plain_values
from airflow_incremental.core.signals import SignalDependency, read_dependencies
from airflow_incremental.operators.arguments import is_open
from airflow_incremental.operators.assets import DEFAULT_STORE_CONN_ID
from airflow_incremental.operators.links import SignalsLink
from airflow_incremental.operators.runtime import emitter_of, failing_for_good
from airflow_incremental.sensors.softly import failing_softly

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_incremental.store.database import Store
    from airflow_incremental.store.waits import Wait, WaitState

log = logging.getLogger(__name__)

#: Seconds between two looks: in the triggerer, where all waits share them, and in a worker.
_TRIGGERER_INTERVAL, _WORKER_INTERVAL = 5.0, 60.0
#: How long a triggerer has to say that the time is over, before Airflow says so itself.
_GRACE = dt.timedelta(minutes=1)


class SignalSensor(BaseSensorOperator):
    """Wait until a signal with certain parameters has been emitted, or several that fit each other.

    It opens if and only if such signals are in history, and takes nothing away: any number of steps may wait for one signal. Of
    several that fit, the oldest are its result, a list of signals in the order in which they are asked for, and its lineage. A
    person can bypass the wait (``airflow-incremental signals bypass``); then the result is empty, and the XCom ``bypassed`` says
    who did it and why.

    All tries of the task share a wait; after a clear there is a new one, which looks into history again.

    :param name: of the signal; short for ``signals`` with one of them.
    :param match: parameter -> value that it equals, or a condition by ``gt``, ``ge``, ``lt``, ``le`` (one of these at most per
        signal) or ``in_``. Values may be templated; what is rendered is read as the kind that the signal's parameter has.
    :param signals: :class:`~airflow_incremental.SignalDependency` (or a mapping of its arguments), 4 at most, which are waited for
        together. Templated.
    :param deferrable: wait in the triggerer, where all waits share one query per interval. Otherwise in a worker, see ``mode``.
    :param mode: ``poke`` or ``reschedule``, for a sensor that is not deferrable.
    :param poke_interval: seconds between two looks; default is 5 in the triggerer, 60 in a worker.
    :param timeout: seconds until the task gives up, counted in each try. Default: ``[sensors] default_timeout``, a week.
    :param soft_fail: whether a task that gave up, or failed, is skipped.
    :param incremental_conn_id: Airflow connection of the store; without it, a SQLite file in the Airflow home. Templated.
    :param retries: tries after the first, because a store may be down for a moment. A timeout is not retried.
    :param retry_delay: time between tries.
    """

    template_fields: Sequence[str] = ("signals", "incremental_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"signals": "json"}
    ui_color = "#f2f7d9"
    operator_extra_links: Sequence[BaseOperatorLink] = (SignalsLink(),)

    def __init__(
        self,
        *,
        name: str | None = None,
        match: Mapping[str, Any] | None = None,
        signals: Sequence[SignalDependency | Mapping[str, Any]] | None = None,
        deferrable: bool = True,
        poke_interval: dt.timedelta | float | None = None,
        incremental_conn_id: str = DEFAULT_STORE_CONN_ID,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        if poke_interval is None:
            poke_interval = _TRIGGERER_INTERVAL if deferrable else _WORKER_INTERVAL
        super().__init__(poke_interval=poke_interval, retries=retries, retry_delay=retry_delay, **kwargs)
        self.signals = plain_values(_as_list(name, match, signals), what="signals")
        self.deferrable = deferrable
        self.incremental_conn_id = incremental_conn_id
        if not is_open(self.signals):
            check_dependencies(self.signals)

    def execute(self, context: Context) -> Any:
        """Look into history, and wait if it is not there."""
        if not self.deferrable:
            return self._wait_here(context)
        try:
            with failing_softly(self), failing_for_good():
                look = self._look(context)
        except AirflowSkipException:
            self._close(context, "canceled")  # no other try follows
            raise
        if look.released is not None:
            return look.released
        raise self._deferred(look, dt.datetime.now(UTC) + dt.timedelta(seconds=self.timeout))

    def poke(self, context: Context) -> PokeReturnValue:
        """Look into history."""
        with failing_for_good():
            released = self._look(context).released
        return PokeReturnValue(is_done=released is not None, xcom_value=released)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume, also when Airflow has ended the wait because no triggerer did: then after a last look."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            # What soft_fail has made a skip is caused by what would have been the failure.
            ended = error if isinstance(error, AirflowSensorTimeout) else error.__cause__
            if ended is None or not is_deferral_timeout(ended.__cause__):
                raise
        event = {"timed_out": True, "trouble": "no triggerer has looked after it"}
        return super().resume_execution("resume", {"event": event}, context)

    def resume(self, context: Context, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Look again after the triggerer has woken the task.

        :param event: why it was woken, and until when it may wait.
        """
        if error := event.get("error"):
            self._close(context, "canceled")
            raise AirflowFailException(error)
        timed_out = bool(event.get("timed_out"))
        try:
            with failing_for_good():
                look = self._look(context)
        except IncrementalError as error:
            if not timed_out:
                raise
            raise self._gives_up(str(error)) from error
        if look.released is not None:
            return look.released
        if timed_out:
            self._close(context, "timed_out")
            raise self._gives_up(event.get("trouble", ""))
        # What woke it is gone again: signals were cleaned away in between.
        raise self._deferred(look, dt.datetime.fromisoformat(event["until"]))

    def _deferred(self, look: _Look, until: dt.datetime) -> TaskDeferred:
        from airflow_incremental.triggers.signal import SignalTrigger

        trigger = SignalTrigger(
            wait_id=look.wait_id,
            signals=[dependency.to_json() for dependency in read_dependencies(self.signals)],
            places=look.places,
            store_id=look.store_id,
            until=until.isoformat(),
            poll_interval=self.poke_interval,
            incremental_conn_id=self.incremental_conn_id,
        )
        # Where no triggerer runs, or all are full, nobody else would end the wait.
        left = max(until - dt.datetime.now(UTC), dt.timedelta(0))
        return TaskDeferred(trigger=trigger, method_name="resume", timeout=left + _GRACE)

    def _wait_here(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            # A skip that has a cause is a failure turned soft. Neither is followed by another try.
            self._close(context, "timed_out" if error.__cause__ is None else "canceled")
            raise

    def _look(self, context: Context) -> _Look:
        """Open the wait if it is not, and see whether it is over."""
        from airflow_incremental.store.searching import find_gate, newest
        from airflow_incremental.store.waits import BYPASS, find_wait, open_wait, release

        dependencies = read_dependencies(self.signals)
        store = self._store()
        look = _Look(wait_id=_wait_id(context), store_id=store.store_id)
        timeout = dt.timedelta(seconds=self.timeout)
        wait = open_wait(store, look.wait_id, dependencies, emitter_of(context), timeout=timeout)
        if wait.state == "open":
            try:
                with store.read() as conn:
                    # All in one view of the store: what is not in it, be it a signal or a bypass, is beyond the places.
                    wait = find_wait(conn, look.wait_id)
                    places = newest(conn, [*(d.name for d in dependencies), BYPASS])
                    signals = find_gate(conn, dependencies)
            except ArgumentError:
                self._close(context, "canceled")  # there is no other try
                raise
            if wait.state == "open" and signals is not None:
                wait = release(store, look.wait_id, signals)
            if wait.state == "open":
                return attrs.evolve(look, places=places)
        # An earlier try may have been killed right after its release, and a person may have been faster than this one.
        return attrs.evolve(look, released=_outcome(store, wait, context))

    def _close(self, context: Context, state: WaitState) -> None:
        from airflow_incremental.store.waits import close_wait

        try:
            close_wait(self._store(), _wait_id(context), state)
        except IncrementalError as error:
            log.warning("the wait could not be closed: %s", error)

    def _store(self) -> Store:
        from airflow_incremental.hooks.store import IncrementalStoreHook

        return IncrementalStoreHook(self.incremental_conn_id).store()

    def _gives_up(self, trouble: str) -> Exception:
        found = f"no signals that fit were there after {self.timeout:g} seconds: {self.signals}"
        return AirflowSensorTimeout(f"{found}. What was wrong in the end: {trouble}" if trouble else found)


@attrs.frozen(kw_only=True)
class _Look:
    """What a look into the store has found.

    :param places: name of a signal -> ``seq`` up to which was looked.
    :param released: the result, when there is no more to wait for.
    """

    wait_id: str
    store_id: str
    places: Mapping[str, int] = attrs.field(factory=dict)
    released: list[dict[str, Any]] | None = None


def _wait_id(context: Context) -> str:
    from airflow_incremental.store.waits import wait_id

    return wait_id(emitter_of(context), max_tries=context["ti"].max_tries)


def _outcome(store: Store, wait: Wait, context: Context) -> list[dict[str, Any]]:
    """Return the result of a wait that has ended."""
    from airflow_incremental.store.waits import signals_of_wait

    if wait.state == "bypassed":
        log.warning("%s has bypassed the wait: %s", wait.closed_by, wait.reason)
        context["ti"].xcom_push(key="bypassed", value={"by": wait.closed_by, "reason": wait.reason})
        return []
    with store.read() as conn:
        signals = signals_of_wait(conn, wait.id)
    for signal in signals:
        log.info("signal %r number %d is there, since %s", signal.name, signal.seq, signal.created_at.isoformat())
    return [signal.to_json() for signal in signals]


def _as_list(name: Any, match: Any, signals: Any) -> Any:
    if (name is None) == (signals is None) or (signals is not None and match is not None):
        given = [what for what, value in (("name", name), ("match", match), ("signals", signals)) if value is not None]
        raise ArgumentError(
            f"a sensor is given {' and '.join(given) or 'no signal'}",
            expected="name and match for one signal, or signals for several",
            hint="write SignalSensor(name='...', match={...}) or SignalSensor(signals=[SignalDependency('...', {...})])",
        )
    return signals if name is None else [{"name": name, "match": match or {}}]
