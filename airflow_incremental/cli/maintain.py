"""``airflow-incremental maintain``: what the operator does, from the command line."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from airflow_incremental.cli.options import ICEBERG_CONN, AsJson, IcebergConn, show, working
from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.maintenance import PARTS, MaintenancePolicy


def maintain(
    tables: Annotated[list[str], typer.Argument(help="Tables, as namespace.table.")],
    *,
    expire_older_than: Annotated[
        str | None, typer.Option(help="Age from which snapshots may go, such as 7d; else what the table says, or 5d.")
    ] = None,
    retain_last: Annotated[
        int | None, typer.Option(help="Newest snapshots that stay; else what the table says, or 1.")
    ] = None,
    orphans_older_than: Annotated[
        str, typer.Option(help="Age from which files may go that nothing refers to, such as 3d.")
    ] = "3d",
    delete_foreign_orphans: Annotated[
        bool, typer.Option("--delete-foreign-orphans", help="Also those that no session wrote.")
    ] = False,
    compact: Annotated[
        int | None, typer.Option(help="Rewrite partitions with more small files than this; else none.")
    ] = None,
    target_file_size: Annotated[
        str | None, typer.Option(help="Size of a rewritten file, such as 128MiB; else what the table says, or 512MiB.")
    ] = None,
    merge_manifests: Annotated[int | None, typer.Option(help="Merge small manifests beyond this number.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Do only this; may be given again. One of {', '.join(PARTS)}.")
    ] = None,
    consumer: Annotated[
        list[str] | None,
        typer.Option(help="A table whose processes read these without a pin, or namespace.*; may be given again."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
) -> None:
    """Expire snapshots with their files, drop branches of sessions that are over, compact, and remove orphans of tables.

    Nothing goes that an open session, a watermark, a pinned or named consumer, a branch or a tag needs.
    """
    from airflow_incremental.iceberg.maintenance import Maintained, maintain_all
    from airflow_incremental.operators.runtime import catalog_of

    policy = MaintenancePolicy.read(
        parts=only or None,
        expire_older_than=expire_older_than,
        retain_last=retain_last,
        orphans_older_than=orphans_older_than,
        delete_foreign_orphans=delete_foreign_orphans,
        compact=compact,
        target_file_size=target_file_size,
        merge_manifests=merge_manifests,
    )
    found: list[dict[str, Any]] = []
    failed: list[str] = []
    names = list(dict.fromkeys(tables))
    with working():
        catalog = catalog_of(iceberg_conn_id)
    for name, outcome in maintain_all(catalog, names, policy, consumers=consumer or (), dry_run=dry_run):
        if not isinstance(outcome, Maintained):
            failed.append(f"{name}: {outcome}")
        elif as_json:
            found.append(outcome.to_json(paths=True))
        else:
            _print(outcome)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    if failed:
        raise IncrementalError("\n".join(failed))


def _print(outcome: Any) -> None:
    plain = outcome.to_json(paths=True)
    done = {name: count for name, count in outcome.counts.items() if count and name != "snapshots_before"}
    words = "would be done" if outcome.dry_run else "done"
    typer.echo(f"{outcome.table}: {outcome.counts['snapshots_before']} snapshots; {words}:")
    rows = [{"what": name.replace("_", " "), "number": f"{count:,}"} for name, count in done.items()]
    show(rows, columns=("what", "number"), as_json=False, empty="nothing")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for name, why in plain["refs"].items():
        console.print(f"  branch or tag {name}: {why}")
    for held in plain["held"]:
        console.print(f"  {held['by']} keeps {held['snapshots']} snapshots, from {held['committed_at']} on")
    for path in plain["foreign"]:
        console.print(f"  nothing refers to {path}, and no session wrote it")
    for note in plain["notes"]:
        console.print(f"  {note}")
