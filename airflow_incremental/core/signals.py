"""Signals: named facts with parameters, and what a step or a run may ask of them.

The semantics follow Netflix Maestro's signals: parameters are matched by ``=``, ``>``, ``>=``, ``<``, ``<=`` (and ``in``), one
range at most per dependency; a gate looks into all of history and takes nothing away; a subscription takes each signal at most
once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signal_values import KINDS, Value, encode, kind_of, plain_value, read_as, read_value

#: Of a name of a signal or a parameter, in bytes of UTF-8: together with a value, it is part of an index.
NAME_LIMIT = 256
#: Parameters of one signal.
PARAMS_LIMIT = 16
#: Of a payload, in bytes of its JSON.
PAYLOAD_LIMIT = 64 * 1024
#: Signals a step or a run can wait for together.
DEPENDENCIES_LIMIT = 4
#: Values of one ``in``.
VALUES_LIMIT = 100
#: Names of the package's own signals.
RESERVED = "airflow_incremental:"

_RANGES = (">", ">=", "<", "<=")
#: NUL in JSON, and not a backslash that is followed by such letters.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
OPERATORS = ("=", *_RANGES, "in")


@attrs.frozen(kw_only=True)
class Emitter:
    """Who said so: a task of a run, or a person or program outside Airflow.

    :param source: ``task``, ``session`` or ``cli``, or what the caller of a function calls himself.
    """

    source: str = ""
    deployment: str = ""
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 0


@attrs.frozen(kw_only=True)
class Signal:
    """One signal of the store.

    :param seq: its place among the signals of its name, from 1 and without gaps, in the order in which they became visible.
    :param identity: what makes it one fact: emitting another signal with it changes nothing.
    """

    name: str
    seq: int
    identity: str
    params: Mapping[str, Value]
    payload: Any
    created_at: dt.datetime
    emitter: Emitter

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for XCom, events and people."""
        return {
            "name": self.name,
            "seq": self.seq,
            "identity": self.identity,
            "params": {key: plain_value(value) for key, value in self.params.items()},
            "payload": self.payload,
            "created_at": self.created_at.isoformat(),
            "emitter": attrs.asdict(self.emitter),
        }


@attrs.frozen
class Condition:
    """What a parameter has to be: ``operator`` is one of ``= > >= < <= in``; only ``in`` has several values."""

    operator: str
    values: tuple[Value, ...]

    @property
    def is_range(self) -> bool:
        """Whether it asks for an order."""
        return self.operator in _RANGES

    def matches(self, value: Value, *, what: str) -> bool:
        """Say whether a parameter's value is as asked for; text is read as a value of that kind.

        :param what: the parameter, for the error.
        :raises ArgumentError: what is asked for is of another kind.
        """
        kind = kind_of(value)
        found, wanted = encode(value), [encode(read_as(kind, v, what=what)) for v in self.values]
        if self.operator in ("=", "in"):
            return found in wanted
        (other,) = wanted
        return {">": found > other, ">=": found >= other, "<": found < other, "<=": found <= other}[self.operator]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, ``{operator: value}``."""
        plain = [plain_value(value) for value in self.values]
        return {self.operator: plain if self.operator == "in" else plain[0]}

    @classmethod
    def of(cls, plain: Any, *, what: str) -> Condition:
        """Read a value (which has to be equal), ``{operator: value}`` or a condition.

        :param what: the parameter, for the error.
        :raises ArgumentError: unknown operator, several of them, no value, or a value of no kind.
        """
        if isinstance(plain, Condition):
            return plain
        if not isinstance(plain, Mapping) or (len(plain) == 1 and next(iter(plain)) in KINDS):
            return cls("=", (read_value(plain, what=what),))
        if len(plain) != 1:
            raise ArgumentError(
                f"{what} has the conditions {', '.join(map(str, plain)) or '{}'}",
                expected=f"one condition per parameter, by one of {' '.join(OPERATORS)}",
                hint="wait with two sensors, or let the signal carry a parameter for what you ask",
            )
        ((operator, value),) = plain.items()
        if operator not in OPERATORS:
            raise ArgumentError(f"{what} has the operator {operator!r}", expected=f"one of {' '.join(OPERATORS)}")
        if operator != "in":
            return cls(operator, (read_value(value, what=what),))
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or not 0 < len(value) <= VALUES_LIMIT:
            raise ArgumentError(f"{what} has to be in {value!r}", expected=f"a list of 1 to {VALUES_LIMIT} values")
        values = tuple(read_value(v, what=what) for v in value)
        if len({kind_of(v) for v in values}) > 1:
            raise ArgumentError(f"{what} has to be in {value!r}, of several kinds", expected="values of one kind")
        return cls("in", values)


@attrs.frozen
class SignalDependency:
    """A signal that is waited for.

    :param name: of the signal.
    :param match: parameter -> value it has to equal, or a condition by ``ge``, ``gt``, ``le``, ``lt``, ``in_``; one range at most.
        A signal without the parameter does not match.
    :param join: parameters that have to equal those of the other signals that are waited for together, position by position.
    """

    name: str
    match: Mapping[str, Condition] = attrs.field(factory=dict)
    join: tuple[str, ...] = ()

    def matches(self, params: Mapping[str, Value]) -> bool:
        """Say whether a signal of the name, with these parameters, is one that is waited for.

        :raises ArgumentError: a condition is of another kind than the parameter.
        """
        if any(key not in params for key in self.join):
            return False
        return all(
            key in params and condition.matches(params[key], what=f"parameter {key!r} of signal {self.name!r}")
            for key, condition in self.match.items()
        )

    def join_value(self, params: Mapping[str, Value]) -> tuple[str, ...]:
        """Return the encoded values of the join's parameters."""
        return tuple(encode(params[key]) for key in self.join)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, which ``read`` reads again."""
        match = {key: condition.to_json() for key, condition in sorted(self.match.items())}
        return {"name": self.name, "match": match, "join": list(self.join)}

    @classmethod
    def read(cls, plain: Mapping[str, Any] | SignalDependency) -> SignalDependency:
        """Check and build one from its plain form.

        :raises ArgumentError: something of it is wrong.
        """
        if isinstance(plain, SignalDependency):
            plain = {"name": plain.name, "match": plain.match, "join": plain.join}
        if unknown := set(plain) - {"name", "match", "join"}:
            raise ArgumentError(f"a signal is waited for with {sorted(unknown)}", expected="name, match and join")
        name = check_name(plain.get("name"), what="the name of a signal", reserved=True)
        match = plain.get("match") or {}
        if not isinstance(match, Mapping):
            raise ArgumentError(f"match of signal {name!r} is {match!r}", expected="parameter -> value or condition")
        conditions = {}
        for key, value in match.items():
            check_name(key, what=f"a parameter of signal {name!r}")
            conditions[key] = Condition.of(value, what=f"parameter {key!r} of signal {name!r}")
        ranges = [key for key, condition in conditions.items() if condition.is_range]
        if len(ranges) > 1:
            raise ArgumentError(
                f"signal {name!r} is waited for with ranges of {', '.join(map(repr, ranges))}",
                expected="one range (> >= < <=) at most per signal",
                hint="ask for equality in the others, as in {'date': '2023-09-14', 'hour': ge(6)}",
            )
        join = plain.get("join") or ()
        join = (join,) if isinstance(join, str) else tuple(join)
        for key in join:
            check_name(key, what=f"a join parameter of signal {name!r}")
        if len(asked := {*conditions, *join}) > PARAMS_LIMIT:
            raise ArgumentError(
                f"signal {name!r} is waited for with {len(asked)} parameters",
                expected=f"at most {PARAMS_LIMIT}, which is what a signal can have",
            )
        return cls(name, conditions, join)


def read_dependencies(plain: Sequence[Mapping[str, Any] | SignalDependency]) -> tuple[SignalDependency, ...]:
    """Check and build the signals that are waited for together.

    :raises ArgumentError: none or too many, or their joins do not fit each other.
    """
    if isinstance(plain, (str, Mapping)) or not 0 < len(plain) <= DEPENDENCIES_LIMIT:
        raise ArgumentError(
            f"{len(plain)} signals are waited for together"
            if not isinstance(plain, (str, Mapping))
            else f"signals are {plain!r}",
            expected=f"a list of 1 to {DEPENDENCIES_LIMIT}",
            hint="gate on some of them, and let that step emit a signal of its own",
        )
    read = tuple(SignalDependency.read(dependency) for dependency in plain)
    if len({len(dependency.join) for dependency in read}) > 1:
        raise ArgumentError(
            "the signals are joined on " + "; ".join(f"{d.name!r}: {', '.join(d.join) or 'nothing'}" for d in read),
            expected="as many join parameters in each of them, which are compared position by position",
        )
    return read


def eq(value: Any) -> dict[str, Any]:
    """Equal to a value; the same as the value alone."""
    return {"=": value}


def gt(value: Any) -> dict[str, Any]:
    """Greater than a value."""
    return {">": value}


def ge(value: Any) -> dict[str, Any]:
    """Greater than a value, or equal to it."""
    return {">=": value}


def lt(value: Any) -> dict[str, Any]:
    """Less than a value."""
    return {"<": value}


def le(value: Any) -> dict[str, Any]:
    """Less than a value, or equal to it."""
    return {"<=": value}


def in_(values: Sequence[Any]) -> dict[str, Any]:
    """Equal to one of some values."""
    return {"in": list(values)}


def check_name(name: Any, *, what: str, reserved: bool = False) -> str:
    """Return a name of a signal or a parameter.

    :param reserved: whether names of the package's own signals are allowed.
    :raises ArgumentError: it is none.
    """
    if (
        not isinstance(name, str)
        or not name.strip()
        or name != name.strip()
        or not name.isprintable()
        or len(name.encode()) > NAME_LIMIT
    ):
        raise ArgumentError(
            f"{what} is {name!r}",
            expected=f"printable characters, {NAME_LIMIT} bytes at most in UTF-8, without spaces around them",
        )
    if name.startswith(RESERVED) and not reserved:
        raise ArgumentError(f"{what} is {name!r}", expected=f"one that does not start with {RESERVED!r}")
    return name


def read_params(params: Mapping[str, Any] | None, *, name: str) -> dict[str, Value]:
    """Return the parameters of a signal, sorted by name.

    :param name: of the signal, for the error.
    :raises ArgumentError: a name or value is wrong, or there are too many.
    """
    if params is not None and not isinstance(params, Mapping):
        raise ArgumentError(f"params of signal {name!r} are {params!r}", expected="parameter -> value")
    read = {
        check_name(key, what=f"a parameter of signal {name!r}"): read_value(
            value, what=f"parameter {key!r} of signal {name!r}"
        )
        for key, value in (params or {}).items()
    }
    if len(read) > PARAMS_LIMIT:
        raise ArgumentError(
            f"signal {name!r} has {len(read)} parameters", expected=f"at most {PARAMS_LIMIT}", hint="use the payload"
        )
    return dict(sorted(read.items()))


def dump_payload(payload: Any, *, name: str) -> str | None:
    """Return the JSON of a payload, None for None.

    :param name: of the signal, for the error.
    :raises ArgumentError: it is no JSON, or too large.
    """
    if payload is None:
        return None
    try:
        text = json.dumps(payload, allow_nan=False, sort_keys=True, ensure_ascii=False)
        size = len(text.encode())  # which half a surrogate pair has no form for
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            f"the payload of signal {name!r} is no JSON: {error}", expected="what json.dumps takes"
        ) from error
    if size > PAYLOAD_LIMIT:
        raise ArgumentError(
            f"the payload of signal {name!r} has {size:,} bytes",
            expected=f"at most {PAYLOAD_LIMIT:,}",
            hint="put the data somewhere and its address into the payload",
        )
    if _NUL.search(text):
        raise ArgumentError(f"the payload of signal {name!r} holds a NUL character", expected="text without it")
    return text


def identity_of(name: str, params: Mapping[str, Value]) -> str:
    """Return the identity of a signal that was not given one: a hash of its name and its sorted parameters."""
    text = json.dumps([name, sorted((key, encode(value)) for key, value in params.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
