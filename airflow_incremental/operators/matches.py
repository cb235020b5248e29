"""Taking the matches of a subscription: the first step of a DAG that signals start."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_incremental.compat import AirflowSkipException, BaseOperator, BaseOperatorLink, get_current_context
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template, one_of
from airflow_incremental.core.signals import Emitter, check_name
from airflow_incremental.operators.arguments import is_open
from airflow_incremental.operators.assets import DEFAULT_STORE_CONN_ID
from airflow_incremental.operators.links import SignalsLink
from airflow_incremental.operators.runtime import emitter_of, failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

OnNone = Literal["skip", "succeed"]


def claim_matches(
    subscription: str, *, limit: int | None = None, incremental_conn_id: str = DEFAULT_STORE_CONN_ID
) -> list[dict[str, Any]]:
    """Take all matches of a subscription that no task has taken yet, for the task in which this is called.

    Each match is given to one task only, whatever becomes of events and runs; that task finds it again when it is tried again or
    cleared.

    :param subscription: its name.
    :param limit: matches to take at most; None for all.
    :param incremental_conn_id: Airflow connection of the store.
    :return: the matches, oldest first, each with its ``signals`` in the order of the subscription's dependencies.
    :raises ArgumentError: this is called outside a task, or there is no such subscription.
    :raises StoreError: the store does not answer; worth a retry.
    """
    try:
        context = get_current_context()
    except RuntimeError:
        raise ArgumentError(
            f"matches of subscription {subscription!r} are claimed outside a task",
            expected="a call from inside a task, whose run then has them",
        ) from None
    return _claim(subscription, limit, emitter_of(context), incremental_conn_id)


class ClaimMatchesOperator(BaseOperator):
    """Take all matches of a subscription that no task has taken yet; the first task of a DAG that signals start.

    What a run works on is what this task returns, not the event that started the run: Airflow may merge events, drop one while the
    DAG is paused, or deliver it twice. Each match is given to one task only; the run of another event then finds none, and skips.

    :param subscription: its name, as in :class:`~airflow_incremental.SignalMatchTrigger`; templated.
    :param limit: matches to take at most; the rest waits for the next run. None takes all.
    :param on_none: a task that finds none does ``skip``, and what follows with it, or ``succeed`` with an empty list.
    :param incremental_conn_id: Airflow connection of the store; without it, a SQLite file in the Airflow home. Templated.
    :param retries: tries after the first, because a store may be down for a moment.
    :param retry_delay: time between tries.
    """

    template_fields: Sequence[str] = ("subscription", "incremental_conn_id")
    ui_color = "#d9f0f7"
    operator_extra_links: Sequence[BaseOperatorLink] = (SignalsLink(),)

    def __init__(
        self,
        *,
        subscription: str,
        limit: int | None = None,
        on_none: OnNone = "skip",
        incremental_conn_id: str = DEFAULT_STORE_CONN_ID,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        if not is_open(subscription) and not is_template(subscription):
            check_name(subscription, what="the name of a subscription")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ArgumentError(f"limit is {limit!r}", expected="a number of matches, 1 or more, or None for all")
        self.subscription = subscription
        self.limit = limit
        self.on_none = one_of(on_none, OnNone, what="on_none")
        self.incremental_conn_id = incremental_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Take them."""
        with failing_for_good():
            matches = _claim(self.subscription, self.limit, emitter_of(context), self.incremental_conn_id)
        if not matches and self.on_none == "skip":
            msg = f"subscription {self.subscription!r} has no match that is not taken"
            raise AirflowSkipException(msg)
        return matches


def _claim(subscription: str, limit: int | None, run: Emitter, incremental_conn_id: str) -> list[dict[str, Any]]:
    from airflow_incremental.hooks.store import IncrementalStoreHook
    from airflow_incremental.store.matches import claim

    store = IncrementalStoreHook(incremental_conn_id).store()
    matches = store.writing(lambda conn: claim(conn, subscription, run, limit=limit))
    log.info("%d matches of subscription %r: %s", len(matches), subscription, [match.number for match in matches])
    return [match.to_json() for match in matches]
