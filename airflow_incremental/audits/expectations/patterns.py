r"""Expectations of regular expressions, for the patterns that RE2, DuckDB's engine, and Python's ``re`` read alike.

Where only some rows could tell the two apart, those are counted: a row that ends in a line break under ``$``, one beyond
ASCII under ``\w``, ``\d`` or ``\b``, one with rare white space under ``\s``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Given, Left
from airflow_incremental.audits.expectations.rowwise import over_some
from airflow_incremental.audits.expectations.typed import typed
from airflow_incremental.audits.sql import Sql

#: What both read alike, piece by piece; anything else is left out.
_CLASS_ITEM = (
    r"(?:[A-Za-z0-9 _.,:;/@#%=!<>'\"*+?$(){}|~^&\u00a1-\ud7ff\ue000-\U0010ffff]|\\[dwstnrfv]|\\[\]\[\\^.\-+*?(){}|$/])"
)
_RANGE = r"(?:[A-Z]-[A-Z]|[a-z]-[a-z]|[0-9]-[0-9])"
_PIECE = re.compile(
    rf"""
    (?P<literal>[A-Za-z0-9 _,:;/@\#%=!<>'"~&\-\u00a1-\ud7ff\ue000-\U0010ffff])
  | (?P<any>\.)
  | (?P<escape>\\[\\.^$*+?()\[\]{{}}|/\-])
  | (?P<control>\\[tnrfv])
  | (?P<category>\\[dDwWsSbB])
  | (?P<class>\[\^?(?:{_RANGE}|{_CLASS_ITEM})(?:{_RANGE}|{_CLASS_ITEM})*-?\])
  | (?P<open>\((?:\?:|\?P<[A-Za-z]\w*>)?(?!\?))
  | (?P<close>\))
  | (?P<or>\|)
  | (?P<start>\^)
  | (?P<end>\$)
  | (?P<repeat>(?:[*+?]|\{{\d{{1,3}}(?:,(?:\d{{1,3}})?)?\}})\??)
    """,
    re.VERBOSE,
)
_SET_OPERATION = re.compile(r"--|&&|\|\||~~")


def _beyond_ascii(sql: Sql, text: str) -> str:
    return sql.beyond_ascii(text)


def _rare_space(sql: Sql, text: str) -> str:
    return f"({sql.beyond_ascii(text)} OR {sql.matches(text, _RARE_SPACE, ours=True)})"


def _line_break(sql: Sql, text: str) -> str:
    return sql.ends_with(text, "\n")


_RARE_SPACE = r"[\x0b\x1c-\x1f]"
#: Piece of a pattern -> a predicate of rows that the engines could judge differently.
_ODD: dict[str, Callable[[Sql, str], str]] = {
    **dict.fromkeys((r"\d", r"\D", r"\w", r"\W", r"\b", r"\B"), _beyond_ascii),
    **dict.fromkeys((r"\s", r"\S"), _rare_space),
    "$": _line_break,
}


def match(given: Given) -> Measure:
    """Measure rows whose text holds no match."""
    return _measured(given, [given.arg("regex")], "({})")


def not_match(given: Given) -> Measure:
    """Measure rows whose text holds a match."""
    return _measured(given, [given.arg("regex")], "NOT ({})")


def match_list(given: Given) -> Measure:
    """Measure rows whose text does not match one of the patterns, or all of them."""
    every = given.choice("match_on", ("any", "all"), "any") == "all"
    return _measured(given, given.arg("regex_list"), "({})", " AND " if every else " OR ")


def not_match_list(given: Given) -> Measure:
    """Measure rows whose text matches one of the patterns."""
    return _measured(given, given.arg("regex_list"), "NOT ({})")


def _measured(given: Given, patterns: object, form: str, joint: str = " OR ") -> Measure:
    column = typed(given, given.column())
    if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise Left("there is no regular expression, or something that is none")
    of_pieces = dict.fromkeys(_ODD[piece] for p in patterns for piece in _odd_pieces(p))
    odd = [of_piece(given.sql, column.sql) for of_piece in of_pieces]
    holds = form.format(joint.join(given.sql.matches(column.sql, p) for p in patterns))
    return over_some(
        given,
        given.filled(column.column),
        f"NOT ({holds})",
        odd=" OR ".join(odd) if odd else None,
        reason="text that RE2 and Python's re do not read alike",
    )


@lru_cache(maxsize=256)
def _odd_pieces(pattern: str) -> Sequence[str]:
    """Return the pieces of a pattern for which there are rows that the engines could judge differently.

    :raises Left: if they do not read the pattern alike.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what a later Python will read in another way
            re.compile(pattern)
    except (re.error, Warning):
        raise Left("Python does not take the regular expression for one") from None
    odd: set[str] = set()
    at, before = 0, "open"
    while at < len(pattern):
        piece = _PIECE.match(pattern, at)
        kind = piece.lastgroup if piece else None
        unsure = kind is None or (kind == "repeat" and before in ("open", "or", "start", "end", "repeat", "edge"))
        if piece is None or unsure or (kind == "class" and _SET_OPERATION.search(piece.group())):
            raise Left("RE2 and Python's re may not read the regular expression alike")
        text = piece.group()
        odd.update(o for o in _ODD if o in text and (kind in ("category", "class") if o != "$" else kind == "end"))
        before = "edge" if text in (r"\b", r"\B") else str(kind)
        at = piece.end()
    return sorted(odd)
