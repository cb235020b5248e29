"""An SQL catalog in Spark: the same database and the same two tables, through JDBC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError as UrlError

from airflow_incremental.core.errors import ArgumentError

#: Parameters of the URL that mean the same to libpq and to the JDBC driver -> its name of them.
_PARAMETERS = {
    "postgresql": {
        "sslmode": "sslmode",
        "sslrootcert": "sslrootcert",
        "connect_timeout": "connectTimeout",
        "application_name": "ApplicationName",
    },
    "mysql": {"charset": "characterEncoding"},
    "mariadb": {"charset": "characterEncoding"},
}
_HINT = "give SparkTransform(catalog_conf={'type': 'jdbc', 'uri': 'jdbc:...', 'jdbc.user': ..., 'jdbc.password': ...})"


def jdbc_conf(name: str, properties: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return ``uri``, user and password of a catalog that pyiceberg reaches through SQLAlchemy, and what is not carried over.

    ``jdbc.schema-version`` is left alone: Java's catalog finds out what version the tables have, and asking for one would change
    those of others.

    :raises ArgumentError: the database is not one that Spark reaches through JDBC.
    """
    url = _parse(name, properties.get("uri"))
    dialect = url.get_backend_name()
    if dialect == "sqlite":
        raise ArgumentError(
            f"the catalog {name!r} is an SQLite file: {url.database or 'in memory'}",
            expected="a catalog that Spark's driver reaches too, and that several processes can commit to",
            hint="use a REST catalog, or an SQL catalog on PostgreSQL, for loads that run on Spark",
        )
    if dialect not in _PARAMETERS:
        raise ArgumentError(
            f"the SQL catalog {name!r} is on {dialect!r}",
            expected=f"one of {', '.join(map(repr, _PARAMETERS))}, which are known to be the same in both",
            hint=_HINT,
        )
    if not url.host:
        raise ArgumentError(
            f"the SQL catalog {name!r} is reached through a socket of this machine",
            expected="a host name in its URI: Spark's driver connects through the network",
            hint="write postgresql+psycopg2://user:password@host:5432/database",
        )
    known = _PARAMETERS[dialect]
    query = {known[key]: str(value) for key, value in url.query.items() if key in known}
    notes = [f"the parameter {key} of the catalog's URI: not carried over" for key in url.query if key not in known]
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = f":{url.port}" if url.port else ""
    conf = {"uri": f"jdbc:{dialect}://{host}{port}/{url.database or ''}{'?' if query else ''}{urlencode(query)}"}
    if url.username:
        conf["jdbc.user"] = url.username
    if url.password:
        conf["jdbc.password"] = str(url.password)
    return conf, tuple(notes)


def _parse(name: str, uri: Any) -> URL:
    try:
        return make_url(str(uri))
    except UrlError:
        # Its own message quotes the URI, which may hold a password.
        raise ArgumentError(
            f"the uri of the SQL catalog {name!r} is none that SQLAlchemy can read",
            expected="such as postgresql+psycopg2://user:password@host:5432/database",
        ) from None
