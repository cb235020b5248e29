"""From what spark-submit said to one cause and what to do about it: the driver's own error first, then what the log is known for.

Spark's log of a failure is hundreds of lines long, and the reason is one of them. All of it stays in the task's log.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from airflow_incremental.core.errors import TransformError
from airflow_incremental.spark.symptoms import MISSING_PROGRAM, SYMPTOMS, Symptom

#: What a line of the driver begins with; JSON follows where it says how it ended.
DRIVER_LINE = "airflow-incremental: "

_STACK = re.compile(r"\s*(at |\.\.\. \d+ more|File \")")
_NOTABLE = re.compile(
    r"exception|error|caused by|unresolved|no such file|not set|not found|can't open|killed|exit|denied|refused"
    r"|failed|module|SPARK_HOME|invalid|could not",
    re.IGNORECASE,
)
_RAISED = re.compile(r"(?:[A-Za-z_][\w$]*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)\b")
_PY4J = "py4j.protocol.Py4JJavaError"
#: Longest text taken out of a log, in characters.
_CLIP = 2000
#: A mistake in the query or the function, which the next try would make again; or a rule that the driver found broken.
_FOR_GOOD = re.compile(
    r"\. Expected: |AnalysisException|ParseException|SyntaxError|NameError|AttributeError|TypeError|ImportError"
    r"|\[[A-Z_]+\.[A-Z_]+\]"
)


@attrs.frozen(kw_only=True)
class Diagnosis:
    """Why an application failed.

    :param cause: in one sentence; None if nothing in the log says.
    :param expected: what was expected instead.
    :param hint: what to do.
    :param retryable: whether it may pass by itself.
    """

    cause: str | None
    expected: str = ""
    hint: str = ""
    retryable: bool = False

    def error(self, otherwise: str = "") -> TransformError:
        """Return it as an error.

        :param otherwise: what is known without a cause.
        """
        found = TransformError(self.cause or otherwise, expected=self.expected, hint=self.hint)
        found.retryable = self.retryable
        return found


class Transcript:
    """What is kept of a log while it passes: the driver's reports, lines that may tell the reason, and the last ones."""

    def __init__(self) -> None:
        self.report: dict[str, Any] | None = None
        self._first: list[str] = []
        self._later: deque[str] = deque(maxlen=300)
        self._last: deque[str] = deque(maxlen=10)

    def see(self, line: str) -> None:
        """Look at the next line."""
        report = _report(line)
        if report is not None:
            self.report = report
            return
        if line.strip():
            self._last.append(line)
        if _STACK.match(line) or not _NOTABLE.search(line):
            return
        (self._first if len(self._first) < 300 else self._later).append(line)  # noqa: PLR2004  (as many as of the later ones)

    def lines(self) -> Iterator[str]:
        """Yield what was kept, in order."""
        yield from self._first
        yield from self._later

    @property
    def last(self) -> str:
        """The last line that says anything."""
        return self._last[-1].strip() if self._last else ""


def diagnose(lines: Iterable[str], *, binary: str = "spark-submit", missing: bool = False) -> Diagnosis:
    """Say why an application failed.

    :param lines: of spark-submit, or of an error.
    :param binary: the program.
    :param missing: whether there is no such program.
    """
    if missing:
        return _of(MISSING_PROGRAM, MISSING_PROGRAM.cause.format(binary))
    transcript = Transcript()
    for line in lines:
        transcript.see(line)
    return diagnose_transcript(transcript)


def diagnose_transcript(transcript: Transcript) -> Diagnosis:
    """Say why an application failed whose log was looked at line by line."""
    if transcript.report is not None and transcript.report.get("driver") == "failed":
        return diagnose_report(transcript.report)
    kept = list(transcript.lines())
    known = _known("\n".join(kept))
    if known is not None:
        return known
    raised = _raised(kept)
    if raised is None:
        return Diagnosis(cause=None, retryable=True)
    return Diagnosis(cause=raised, hint=_READ_ON, retryable=not _FOR_GOOD.search(raised))


_READ_ON = "correct it, or see the task's log above for all that Spark said"


def diagnose_report(report: Mapping[str, Any]) -> Diagnosis:
    """Say why a driver failed that tells so itself.

    :param report: ``error``, ``where`` and ``hint``; with ``code`` ``late``, of a driver whose branch is not its own: another
        attempt has one.
    """
    error = str(report.get("error") or "the driver failed and does not say why").strip()
    known = _known(error)
    cause = f"the driver failed{_AT.get(str(report.get('where')), '')}: {error}"
    if known is None:
        again = report.get("code") == "late" or not _FOR_GOOD.search(error)
        return Diagnosis(cause=cause, hint=str(report.get("hint") or _READ_ON), retryable=again)
    hint = report.get("hint") or known.hint
    told = f"{cause if cause.endswith('.') else cause + '.'} That means: {known.cause}"
    return Diagnosis(cause=told, expected=known.expected, hint=str(hint), retryable=known.retryable)


_AT = {
    "bind": " before it ran the transform",
    "transform": " in the transform",
    "read": " while it read the sources",
    "write": " while it wrote the branch",
}


def _known(text: str) -> Diagnosis | None:
    for symptom in SYMPTOMS:
        match = symptom.pattern.search(text)
        if match is not None:
            groups = [group for group in match.groups() if group]
            return _of(symptom, symptom.cause.format(*groups, *[""] * 3))
    return None


def _of(symptom: Symptom, cause: str) -> Diagnosis:
    return Diagnosis(cause=cause, expected=symptom.expected, hint=symptom.hint, retryable=symptom.retryable)


def _raised(lines: list[str]) -> str | None:
    """Return the error that a traceback ends with; of an error of the JVM, its own name for it."""
    found = None
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith(_PY4J):
            found = lines[number + 1].strip().removeprefix(": ") if number + 1 < len(lines) else text
        elif text.startswith('Exception in thread "'):
            found = text.partition('" ')[2]
        elif not line[:1].isspace() and _RAISED.match(text):
            found = text
    return None if found is None else found[:_CLIP]


def _report(line: str) -> dict[str, Any] | None:
    _, marked, rest = line.partition(DRIVER_LINE)
    if not marked or not rest.startswith("{"):
        return None
    try:
        found = json.loads(rest)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "driver" in found else None
