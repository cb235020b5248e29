"""What Spark is told of the catalog behind an Airflow connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.spark.catalogs import SparkCatalog, spark_catalog

ANY = "org.apache.iceberg.io.ResolvingFileIO"


def of(
    properties: Mapping[str, Any], name: str = "lake", given: Any = None, given_name: str | None = None
) -> SparkCatalog:
    return spark_catalog(name, properties, given={} if given is None else given, given_name=given_name)


def test_rest() -> None:
    found = of(
        {
            "type": "rest",
            "uri": "https://catalog/api",
            "credential": "me:secret1",
            "scope": "PRINCIPAL_ROLE:ALL",
            "oauth2-server-uri": "https://login/token",
            "warehouse": "prod",
            "header.X-Tenant": "a",
            "rest-page-size": 100,
            "prefix": "p",
            "s3.endpoint": "http://minio:9000",
            "s3.access-key-id": "AKIA",
            "s3.secret-access-key": "secret2",
            "s3.region": "eu-central-1",
            "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
        }
    )
    assert (found.name, found.kind, found.storage, found.notes) == ("lake", "rest", ("s3",), ())
    assert found.conf == {
        "type": "rest",
        "uri": "https://catalog/api",
        "credential": "me:secret1",
        "scope": "PRINCIPAL_ROLE:ALL",
        "oauth2-server-uri": "https://login/token",
        "warehouse": "prod",
        "header.X-Tenant": "a",
        "rest-page-size": "100",
        "prefix": "p",
        "s3.endpoint": "http://minio:9000",
        "s3.path-style-access": "true",
        "s3.access-key-id": "AKIA",
        "s3.secret-access-key": "secret2",
        "client.region": "eu-central-1",
    }
    assert found.secrets == ("me:secret1", "secret2")
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("auth", "conf"),
    [
        ({"type": "noop"}, {"rest.auth.type": "none"}),
        (
            {"type": "basic", "basic": {"username": "u", "password": "p"}},
            {"rest.auth.type": "basic", "rest.auth.basic.username": "u", "rest.auth.basic.password": "p"},
        ),
        (
            {
                "type": "oauth2",
                "oauth2": {"client_id": "i", "client_secret": "s", "token_url": "https://t", "scope": "c"},
            },
            {"rest.auth.type": "oauth2", "credential": "i:s", "oauth2-server-uri": "https://t", "scope": "c"},
        ),
        (
            {"type": "google", "google": {"credentials_path": "/k.json", "scopes": ["a", "b"]}},
            {"rest.auth.type": "google", "gcp.auth.credentials-path": "/k.json", "gcp.auth.scopes": "a,b"},
        ),
    ],
)
def test_ways_to_authenticate(auth: Mapping[str, Any], conf: Mapping[str, str]) -> None:
    found = of({"type": "rest", "uri": "http://c", "auth": auth})
    assert found.conf == {"type": "rest", "uri": "http://c", **conf}


def test_signed_requests() -> None:
    found = of(
        {
            "type": "rest",
            "uri": "https://glue.eu-west-1.amazonaws.com/iceberg",
            "rest.sigv4-enabled": "true",
            "rest.signing-name": "glue",
            "client.region": "eu-west-1",
            "client.access-key-id": "AKIA",
            "client.secret-access-key": "s",
        }
    )
    assert found.conf["rest.signing-region"] == found.conf["client.region"] == "eu-west-1"
    assert (found.conf["rest.access-key-id"], found.conf["rest.secret-access-key"]) == ("AKIA", "s")
    assert (found.conf["s3.access-key-id"], found.conf["s3.secret-access-key"]) == ("AKIA", "s")


def test_hive_and_hdfs() -> None:
    found = of(
        {"type": "hive", "uri": "thrift://ms:9083", "warehouse": "hdfs:///w", "hive.kerberos-authentication": "true"}
    )
    assert found.conf == {"type": "hive", "uri": "thrift://ms:9083", "io-impl": ANY, "warehouse": "hdfs:///w"}
    assert found.notes == ("hive.kerberos-authentication: not carried over; Spark's own hive-site.xml decides",)


def test_glue() -> None:
    found = of(
        {
            "type": "glue",
            "warehouse": "s3://b/w",
            "glue.id": "123",
            "glue.region": "eu-west-1",
            "glue.access-key-id": "AKIA",
        }
    )
    assert found.conf == {"type": "glue", "warehouse": "s3://b/w", "glue.id": "123", "client.region": "eu-west-1"}
    assert found.storage == ("s3",)
    assert "Spark's own AWS credentials" in found.notes[0]


@pytest.mark.parametrize(
    ("uri", "jdbc", "user", "password"),
    [
        ("postgresql+psycopg2://me:p%40ss@db:5432/lake", "jdbc:postgresql://db:5432/lake", "me", "p@ss"),
        ("postgresql://db/lake?sslmode=require", "jdbc:postgresql://db/lake?sslmode=require", None, None),
        ("postgresql+psycopg2://me@[::1]:5432/lake", "jdbc:postgresql://[::1]:5432/lake", "me", None),
        ("mysql+pymysql://me:p@db/lake?charset=utf8", "jdbc:mysql://db/lake?characterEncoding=utf8", "me", "p"),
    ],
)
def test_an_sql_catalog_is_the_same_database(uri: str, jdbc: str, user: str | None, password: str | None) -> None:
    found = of({"type": "sql", "uri": uri, "warehouse": "s3://b/w", "pool_pre_ping": "true"})
    assert found.kind == "jdbc"
    conf = {"type": "jdbc", "uri": jdbc, "io-impl": ANY, "warehouse": "s3://b/w"}
    conf.update({"jdbc.user": user} if user else {})
    conf.update({"jdbc.password": password} if password else {})
    assert found.conf == conf
    assert found.secrets == ((password,) if password else ())


def test_what_of_a_uri_jdbc_does_not_know_is_said() -> None:
    found = of({"type": "sql", "uri": "postgresql://db/lake?options=-csearch_path%3Dx"})
    assert found.conf["uri"] == "jdbc:postgresql://db/lake"
    assert found.notes == ("the parameter options of the catalog's URI: not carried over",)


def test_an_sql_catalog_keeps_its_name() -> None:
    properties = {"type": "sql", "uri": "postgresql://db/lake"}
    assert of(properties, name="my-lake").name == "my-lake"
    assert of(properties, given_name="lake").name == "lake"
    with pytest.raises(ArgumentError, match="catalog_name is 'prod', and the Iceberg connection is 'lake'"):
        of(properties, given_name="prod")
    with pytest.raises(ArgumentError, match=r"a name without '\.'"):
        of(properties, name="my.lake")


def test_any_other_catalog_may_have_another_name() -> None:
    assert of({"type": "rest", "uri": "http://c"}, given_name="prod").name == "prod"
    assert of({"type": "rest", "uri": "http://c"}, name="my lake.eu").name == "my_lake_eu"


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"type": "sql", "uri": "sqlite:////data/lake.db"}, ["an SQLite file: /data/lake.db", "PostgreSQL"]),
        ({"type": "sql", "uri": "sqlite:///:memory:"}, ["an SQLite file"]),
        ({"uri": "sqlite:////data/lake.db"}, ["an SQLite file"]),
        ({"type": "in-memory"}, ["'in-memory'", "memory of one process"]),
        ({"type": "dynamodb"}, ["'dynamodb'", "rest, hive, glue, or sql"]),
        ({"type": "bigquery"}, ["'bigquery'"]),
        ({"type": "sql", "uri": "mssql+pyodbc://db/lake"}, ["on 'mssql'", "'jdbc.password'"]),
        ({"type": "sql", "uri": "postgresql:///lake?host=/run/pg"}, ["a socket of this machine"]),
        ({"type": "sql", "uri": "not a uri with pass:word"}, ["none that SQLAlchemy can read"]),
        ({"py-catalog-impl": "mine.Catalog"}, ["py-catalog-impl='mine.Catalog'", "catalog_conf"]),
        ({"type": "rest", "uri": "http://c", "py-io-impl": "mine.IO"}, ["py-io-impl='mine.IO'", "'io-impl'"]),
        ({"type": "rest", "uri": "http://c", "auth": {"type": "entra"}}, ["'entra'", "rest.auth.type"]),
        ({"type": "rest", "uri": "http://c", "auth": {"type": "custom", "impl": "m.Auth"}}, ["'m.Auth'"]),
    ],
)
def test_what_cannot_be_shared_is_refused(properties: Mapping[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        of(properties)
    for word in words:
        assert word in str(caught.value)
    assert "pass:word" not in str(caught.value)


def test_unless_the_author_says_how() -> None:
    said = {"catalog-impl": "org.apache.iceberg.aws.dynamodb.DynamoDbCatalog", "dynamodb.table-name": "t"}
    found = of({"type": "dynamodb", "warehouse": "s3://b/w", "s3.region": "eu-west-1"}, given=said)
    assert found.kind == "custom"
    assert found.conf == {"warehouse": "s3://b/w", "client.region": "eu-west-1", **said}
    assert of({"type": "in-memory"}, given={"type": "rest", "uri": "http://c"}).conf == {
        "type": "rest",
        "uri": "http://c",
    }


def test_the_author_has_the_last_word() -> None:
    given = {"uri": "http://inside", "credential": None, "cache-enabled": False}
    found = of({"type": "rest", "uri": "http://outside", "credential": "a:b"}, given=given)
    assert found.conf == {"type": "rest", "uri": "http://inside", "cache-enabled": "false"}


def test_a_catalog_that_the_cluster_knows_needs_nothing() -> None:
    found = of({"type": "sql", "uri": "sqlite:////x"}, given="cluster", given_name="prod")
    assert (found.name, found.kind, found.conf) == ("prod", "cluster", {})


@pytest.mark.parametrize(
    ("properties", "conf"),
    [
        ({"s3.endpoint": "http://m", "s3.force-virtual-addressing": "true"}, {"s3.endpoint": "http://m"}),
        ({"s3.signer": "S3V4RestSigner"}, {"s3.remote-signing-enabled": "true"}),
        (
            {"s3.role-arn": "arn:x", "client.region": "eu-west-1"},
            {
                "client.assume-role.arn": "arn:x",
                "client.assume-role.region": "eu-west-1",
                "client.region": "eu-west-1",
                "client.factory": "org.apache.iceberg.aws.AssumeRoleAwsClientFactory",
            },
        ),
        ({"s3.server-side-encryption": "aws:kms", "s3.sse-kms-key-id": "k"}, {"s3.sse.type": "kms", "s3.sse.key": "k"}),
        (
            {"adls.account-name": "acc", "adls.account-key": "k"},
            {"adls.auth.shared-key.account.name": "acc", "adls.auth.shared-key.account.key": "k"},
        ),
        (
            {"adls.account-name": "acc", "adls.sas-token": "sv=1"},
            {"adls.auth.shared-key.account.name": "acc", "adls.sas-token.acc.dfs.core.windows.net": "sv=1"},
        ),
        ({"adls.sas-token.acc": "sv=1"}, {"adls.sas-token.acc": "sv=1"}),
        (
            {"gcs.oauth2.token": "t", "gcs.project-id": "p", "gcs.service.host": "http://g"},
            {"gcs.oauth2.token": "t", "gcs.project-id": "p", "gcs.service.host": "http://g"},
        ),
    ],
)
def test_storage(properties: Mapping[str, str], conf: Mapping[str, str]) -> None:
    found = of({"type": "rest", "uri": "http://c", **properties})
    assert found.conf == {"type": "rest", "uri": "http://c", **conf}


def test_storage_that_only_one_side_knows_is_said() -> None:
    found = of(
        {
            "type": "rest",
            "uri": "http://c",
            "client.profile-name": "dev",
            "adls.client-secret": "s",
            "ssl": {"cabundle": "x"},
        }
    )
    assert found.conf == {"type": "rest", "uri": "http://c"}
    assert [note.partition(":")[0] for note in found.notes] == ["ssl", "client.profile-name", "adls.client-secret"]
    assert "'s'" not in str(found.notes)
