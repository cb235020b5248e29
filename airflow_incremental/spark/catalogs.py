"""From the catalog of the Airflow connection, as pyiceberg has it, to the same catalog in Spark.

Both must see the very same tables: the worker plans, seals and publishes through one, and Spark writes a branch through the other.
What cannot be the same is refused before a session is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.spark import CLUSTER
from airflow_incremental.spark.jdbc import jdbc_conf
from airflow_incremental.spark.rest import rest_conf
from airflow_incremental.spark.secrets import is_secret
from airflow_incremental.spark.storage import storage_conf, storage_kinds, storage_notes

#: Picks the class for each location by its scheme, as pyiceberg does; the default of Hive and JDBC catalogs knows Hadoop's only.
_ANY_STORAGE = "org.apache.iceberg.io.ResolvingFileIO"
_HOW = "say how Spark finds it, SparkTransform(catalog_conf={'type': 'rest', 'uri': ...}), or catalog_conf='cluster' if it does"


#: Kind, conf and notes of a catalog.
Mapped = tuple[str, dict[str, str], tuple[str, ...]]


@attrs.frozen(kw_only=True)
class SparkCatalog:
    """A catalog in Spark.

    :param name: its name there.
    :param conf: its conf, as after ``spark.sql.catalog.<name>.``; with secrets. Empty if the cluster has it.
    :param kind: ``rest``, ``hive``, ``glue``, ``jdbc``, ``custom`` or ``cluster``.
    :param storage: kinds of storage its tables are in, as far as is known.
    :param notes: what of the connection is not carried over.
    """

    name: str
    conf: Mapping[str, str] = attrs.field(repr=False)
    kind: str
    storage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of its conf that must not be shown."""
        return tuple(sorted({value for key, value in self.conf.items() if value and is_secret(key)}))


def spark_catalog(
    name: str, properties: Mapping[str, Any], *, given: Mapping[str, Any] | str, given_name: str | None = None
) -> SparkCatalog:
    """Return the catalog of a connection as it is in Spark.

    :param name: of pyiceberg's catalog: the id of the connection.
    :param properties: of pyiceberg's catalog.
    :param given: ``catalog_conf`` of the transform: on top of what follows from the properties.
    :param given_name: ``catalog_name`` of the transform.
    :raises ArgumentError: Spark could not see the same tables, or nobody says how.
    """
    if given == CLUSTER:
        return SparkCatalog(name=given_name or _usable(name), conf={}, kind=CLUSTER, storage=_storage(properties))
    said = {key: value for key, value in dict(given).items() if value is not None}  # type: ignore[arg-type]
    if "type" in said or "catalog-impl" in said:
        mapped: Mapped = ("custom", _warehouse(properties), ())
    else:
        mapped = _of_kind(name, properties)
    kind, conf, notes = mapped
    if kind == "jdbc" and given_name not in (None, name):
        raise ArgumentError(
            f"catalog_name is {given_name!r}, and the Iceberg connection is {name!r}",
            expected="the same name: an SQL catalog keeps it with every table, so under another one Spark sees none of them",
            hint="leave catalog_name out, or name the Iceberg connection so",
        )
    removed = {key for key, value in dict(given).items() if value is None}  # type: ignore[arg-type]
    merged = {**storage_conf(properties), **conf, **{key: _text(value) for key, value in said.items()}}
    return SparkCatalog(
        name=given_name or (name if kind == "jdbc" else _usable(name)),
        conf={key: value for key, value in merged.items() if key not in removed},
        kind=kind,
        storage=_storage({**properties, **merged}),
        notes=(*notes, *storage_notes(properties)),
    )


def _of_kind(name: str, properties: Mapping[str, Any]) -> Mapped:
    for forbidden, why in (
        ("py-catalog-impl", "a catalog written in Python"),
        ("py-io-impl", "file access written in Python"),
    ):
        impl = str(properties.get(forbidden) or "")
        if impl and not impl.startswith("pyiceberg."):
            raise ArgumentError(
                f"the catalog {name!r} has {forbidden}={impl!r}, {why}",
                expected="a catalog that Spark can open too",
                hint=f"{_HOW}, with 'io-impl' for files",
            )
    kind = str(properties.get("type") or _kind_of(str(properties.get("uri") or ""))).lower()
    mapped = _KINDS.get(kind)
    if mapped is None:
        raise ArgumentError(
            f"the catalog {name!r} is of type {kind!r}, which {_WHY.get(kind, 'Spark does not have under that name')}",
            expected="a catalog that the Airflow worker and Spark both reach: rest, hive, glue, or sql on PostgreSQL or MySQL",
            hint=_HOW,
        )
    return mapped(name, properties)


def _rest(_name: str, properties: Mapping[str, Any]) -> Mapped:
    conf, notes = rest_conf(properties)
    return "rest", conf, notes


def _hive(_name: str, properties: Mapping[str, Any]) -> Mapped:
    notes = [
        f"{key}: not carried over; Spark's own hive-site.xml decides"
        for key in properties
        if key.startswith("hive.kerberos")
    ]
    conf = {"type": "hive", "uri": str(properties["uri"]), "io-impl": _ANY_STORAGE, **_warehouse(properties)}
    return "hive", conf, tuple(notes)


def _glue(_name: str, properties: Mapping[str, Any]) -> Mapped:
    conf = {"type": "glue", **_warehouse(properties)}
    conf.update(
        {key: _text(properties[key]) for key in ("glue.id", "glue.endpoint", "glue.skip-archive") if key in properties}
    )
    region = properties.get("glue.region") or properties.get("client.region")
    if region:
        conf["client.region"] = str(region)
    notes = [
        f"{key}: not carried over; Spark's own AWS credentials decide for Glue"
        for key in ("glue.profile-name", "glue.access-key-id", "client.access-key-id")
        if properties.get(key)
    ]
    return "glue", conf, tuple(notes)


def _sql(name: str, properties: Mapping[str, Any]) -> Mapped:
    if not re.fullmatch(r"[^.`]+", name):
        raise ArgumentError(
            f"the Iceberg connection of an SQL catalog is {name!r}",
            expected="a name without '.': the catalog keeps it with every table, and Spark has no catalog with a dot in its name",
            hint="give the connection another id (the tables are then registered anew under it), or use a REST catalog",
        )
    conf, notes = jdbc_conf(name, properties)
    return "jdbc", {"type": "jdbc", "io-impl": _ANY_STORAGE, **conf, **_warehouse(properties)}, notes


_KINDS: Mapping[str, Callable[[str, Mapping[str, Any]], Mapped]] = {
    "rest": _rest,
    "hive": _hive,
    "glue": _glue,
    "sql": _sql,
}
_WHY = {
    "in-memory": "lives in the memory of one process",
    "dynamodb": "pyiceberg and Iceberg's Java library keep in different ways",
    "bigquery": "needs a class that is not part of Iceberg's Spark runtime",
}


def _kind_of(uri: str) -> str:
    """Return the type of a catalog whose connection does not say, as pyiceberg infers it."""
    if uri.startswith("http"):
        return "rest"
    return "hive" if uri.startswith("thrift") else "sql" if uri.startswith(("sqlite", "postgresql")) else "unknown"


def _warehouse(properties: Mapping[str, Any]) -> dict[str, str]:
    return {"warehouse": str(properties["warehouse"])} if properties.get("warehouse") else {}


def _storage(properties: Mapping[str, Any]) -> tuple[str, ...]:
    return storage_kinds(properties)


def _usable(name: str) -> str:
    """Return a name that Spark takes for a catalog: it has no dot in it."""
    return re.sub(r"[^A-Za-z0-9_\-]", "_", name)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
