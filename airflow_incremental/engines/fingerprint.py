"""What tells one transform from another: a retry after the author corrected it does the load again.

SQL is its text. A callable is its code and the values it holds: bytecode with its constants, default values, free variables of
closures, the arguments of a :func:`functools.partial`, the object a method is bound to, and the functions, classes and values of
its own module that it names, and so on through what these name.

Not included is what lies outside the callable's own module: modules, and functions and classes of other modules, count by their
names. Nor is anything it looks up when it runs: environment variables, files, attributes of modules.

A value that does not say what it holds (an open connection, a lock) is another one in every process. Like a new version of Python,
it makes a retry do the load again: that costs time and nothing else.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import inspect
import types
import uuid
from collections.abc import Iterable
from typing import Any

from airflow_incremental.engines.transform import Transform

_PROCESS = uuid.uuid4().hex
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_CONTAINERS = (tuple, list, dict, set, frozenset, types.CodeType)
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")


def fingerprint(transform: Transform) -> str:
    """Return a digest of a transform, 16 hex digits; the same in every process that runs the same Python."""
    if isinstance(transform, str):
        return hashlib.sha256(transform.encode()).hexdigest()[:16]
    return _Digests(_home(transform)).of(transform).hex()[:16]


def _home(transform: Any) -> str | None:
    """Return the module of the function a callable comes down to."""
    while isinstance(transform, functools.partial):
        transform = transform.func
    if isinstance(transform, types.MethodType):
        transform = transform.__func__
    return getattr(inspect.unwrap(transform), "__module__", None)


class _Digests:
    """Digests of values by what they hold.

    Containers are equal if what is in them is. Functions, classes and other objects may hold each other in a circle, and one may be
    held a thousand times: each is looked into once, and is its number from then on.
    """

    def __init__(self, home: str | None) -> None:
        self.home = home
        #: Id -> number, and the object itself, because the id of one that is gone may be given again.
        self.seen: dict[int, tuple[int, Any]] = {}
        #: Containers this one is in.
        self.above: list[int] = []

    def of(self, value: Any) -> bytes:
        """Return the digest of any value."""
        if isinstance(value, _PLAIN):
            # A DAG file's module is named after where the file lies.
            return _digest("home") if value == self.home else _digest(type(value).__name__, repr(value))
        if type(value) in _CONTAINERS:
            return self._nested(value)
        if id(value) in self.seen:
            return _digest("seen", str(self.seen[id(value)][0]))
        self.seen[id(value)] = (len(self.seen), value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        return self._class(value) if isinstance(value, type) else self._object(value)

    def _all(self, kind: str, values: Iterable[Any]) -> bytes:
        return _digest(kind, *(self.of(v) for v in values))

    def _nested(self, value: Any) -> bytes:
        if id(value) in self.above:
            return _digest("above", str(len(self.above) - self.above.index(id(value))))
        self.above.append(id(value))
        try:
            return self._container(value)
        finally:
            self.above.pop()

    def _container(self, value: Any) -> bytes:
        kind = type(value).__name__
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, dict):
            return self._all(kind, (part for item in value.items() for part in item))
        if isinstance(value, (set, frozenset)):
            # In another order in every process, so none may number what the next one sees.
            return _digest(kind, *sorted(self._apart(v) for v in value))
        return self._all(kind, value)

    def _apart(self, value: Any) -> bytes:
        aside = _Digests(self.home)
        aside.seen, aside.above = dict(self.seen), list(self.above)
        return aside.of(value)

    def _function(self, function: types.FunctionType) -> bytes:
        if function.__module__ != self.home:
            return _digest("function", function.__module__ or "", function.__qualname__)
        known = function.__globals__
        named = {name: known[name] for name in _globals(function.__code__) if name in known}
        free = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                free[name] = cell.cell_contents
            except ValueError:  # not bound yet, as is a function that is defined after this one
                continue
        return self._all(
            "function", (function.__code__, function.__defaults__, function.__kwdefaults__, vars(function), free, named)
        )

    def _code(self, code: types.CodeType) -> bytes:
        # Without names of files and numbers of lines: the same code elsewhere is the same code.
        return self._all(
            "code",
            (
                code.co_code,
                getattr(code, "co_exceptiontable", b""),  # Python 3.11 and newer
                code.co_flags,
                (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
                (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
                code.co_consts,
            ),
        )

    def _class(self, cls: type) -> bytes:
        if cls.__module__ != self.home:
            return _digest("class", cls.__module__, cls.__qualname__)
        members = {name: _inside(member) for name, member in vars(cls).items() if _is_declared(name, member)}
        return self._all("class", (cls.__qualname__, cls.__bases__, members))

    def _object(self, value: Any) -> bytes:
        """Return the digest of an object by what it would be pickled as, part by part."""
        if isinstance(value, types.ModuleType):
            return _digest("module", value.__name__)
        if isinstance(value, types.MethodType):
            return self._all("method", (value.__func__, value.__self__))
        if isinstance(value, types.MappingProxyType):
            return self._all("mappingproxy", [dict(value)])
        try:
            # Some do not say it themselves, such as a compiled pattern.
            says = copyreg.dispatch_table.get(type(value))
            reduced = value.__reduce_ex__(4) if says is None else says(value)
            if isinstance(reduced, str):
                # Something that has a name, such as a function with a cache, and maybe a function inside.
                parts = [reduced, inspect.getattr_static(value, "__wrapped__", None)]
                module = getattr(value, "__module__", None)
                parts += [] if module == self.home else [module]
            else:
                make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
                parts = [make, arguments, state, list(items or ()), [tuple(pair) for pair in pairs or ()]]
        except Exception:  # noqa: BLE001  (what a foreign object raises when it is asked what it holds can be anything)
            return _digest("unknown", _PROCESS, type(value).__qualname__, str(id(value)))
        return self._all("object", parts)


def _is_declared(name: str, member: Any) -> bool:
    """Say whether a class has a member because its author wrote it, and not because Python keeps its books there."""
    if isinstance(member, types.FunctionType):
        return True
    if name == "_abc_impl" or (name.startswith("__") and name.endswith("__")):
        return False
    return isinstance(member, (property, functools.cached_property)) or not inspect.isdatadescriptor(member)


def _inside(member: Any) -> Any:
    """Return what counts of a class's member: the functions inside, where Python cannot pickle it as it is."""
    if isinstance(member, types.FunctionType) and _is_generated(member):
        return ("generated", member.__defaults__, member.__kwdefaults__)
    if isinstance(member, (staticmethod, classmethod)):
        return (type(member).__name__, member.__func__)
    if isinstance(member, property):
        return ("property", member.fget, member.fset, member.fdel)
    if isinstance(member, functools.cached_property):
        return ("cached_property", member.func)
    return member


def _is_generated(function: types.FunctionType) -> bool:
    """Say whether attrs or dataclasses made a method: it follows from the fields, and attrs puts random numbers into some."""
    return function.__name__.startswith("__") and function.__code__.co_filename.startswith("<")


def _globals(code: types.CodeType) -> list[str]:
    """Return the global names a function uses, its inner functions included."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(_globals(constant))
    return sorted(found)


def _digest(kind: str, *parts: str | bytes) -> bytes:
    held = hashlib.sha256(kind.encode())
    for part in parts:
        plain = part.encode() if isinstance(part, str) else part
        held.update(len(plain).to_bytes(8, "big") + plain)
    return held.digest()
