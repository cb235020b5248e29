"""A function of one's own as an audit; importing this loads no engine."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from airflow_incremental.audits.base import Audit, name_of, severity_of
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import name_of_callable

if TYPE_CHECKING:
    import duckdb

    from airflow_incremental.audits.subject import Subject


@attrs.frozen(kw_only=True)
class Finding:
    """What a function of one's own found, where ``True`` or offending rows do not say it all.

    :param passed: whether the rows are as they should be.
    :param message: the finding for people, in a few words. It is logged and kept, so it should hold no value of a row.
    :param offending: rows that are not as they should be.
    :param observed: what was measured, as a JSON value; kept with the result.
    """

    passed: bool
    message: str
    offending: int = 0
    observed: Any = None


#: ``check(rows, subject)``. ``rows`` is a DuckDB relation, read as it is used, with all columns of the target. ``subject``
#: says which snapshot, session, process and target they are of. It returns whether the rows are as they should be; or
#: the offending rows, as a relation or an Arrow table, and passes if there are none; or a :class:`Finding`.
Check = Callable[["duckdb.DuckDBPyRelation", "Subject"], Any]


@attrs.frozen(init=False)
class PythonCheck(Audit):
    """A function of one's own, ``check(rows, subject)``; a bare function among ``audits`` is one with its defaults.

    ``rows`` is a DuckDB relation (``rows.filter("fare < 0")``, ``rows.aggregate("sum(fare)").fetchall()``), ``subject`` says which
    snapshot, session, process and target it is of. The function returns

    * ``True`` or ``False``: whether the rows are as they should be,
    * a relation or an Arrow table of offending rows: it passes if there are none,
    * a :class:`Finding`.

    Anything else fails the session, ``None`` too: a function that forgets to return must not pass. So does an exception; what it
    says is not passed on, because it can quote values of rows.

    :param function: the function. Of one defined in the DAG file, the code as it is when the task runs is what is run.
    """

    type: ClassVar[str] = "python"
    required: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    severity: Severity
    over: Over
    #: Not part of the serialised form.
    function: Check | None = attrs.field(eq=False, repr=False)
    #: How the function is called, for people.
    calls: str

    def __init__(
        self,
        function: Check | None,
        *,
        name: str | None = None,
        severity: Severity = "block",
        over: Over = "rows",
        calls: str | None = None,
    ) -> None:
        if function is not None:
            _check_arguments(function)
            calls = name_of_callable(function)
        default = calls.rpartition(":")[2].removesuffix("()").rpartition(".")[2] if calls else ""
        name = name_of(name, default)
        self.__attrs_init__(
            name=name,
            **severity_of(severity, over, name, row_wise=self.row_wise),
            function=function,
            calls=calls or "",
        )

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the fields of the serialised form, without ``type`` and without the function itself."""
        return tuple(n for n in super().field_names() if n != "function")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without its function: which ``calling`` adds."""
        return cls(None, **fields)

    def calling(self, function: Check) -> PythonCheck:
        """Return the same audit with its function."""
        return PythonCheck(function, name=self.name, severity=self.severity, over=self.over)


def is_function(value: Any) -> bool:
    """Say whether something among the audits is a bare function."""
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def _check_arguments(function: Any) -> None:
    if not callable(function):
        raise ArgumentError(f"PythonCheck is given {function!r}", expected="a function check(rows, subject)")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise ArgumentError(
            f"the check {name_of_callable(function)} cannot be called with two arguments: {error}",
            expected="a function check(rows, subject)",
            hint="rows is a DuckDB relation of what is audited; subject says which session, snapshot and target it is of",
        ) from None
    except ValueError:
        return  # of some built-ins nothing is known
