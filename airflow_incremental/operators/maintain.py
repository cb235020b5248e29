"""Maintenance of tables as a task: expiry, left-over branches, compaction, orphans."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_incremental.compat import BaseOperator
from airflow_incremental.core.errors import ArgumentError, IncrementalError
from airflow_incremental.core.literals import is_template
from airflow_incremental.core.maintenance import MaintenancePolicy, read_flag
from airflow_incremental.operators.arguments import is_open
from airflow_incremental.operators.assets import DEFAULT_CONN_ID
from airflow_incremental.operators.runtime import catalog_of, failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

#: Arguments that make up the policy; all are template fields.
_POLICY = (
    "parts",
    "expire_older_than",
    "retain_last",
    "orphans_older_than",
    "delete_foreign_orphans",
    "compact",
    "target_file_size",
    "merge_manifests",
)


class MaintainTableOperator(BaseOperator):
    """Keep tables fast: expire old snapshots with their files, drop branches of sessions that are over, compact, remove orphans.

    Nothing goes that an open session, a watermark, a pinned consumer, a consumer that is named here, a branch or a tag needs.
    Results of loads do not change. It may run at any time, beside loads too; killed anywhere it leaves tables whole, and a retry
    goes on.

    The result says for each table how much of everything was done, who keeps old snapshots from going (``held``) and what was left
    alone and why (``notes``); so does the log.

    :param tables: identifiers of the tables, such as ``mart.signup_fact``; or one. Templated, like all arguments that follow.
    :param iceberg_conn_id: Airflow connection of the type ``iceberg``.
    :param expire_older_than: age from which snapshots of ``main`` may go: a ``timedelta`` or text such as ``7d``. Default: the
        table's property ``history.expire.max-snapshot-age-ms``, else five days.
    :param retain_last: newest snapshots of ``main`` that stay however old they are. Default: the table's property
        ``history.expire.min-snapshots-to-keep``, else one.
    :param orphans_older_than: age from which files that nothing refers to may go; a day or more, because a
        younger one may be about to be committed. Default: three days.
    :param delete_foreign_orphans: whether such files go, too, that no session of this package wrote. Default: they are counted.
    :param compact: partitions with more small files than this become few files. Default: none is rewritten.
    :param target_file_size: bytes of a rewritten file, or text such as ``128MiB``; a file is small below three quarters of it.
        Default: the table's property ``write.target-file-size-bytes``, else 512 MiB.
    :param merge_manifests: once the head lists more manifests than this, the small ones become few. Default 100.
    :param parts: what is done, of ``refs``, ``expire``, ``compact`` and ``orphans``. Default: all.
    :param consumers: tables whose processes read these without pinning them (``mart.*``: all targets of a namespace); what they
        stand at is kept. The tables themselves always count as each other's consumers.
    :param dry_run: touch nothing; the result says what would be done.
    :param retries: tries after the first.
    :param retry_delay: time between tries.
    """

    template_fields: Sequence[str] = ("tables", "iceberg_conn_id", *_POLICY, "consumers", "dry_run_only")
    template_fields_renderers: ClassVar[dict[str, str]] = {"tables": "json", "consumers": "json"}
    ui_color = "#eee6f7"

    def __init__(
        self,
        *,
        tables: str | Sequence[str],
        iceberg_conn_id: str = DEFAULT_CONN_ID,
        expire_older_than: dt.timedelta | str | None = None,
        retain_last: int | str | None = None,
        orphans_older_than: dt.timedelta | str = "3d",
        delete_foreign_orphans: bool | str = False,
        compact: int | str | None = None,
        target_file_size: int | str | None = None,
        merge_manifests: int | str | None = None,
        parts: Sequence[str] | None = None,
        consumers: str | Sequence[str] = (),
        dry_run: bool | str = False,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(minutes=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.tables = _plain(tables)
        self.iceberg_conn_id = iceberg_conn_id
        self.expire_older_than = _age(expire_older_than)
        self.retain_last = retain_last
        self.orphans_older_than = _age(orphans_older_than)
        self.delete_foreign_orphans = delete_foreign_orphans
        self.compact = compact
        self.target_file_size = target_file_size
        self.merge_manifests = merge_manifests
        self.parts = _plain(parts)
        self.consumers = _plain(consumers)
        # Airflow's own method has the argument's name.
        self.dry_run_only = dry_run
        self._check()

    def _check(self) -> None:
        """Check what is literal; the rest is checked in the task."""
        given = {name: getattr(self, name) for name in _POLICY}
        MaintenancePolicy.read(**{name: None if _is_open(value) else value for name, value in given.items()})
        if not _is_open(self.dry_run_only):
            read_flag(self.dry_run_only, what="dry_run")
        if not _is_open(self.tables):
            _tables(self.tables, what="tables", least=1)
        if not _is_open(self.consumers):
            _tables(self.consumers, what="consumers", least=0)

    def execute(self, context: Context) -> dict[str, Any]:
        """Do it."""
        del context
        with failing_for_good():
            policy = MaintenancePolicy.read(**{name: getattr(self, name) for name in _POLICY})
            tables = _tables(self.tables, what="tables", least=1)
            consumers = _tables(self.consumers, what="consumers", least=0)
            dry_run = read_flag(self.dry_run_only, what="dry_run")
            return _maintain(self.iceberg_conn_id, tables, policy, consumers, dry_run=dry_run)


def _maintain(
    iceberg_conn_id: str, tables: Sequence[str], policy: MaintenancePolicy, consumers: Sequence[str], *, dry_run: bool
) -> dict[str, Any]:
    from airflow_incremental.iceberg.maintenance import maintain_all

    found: dict[str, Any] = {}
    failed: IncrementalError | None = None
    for table, outcome in maintain_all(
        catalog_of(iceberg_conn_id), tables, policy, consumers=consumers, dry_run=dry_run
    ):
        if isinstance(outcome, IncrementalError):
            log.error("%s: %s", table, outcome)
            failed = failed or outcome
            continue
        found[table] = plain = outcome.to_json()
        counts = {name: count for name, count in outcome.counts.items() if count}
        log.info("%s%s: %s", "dry run; " if dry_run else "", table, counts)
        for held in plain["held"]:
            log.info(
                "%s: %s keeps %d snapshots, from %s on", table, held["by"], held["snapshots"], held["committed_at"]
            )
        for note in plain["notes"]:
            log.warning("%s: %s", table, note)
    if failed is not None:
        raise failed
    return found


def _tables(value: Any, *, what: str, least: int) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if (
        not isinstance(found, (list, tuple))
        or len(found) < least
        or any(not isinstance(t, str) or not t for t in found)
    ):
        raise ArgumentError(
            f"{what} is {value!r}", expected="identifiers of tables such as 'mart.signup_fact', in a list"
        )
    return list(dict.fromkeys(found))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _age(value: Any) -> Any:
    """Return an age as text, which can be templated and serialised."""
    return f"{round(value.total_seconds())}s" if isinstance(value, dt.timedelta) else value


def _is_open(value: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return is_open(value) or any(is_template(v) for v in values)
