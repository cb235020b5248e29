"""Properties of pyiceberg's file access in the words of Iceberg's Java library, which Spark uses.

Where both libraries have the same name it stays. What only one of them knows is said, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

#: pyiceberg's names, the first one that is given -> Java's.
_NAMES: Sequence[tuple[tuple[str, ...], str]] = (
    (("s3.endpoint",), "s3.endpoint"),
    (("s3.access-key-id", "client.access-key-id"), "s3.access-key-id"),
    (("s3.secret-access-key", "client.secret-access-key"), "s3.secret-access-key"),
    (("s3.session-token", "client.session-token"), "s3.session-token"),
    (("s3.region", "client.region"), "client.region"),
    (("s3.proxy-uri",), "http-client.proxy-endpoint"),
    (("s3.signer.uri",), "s3.signer.uri"),
    (("s3.signer.endpoint",), "s3.signer.endpoint"),
    (("s3.sse-kms-key-id",), "s3.sse.key"),
    (("s3.role-arn", "client.role-arn"), "client.assume-role.arn"),
    (("s3.role-session-name", "client.role-session-name"), "client.assume-role.session-name"),
    (("adls.account-name",), "adls.auth.shared-key.account.name"),
    (("adls.account-key",), "adls.auth.shared-key.account.key"),
    (("adls.token",), "adls.token"),
    (("gcs.oauth2.token",), "gcs.oauth2.token"),
    (("gcs.oauth2.token-expires-at",), "gcs.oauth2.token-expires-at"),
    (("gcs.project-id",), "gcs.project-id"),
    (("gcs.service.host",), "gcs.service.host"),
)
#: What has no counterpart in Java, and what decides there.
_OWN: Sequence[tuple[tuple[str, ...], str]] = (
    (("s3.profile-name", "client.profile-name"), "Spark's own AWS profile (AWS_PROFILE) decides"),
    (("s3.anonymous",), "set catalog_conf={'client.credentials-provider': ...} for anonymous access"),
    (
        ("adls.tenant-id", "adls.client-id", "adls.client-secret", "adls.credential"),
        "Spark's own Azure identity (AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET) decides",
    ),
    (("hdfs.host", "hdfs.port", "hdfs.user", "hdfs.kerberos_ticket"), "Spark's own Hadoop configuration decides"),
)
_S3 = ("s3", "s3a", "s3n")
_AZURE = ("abfs", "abfss", "wasb", "wasbs")

#: Kind of storage, by the scheme of a location; None for what Spark reads without anything else.
_KINDS = {**dict.fromkeys(_S3, "s3"), **dict.fromkeys(_AZURE, "adls"), "gs": "gcs"}


def storage_conf(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the conf of Java's file access that corresponds to pyiceberg's properties."""
    found = {}
    for names, java in _NAMES:
        value = next((properties[name] for name in names if properties.get(name)), None)
        if value is not None:
            found[java] = value
    for name, derive in _DERIVED:
        if properties.get(name):
            found.update(derive(properties, properties[name]))
    # Java's and pyiceberg's own names of the same thing, such as a SAS token for one account.
    prefixes = ("adls.sas-token.", "adls.connection-string.")
    found.update({k: v for k, v in properties.items() if k.startswith(prefixes)})
    return found


def storage_notes(properties: Mapping[str, str]) -> Iterator[str]:
    """Yield what of the properties is not carried over to Spark, and why."""
    for names, why in _OWN:
        given = [name for name in names if properties.get(name)]
        if given:
            yield f"{', '.join(given)}: not carried over; {why}"


def storage_kinds(properties: Mapping[str, str], locations: Sequence[str] = ()) -> tuple[str, ...]:
    """Return which kinds of storage tables are in, as far as properties and locations tell: ``s3``, ``adls``, ``gcs``.

    :param locations: of tables.
    """
    schemes = [urlsplit(str(place)).scheme for place in (properties.get("warehouse") or "", *locations)]
    found = {_KINDS[scheme] for scheme in schemes if scheme in _KINDS}
    found.update(kind for kind in ("s3", "adls", "gcs") if any(name.startswith(f"{kind}.") for name in properties))
    return tuple(sorted(found))


def _endpoint(properties: Mapping[str, str], _value: str) -> dict[str, str]:
    # pyarrow addresses the bucket in the path where an endpoint is given, unless it is told otherwise; Java never does by itself.
    virtual = str(properties.get("s3.force-virtual-addressing", "false")).lower() == "true"
    return {} if virtual else {"s3.path-style-access": "true"}


def _role(properties: Mapping[str, str], _value: str) -> dict[str, str]:
    region = properties.get("s3.region") or properties.get("client.region")
    factory = {"client.factory": "org.apache.iceberg.aws.AssumeRoleAwsClientFactory"}
    return {**factory, **({"client.assume-role.region": region} if region else {})}


def _signer(_properties: Mapping[str, str], _value: str) -> dict[str, str]:
    return {"s3.remote-signing-enabled": "true"}


def _encryption(_properties: Mapping[str, str], value: str) -> dict[str, str]:
    return {"s3.sse.type": {"aws:kms": "kms", "aws:kms:dsse": "dsse-kms", "AES256": "s3"}.get(value, value)}


def _account(properties: Mapping[str, str], prefix: str, value: str) -> dict[str, str]:
    name = properties.get("adls.account-name")
    host = properties.get("adls.account-host") or (f"{name}.dfs.core.windows.net" if name else None)
    return {f"{prefix}.{host}": value} if host else {}


def _sas(properties: Mapping[str, str], value: str) -> dict[str, str]:
    return _account(properties, "adls.sas-token", value)


def _connection_string(properties: Mapping[str, str], value: str) -> dict[str, str]:
    return _account(properties, "adls.connection-string", value)


_DERIVED: Sequence[tuple[str, Callable[[Mapping[str, str], str], dict[str, str]]]] = (
    ("s3.endpoint", _endpoint),
    ("s3.role-arn", _role),
    ("client.role-arn", _role),
    ("s3.signer", _signer),
    ("s3.server-side-encryption", _encryption),
    ("adls.sas-token", _sas),
    ("adls.connection-string", _connection_string),
)
