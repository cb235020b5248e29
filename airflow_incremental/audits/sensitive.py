"""The audit for sensitive data: what it looks for and where. How it looks is in ``detector`` and ``findings``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import attrs

from airflow_incremental.audits.base import Audit, columns_of, label, name_of, severity_of
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template

#: What is looked for unless told otherwise: what names a person, an account or a device, and can be told with few mistakes.
#: Left out are dates and URLs, which are in most data, and numbers that only a check digit tells from any other.
DEFAULT_ENTITIES = (
    "CREDIT_CARD",
    "CRYPTO",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "MEDICAL_LICENSE",
    "UK_NINO",
    "US_ITIN",
    "US_MBI",
    "US_SSN",
)


@attrs.frozen(init=False)
class SensitiveData(Audit):
    """No text holds personal or otherwise sensitive data, as far as Presidio's pattern recognisers see.

    They look for patterns, and for check digits where there are some: e-mail addresses, card numbers, IBANs, national ids. They
    know no language, so names and places are not found. Text is looked at in columns of strings, in fields of structs, elements of
    lists, and keys and values of maps; numbers and binary values are not. Needs ``pip install 'airflow-incremental[sensitive]'``
    where the task runs; nothing is downloaded.

    The result holds counts per column and entity, never a value. Sample rows, if asked for, come masked.

    :param columns: columns to look into, by their names or dotted paths; None for all with text.
    :param entities: what to look for, by Presidio's names; None for ``DEFAULT_ENTITIES``.
    :param allow: column -> entities that are fine there.
    :param sample: look at this many rows only: those whose hash over all columns is least, so that the same rows give the same
        sample. None looks at all.
    :param score_threshold: how sure a recogniser has to be, above 0 and up to 1.
    """

    type: ClassVar[str] = "sensitive_data"
    row_wise: ClassVar[bool] = True
    name: str
    severity: Severity
    over: Over
    columns: tuple[str, ...] | None
    entities: tuple[str, ...] | None
    #: Pairs of a column and what is allowed there, by column.
    allow: tuple[tuple[str, tuple[str, ...]], ...]
    sample: int | None
    score_threshold: float

    def __init__(
        self,
        columns: Iterable[str] | None = None,
        *,
        entities: Iterable[str] | None = None,
        allow: Mapping[str, Iterable[str]] | None = None,
        sample: int | None = None,
        score_threshold: float = 0.5,
        severity: Severity = "block",
        name: str | None = None,
    ) -> None:
        columns = None if columns is None else columns_of(_listed(columns, "columns"), "SensitiveData")
        name = name_of(name, label(self.type, *(columns or ())))
        if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 1):
            raise ArgumentError(
                f"sample of audit {name!r} is {sample!r}", expected="a number of rows, 1 or more, or None for all"
            )
        if sample is not None and severity == "quarantine":
            raise ArgumentError(
                f"audit {name!r} has severity='quarantine' and sample={sample}",
                expected="all rows to be looked at: what a sample leaves out would be published",
                hint="leave sample out, or choose another severity",
            )
        known = isinstance(score_threshold, (int, float)) and not isinstance(score_threshold, bool)
        if not known or not 0 < score_threshold <= 1:
            raise ArgumentError(
                f"score_threshold of audit {name!r} is {score_threshold!r}", expected="a number above 0 and up to 1"
            )
        self.__attrs_init__(
            name=name,
            columns=columns,
            entities=None if entities is None else _entities(entities, f"entities of audit {name!r}"),
            allow=_allowed(allow, name),
            sample=sample,
            score_threshold=float(score_threshold),
            **severity_of(severity, "rows", name, row_wise=self.row_wise),
        )

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the fields of the serialised form, without ``type``; it looks at what the session wrote, and nothing else."""
        return tuple(n for n in super().field_names() if n != "over")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise; equal audits give equal dicts."""
        return {**super().as_dict(), "allow": {column: list(entities) for column, entities in self.allow}}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without ``type``."""
        return cls(**fields)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The entities that are looked for."""
        return DEFAULT_ENTITIES if self.entities is None else self.entities


def _listed(value: Any, what: str) -> tuple[Any, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ArgumentError(f"{what} is {value!r}", expected="a list of names", hint="write a single one as ['name']")
    return tuple(value)


def _entities(value: Any, what: str) -> tuple[str, ...]:
    found = _listed(value, what)
    wrong = [e for e in found if not isinstance(e, str) or not e]
    if wrong or not found:
        raise ArgumentError(
            f"{what} holds {wrong[0]!r}" if wrong else f"{what} is empty",
            expected="names of Presidio's entities, such as 'EMAIL_ADDRESS'",
        )
    # Sorted, because a set has another order in each process and two parses must give one DAG.
    return tuple(sorted({e if is_template(e) else e.upper() for e in found}))


def _allowed(value: Any, name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ArgumentError(
            f"allow of audit {name!r} is {value!r}",
            expected="a mapping from a column to a list of entities, such as {'contact': ['EMAIL_ADDRESS']}",
        )
    for column in value:
        columns_of((column,), "SensitiveData")
    return tuple(sorted((c, _entities(e, f"allow of {c!r} in audit {name!r}")) for c, e in value.items()))
