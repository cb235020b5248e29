"""What the store of signals says, in the end, of the DAG that publishes start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from airflow_incremental.core.signal_values import Value
from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.hooks.store import DEFAULT_FILE
from airflow_incremental.store.database import Store
from airflow_incremental.store.reading import read_signal, select_signals
from airflow_incremental.store.schema import match, match_signal, signal, subscription
from airflow_incremental.store.searching import list_signals
from demo.report import Announced

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from demo.client import AirflowClient


def announced(client: AirflowClient, home: Path, *, name: str, ready: str, patience: float) -> Announced:
    """Wait until all pairs that were found are announced, and return how that went.

    :param home: Airflow's home, where the store is if nobody configured one.
    :param name: the subscription.
    :param ready: the signal that its DAG emits.
    :param patience: seconds.
    """
    store = Store.open(f"sqlite:///{home / DEFAULT_FILE}")

    def look() -> Announced | None:
        with store.read() as conn:
            found = _read(conn, name, ready)
        return found if found.right else None

    try:
        done: Announced = client.wait_until(look, timeout=patience, every=1, what=f"{ready} to be announced")
        return done
    finally:
        store.close()


def _read(conn: Connection, name: str, ready: str) -> Announced:
    of_it = match.c.subscription_id == select(subscription.c.id).where(subscription.c.name == name).scalar_subquery()
    pairs, claimed = conn.execute(select(func.count(), func.count(match.c.claimed_at)).where(of_it)).one()
    newest = (
        select_signals()
        .join(match_signal, (match_signal.c.name_id == signal.c.name_id) & (match_signal.c.seq == signal.c.seq))
        .join(match, match.c.id == match_signal.c.match_id)
        .where(of_it)
        .order_by(match.c.number.desc())
        .limit(1)
    )
    last = conn.execute(newest).first()
    said = list_signals(conn, SignalDependency(ready), limit=1)
    return Announced(
        pairs=pairs,
        claimed=claimed,
        until=None if last is None else _text(read_signal(last).params["complete_through"]),
        ready=_text(said[0].params["until"]) if said else None,
    )


def _text(value: Value) -> str:
    return str(value)
