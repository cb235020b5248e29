"""What is asked of whoever changes by hand what a process has published: a name and a reason, which are kept for good."""

from __future__ import annotations

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.plan import Owner

#: Characters of a name or a reason; both stay in the table's metadata for good.
LIMIT = 500


@attrs.frozen(kw_only=True)
class Act:
    """Who does something by hand, and why.

    :param by: a person.
    :param reason: for whoever asks later.
    :param owner: the task in which it is done, if it is done in one.
    :raises ArgumentError: one of them is empty or too long.
    """

    by: str
    reason: str
    owner: Owner | None = None

    def __attrs_post_init__(self) -> None:
        for what, text in (("by", self.by), ("reason", self.reason)):
            check_words(text, what=what)


def check_words(text: object, *, what: str) -> None:
    """Refuse a name or a reason that says nothing, or too much.

    :raises ArgumentError: with what was given.
    """
    if not isinstance(text, str) or not text.strip():
        raise ArgumentError(
            f"{what} is {text!r}",
            expected="a few words: who did it, and why, is kept with the table for whoever asks later",
        )
    if len(text) > LIMIT:
        raise ArgumentError(
            f"{what} has {len(text):,} characters",
            expected=f"at most {LIMIT}: it stays in the table's metadata",
            hint="say it shorter, or name the ticket",
        )
