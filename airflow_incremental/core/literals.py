"""Checks of what an author writes as a literal; a template passes, and is checked again when it is rendered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import attrs

from airflow_incremental.core.errors import ArgumentError

#: Where results of audits are kept: a table's identifier, None for the default, False for nowhere.
AuditTable = str | Literal[False] | None


def is_template(text: Any) -> bool:
    """Say whether a value still holds a Jinja expression, so that it can only be checked when it is rendered."""
    return isinstance(text, str) and ("{{" in text or "{%" in text)


def one_of(value: Any, choices: Any, *, what: str) -> Any:
    """Return ``value`` if it is one of the members of the ``Literal`` ``choices``; templates pass until they are rendered."""
    allowed = get_args(choices)
    if value in allowed or is_template(value):
        return value
    raise ArgumentError(f"{what} is {value!r}", expected=f"one of {', '.join(repr(a) for a in allowed)}")


def choice(choices: Any) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return ``one_of`` as the validator of a field."""

    def check(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        one_of(value, choices, what=attribute.name)

    return check


def check_name(value: Any, *, what: str) -> None:
    """Refuse what names no column or branch."""
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{what} is {value!r}", expected="a name")


def column_names(value: Any, *, what: str) -> tuple[str, ...]:
    """Read columns: one name, or several, none twice."""
    columns = (value,) if isinstance(value, str) else value
    if not isinstance(columns, Sequence):
        raise ArgumentError(f"{what} is {value!r}", expected="a column name, or a list of them")
    for column in columns:
        check_name(column, what=f"a column of {what}")
    if len(set(columns)) != len(columns):
        raise ArgumentError(f"{what} is {list(columns)!r}", expected="each column once")
    return tuple(columns)


def check_table(value: Any, *, what: str) -> None:
    """Refuse what is no table identifier with a namespace."""
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{what} is {value!r}", expected="a table identifier such as 'namespace.table'")
    if not is_template(value) and "." not in value.strip("."):
        raise ArgumentError(
            f"{what} is {value!r}, which names no namespace", expected="a table identifier such as 'namespace.table'"
        )


def name_of_callable(function: Callable[..., Any]) -> str:
    """Return a name for the task's page; the same in every parse, and never mistaken for a file."""
    inner = getattr(function, "func", function)
    module = getattr(inner, "__module__", type(inner).__module__)
    return f"{module}:{getattr(inner, '__qualname__', type(inner).__qualname__)}()"


def default_audit_table(target: str) -> str:
    """Return the identifier of the table in which results of audits are kept unless the author names one."""
    return f"{target}__audits"


def check_audit_table(value: Any, *, tables: Sequence[str | None]) -> None:
    """Refuse what names no table for results of audits, or one that the load reads or writes.

    :param tables: those.
    """
    if value is None or value is False:
        return
    if not isinstance(value, str):
        raise ArgumentError(
            f"audit_table is {value!r}",
            expected="a table identifier such as 'namespace.table', None for the target's with '__audits' after it, or False",
        )
    check_table(value, what="audit_table")
    if value in tables:
        raise ArgumentError(
            f"audit_table is {value!r}, which the load reads or writes",
            expected="a table of its own for results of audits",
            hint="leave it out: results are then kept beside the target",
        )
