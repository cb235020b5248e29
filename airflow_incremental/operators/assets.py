"""The Airflow asset that stands for an Iceberg table."""

from __future__ import annotations

from urllib.parse import quote

from airflow_incremental.compat import Asset

DEFAULT_CONN_ID = "iceberg_default"
#: Of the store of signals and sessions.
DEFAULT_STORE_CONN_ID = "incremental_default"


def iceberg_asset(table: str, iceberg_conn_id: str = DEFAULT_CONN_ID) -> Asset:
    """Return the asset of an Iceberg table, the same for whoever names it: the load that updates it and the DAG that waits for it.

    Name and URI are ``iceberg://<connection>/<namespace>/<table>``; the connection is what tells catalogs apart in Airflow.

    :param table: identifier, ``namespace.table``.
    :param iceberg_conn_id: Airflow connection of the catalog.
    """
    path = "/".join(quote(part, safe="") for part in table.split("."))
    return Asset(uri=f"iceberg://{quote(iceberg_conn_id, safe='')}/{path}")
