"""What every audit is: a name, a severity, and plain values to serialise as.

Columns are given by name; a field of a struct by its dotted path (``address.city``). The checks on arguments that all
audits share are here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from airflow_incremental.audits.values import decode, encode
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template, one_of

_NAME_LIMIT = 200


class Audit:
    """Base of all audits, which are frozen attrs classes.

    :param name: what results and messages call it; unique among the audits of one load.
    :param severity: what failing does: keep the data from being published (``block``), only be reported (``warn``), ask a
        person (``ask``), or put the offending rows aside (``quarantine``; only where single rows offend).
    :param over: what it looks at: the ``rows`` the session wrote, the ``partitions`` it touched, or the ``table``.
    """

    __slots__ = ()

    #: How the audit is called in its serialised form, and the fields that form cannot do without.
    type: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    #: Whether single rows offend, so that they can be told from the rest and put aside.
    row_wise: ClassVar[bool] = False
    #: Whether rows have to be read. If not, manifests or earlier results tell all there is to know.
    reads_rows: ClassVar[bool] = True

    name: str
    severity: Severity
    over: Over

    @property
    def asks_person(self) -> bool:
        """Whether it is left to a person what follows."""
        return self.severity == "ask"

    @property
    def puts_aside(self) -> bool:
        """Whether rows that offend are put aside."""
        return self.severity == "quarantine"

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of its results, which are unique in a report."""
        return (self.name,)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise; equal audits give equal dicts."""
        plain: dict[str, Any] = {"type": self.type}
        for key in self.field_names():
            value = getattr(self, key)
            plain[key] = [encode(v) for v in value] if isinstance(value, tuple) else encode(value)
        return plain

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the fields of the serialised form, without ``type``."""
        return tuple(f.name for f in attrs.fields(cls))  # type: ignore[arg-type]  # each subclass is an attrs class

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without ``type``."""
        return cls(**{k: decode(v, what=f"{k} of an audit") for k, v in fields.items()})


def severity_of(value: Any, over: Any, name: str, *, row_wise: bool) -> dict[str, Any]:
    """Return a checked ``severity`` and ``over``, as arguments.

    :param row_wise: whether single rows offend.
    """
    one_of(value, Severity, what=f"the severity of audit {name!r}")
    one_of(over, Over, what=f"over of audit {name!r}")
    if value == "quarantine" and not row_wise:
        raise ArgumentError(
            f"the severity of audit {name!r} is 'quarantine'",
            expected="'block', 'warn' or 'ask': of what it looks at no single row offends that could be put aside",
        )
    if value == "quarantine" and over != "rows":
        raise ArgumentError(
            f"the severity of audit {name!r} is 'quarantine', and it looks over the {over}",
            expected="over='rows': only rows the session wrote can be put aside; the others are published already",
        )
    return {"severity": value, "over": over}


def name_of(name: Any, default: str) -> str:
    """Return a checked name, or the default when none is given."""
    if name is None:
        return default[:_NAME_LIMIT]
    printable = isinstance(name, str) and (name.isprintable() or is_template(name))
    if printable and name.strip() and len(name) <= _NAME_LIMIT:
        return str(name)
    raise ArgumentError(
        f"the name of an audit is {name!r}", expected=f"one printable line of at most {_NAME_LIMIT} characters"
    )


def columns_of(columns: tuple[Any, ...], check: str) -> tuple[str, ...]:
    """Return checked column names; ``check`` is how an error names the audit."""
    for column in columns:
        if not isinstance(column, str) or not column:
            raise ArgumentError(
                f"{check} is given {column!r} as a column",
                expected="column names",
                hint=f"name them one after the other: {check}('a', 'b')",
            )
    if not columns or len(set(columns)) != len(columns):
        raise ArgumentError(
            f"{check} is given " + (f"a column twice in {columns!r}" if columns else "no column"),
            expected="one or more different columns",
            hint=f"write for example {check}('a', 'b')",
        )
    return columns


def label(check: str, *columns: str, over: Any = "rows") -> str:
    """Return the default name of an audit of some columns."""
    named = f"{check}({', '.join(c if c.isprintable() else ascii(c) for c in columns)})" if columns else check
    return named if over == "rows" else f"{named} over {over}"
