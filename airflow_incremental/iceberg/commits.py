"""The one place that commits to a catalog: compare-and-set, with re-check and retry.

pyiceberg's own paths are not used for commits: their retry re-applies an append to whatever ``main`` has become, drops staged ref
updates, and de-duplicates requirements by class. Here every attempt starts from freshly loaded metadata and asks the caller again
what to change, so a retry can only do what is still right, and an attempt whose outcome is unknown is recognised by its result.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, NoSuchTableError, RESTError
from pyiceberg.io import FileIO
from pyiceberg.table import Table
from pyiceberg.table.update import AssertTableUUID, TableRequirement, TableUpdate
from requests.exceptions import RequestException
from sqlalchemy.exc import DBAPIError

from airflow_incremental.core.errors import CatalogError, CommitUnknown, TableError, TargetReplaced

log = logging.getLogger(__name__)

#: With full back-off the attempts last about half a minute.
ATTEMPTS = 16
#: pyiceberg reports a lost race between two branches this way, not as CommitFailedException.
_RACED = ("older than last sequence number", "already exists", "Cannot set", "does not exist")
#: After these it is unknown whether a commit landed; the next look at the table tells.
_NO_ANSWER = (CommitStateUnknownException, RequestException, RESTError, DBAPIError, OSError)


@attrs.frozen(kw_only=True)
class Change:
    """What one commit changes and what must still be true when it does; the table's uuid is always asserted as well."""

    updates: tuple[TableUpdate, ...]
    requirements: tuple[TableRequirement, ...]
    #: Metadata files written for this attempt only; deleted when the table shows that it did not land.
    written: tuple[str, ...] = ()


def load_table(catalog: Catalog, identifier: str, *, role: str = "table") -> Table:
    """Load a table, or say in one sentence that it is not there.

    :param role: ``source`` or ``target``, for the message.
    """
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        raise TableError(
            f"the {role} {identifier!r} does not exist in catalog {catalog.name!r}",
            expected=f"an Iceberg table named {identifier!r}",
            hint="check the name and the Iceberg connection"
            + (
                ", create it, or let the first load create it with IcebergTarget(create=True)"
                if role == "target"
                else ""
            ),
        ) from None


def wait_for_table(catalog: Catalog, identifier: str, *, role: str = "table") -> Table:
    """Load a table as :func:`load_table` does, and wait about half a minute for a catalog that does not answer.

    For looks after much work, which would have to be done again.

    :raises CatalogError: it did not answer in that time.
    """
    last: Exception | None = None
    for attempt in range(ATTEMPTS):
        _back_off(attempt)
        try:
            return load_table(catalog, identifier, role=role)
        except _NO_ANSWER as error:
            last = error
            log.warning("could not read %s (%s); trying again", identifier, error)
    raise CatalogError(
        f"the catalog {catalog.name!r} did not answer for {identifier!r} in {ATTEMPTS} attempts; the last answer was: {last}",
        expected="a catalog that answers",
        hint="check the catalog, then retry the task",
    ) from last


def commit(
    catalog: Catalog, identifier: str, build: Callable[[Table], Change | None], *, what: str, patience: int = 1
) -> Table:
    """Commit what ``build`` asks for and return the table as it is afterwards.

    ``build`` looks at fresh metadata and returns the change, or None if what it wants is already there; it raises when it must not
    be done any more. It is called again after every lost race and after every attempt whose outcome is unknown, so it has to
    recognise its own earlier success.

    :param what: what is being committed, for logs and errors.
    :param patience: how many times as long as usual it is tried, where many commit side by side.
    :raises CommitUnknown: the catalog kept failing.
    :raises TargetReplaced: the table is gone.
    """
    last: Exception | None = None
    refused: tuple[str, ...] = ()
    attempts = ATTEMPTS * patience
    for attempt in range(attempts):
        _back_off(attempt)
        try:
            table = catalog.load_table(identifier)
        except NoSuchTableError:
            raise TargetReplaced(
                f"the target {identifier!r} was dropped before {what} could be committed",
                expected="the table to stay while a session works on it",
                hint="find out who dropped it. Register its last metadata file again to get rows and watermark back, or leave it "
                "dropped and retry the task: it plans anew, from the start, on a table that is created",
            ) from None
        except _NO_ANSWER as error:
            last = error
            log.warning("could not read %s before %s (%s); trying again", identifier, what, error)
            continue
        _discard_refused(table, refused)
        refused = ()
        change = build(table)
        if change is None:
            return table
        requirements = (AssertTableUUID(uuid=table.metadata.table_uuid), *change.requirements)
        try:
            # Not catalog.commit_table: this also takes the new metadata over from the answer, where another look would read the
            # whole history again, and deletes old metadata files if the table asks for it.
            table._do_commit(change.updates, requirements)  # noqa: SLF001  (Transaction, which may call it, drops requirements)
        except (CommitFailedException, NoSuchTableError, ValueError) as error:
            if not _is_lost_race(error):
                raise
            last = error
            log.info("lost a race for %s on %s (%s); checking again", what, identifier, error)
            refused = change.written
        except _NO_ANSWER as error:
            last = error
            log.warning("the catalog failed during %s on %s (%s); looking whether it landed", what, identifier, error)
        else:
            return table
    raise CommitUnknown(
        f"{what} on {identifier!r} did not get through in {attempts} attempts; the last answer was: {last}",
        expected="a catalog that answers",
        hint="check the catalog, then retry the task; it finds out by itself what has landed",
    ) from last


def _back_off(attempt: int) -> None:
    """Wait before an attempt, but not before the first (0)."""
    if attempt:
        time.sleep(min(3.0, 0.05 * 2**attempt) * (0.5 + random.random()))  # noqa: S311  (jitter, not a secret)


def _is_lost_race(error: Exception) -> bool:
    return isinstance(error, (CommitFailedException, NoSuchTableError)) or any(text in str(error) for text in _RACED)


def _discard_refused(table: Table, written: tuple[str, ...]) -> None:
    """Delete what was written for a refused commit, unless the table, as it is after that, shows that it landed all the same.

    A refusal alone is no proof: a client or proxy that sends a commit again when no answer comes loses the second time, to itself.
    """
    if not {snapshot.manifest_list for snapshot in table.metadata.snapshots}.intersection(written):
        discard(table.io, written)


def discard(io: FileIO, paths: tuple[str, ...]) -> None:
    """Delete files nothing refers to; a failure only leaves something for the sweep."""
    for path in paths:
        try:
            io.delete(path)
        except (OSError, ValueError) as error:
            log.debug("could not delete %s: %s", path, error)
