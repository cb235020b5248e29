"""What can go wrong, in words a person on call can act on.

Every error says three things: what was found, what was expected, and what to do. They are kept as attributes so that a log,
a task note or a test need not parse the text.
"""

from __future__ import annotations


class IncrementalError(Exception):
    """Base of every error this package raises on purpose.

    :param found: what was there, with the values that matter.
    :param expected: what the rule asks for.
    :param hint: what the reader can do now.
    """

    #: Whether a retry of the same task, with nothing else changed, can get past this error.
    retryable = True

    def __init__(self, found: str, *, expected: str = "", hint: str = "") -> None:
        self.found = found
        self.expected = expected
        self.hint = hint
        super().__init__(found, expected, hint)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Return how to make it again in another process: its arguments go by name."""
        return _again, (type(self), self.found, self.expected, self.hint)

    def __str__(self) -> str:
        # What was found may end with a table.
        parts = [self.found if self.found.endswith("\n") else self.found.rstrip(".") + "."]
        if self.expected:
            parts.append(f"Expected: {self.expected.rstrip('.')}.")
        if self.hint:
            parts.append(f"What to do: {self.hint.rstrip('.')}.")
        return " ".join(parts)


def _again(kind: type[IncrementalError], found: str, expected: str, hint: str) -> IncrementalError:
    return kind(found, expected=expected, hint=hint)


class ArgumentError(IncrementalError, ValueError):
    """An argument of a DAG file is wrong; raised when the DAG is parsed where that is possible."""

    retryable = False


class CatalogError(IncrementalError):
    """The catalog behind the Airflow connection cannot be had: no such connection, wrong settings, or no answer.

    Worth a retry, because a store of connections and a catalog that do not answer for a moment look the same.
    """


class TableError(IncrementalError):
    """A table does not fit what the process declares: missing, wrong format version, missing column, wrong type or partitioning."""

    retryable = False


class TransformError(IncrementalError):
    """The transform failed, named an unknown source, or returned something that does not fit the target or the plan."""

    retryable = False


class WatermarkLost(IncrementalError):
    """The position a process had reached can no longer be tied to the table: expired, rolled back or replaced."""

    retryable = False


class DeclarationChanged(WatermarkLost):
    """The watermark speaks of other rows than the process declares now: of a smaller scope, or by another event-time column."""


class SourceRewritten(IncrementalError):
    """Rows already consumed were changed or removed in the source of an ``append`` process."""

    retryable = False


class NullEventTime(IncrementalError):
    """Rows without an event time arrived and the policy does not say where they belong."""

    retryable = False


class NullKey(IncrementalError):
    """Rows without a whole key arrived in a source of a ``merge`` process."""

    retryable = False


class UnknownRange(IncrementalError):
    """A changed file does not tell which event times it holds and its column could not be read."""

    retryable = False


class WorkCutOff(IncrementalError):
    """A threshold (``max_lookback``, ``budget``) would cut off pending work, and the process does not ask to keep it for later."""

    retryable = False


class TargetNotEmpty(IncrementalError):
    """A first run found rows in the target that no session of the process wrote."""

    retryable = False


class ScopeOverlap(IncrementalError):
    """Two processes would replace the same rows of one target."""

    retryable = False


class SessionBusy(IncrementalError):
    """Another run holds the process's lock and is still alive."""


class ApprovalPending(SessionBusy):
    """Another run's session holds the process's lock and waits for a person to approve it."""


class ForeignSession(IncrementalError):
    """The process's lock belongs to another Airflow deployment, so nobody here can tell whether its run is over."""

    retryable = False


class SessionSuperseded(IncrementalError):
    """This session no longer owns the process's lock; another one took over, published or abandoned it."""


class PlanExpired(IncrementalError):
    """A snapshot or file that the plan pinned is gone; the session was ended and the next try plans anew."""


class TargetChanged(IncrementalError):
    """Somebody else changed the target where this session writes, or its schema, spec or watermark, since the plan was made."""


class TargetReplaced(TargetChanged):
    """The target was dropped, or created anew under its name, since the session was planned."""


class RollbackRefused(IncrementalError):
    """A target cannot go back to before a session: others wrote since, or what is needed for it is gone."""

    retryable = False


class AuditFailed(IncrementalError):
    """A blocking audit found offending rows; nothing was published."""

    retryable = False


class NotApproved(IncrementalError):
    """A person has to decide on what the audits found, and did not or not on this; nothing was published."""

    retryable = False


class CommitUnknown(IncrementalError):
    """The catalog kept failing; whether the last commit landed could not be found out. The session stays and can be retried."""


class StoreError(IncrementalError):
    """The store of signals and of the session log does not answer, or what it said cannot be used. Worth a retry."""


class StoreMismatch(StoreError):
    """Two parts of one deployment look at different stores, so what one says the other never hears."""

    retryable = False


class StoreSchemaError(StoreError):
    """The store's tables were made by a newer version of this package, or are not its own."""

    retryable = False
