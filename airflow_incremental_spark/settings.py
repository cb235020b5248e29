"""What the driver sets in the Spark session before it touches a table: the catalog, and how values are computed and written."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Mapping

from airflow_incremental_spark.errors import DriverError

#: Property of every snapshot that the session commits, with the name of the attempt's branch (Iceberg for Spark 4.0 and later).
ATTEMPT = "incremental.attempt"

_CATALOG = "spark.sql.catalog."
_CATALOG_CLASS = "org.apache.iceberg.spark.SparkCatalog"
_REDACTED = "spark.sql.redaction.options.regex"
#: The same rules for values as the other engines have: times are UTC, nothing is cut off or wraps around unseen.
_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.storeAssignmentPolicy": "ANSI",
    # "${...}" in a query would be replaced by what the settings say, secrets as well.
    "spark.sql.variable.substitute": "false",
    # Iceberg would make a greatest value of bounds in its metadata, which leave out NaN.
    "spark.sql.iceberg.aggregate-push-down.enabled": "false",
}
#: Settings of a cluster that would send writes elsewhere (Iceberg's own write-audit-publish).
_UNSET = ("spark.wap.branch", "spark.wap.id")


def configure(spark: Any, document: Mapping[str, Any]) -> None:
    """Make the catalog known and set the session's conf.

    Catalogs are loaded when they are first used, so their conf, with its secrets, is set here and not on a command line. Spark's UI
    shows what was set with a query: the catalog's settings are redacted there.

    :raises DriverError: Spark does not let a setting be changed.
    """
    catalog = document["catalog"]
    prefix = _CATALOG + catalog["name"]
    hidden, own = spark.conf.get(_REDACTED, "(?i)url"), "^{}\\.".format(prefix.replace(".", "\\."))
    values = {_REDACTED: hidden if own in hidden else f"{hidden}|{own}"}
    if catalog["conf"]:
        values[prefix] = _CATALOG_CLASS
    # A cached table does not see what others commit, and the branch is theirs to take away.
    values[prefix + ".cache-enabled"] = "false"
    values.update((f"{prefix}.{key}", str(value)) for key, value in catalog["conf"].items())
    values.update(_SESSION)
    values.update(document.get("session_conf") or {})
    if "target" in document:
        values["spark.sql.iceberg.snapshot-property." + ATTEMPT] = document["target"]["branch"]
    for key, value in values.items():
        try:
            spark.conf.set(key, value)
        except Exception as error:
            raise DriverError(
                f"Spark does not take the setting {key}: {type(error).__name__}",
                expected="a setting that can be changed while Spark runs",
                hint="give it to the job as Spark conf instead",
                where="bind",
            ) from error
    for key in _UNSET:
        spark.conf.unset(key)


def is_connect(handle: Any) -> bool:
    """Say whether a session or DataFrame is one of Spark Connect, which has no JVM here."""
    return type(handle).__module__.startswith("pyspark.sql.connect")


def functions_of(handle: Any) -> ModuleType:
    """Return the functions that make columns for a session or DataFrame: Connect's are others, and pyspark 3.5 mixes them up."""
    if is_connect(handle):
        from pyspark.sql.connect import functions

        return functions
    from pyspark.sql import functions as classic

    return classic
