"""Names of refs, properties and summary keys, so that nobody spells one twice."""

from __future__ import annotations

import datetime as dt
import re

from airflow_incremental.core.ranges import EPOCH, UTC

#: Every key this package writes to a table property or a snapshot summary starts with it.
PREFIX = "incremental."

PROCESS = PREFIX + "process"
SESSION = PREFIX + "session"
BASE_SESSION = PREFIX + "base-session"
#: What a snapshot is: ``begin`` (a lock), ``parts`` (finished parts of a session), ``sealed`` (data, published or not),
#: ``bootstrap`` (first snapshot of an empty target), ``results`` (of audits, in their own table), ``reset`` (the process has no
#: watermark from here on).
RECORD = PREFIX + "record"
BEGIN = "begin"
PARTS_DONE = "parts"
RESET = "reset"
#: Results of audits, in a table of their own.
RESULTS = "results"
#: Numbers of the parts that are finished.
PARTS = PREFIX + "parts"
#: Partition spec that the files of finished parts were written under.
SPEC = PREFIX + "spec-id"
PLAN = PREFIX + "plan"
KIND = PREFIX + "kind"
MODE = PREFIX + "mode"
WATERMARK = PREFIX + "watermark"
RANGES = PREFIX + "ranges"
OWNER = PREFIX + "owner"
#: Of a begin record: that the session waits for a person, or what that person decided.
APPROVAL = PREFIX + "approval"
ROWS = PREFIX + "rows"
LATE_ROWS = PREFIX + "late-rows"
SOURCE_ROWS = PREFIX + "source-rows"
AUDITS = PREFIX + "audits"
#: Identifies one run of a session's audits, so that its results are kept once.
AUDIT_RUN = PREFIX + "audit-run"
#: Property of a table in which results are kept: the version of its columns.
AUDIT_TABLE = PREFIX + "audit-table"
#: Identifies what a load wrote, so that sealing again recognises the same output.
WRITE_ID = PREFIX + "write-id"
#: Tells the files with rows kept from rewritten files from the session's own.
KEPT_ID = PREFIX + "kept-id"
#: Fingerprint of the rendered transform that produced the rows.
FINGERPRINT = PREFIX + "fingerprint"
#: What a session put aside (see ``core.quarantine``), in the summary of its sealed snapshot.
QUARANTINE = PREFIX + "quarantine"
#: Property of a quarantine table: the target whose rows it takes.
QUARANTINE_OF = PREFIX + "quarantine-of"
#: A snapshot of a quarantine table (``record``): ``staged`` on a branch of its own, or ``released`` on ``main``.
STAGED = "staged"
RELEASED = "released"
#: When staged rows are released: at the ``publish`` of their session, or at its ``end`` without one.
RELEASE = PREFIX + "release"
AT_PUBLISH = "publish"
AT_END = "end"
#: The sealed snapshot that staged rows were taken from.
STAGED_OF = PREFIX + "staged-of"
#: JSON of source name -> table, so that whoever sets a watermark by hand need not know the declaration.
SOURCES = PREFIX + "sources"
#: Who rolled back, or set a watermark by hand.
BY = PREFIX + "by"
#: Why there was a session, or why somebody rolled back, or set a watermark by hand.
REASON = PREFIX + "reason"
#: Of a rollback: the first session it undid, and the one whose state holds again (empty: none).
UNDONE = PREFIX + "undone"
BACK_TO = PREFIX + "back-to"
#: Of a snapshot that maintenance made: what it did.
MAINTENANCE = PREFIX + "maintenance"
#: Of a compaction: when the newest rows it moved had arrived, in milliseconds.
ARRIVED = PREFIX + "arrived-ms"

_STATE = PREFIX + "process."
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
#: Ids of sessions, see ``core.plan.new_session_id``.
_SESSION = r"\d{8}T\d{6}-[0-9a-f]{8}"


def state_property(process: str) -> str:
    """Return the table property that holds a process's last publish and its scope."""
    return _STATE + process


def process_of_property(key: str) -> str | None:
    """Return the process a table property belongs to, or None if it is not one of ours."""
    return key[len(_STATE) :] if key.startswith(_STATE) else None


def lock_ref(process: str) -> str:
    """Return the branch that exists exactly while a session of the process is open."""
    return f"inc_{process}"


def data_ref(process: str, session: str) -> str:
    """Return the branch that holds a session's sealed snapshot."""
    return f"inc_{process}_{session}"


def scratch_ref(process: str, session: str, chunk: int = 0, attempt: int = 0) -> str:
    """Return the branch of a worker: of one chunk of a session (from 1), of all of it (0), or of the author's own tasks (0)."""
    return f"{data_ref(process, session)}_{chunk}_{attempt}"


def slot_of_ref(name: str, process: str, session: str) -> int | None:
    """Return which worker's branch a ref is, see :func:`scratch_ref`, or None if it is none of the session."""
    found = re.fullmatch(rf"{re.escape(data_ref(process, session))}_(\d+)_0", name)
    return None if found is None else int(found[1])


def attempt_of_ref(name: str, process: str, session: str | None = None) -> int | None:
    """Return the attempt whose branch a ref is, from 1, or None if it is none of the process (and session)."""
    of_session = _SESSION if session is None else re.escape(session)
    found = re.fullmatch(rf"inc_{re.escape(process)}_{of_session}_0_([1-9]\d*)", name)
    return None if found is None else int(found[1])


def audit_ref(process: str, session: str, attempt: int) -> str:
    """Return the branch on which an attempt at auditing a session elsewhere finds what to look at, and leaves what it found."""
    return f"{data_ref(process, session)}_audit_{attempt}"


def audit_of_ref(name: str, process: str, session: str | None = None) -> int | None:
    """Return the attempt whose branch of an audit a ref is, from 1, or None if it is none of the process (and session)."""
    of_session = _SESSION if session is None else re.escape(session)
    found = re.fullmatch(rf"inc_{re.escape(process)}_{of_session}_audit_([1-9]\d*)", name)
    return None if found is None else int(found[1])


def session_of_ref(name: str) -> tuple[str, str] | None:
    """Return the process and session whose data, scratch or audit branch a ref may be by its name, or None.

    A process may be called so that its lock has such a name, too: what the ref points at decides.
    """
    found = re.fullmatch(rf"inc_(.+)_({_SESSION})(?:_\d+_\d+|_audit_\d+)?", name, re.DOTALL)
    return None if found is None else (found[1], found[2])


def session_began(session: str) -> dt.datetime:
    """Return when a session was planned, to the second, as its id says; long ago if it says nothing."""
    if re.fullmatch(_SESSION, session) is None:
        return EPOCH
    return dt.datetime.strptime(session.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def failed_ref(session: str) -> str:
    """Return the branch that keeps the sealed snapshot of a failed session for inspection."""
    return f"{FAILED_PREFIX}{session}"


def quarantine_ref(process: str, session: str, part: str) -> str:
    """Return the branch of a quarantine table that holds rows of a session until they are released.

    :param part: tells the branches of several tries apart.
    """
    return f"inc_quarantine_{process}_{session}_{part}"


def watermark_tag(process: str) -> str:
    """Return the tag that keeps the last published snapshot of a process from being expired."""
    return f"{WATERMARK_PREFIX}{process}"


def pin_tag(process: str, source: str) -> str:
    """Return the tag on a source that keeps the snapshot a process has consumed from being expired."""
    return f"{PIN_PREFIX}{process}_{source}"


def file_mark(table_uuid: object) -> str:
    """Return the part of the names of all files a session writes for a table: whose they are if nothing refers to them any more."""
    return f"inc-{table_uuid}"


def table_of_file(name: str) -> str | None:
    """Return the uuid of the table whose session wrote a file of this name, or None if no session did."""
    found = re.search(rf"inc-({_UUID})", name)
    return None if found is None else found[1]


FAILED_PREFIX = "inc_failed_"
PIN_PREFIX = "inc_pin_"
WATERMARK_PREFIX = "inc_wm_"
