"""What the commands have in common: options, how times and parameters are read, how tables are printed."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signal_values import KINDS
from airflow_incremental.operators.assets import DEFAULT_CONN_ID, DEFAULT_STORE_CONN_ID

if TYPE_CHECKING:
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.by_hand import Act
    from airflow_incremental.core.session_log import LoadKey
    from airflow_incremental.store.database import Store

StoreConn = Annotated[
    str,
    typer.Option(
        "--incremental-conn-id", help="Airflow connection of the store; without one, a file in Airflow's home."
    ),
]
IcebergConn = Annotated[str, typer.Option("--iceberg-conn-id", help="Airflow connection of the catalog.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Target = Annotated[str, typer.Argument(help="The target, as namespace.table.")]
ProcessName = Annotated[
    str | None,
    typer.Argument(help="The process; default is the one of the target's name, or the only one that writes it."),
]
Reason = Annotated[str, typer.Option(help="Why, for whoever asks later.")]
By = Annotated[str | None, typer.Option(help="Who does it; default is the user of this terminal.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
STORE_CONN, ICEBERG_CONN = DEFAULT_STORE_CONN_ID, DEFAULT_CONN_ID

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: A hundred years, which all calendars can go back.
_LONGEST = dt.timedelta(days=36_525)
#: Rows that are asked for at most: each is a value of a statement.
MOST = 100_000
_WIDE = 10_000
#: Of a parameter on the command line: ``name=text``, or ``name:kind=text``.
_PARAM = re.compile(r"(?P<name>[^=:]+)(?::(?P<kind>[a-z]+))?=(?P<value>.*)", re.DOTALL)


@contextmanager
def working() -> Iterator[None]:
    """Let what Airflow says on the way go to standard error, so that it does not get among what the command prints."""
    with redirect_stdout(sys.stderr):
        yield


def act_of(by: str | None, reason: str) -> Act:
    """Return who does something, and why.

    :raises ArgumentError: it is not said.
    """
    from airflow_incremental.core.by_hand import Act

    return Act(by=who_does(by), reason=reason)


def who_does(by: str | None) -> str:
    """Return who does something: the one who is named, else the user of this terminal.

    :raises ArgumentError: that user has no name.
    """
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in containers that run under any number
        raise ArgumentError(
            "the user of this terminal has no name", expected="who does it", hint="say it with --by"
        ) from None


def tell_store(conn_id: str, key: LoadKey, record: Snapshot | None) -> None:
    """Tell the session log, and emit the signal, of what was done by hand to a process; again if it was not told.

    :param record: None tells nothing.
    :raises StoreError: a store that was asked for does not answer. What was done is done; doing it again tells it.
    """
    from airflow_incremental.core.signals import Emitter
    from airflow_incremental.operators.session_log import SessionLog

    if record is not None:
        with working():
            SessionLog(conn_id=conn_id, key=key, emitter=Emitter(source="cli")).acted(record)


def open_store(conn_id: str) -> Store:
    """Return the store behind a connection."""
    from airflow_incremental.hooks.store import IncrementalStoreHook

    return IncrementalStoreHook(conn_id).store()


def read_duration(text: str) -> dt.timedelta:
    """Return a length of time, such as ``90d``, ``12h``, ``30m``.

    :raises ArgumentError: it is none.
    """
    found = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if found is None:
        raise ArgumentError(f"{text!r} is no length of time", expected="a number and one of s m h d w, such as 90d")
    try:
        length = dt.timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        length = dt.timedelta.max
    if length > _LONGEST:
        raise ArgumentError(f"{text!r} is too long", expected=f"{_LONGEST.days}d at most")
    return length


def read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Return parameters given as ``name=text`` or ``name:kind=text``, in the plain form of values.

    :raises ArgumentError: one is not of this form, or is given twice.
    """
    read: dict[str, Any] = {}
    for pair in pairs:
        found = _PARAM.fullmatch(pair)
        if found is None:
            raise ArgumentError(
                f"{pair!r} is no parameter",
                expected="name=text, or name:kind=text with integer, date or timestamp for kind",
            )
        name, kind, value = found["name"], found["kind"], found["value"]
        if name in read:
            raise ArgumentError(f"the parameter {name!r} is given twice", expected="each parameter once")
        read[name] = value if kind in (None, "string") else {kind: value}
    return read


def read_json(text: str | None, *, what: str) -> Any:
    """Return the value of a JSON text; None for None.

    :raises ArgumentError: it is no JSON.
    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ArgumentError(f"{what} is no JSON: {error}", expected="JSON") from error


def show(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str], as_json: bool, empty: str) -> None:
    """Print rows, as a table or as JSON.

    :param empty: what to say if there is none.
    """
    found = [dict(row) for row in rows]
    if as_json:
        typer.echo(json.dumps(found, default=_plain, indent=2))
        return
    if not found:
        typer.echo(empty)
        return
    table = Table(*columns, header_style="bold", box=None, pad_edge=False)
    for row in found:
        table.add_row(*(_text(row[column]) for column in columns))
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE  # a pipe has no width at which to cut
    console.print(table)


def text_of(dependency: dict[str, Any]) -> str:
    """Return what is waited for as people write it."""
    conditions = [
        f"{key} {operator} {_text(value)}"
        for key, match in dependency["match"].items()
        for operator, value in match.items()
    ]
    joined = [f"joined on {', '.join(dependency['join'])}"] if dependency["join"] else []
    return " ".join([dependency["name"], *(["where " + " and ".join(conditions)] if conditions else []), *joined])


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in KINDS:
        return in_line(str(next(iter(value.values()))))
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_text(v)}" for name, v in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else in_line(str(value))


def in_line(text: str) -> str:
    """Return a text as one line, with what would move a terminal's cursor written out: values are whatever somebody emitted."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
