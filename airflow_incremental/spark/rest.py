"""A REST catalog's properties, from pyiceberg to Java: most are the same, ways to authenticate are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_incremental.core.errors import ArgumentError

#: Known to pyiceberg alone, or said otherwise in Java.
_PYTHON = frozenset({"auth", "botocore_session", "ssl", "type"})
_PYTHON_PREFIXES = ("py-", "s3.", "adls.", "gcs.", "hdfs.", "hf.", "client.", "rest.sigv4.")
_SIGNED = {
    "client.access-key-id": "rest.access-key-id",
    "client.secret-access-key": "rest.secret-access-key",
    "client.session-token": "rest.session-token",
}


def rest_conf(properties: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the conf of a REST catalog in Spark, and what is not carried over.

    :raises ArgumentError: pyiceberg authenticates in a way that Java does not know.
    """
    conf = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in properties.items()
        if key not in _PYTHON and not key.startswith(_PYTHON_PREFIXES) and isinstance(value, (str, bool, int, float))
    }
    conf["type"] = "rest"
    conf.update(_authentication(properties.get("auth")))
    if str(properties.get("rest.sigv4-enabled", "")).lower() == "true":
        # Without a region of its own, the signature is for the client's.
        region = properties.get("client.region")
        conf.update({"rest.signing-region": str(region)} if region and "rest.signing-region" not in conf else {})
        conf.update({java: str(properties[key]) for key, java in _SIGNED.items() if properties.get(key)})
    notes = []
    if properties.get("ssl"):
        notes.append("ssl: not carried over; Spark's JVM trusts what its own truststore holds")
    return conf, tuple(notes)


def _authentication(auth: Any) -> dict[str, str]:
    """Return Java's conf for pyiceberg's ``auth``; without one, ``credential`` and ``token`` mean the same in both."""
    if not isinstance(auth, Mapping):
        return {}
    kind = str(auth.get("type", ""))
    given = auth.get(kind) or {}
    if kind == "noop":
        return {"rest.auth.type": "none"}
    if kind == "basic":
        return {
            "rest.auth.type": "basic",
            "rest.auth.basic.username": str(given["username"]),
            "rest.auth.basic.password": str(given["password"]),
        }
    if kind in ("oauth2", "legacyoauth2"):
        said = {
            "credential": given.get("credential") or f"{given.get('client_id')}:{given.get('client_secret')}",
            "oauth2-server-uri": given.get("token_url") or given.get("auth_url"),
            "scope": given.get("scope"),
        }
        return {"rest.auth.type": "oauth2", **{key: str(value) for key, value in said.items() if value}}
    if kind == "google":
        said = {
            "gcp.auth.credentials-path": given.get("credentials_path"),
            "gcp.auth.scopes": ",".join(given.get("scopes") or ()),
        }
        return {"rest.auth.type": "google", **{key: str(value) for key, value in said.items() if value}}
    raise ArgumentError(
        f"the REST catalog authenticates by {auth.get('impl') or kind!r}, which is pyiceberg's",
        expected="one that Iceberg's Java library has too: oauth2, basic, google, sigv4, or none",
        hint="say how Spark authenticates: SparkTransform(catalog_conf={'type': 'rest', 'uri': ..., 'rest.auth.type': ...})",
    )
