"""The two judges of an expectation: Great Expectations itself over an Arrow-backed frame, and the one pass in DuckDB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.fast import compiled
from airflow_incremental.audits.expectations.quiet import quiet
from airflow_incremental.audits.query import Rows
from airflow_incremental.audits.run import _connection, _count
from airflow_incremental.audits.sql import DuckDBSql, Sql
from airflow_incremental.audits.subject import ROWS
from tests.unit.audits.rows import read_of


@attrs.frozen
class Judged:
    """What one judge said: its verdict and numbers, or why it gave none."""

    success: bool | None
    result: dict[str, Any]
    why: str = ""


def expectation(kind: str, name: str = "e", **kwargs: Any) -> Expectation:
    """Return an expectation by the part of its type after ``expect_``."""
    return Expectation(name=name, type=f"expect_{kind}", kwargs=kwargs, severity="block")


def compiled_all(table: pa.Table, expectations: Sequence[Expectation], sql: type[Sql]) -> list[Measure | str]:
    """Return each expectation as SQL, named by its place, or the reason why there is none."""
    each = enumerate(expectations)
    return [compiled(attrs.evolve(e, name=str(i)), table.schema, sql(prefix=f"a0e{i}")) for i, e in each]


def by_duckdb(table: pa.Table, expectations: Sequence[Expectation]) -> list[Judged]:
    """Judge in one pass; and see that the predicate of offending rows is true for just as many as were counted."""
    compiled_as = compiled_all(table, expectations, DuckDBSql)
    measures = [m for m in compiled_as if isinstance(m, Measure)]
    read = attrs.evolve(read_of(table), name=ROWS)
    with _connection(None, None) as worker:
        rows = Rows(worker, read)
        rows.bind()
        _, counts = _count(rows, measures)
        for m in measures:
            found = counts[m.name]
            if m.offends is not None and not found.undecided:
                (offending,) = rows.one_row(f"SELECT count(*) FROM rows WHERE {m.offends}", m.values)
                assert offending == found.offending, (expectations[int(m.name)], offending, found)
    return [Judged(None, {}, m) if isinstance(m, str) else _of(counts[m.name]) for m in compiled_as]


def _of(counts: Counts) -> Judged:
    assert counts.passed is not None
    assert counts.full is not None
    if counts.undecided:
        return Judged(None, {}, counts.undecided)
    return Judged(counts.passed, dict(counts.full))


def by_gx(table: pa.Table, expectations: Sequence[Expectation]) -> list[Judged]:
    """Judge with Great Expectations; one that it refuses or that raises has no verdict."""
    import pandas as pd

    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    alone = [i for i, e in enumerate(expectations) if "quantile" in e.type]
    together = [i for i in range(len(expectations)) if i not in alone]
    found: dict[int, Judged] = {}
    # Of two expectations of quantiles of one column, GX 1.24 gives to both the quantiles that one of them asks for.
    for chosen in (together, *([i] for i in alone)):
        found.update(zip(chosen, _validated(frame, [expectations[i] for i in chosen]), strict=True))
    return [found[i] for i in range(len(expectations))]


def _validated(frame: Any, expectations: Sequence[Expectation]) -> list[Judged]:
    with quiet():
        import great_expectations as gx
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    found: list[Judged | None] = [None] * len(expectations)
    built = []
    with quiet():
        for i, e in enumerate(expectations):
            configuration = ExpectationConfiguration(type=e.type, kwargs=dict(e.kwargs), meta={"i": i})
            try:
                built.append(configuration.to_domain_obj())
            except Exception as error:  # noqa: BLE001  whatever it raises is a refusal
                found[i] = Judged(None, {}, f"refused: {error}")
        if built:
            validated = (
                _batches()
                .get_batch({"dataframe": frame})
                .validate(
                    gx.ExpectationSuite("suite", expectations=built),
                    result_format={"result_format": "BASIC", "exclude_unexpected_values": True},
                )
            )
            for one in validated.results:  # not in the order of the suite
                i = one.expectation_config.meta["i"]
                said = one.to_json_dict()
                raised = _raised(said["exception_info"])
                result = {k: v for k, v in said["result"].items() if not k.startswith("partial_")}
                found[i] = Judged(None, {}, raised) if raised else Judged(said["success"], result)
    assert all(found)
    return [f for f in found if f is not None]


def _raised(info: dict[str, Any]) -> str:
    each = [info] if "raised_exception" in info else list(info.values())
    return " | ".join(str(e.get("exception_message")) for e in each if e.get("raised_exception"))


@cache
def _batches() -> Any:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("rows")


def differences(table: pa.Table, expectations: Sequence[Expectation]) -> tuple[list[str], list[str]]:
    """Return where the two judges differ, and the types of the expectations that DuckDB decided."""
    fast, slow = by_duckdb(table, expectations), by_gx(table, expectations)
    decided = [(e, f, g) for e, f, g in zip(expectations, fast, slow, strict=True) if f.success is not None]
    said = [
        f"{e.type} {dict(e.kwargs)}\n    DuckDB: {f}\n    GX:     {g}"
        for e, f, g in decided
        if f.success != g.success or not alike(f.result, g.result)
    ]
    return said, [e.type for e, _, _ in decided]


def alike(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal; sums of floats depend on the order of the rows, so the last digits may differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
