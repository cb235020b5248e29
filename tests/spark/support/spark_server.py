"""One Spark for many tests: a program of .venv-spark that does what it is asked, one JSON line each, by several threads.

    python spark_server.py CONF_FILE FD

``CONF_FILE`` holds the conf of the Spark session as JSON; ``FD`` is a socket that the parent has left open. Requests have an
``id``, a ``do`` and the ``conf`` of a new session, in which they are done: catalogs are opened anew for each, as by a new
application.

- ``run``: run a ``job`` as a driver does.
- ``sql``: run ``statements``; the rows of the last one come back as an Arrow stream in base64.
- ``script``: execute Python ``code`` with ``spark`` and ``given``; what it leaves in ``result`` comes back as JSON.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import socket
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Jobs name functions of tests and of the project's modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))


def main() -> None:
    conf = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    channel = socket.socket(fileno=int(sys.argv[2])).makefile("rw", encoding="utf-8")
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in conf.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    guard = threading.Lock()

    def say(answer: dict[str, Any]) -> None:
        with guard:
            channel.write(json.dumps(answer) + "\n")
            channel.flush()

    def do(request: dict[str, Any]) -> None:
        try:
            say({"id": request["id"], "value": answer_to(spark, request)})
        except BaseException as error:  # noqa: BLE001  (whatever it is, the test is told)
            say({"id": request["id"], "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})

    say({"id": "ready", "value": {"pid": os.getpid(), "version": spark.version}})
    with ThreadPoolExecutor(4) as pool:
        for line in channel:
            pool.submit(do, json.loads(line))
    spark.stop()


def answer_to(spark: Any, request: dict[str, Any]) -> Any:
    """Do what a request asks, in a session of its own."""
    session = spark.newSession()
    for key, value in request.get("conf", {}).items():
        session.conf.set(key, value)
    try:
        return {"run": run, "sql": sql, "script": script}[request["do"]](session, request)
    finally:
        close_catalogs(session)


def close_catalogs(spark: Any) -> None:
    """Close the session's catalogs, which nobody else does while Spark runs: each may hold connections to a database."""
    manager = spark._jsparkSession.sessionState().catalogManager()
    loaded = manager.listCatalogs(spark._jvm.scala.Option.empty())
    for name in (loaded.apply(i) for i in range(loaded.size())):
        plugin = manager.catalog(name)
        if plugin.getClass().getName() != "org.apache.iceberg.spark.SparkCatalog":
            continue  # Spark's own, and one in memory of Iceberg's procedures
        catalog = plugin.icebergCatalog()
        if catalog.getClass().getSimpleName() == "CachingCatalog":
            # The catalog behind it has a close(), and it has none itself.
            field = catalog.getClass().getDeclaredField("catalog")
            field.setAccessible(True)
            catalog = field.get(catalog)
        catalog.close()


def run(spark: Any, request: dict[str, Any]) -> None:
    # Asked for here: the program is also of use where there is no driver package yet.
    importlib.import_module("airflow_incremental_spark").run(spark, request["job"])


def sql(spark: Any, request: dict[str, Any]) -> str:
    frame = None
    for statement in request["statements"]:
        frame = spark.sql(statement)
    return base64.b64encode(as_stream(frame.toArrow())).decode()


def as_stream(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def script(spark: Any, request: dict[str, Any]) -> Any:
    names = {"spark": spark, "given": request["given"], "result": None}
    exec(request["code"], names)  # noqa: S102  (the test's own code)
    return names["result"]


if __name__ == "__main__":
    main()
