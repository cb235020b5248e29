"""Arguments of signals as a DAG file has them: plain values that Airflow can template, checked as far as they are literal.

What a template will say is not known when the file is parsed; there a value that could be right stands for it, so that all that is
around it is checked. The task checks all of it again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template
from airflow_incremental.core.signal_values import KINDS, plain_value, read_value
from airflow_incremental.core.signals import (
    Condition,
    SignalDependency,
    check_name,
    dump_payload,
    read_dependencies,
    read_params,
)

#: What stands for a template, by the kind it is marked as.
_SAMPLES = {"string": "template", "integer": "0", "date": "2000-01-01", "timestamp": "2000-01-01T00:00:00+00:00"}


def plain_values(value: Any, *, what: str) -> Any:
    """Return a value, or a structure of them, with conditions, dependencies, dates and timestamps in their plain form.

    :param what: the argument, for the error.
    :raises ArgumentError: a timestamp without zone.
    """
    if isinstance(value, SignalDependency):
        match = {key: plain_values(condition, what=what) for key, condition in value.match.items()}
        return {"name": value.name, "match": match, "join": list(value.join)}
    if isinstance(value, Condition):
        return value.to_json()
    if isinstance(value, dt.date):
        return plain_value(read_value(value, what=what))
    if isinstance(value, Mapping):
        return {key: plain_values(inner, what=f"{key!r} in {what}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(inner, what=what) for inner in value]
    return value


def check_emission(name: Any, params: Any, payload: Any, request_id: Any) -> None:
    """Check the arguments of an emit.

    :raises ArgumentError: one of them is wrong, whatever templates will say.
    """
    name = check_name(_sample(name), what="the name of a signal")
    read_params(_sample(params), name=name)
    dump_payload(payload, name=name)
    if request_id is not None:
        check_name(_sample(request_id), what=f"request_id of signal {name!r}", reserved=True)


def check_dependencies(signals: Any) -> None:
    """Check the signals that are waited for together.

    :raises ArgumentError: something of them is wrong, whatever templates will say.
    """
    if isinstance(signals, (str, Mapping)) or not isinstance(signals, Sequence):
        raise ArgumentError(
            f"signals is {signals!r}",
            expected="a list of signals that are waited for together",
            hint="write [SignalDependency('name', {'parameter': 'value'})], or the mappings of its arguments",
        )
    for signal in signals:
        if not isinstance(signal, (Mapping, SignalDependency)):
            raise ArgumentError(
                f"a signal that is waited for is {signal!r}",
                expected="a SignalDependency, or the mapping of its arguments name, match and join",
            )
    read_dependencies(_sample(signals))


def _sample(value: Any) -> Any:
    """Return a value with something that could be right in place of each template."""
    if is_template(value):
        return _SAMPLES["string"]
    if isinstance(value, SignalDependency):
        return {"name": _sample(value.name), "match": _sample(value.match), "join": _sample(value.join)}
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key in KINDS and is_template(inner):
                return {key: _SAMPLES[key]}
        return {key: _sample(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sample(inner) for inner in value]
    return value
