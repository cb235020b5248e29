"""Expectations that Great Expectations itself judges, over data frames backed by Arrow.

Importing this takes seconds and hundreds of megabytes: only what needs it does, and not before. What judges each row by
itself sees the rows in parts, and the counts are summed; the rest sees all rows, but only of the columns it asks about.
"""

from __future__ import annotations

import builtins
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import great_expectations
import pandas as pd
import pyarrow as pa
from great_expectations.core import ExpectationSuite
from great_expectations.core.batch_definition import BatchDefinition
from great_expectations.data_context import AbstractDataContext
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.expectation import Expectation as Model
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from airflow_incremental.audits.columns import resolve
from airflow_incremental.audits.expectations.condition import columns_of_condition
from airflow_incremental.audits.expectations.counts import Summed
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.kinds import OF_COLUMNS, OF_ROW_COUNT, ROW_BY_ROW
from airflow_incremental.audits.expectations.parse import columns_named
from airflow_incremental.audits.query import Rows, plain
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import AuditFailed, IncrementalError
from airflow_incremental.engines.filters import quote

T = TypeVar("T")

#: Rows of one frame; at 100 bytes a row some 20 MB, and a second of work for a few dozen expectations.
_PART = 200_000
_HINT = "correct the suite"
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?(\w+)(?::|$)", re.MULTILINE)
#: Exceptions that say nothing about the rows.
_ENVIRONMENT = frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, (MemoryError, OSError))
) | {"ArrowMemoryError", "ArrowIOError"}
#: The exceptions of Arrow and pandas that may be named; any other name in a traceback could be a value of a row.
_KNOWN = {name for name in dir(pa.lib) if name.startswith("Arrow")} | set(dir(pd.errors))


@attrs.frozen(kw_only=True)
class Validation:
    """What Great Expectations found for one expectation.

    :param success: its verdict.
    :param result: its ``result``, as JSON values.
    :param samples: some offending rows, if they were asked for and single rows offend.
    """

    success: bool
    result: Mapping[str, Any]
    samples: tuple[Mapping[str, Any], ...] = ()


@attrs.frozen(kw_only=True)
class _Asked:
    """One expectation with what it has to see.

    :param columns: paths of the columns it asks about; None for all.
    :param row_by_row: whether it may see the rows in parts.
    """

    expectation: Expectation
    model: Model
    columns: tuple[str, ...] | None
    row_by_row: bool


def evaluate(expectations: Sequence[Expectation], rows: Rows, *, samples: int = 0) -> tuple[Validation, ...]:
    """Have Great Expectations judge the rows.

    :param rows: bound.
    :param samples: how many offending rows, and values in its ``result``, each may show.
    :returns: one for each expectation, in their order.
    :raises AuditFailed: an expectation does not fit the rows, or Great Expectations does not know it.
    :raises AuditIncomplete: the rows could not be read to their end, or there was not enough memory.
    """
    schema = rows.read.schema
    asked = [_asked(e, schema) for e in expectations]
    definition = _context().data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = definition.add_batch_definition_whole_dataframe("rows")
    found: dict[str, Validation] = {}
    together = [a for a in asked if a.row_by_row]
    if together:
        sums = {a.expectation.name: Summed(samples=samples) for a in together}
        for table in _tables(rows, _union(together), part=_PART):
            for a, answer in zip(together, _validate(batch, table, together, samples), strict=True):
                picked = answer.get("unexpected_index_list", ())[:samples]
                sums[a.expectation.name].add(answer, _rows_of(table, a.columns, picked))
        found.update(
            {
                a.expectation.name: Validation(
                    success=sums[a.expectation.name].success(a.expectation.kwargs.get("mostly")),
                    result=sums[a.expectation.name].result(),
                    samples=tuple(sums[a.expectation.name].rows),
                )
                for a in together
            }
        )
    for a in asked:
        if a.row_by_row:
            continue
        limit = 0 if a.expectation.type in OF_COLUMNS else None
        (table,) = _tables(rows, a.columns, limit=limit)
        (answer,) = _validate(batch, table, [a], samples)
        picked = answer.pop("unexpected_index_list", ())[:samples]
        success = answer.pop("success")
        found[a.expectation.name] = Validation(
            success=success, result=answer, samples=_rows_of(table, a.columns, picked)
        )
    return tuple(found[e.name] for e in expectations)


def check(expectations: Sequence[Expectation], schema: pa.Schema) -> None:
    """See, without any rows, whether Great Expectations knows the expectations, their arguments and row conditions.

    :raises AuditFailed: one of them it does not.
    """
    asked = [_asked(e, schema) for e in expectations]
    conditions = [a for a in asked if a.model.configuration.kwargs.get("row_condition") is not None]
    if not conditions:
        return
    nothing = schema.empty_table().to_pandas(types_mapper=pd.ArrowDtype)
    asset = _context().data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": nothing})
    counted = get_expectation_impl("expect_table_row_count_to_be_between")
    for a in conditions:
        condition = a.model.configuration.kwargs["row_condition"]
        probe = counted(min_value=0, row_condition=condition, condition_parser="pandas")
        answer = _attempt(lambda: batch.validate(probe).to_json_dict())  # noqa: B023  runs at once
        if isinstance(answer, Exception) or _raised(answer) is not None:
            raise AuditFailed(
                f"the row_condition of expectation {a.expectation.name!r} cannot be applied to the rows: {condition!r}",
                expected="a condition on columns of the rows, in values of their types",
                hint="write it as great_expectations.expectations.row_conditions does (Column('delay') > 0), or as text that "
                "pandas' DataFrame.query understands",
            )


def suite_of_context(name: str, root: str) -> dict[str, Any]:
    """Return the JSON of a suite of a file context.

    :raises AuditFailed: there is no such context or suite.
    """
    outcome = _attempt(lambda: great_expectations.get_context(mode="file", context_root_dir=root))
    if isinstance(outcome, Exception):
        raise AuditFailed(
            f"the Great Expectations context {root!r} cannot be opened: {type(outcome).__name__}",
            expected="a folder with a great_expectations.yml that Great Expectations 1.x can read",
            hint="try great_expectations.get_context(mode='file', context_root_dir=...) on the worker",
        )
    suites = {s.name: s for s in outcome.suites.all()}
    if name not in suites:
        near = difflib.get_close_matches(name, suites, n=1)
        raise AuditFailed(
            f"the Great Expectations context {root!r} has no suite {name!r}",
            expected=f"one of {', '.join(map(repr, suites)) or 'none: it has no suite at all'}",
            hint=f"did you mean {near[0]!r}?" if near else "correct the name, or add the suite to the context",
        )
    return dict(suites[name].to_json_dict())


def _context() -> AbstractDataContext:
    """Return a context that lives in memory, writes nothing, sends nothing and shows no progress bars."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )
    return great_expectations.get_context(mode="ephemeral", project_config=config)


def _asked(expectation: Expectation, schema: pa.Schema) -> _Asked:
    model = _model(expectation)
    kwargs, kind = model.configuration.kwargs, expectation.type
    own = not type(model).__module__.startswith("great_expectations.")
    condition = columns_of_condition(kwargs.get("row_condition"), schema.names)
    named = (*columns_named(kwargs), *(condition or ()))
    if own or condition is None or kind in OF_COLUMNS:
        columns = None
    elif not named and kind in OF_ROW_COUNT:
        columns = tuple(schema.names[:1])
    else:
        columns = tuple(dict.fromkeys(named)) or None
    row_by_row = kind in ROW_BY_ROW and not own and condition is not None
    return _Asked(expectation=expectation, model=model, columns=columns, row_by_row=row_by_row)


def _model(expectation: Expectation) -> Model:
    """Return the expectation as Great Expectations' own class has it."""
    kind, name = expectation.type, expectation.name
    known = list_registered_expectation_implementations()
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        raise AuditFailed(
            f"expectation {name!r} is of the type {kind!r}, which Great Expectations does not know",
            expected="an expectation of Great Expectations 1.x, or one of your own that is imported where the task runs",
            hint=f"did you mean {near[0]!r}?" if near else _HINT,
        )
    parameters = [k for k, v in expectation.kwargs.items() if isinstance(v, Mapping) and "$PARAMETER" in v]
    if parameters:
        raise AuditFailed(
            f"expectation {name!r} takes {', '.join(map(repr, parameters))} from a parameter of the suite",
            expected="values",
            hint="write a Jinja template in its place, such as '{{ params.max_delay }}'",
        )
    kwargs = {k: v for k, v in expectation.kwargs.items() if k not in ("result_format", "catch_exceptions")}
    outcome = _attempt(lambda: get_expectation_impl(kind)(**kwargs))
    if isinstance(outcome, Exception):
        raise _refused(expectation, outcome)
    return outcome


def _refused(expectation: Expectation, error: Exception) -> AuditFailed:
    """Say in our words what pydantic, or the parser of row conditions, says of arguments."""
    errors = error.errors() if hasattr(error, "errors") else []
    ours = [e for e in errors if e["loc"] and e["loc"][0] != "row_condition"] + [e for e in errors if not e["loc"]]
    if not ours:
        condition = expectation.kwargs.get("row_condition")
        what = f"the row_condition {condition!r}" if condition is not None else "arguments it does not take"
        return AuditFailed(
            f"expectation {expectation.name!r} has {what}, which Great Expectations cannot read",
            expected='{"type": "comparison", "column": {"name": "delay"}, "operator": ">", "parameter": 0}, or "nullity" with '
            '"is_null", or "and" and "or" with "conditions"; or text that pandas\' DataFrame.query understands',
            hint=_HINT,
        )
    fields = {f.alias for f in get_expectation_impl(expectation.type).__fields__.values()}
    said: dict[str, str] = {}
    for each in ours:
        argument = ".".join(str(part) for part in each["loc"])
        message = "is no argument of it" if each["type"] == "value_error.extra" else each["msg"]
        message = "is missing" if each["type"] == "value_error.missing" else message
        near = difflib.get_close_matches(argument, fields, n=1) if each["type"] == "value_error.extra" else []
        text = f"{argument!r} {message}" if argument != "__root__" else message
        said.setdefault(argument, text + (f" (did you mean {near[0]!r}?)" if near else ""))
    return AuditFailed(
        f"expectation {expectation.name!r} ({expectation.type}) has wrong arguments: {'; '.join(said.values())}",
        expected="the arguments Great Expectations documents for it",
        hint=_HINT,
    )


def _union(asked: Sequence[_Asked]) -> tuple[str, ...] | None:
    if any(a.columns is None for a in asked):
        return None
    return tuple(dict.fromkeys(c for a in asked for c in a.columns or ()))


def _tables(
    rows: Rows, columns: Sequence[str] | None, *, part: int | None = None, limit: int | None = None
) -> Iterator[pa.Table]:
    """Yield the rows, at least one table; only the given columns, fields of structs under their paths."""
    schema = rows.read.schema
    names = schema.names if columns is None else columns
    shown = ", ".join(f"{resolve(schema, c, audit='suite').sql} AS {quote(c)}" for c in names)
    sql = f"SELECT {shown} FROM rows{'' if limit is None else f' LIMIT {limit}'}"  # noqa: S608
    doing = "read the written rows for Great Expectations"
    if part is None:
        yield rows.guarded(lambda: rows.con.sql(sql).to_arrow_table(), doing=doing)
        return
    relation = rows.guarded(lambda: rows.con.sql(sql), doing=doing)
    make = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader  # the name before DuckDB 1.5
    reader = rows.guarded(lambda: make(part), doing=doing)
    read = 0
    while (batch := rows.guarded(lambda: next(reader, None), doing=doing)) is not None:
        read += 1
        yield pa.Table.from_batches([batch])
    if not read:
        yield reader.schema.empty_table()


def _validate(
    definition: BatchDefinition, table: pa.Table, asked: Sequence[_Asked], samples: int
) -> list[dict[str, Any]]:
    """Return for each expectation the ``result`` of its validation, with its ``success``."""
    models = []
    for i, a in enumerate(asked):
        model = a.model.copy()
        model.id = str(i)
        models.append(model)
    wanted: dict[str, Any] = {"result_format": "BASIC", "exclude_unexpected_values": True}
    if samples:
        wanted = {
            "result_format": "COMPLETE",
            "partial_unexpected_count": samples,
            "return_unexpected_index_query": False,
        }

    def work(frame: pd.DataFrame, chosen: Sequence[Model]) -> dict[int, dict[str, Any]]:
        suite = ExpectationSuite(name="rows")
        suite.expectations = list(chosen)
        batch = definition.get_batch({"dataframe": frame})
        answers = batch.validate(suite, result_format=wanted).to_json_dict()["results"]
        # Those that raised come first, whatever their place in the suite.
        return {int(answer["expectation_config"]["id"]): answer for answer in answers}

    answers = _answers(lambda: work(table.to_pandas(types_mapper=pd.ArrowDtype), models))
    raised = [model for i, model in enumerate(models) if _raised(answers[i]) not in {None, *_ENVIRONMENT}]
    if raised:
        # Some of Great Expectations' comparisons stop at the NA of an Arrow column, or at a decimal beside an integer.
        answers |= _answers(lambda: work(table.to_pandas(integer_object_nulls=True), raised))
    for i, a in enumerate(asked):
        kind = _raised(answers[i])
        if kind is not None:
            raise _stopped(f"expectation {a.expectation.name!r}", kind)
    return [
        {k: v for k, v in answers[i]["result"].items() if k != "unexpected_list"}
        | {"success": bool(answers[i]["success"])}
        for i in range(len(asked))
    ]


def _answers(work: Callable[[], dict[int, dict[str, Any]]]) -> dict[int, dict[str, Any]]:
    outcome = _attempt(work)
    if isinstance(outcome, Exception):
        raise _stopped("the suite", type(outcome).__name__)
    return outcome


def _stopped(what: str, kind: str) -> IncrementalError:
    if kind in _ENVIRONMENT:
        return AuditIncomplete(
            f"Great Expectations could not judge {what}: {kind}",
            expected="enough memory for the columns the expectation asks about",
            hint="give the worker more memory; the table of expectations in docs/audits.md says which run in DuckDB instead",
        )
    return AuditFailed(
        f"Great Expectations could not judge {what}: it stopped with {kind} "
        "(its message is left out because it can quote values of rows)",
        expected="an expectation that fits the types of its columns and can be evaluated over data frames",
        hint="correct its arguments, or use an SqlCheck in its place",
    )


def _traceback(info: Any) -> str | None:
    """Return the traceback of an ``exception_info``, which has one level more when a metric raised; None if nothing did."""
    if not isinstance(info, Mapping):
        return None
    if "raised_exception" in info:
        return str(info.get("exception_traceback") or "") if info["raised_exception"] else None
    return next((found for each in info.values() if (found := _traceback(each)) is not None), None)


def _raised(answer: Mapping[str, Any]) -> str | None:
    """Return the kind of what an expectation raised, None if it did not."""
    traceback = _traceback(answer.get("exception_info"))
    return None if traceback is None else _named(traceback)


def _named(traceback: str) -> str:
    """Return the kind of the first exception of a traceback, if it is one that is known; nothing else of it."""
    for found in _EXCEPTION.findall(traceback):
        error = getattr(builtins, found, None)
        if (isinstance(error, type) and issubclass(error, Exception)) or found in _KNOWN:
            return str(found)
    return "an exception"


def _rows_of(table: pa.Table, columns: Sequence[str] | None, places: Sequence[int]) -> tuple[Mapping[str, Any], ...]:
    if not places:
        return ()
    shown = table if columns is None else table.select(list(columns))
    return tuple({k: plain(v) for k, v in row.items()} for row in shown.take(list(places)).to_pylist())


def _attempt(work: Callable[[], T]) -> T | Exception:
    """Return what ``work`` returns, or what it raised: its message, its cause and its frames may hold values of rows."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  whatever it is
        return error.with_traceback(None)
