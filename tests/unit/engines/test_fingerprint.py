"""Fingerprints: the same for the same transform in every process, another one for a transform that was changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_incremental.engines.fingerprint import fingerprint

MODULE = """
import abc
import datetime as dt
import enum
import functools
import logging
import re
import types
from pathlib import Path

import attrs
import pyarrow as pa

PATTERN = re.compile("a+")
LIMITS = types.MappingProxyType({"eu": 1})
log = logging.getLogger(__name__)
FACTOR = 10
REGIONS = {"eu", "us", "de", "fr", "it"}
RATES = {"eu": 1.5, "us": 2.5}


class Rounding(enum.Enum):
    UP = 1
    DOWN = 2


@attrs.frozen
class Config:
    column: str
    factor: int = 10
    since: dt.datetime = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)


class Base(abc.ABC):
    LIMIT = 5

    @property
    def half(self):
        return self.LIMIT / 2

    @functools.cached_property
    def third(self):
        return self.LIMIT / 3

    @staticmethod
    def scale(n):
        return n * 3

    @abc.abstractmethod
    def __call__(self, relations, plan): ...


class Loader(Base):
    def __init__(self, config):
        self.config = config
        self.again = self

    def __call__(self, relations, plan):
        return self.scale(self.half + self.third)

    def load(self, relations, plan):
        return self.config


@functools.lru_cache
def cached(n):
    return n + 100


def helper(n):
    log.info("in %s", Path.cwd())
    return deeper(n) + cached(n)


def deeper(n):
    return n + 1000 if n < 3 else helper(n - 1)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        print("called with 77 things")
        return function(*args)

    return wrapper


def plain(relations, plan, *, factor=3):
    return [helper(FACTOR * factor) for n in relations if n in REGIONS and n in {"x", "y", "z"}] or RATES


@logged
def decorated(relations, plan):
    return helper(1)


def rounded(relations, plan):
    return Rounding.UP if relations else pa.table({})


def matched(relations, plan):
    return [n for n in relations if PATTERN.match(n)] or LIMITS


def closing_over(value):
    def transform(relations, plan):
        return (lambda: value)()

    return transform


closure = closing_over({"v": [1, 2, (3, Config("c"))]})
partial = functools.partial(plain, factor=4)
instance = Loader(Config("v"))
method = instance.load
nothing = lambda relations, plan: closing_over
"""
NAMES = ("plain", "decorated", "rounded", "matched", "closure", "partial", "instance", "method", "nothing")


def module(text: str, name: str = "author") -> ModuleType:
    made = ModuleType(name)
    exec(compile(text, f"{name}.py", "exec", dont_inherit=True), vars(made))  # noqa: S102
    return made


def prints(text: str) -> dict[str, str]:
    made = module(text)
    return {name: fingerprint(getattr(made, name)) for name in NAMES}


def test_text() -> None:
    assert fingerprint("SELECT 1") == fingerprint("SELECT 1") != fingerprint("SELECT 2")


def test_it_is_the_same_in_every_process_and_wherever_the_file_lies() -> None:
    script = (
        "import json, sys, types\n"
        "from airflow_incremental.engines.fingerprint import fingerprint\n"
        "made = types.ModuleType(sys.argv[1])\n"
        "exec(compile('\\n' * 7 + sys.stdin.read(), sys.argv[1], 'exec'), vars(made))\n"
        f"print(*(fingerprint(getattr(made, name)) for name in {NAMES!r}))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script, name],
            input=MODULE,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
        ).stdout
        for name, seed in (("one", "1"), ("elsewhere", "2"))
    }
    here = prints(MODULE)
    assert found == {" ".join(here.values()) + "\n"}
    assert len(set(here.values())) == len(NAMES)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("FACTOR * factor", "FACTOR + factor", {"plain", "partial"}),
        ("factor=3", "factor=5", {"plain", "partial"}),
        ("factor=4", "factor=5", {"partial"}),
        ("FACTOR = 10", "FACTOR = 11", {"plain", "partial"}),
        ('"fr", "it"}', '"fr", "es"}', {"plain", "partial"}),
        ('"us": 2.5', '"us": 2.25', {"plain", "partial"}),
        ('{"x", "y", "z"}', '{"x", "y", "w"}', {"plain", "partial"}),
        ("n + 1000", "n + 2000", {"plain", "partial", "decorated"}),
        ("n + 100\n", "n + 200\n", {"plain", "partial", "decorated"}),
        ("77 things", "78 things", {"decorated"}),
        ("UP = 1", "UP = 3", {"rounded"}),
        ('"a+"', '"b+"', {"matched"}),
        ('compile("a+")', 'compile("a+", re.IGNORECASE)', {"matched"}),
        ('{"eu": 1}', '{"eu": 2}', {"matched"}),
        ("(3, Config", "(4, Config", {"closure"}),
        ('Config("c")', 'Config("d")', {"closure"}),
        ('Config("v")', 'Config("w")', {"instance", "method"}),
        ("factor: int = 10", "factor: int = 12", {"closure", "instance", "method"}),
        ("2024, 1, 1", "2024, 1, 2", {"closure", "instance", "method"}),
        ("LIMIT = 5", "LIMIT = 6", {"instance", "method"}),
        ("LIMIT / 2", "LIMIT / 4", {"instance", "method"}),
        ("LIMIT / 3", "LIMIT / 4", {"instance", "method"}),
        ("n * 3", "n * 4", {"instance", "method"}),
        ("(lambda: value)()", "(lambda: [value])()", {"closure", "nothing"}),
        ("    log.info", "    # a comment\n    log.info", set()),
        ("REGIONS = {", "OTHER = 1\nREGIONS = {", set()),
    ],
)
def test_what_was_changed_shows(old: str, new: str, changed: set[str]) -> None:
    assert old in MODULE
    before, after = prints(MODULE), prints(MODULE.replace(old, new))
    assert {name for name in NAMES if before[name] != after[name]} == changed


def test_a_circle_of_values_ends() -> None:
    def make(n: int) -> Any:
        values: list[Any] = [n]
        values.append({"again": values})
        return lambda *_: values

    assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))


def test_very_many_functions_that_name_each_other_are_looked_into_once() -> None:
    names = [f"f{n}" for n in range(60)]
    text = "".join(f"def {name}(r, p):\n    return {', '.join(names)}\n" for name in names)
    made = module(text)
    assert fingerprint(made.f0) == fingerprint(module(text).f0) != fingerprint(made.f1)


def test_functions_of_other_modules_count_by_name() -> None:
    other = [module(f"def f(r, p):\n    return {n}\n", "library") for n in (1, 2)]
    text = "def transform(r, p):\n    return f(r, p)\n"
    found = []
    for library in other:
        made = module(text)
        made.f = library.f  # type: ignore[attr-defined]
        found.append(fingerprint(made.transform))
    assert found[0] == found[1]


def test_what_does_not_say_what_it_holds_is_another_one_every_time() -> None:
    def make(held: object) -> Any:
        return lambda *_: held

    lock, other = threading.Lock(), threading.Lock()
    assert fingerprint(make(lock)) == fingerprint(make(lock)) != fingerprint(make(other))
