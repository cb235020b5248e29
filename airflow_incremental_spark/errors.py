"""What can go wrong in the driver, and how it is told: first what happened, without the JVM's stack."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any, Iterator

#: What a report holds of an error's text, in characters.
MOST = 8_000
#: Lines of a message that are told, before its causes.
_LINES = 20
_STACK = re.compile(r"^\s*(?:at [\w.$/<>]+|\.\.\. \d+ more|Driver stacktrace:|JVM stacktrace:)")
_CALLED = re.compile(r"^An error occurred while calling [\w.]+\.$")
_LOST_TASK = re.compile(r"^.*\bLost task [\d.]+ in stage [\d.]+ \(TID \d+\)(?: \([^)]*\))?: ?")
_PACKAGE = re.compile(r"^\(?(?:[a-z_][\w]*\.)+([A-Z]\w*)\)?(?=[: ]|$)")
#: Iceberg's and the file systems' words for a snapshot or a file that a plan reads and that is gone; blocks of a lost executor are
#: files that are not found, too, but have none of a table's names.
_GONE = re.compile(
    r"Cannot find snapshot with ID|FileNotFoundException: [^\n]*\.(?:parquet|orc|avro|json)\b"
    r"|NotFoundException: (?:Location|File) does not exist"
)
_COMMIT = re.compile(r"Commit(?:Failed|StateUnknown)Exception|ValidationException|Cannot commit")


class DriverError(Exception):
    """An error that this package raises on purpose.

    :param found: what was there, with the values that matter.
    :param expected: what the rule asks for.
    :param hint: what the reader can do now.
    :param where: ``bind``, ``read``, ``transform`` or ``write``.
    :param code: ``late`` for a driver whose branch is not its own any more; else empty.
    """

    def __init__(self, found: str, *, expected: str = "", hint: str = "", where: str = "", code: str = "") -> None:
        self.found = found
        self.expected = expected
        self.hint = hint
        self.where = where
        self.code = code
        super().__init__(found, expected, hint)

    def __str__(self) -> str:
        parts = [self.found if self.found.endswith("\n") else self.found.rstrip(".") + "."]
        if self.expected:
            parts.append("Expected: {}.".format(self.expected.rstrip(".")))
        if self.hint:
            parts.append("What to do: {}.".format(self.hint.rstrip(".")))
        return " ".join(parts)


@contextmanager
def during(where: str) -> Iterator[None]:
    """Note with an error that passes where it happened, unless it says so itself."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "where", ""):
            error.where = where  # type: ignore[attr-defined]
        raise


def first_lines(error: BaseException) -> str:
    """Return an error's own message and those of its causes, without the 300 lines of stack that Spark puts into them."""
    lines: list[str] = []
    causes: list[str] = []
    for line in str(error).splitlines():
        text = line.strip()
        if text.startswith("Caused by: "):
            causes.append(_short(text[len("Caused by: ") :]))
        elif text and not causes and not _STACK.match(line) and not _CALLED.match(text):
            lines.append(_short(line.rstrip()) if not lines else line.rstrip())
    told = [*lines[:_LINES], *(["..."] if len(lines) > _LINES else [])]
    known = "\n".join(told)
    # The deepest cause is as a rule the one that counts.
    for cause in reversed(causes):
        if cause not in known:
            told.append("Caused by: " + cause)
            break
    return "\n".join(told)


def report_of(error: BaseException) -> dict[str, Any]:
    """Return what a failed driver tells the worker of its error: ``error``, ``where``, ``hint`` and, where known, ``code``."""
    if isinstance(error, DriverError):
        found = {"error": _expectation(error), "where": error.where or "bind", "hint": error.hint}
        return dict(found, code=error.code) if error.code else found
    text, where = first_lines(error), getattr(error, "where", "") or "transform"
    kind = type(error).__name__
    # Names of classes that only say how the error came here.
    told = text if kind in {"Py4JJavaError", "UnknownException", "SparkConnectGrpcException"} else f"{kind}: {text}"
    if _GONE.search(str(error)):
        hint = "retry the task: it plans anew. Keep the source's snapshots and files longer than a session takes"
        return {"error": told[:MOST], "where": "read", "hint": hint, "code": "expired"}
    if where == "write" and not _COMMIT.search(str(error)):
        where = "transform"  # Spark runs it no earlier than rows are wanted
    return {"error": told[:MOST], "where": where, "hint": ""}


def _expectation(error: DriverError) -> str:
    return str(DriverError(error.found, expected=error.expected))[:MOST]


def _short(line: str) -> str:
    """Return the first line of a message without how Spark got there, and without the package of the class it names."""
    line = line[2:] if line.startswith(": ") else line
    return _PACKAGE.sub(r"\1", _LOST_TASK.sub("", line))
