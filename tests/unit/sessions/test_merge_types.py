"""What a key can be: every type whose equal values are the same key everywhere."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestampType,
    UUIDType,
)

from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.sessions import steps
from tests.support.totals import Totals
from tests.support.world import SOURCE, TARGET, new_catalog


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (UUIDType(), [uuid.UUID(int=n << 120).bytes for n in (1, 130, 255)]),
        (StringType(), ["a" * 40, "é", ""]),
        (DateType(), [dt.date(1969, 12, 31), dt.date(2024, 1, 1), dt.date(2024, 1, 2)]),
        (TimestampType(), [dt.datetime(2024, 1, 1, h) for h in range(3)]),  # noqa: DTZ001
        (DecimalType(9, 2), [Decimal("-0.25"), Decimal("1.50"), Decimal("99.99")]),
        (BooleanType(), [True, False, True]),
        (BinaryType(), [b"", b"\x00", b"\xff\xfe"]),
    ],
    ids=["uuid", "string", "date", "timestamp", "decimal", "boolean", "binary"],
)
def test_types_of_keys(tmp_path: Path, kind: PrimitiveType, values: list[Any]) -> None:
    catalog = new_catalog(tmp_path)
    key = NestedField(1, "k", kind, required=False)
    source = catalog.create_table(SOURCE, schema=Schema(key, NestedField(2, "v", LongType(), required=False)))
    target = catalog.create_table(TARGET, schema=Schema(key, NestedField(2, "n", LongType(), required=False)))
    spec = ProcessSpec(
        process="p", sources={"s": IcebergSource(SOURCE)}, target=IcebergTarget(TARGET), mode="merge", keys=("k",)
    )
    process = Totals(home=tmp_path).process(spec=spec, transform="SELECT k, count(*) AS n FROM s GROUP BY k")
    schema = source.schema().as_arrow()
    landed: list[Any] = []
    for number, batch in enumerate((values[:2], values[1:], values[:1])):
        landed += batch
        source.refresh().append(
            pa.table({"k": pa.array(batch, schema.field("k").type), "v": [1] * len(batch)}, schema=schema)
        )
        owner = attrs.evolve(process.owner, run_id=f"run{number}")
        steps.run(attrs.evolve(process, owner=owner))
        rows = target.refresh().scan().to_arrow().to_pylist()
        got = {r["k"].bytes if isinstance(r["k"], uuid.UUID) else r["k"]: r["n"] for r in rows}
        assert got == Counter(landed)
        assert len(rows) == len(got)
