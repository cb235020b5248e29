"""The proxy does what it is told, and says so: tests of lost commits rest on it."""

from __future__ import annotations

import threading
import time

import httpx
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.fault_proxy import Fault, FaultProxy
from tests.spark.support.spark_process import SparkFailed, SparkProcess

SCHEMA = pa.schema([("id", pa.int64())])


@pytest.fixture
def proxied(rest_catalog: SharedCatalog, proxy: FaultProxy) -> SharedCatalog:
    """The REST catalog behind the proxy, for both."""
    return rest_catalog.all_through(proxy.address)


@pytest.fixture
def table(rest_catalog: SharedCatalog) -> Table:
    return rest_catalog.load().create_table("raw.t", schema=SCHEMA)


def ids(table: Table) -> list[int]:
    return sorted(table.refresh().scan().to_arrow()["id"].to_pylist())


def append(catalog: SharedCatalog, number: int) -> None:
    catalog.load().load_table("raw.t").append(pa.table({"id": [number]}, schema=SCHEMA))


def test_it_passes_everything(spark: SparkProcess, proxied: SharedCatalog, table: Table, proxy: FaultProxy) -> None:
    append(proxied, 1)
    spark.sql(proxied, "INSERT INTO raw.t VALUES (2)", "DELETE FROM raw.t WHERE id = 1")
    assert ids(table) == [2]
    assert [(e.landed, e.upstream, e.answered) for e in proxy.commits()] == [(True, 200, 200)] * 3
    assert spark.sql(proxied, "SELECT id FROM raw.t").to_pydict() == {"id": [2]}


@pytest.mark.parametrize("landed", [True, False])
def test_a_500_after_a_commit_is_a_500_whether_it_landed_or_not(
    proxied: SharedCatalog, table: Table, proxy: FaultProxy, landed: bool
) -> None:
    fault = proxy.add(Fault(status=500, landed=landed))
    with pytest.raises(CommitStateUnknownException):
        append(proxied, 1)
    assert ids(table) == ([1] if landed else [])
    assert fault.reached.is_set()
    (commit,) = proxy.commits()
    assert (commit.landed, commit.upstream, commit.answered) == (landed, 200 if landed else None, 500)
    append(proxied, 2)
    assert ids(table) == ([1, 2] if landed else [2])


def test_iceberg_in_java_looks_whether_a_commit_has_landed(
    spark: SparkProcess, proxied: SharedCatalog, table: Table, proxy: FaultProxy
) -> None:
    proxy.add(Fault(status=500))
    spark.sql(proxied, "INSERT INTO raw.t VALUES (1)")
    assert ids(table) == [1]
    proxy.add(Fault(status=500, landed=False))
    with pytest.raises(SparkFailed, match="CommitStateUnknown"):
        spark.sql(proxied, "INSERT INTO raw.t VALUES (2)")
    assert ids(table) == [1]
    assert [e.answered for e in proxy.commits()] == [500, 500]


def test_an_answer_is_lost(proxied: SharedCatalog, table: Table, proxy: FaultProxy) -> None:
    proxy.add(Fault(reset=True))
    with pytest.raises(Exception, match=r"Connection (aborted|reset)"):
        append(proxied, 1)
    assert ids(table) == [1]
    assert [(e.upstream, e.answered) for e in proxy.commits()] == [(200, None)]


def test_the_server_is_gone_for_a_while(proxied: SharedCatalog, table: Table, proxy: FaultProxy) -> None:
    with httpx.Client(base_url=proxy.address) as kept_alive:
        assert kept_alive.get("/v1/config").status_code == 200
        proxy.outage(1)
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            kept_alive.get("/v1/config")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{proxy.address}/v1/config")
        assert time.monotonic() - began < 0.9
        proxy.wait_until_up()
        assert kept_alive.get("/v1/config").status_code == 200
    append(proxied, 1)
    assert ids(table) == [1]


@pytest.mark.parametrize("landed", [True, False])
def test_the_server_goes_away_in_the_middle_of_a_commit(
    spark: SparkProcess, proxied: SharedCatalog, table: Table, proxy: FaultProxy, landed: bool
) -> None:
    proxy.add(Fault(outage=2, landed=landed))
    with pytest.raises(SparkFailed):
        spark.sql(proxied, "INSERT INTO raw.t VALUES (1)")
    assert ids(table) == ([1] if landed else [])
    proxy.wait_until_up()
    spark.sql(proxied, "INSERT INTO raw.t VALUES (2)")
    assert ids(table) == ([1, 2] if landed else [2])


def test_a_commit_is_held_until_it_may_go_on(proxied: SharedCatalog, table: Table, proxy: FaultProxy) -> None:
    fault = proxy.add(Fault(hold=threading.Event()))
    writer = threading.Thread(target=append, args=(proxied, 1))
    writer.start()
    assert fault.reached.wait(30)
    append(proxied, 2)
    assert ids(table) == [2]
    assert fault.hold is not None
    fault.hold.set()
    writer.join()
    assert ids(table) == [1, 2]


def test_faults_take_the_requests_they_name(proxied: SharedCatalog, table: Table, proxy: FaultProxy) -> None:
    proxy.add(Fault(method="GET", path="/v1/config", skip=1, times=1, status=503, landed=False))
    assert [httpx.get(f"{proxy.address}/v1/config").status_code for _ in range(3)] == [200, 503, 200]
    proxy.clear()
    assert proxy.log == []
    append(proxied, 1)
    assert ids(table) == [1]
