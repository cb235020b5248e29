"""A Great Expectations suite as an audit: what an author writes; importing it does not load Great Expectations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

import attrs

from airflow_incremental.audits.base import Audit, label, name_of
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.parse import checked_suite, expectations_of, read_suite_file
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template, one_of

#: ``auto``: in DuckDB where that is proven to find the same as Great Expectations, the rest in Great Expectations itself.
#: ``gx``: all in Great Expectations itself.
Engine = Literal["auto", "gx"]
_FILE = ".json"


@attrs.frozen(init=False)
class Expectations(Audit):
    """The expectations of a Great Expectations 1.x suite; each has a result of its own.

    A ``critical`` expectation blocks, ``warning`` and ``info`` warn; ``meta: {"severity": "ask"}`` or ``"quarantine"`` in
    the suite says what Great Expectations has no word for. Given to an operator, the suite's values may hold Jinja
    templates.

    :param suite: an ``ExpectationSuite``; its JSON as a mapping; the path of a ``.json`` file with it, found as Airflow
        finds template files and read when the DAG is parsed; or the name of a suite in a file context.
    :param name: what the names of its results begin with; default is the suite's name, or the file's.
    :param severity: of all its expectations, whatever the suite says.
    :param over: ``rows``, ``partitions`` or ``table``.
    :param context_root_dir: folder of the file context (with ``great_expectations.yml``) that holds the suite called
        ``suite``; it is looked up when a session is planned and again when it is audited.
    :param engine: ``auto``, or ``gx`` to have Great Expectations itself judge everything.
    :param data_docs: folder to build Great Expectations' data docs of the last session in, below the names of the process
        and the audit.
    """

    type: ClassVar[str] = "expectations"
    required: ClassVar[tuple[str, ...]] = ("suite",)
    name: str
    severity: Severity | None  # type: ignore[assignment]  # None: each expectation has its own
    over: Over
    suite: Mapping[str, Any] | str
    context_root_dir: str | None
    engine: Engine
    data_docs: str | None

    def __init__(
        self,
        suite: Any,
        *,
        name: str | None = None,
        severity: Severity | None = None,
        over: Over = "rows",
        context_root_dir: str | Path | None = None,
        engine: Engine = "auto",
        data_docs: str | Path | None = None,
    ) -> None:
        root = _folder(context_root_dir, "context_root_dir")
        suite = _suite(suite, root)
        default = PurePath(suite).stem if isinstance(suite, str) else str(suite.get("name") or "suite")
        name = name_of(name, label(default, over=over))
        if severity is not None:
            one_of(severity, Severity, what=f"the severity of audit {name!r}")
        one_of(over, Over, what=f"over of audit {name!r}")
        one_of(engine, Engine, what=f"engine of audit {name!r}")
        self.__attrs_init__(
            name=name,
            severity=severity,
            over=over,
            suite=suite,
            context_root_dir=root,
            engine=engine,
            data_docs=_folder(data_docs, "data_docs"),
        )
        _ = self.expectations  # refuses what no session could run

    @property
    def file(self) -> str | None:
        """The file the suite is still to be read from; None if it is here, in a context, or templated."""
        named = isinstance(self.suite, str) and self.context_root_dir is None and not is_template(self.suite)
        return str(self.suite) if named else None

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What the suite expects; nothing while the suite is only named."""
        if isinstance(self.suite, str):
            return ()
        return expectations_of(self.suite, name=self.name, severity=self.severity, over=self.over)

    def with_suite(self, suite: Any) -> Expectations:
        """Return the audit with the suite that it named."""
        return Expectations(**{**self._arguments(), "suite": suite, "context_root_dir": None})

    def with_file(self, folders: Sequence[str | Path]) -> Expectations:
        """Return the audit with the suite of its file, if it names one.

        :param folders: where a relative path is looked for.
        :raises ArgumentError: it is not there, or no suite.
        """
        return self if self.file is None else self.with_suite(read_suite_file(self.file, folders))

    @property
    def puts_aside(self) -> bool:
        """Whether rows that offend are put aside; of a suite that is only named, by what the audit itself says."""
        return self.severity == "quarantine" or any(e.severity == "quarantine" for e in self.expectations)

    @property
    def asks_person(self) -> bool:
        """Whether it is left to a person what follows; of a suite that is only named, by what the audit itself says."""
        return self.severity == "ask" or any(e.severity == "ask" for e in self.expectations)

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of its results; its own while the suite is only named."""
        return tuple(e.name for e in self.expectations) or (self.name,)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise; equal audits give equal dicts."""
        plain = self._arguments()
        if isinstance(self.suite, Mapping):
            plain["suite"] = checked_suite(self.suite, what="the suite")
        return {"type": self.type, **plain}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without ``type``."""
        return cls(**fields)

    def _arguments(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.field_names()}


def _suite(value: Any, root: str | None) -> Mapping[str, Any] | str:
    if hasattr(value, "to_json_dict"):
        value = value.to_json_dict()
    if isinstance(value, Mapping) and root is None:
        named = value.get("name") or value.get("expectation_suite_name")
        return checked_suite(value, what=f"the suite {named!r}" if named else "the suite")
    value = str(value) if isinstance(value, PurePath) else value
    if isinstance(value, str) and value.strip() and (value.endswith(_FILE) or root is not None or is_template(value)):
        return str(value)
    raise ArgumentError(
        f"the suite of an Expectations audit is {value!r}" + (f" in the context {root!r}" if root is not None else ""),
        expected=f"an ExpectationSuite, its JSON as a mapping, the path of a file that ends in {_FILE!r}, or, with "
        "context_root_dir, the name of a suite in that context",
    )


def _folder(value: Any, what: str) -> str | None:
    if value is None or isinstance(value, (str, PurePath)):
        return None if value is None else str(value)
    raise ArgumentError(f"{what} of an Expectations audit is {value!r}", expected="the path of a folder, or None")
