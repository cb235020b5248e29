"""Finds sensitive data in single texts, with Presidio's pattern recognisers and nothing else of it: no model, no network.

Presidio's own warnings can quote the text they were called with, so none gets out; that it gave up on a pattern, which it
only logs, is raised.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from airflow_incremental.audits.sensitive import SensitiveData
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import ArgumentError

#: Seconds for one pattern on one text.
_TIMEOUT = 30.0
#: Characters of a text on which no pattern takes long enough to be timed, which by itself costs four times the search.
_SHORT = 256
_LOGGER = "presidio-analyzer"


@attrs.frozen(kw_only=True)
class Found:
    """A place in a text that holds sensitive data."""

    entity: str
    start: int
    end: int


@attrs.frozen(kw_only=True)
class _Recogniser:
    entity: str
    #: Patterns one of which occurs in every text in which the recogniser finds something that counts; none if that is not known.
    patterns: tuple[Any, ...]
    analyze: Callable[..., Sequence[Any]]

    def find(self, text: str, threshold: float) -> Iterator[Found]:
        # Most texts hold nothing, and a search costs a small part of an analysis.
        limit = {} if len(text) <= _SHORT else {"timeout": _TIMEOUT}
        for pattern in self.patterns:
            if pattern.search(text, **limit):
                break
        else:
            if self.patterns:
                return
        for result in self.analyze(text, [self.entity]):
            if result.score >= threshold:
                yield Found(entity=self.entity, start=result.start, end=result.end)


@attrs.frozen(kw_only=True)
class Detector:
    """Looks for some entities, as an audit asks."""

    recognisers: tuple[_Recogniser, ...]
    threshold: float

    @classmethod
    def of(cls, audit: SensitiveData) -> Detector:
        """Make the detector of an audit.

        :raises ArgumentError: Presidio is not installed, does not know an entity, or cannot be as sure as is asked for.
        """
        known = _known(audit)
        threshold = audit.score_threshold
        for entity in (*audit.wanted, *(e for _, allowed in audit.allow for e in allowed)):
            if entity not in known:
                raise ArgumentError(
                    f"audit {audit.name!r} names the entity {entity!r}",
                    expected=f"one of {', '.join(sorted(known))}",
                    hint="entities that take a language model, such as PERSON, are not among them",
                )
        found = []
        for entity in audit.wanted:
            usable = [r for r in known[entity] if _best(r) >= threshold]
            if not usable and audit.entities is not None:
                best = max(map(_best, known[entity]))
                raise ArgumentError(
                    f"audit {audit.name!r} looks for {entity} with score_threshold={threshold}",
                    expected=f"a threshold of at most {best}, the score of its surest pattern: a higher one finds nothing",
                    hint=f"look for it in an audit of its own, SensitiveData(entities=[{entity!r}], score_threshold={best})",
                )
            found += [_recogniser(r, entity, threshold) for r in usable]
        return cls(recognisers=tuple(found), threshold=threshold)

    def find(self, text: str) -> list[Found]:
        """Return what a text holds; inside :func:`quiet`."""
        return [found for r in self.recognisers for found in r.find(text, self.threshold)]


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing Presidio logs get out, and raise if it gave up on a text.

    :raises AuditIncomplete: a pattern took too long, and Presidio went on without it.
    """
    gave_up = False

    def withhold(record: logging.LogRecord) -> bool:
        nonlocal gave_up
        gave_up = gave_up or "timed out" in str(record.msg)
        return False

    logger = logging.getLogger(_LOGGER)
    logger.addFilter(withhold)
    try:
        yield
    finally:
        logger.removeFilter(withhold)
    if gave_up:
        raise AuditIncomplete(
            "a pattern took too long on a text, and the detector gave up on it",
            expected="texts that can be looked at to their end",
            hint="leave out columns of very long texts with columns=[...], or the entity that is slow with entities=[...]",
        )


def _known(audit: SensitiveData) -> dict[str, list[Any]]:
    """Return entity -> Presidio's recognisers that need no language."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise ArgumentError(
            f"audit {audit.name!r} looks for sensitive data, and its detector, presidio-analyzer, is not installed here",
            expected="the extra 'sensitive'",
            hint="pip install 'airflow-incremental[sensitive]' where the load's tasks run",
        )
    with quiet():
        presidio = importlib.import_module("presidio_analyzer")
        predefined = importlib.import_module("presidio_analyzer.predefined_recognizers")
        found: dict[str, list[Any]] = {}
        for name, cls in sorted(vars(predefined).items()):
            if not inspect.isclass(cls) or not issubclass(
                cls, (presidio.PatternRecognizer, predefined.PhoneRecognizer)
            ):
                continue
            recogniser: Any = _offline(cls) if name == "EmailRecognizer" else cls()
            for entity in recogniser.supported_entities:
                found.setdefault(entity, []).append(recogniser)
    return found


def _offline(email: Any) -> Any:
    """Return a recogniser of e-mail addresses that knows the domains it came with, where Presidio's fetches the list of today."""
    tldextract = importlib.import_module("tldextract")
    domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Offline(email):  # type: ignore[misc]  # known at run time only
        def validate_result(self, pattern_text: str) -> bool:
            return bool(domains(pattern_text).fqdn)

    return Offline()


def _best(recogniser: Any) -> float:
    """Return the highest score a recogniser gives: 1 if it can validate what it finds, else its surest pattern's."""
    if not hasattr(recogniser, "patterns"):
        return float(recogniser.SCORE)
    if _validates(recogniser):
        return 1.0
    return max((float(p.score) for p in recogniser.patterns), default=0.0)


def _validates(recogniser: Any) -> bool:
    base = importlib.import_module("presidio_analyzer").PatternRecognizer
    return type(recogniser).validate_result is not base.validate_result


def _recogniser(recogniser: Any, entity: str, threshold: float) -> _Recogniser:
    regex = importlib.import_module("regex")
    patterns = [
        regex.compile(p.regex, recogniser.global_regex_flags)
        for p in getattr(recogniser, "patterns", ())
        if p.score >= threshold or _validates(recogniser)
    ]
    return _Recogniser(entity=entity, patterns=tuple(patterns), analyze=recogniser.analyze)
