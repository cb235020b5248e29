"""The author's Python that runs on Spark: how it is named, and whether a file of it can run there.

The driver of a Spark application has neither Airflow nor the DAGs folder. So a function is named by what the driver can import, or
by a file that is shipped as a module of its own; and such a file must not need what is not there.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template, name_of_callable

#: What a file of Python is called; nothing else can be an application that uses the helper module.
PYTHON_FILE = ".py"

_FUNCTION = re.compile(r"(?P<where>.+):(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
#: What the driver imports itself: a shipped module of that name would hide it.
_TAKEN = frozenset({*sys.stdlib_module_names, "airflow_incremental_spark", "py4j", "pyspark"})
_FORMS = "'package.module:function', 'path/to/file.py:function', or a function at the top level of a module"
_SIGNATURE = "a function transform(spark, sources, plan)"


@attrs.frozen(kw_only=True)
class FunctionName:
    """Where the driver finds a function.

    :param module: the module it imports.
    :param name: the function's name there.
    :param file: the file that is shipped as that module; None for a module that the driver has already.
    """

    module: str
    name: str
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> FunctionName:
        """Read ``package.module:function`` or ``path/to/file.py:function``.

        :raises ArgumentError: it is neither.
        """
        match = _FUNCTION.fullmatch(text)
        where = match["where"] if match else ""
        if match and where.endswith(PYTHON_FILE):
            stem = PurePath(where).stem
            _check_stem(stem, where)
            return cls(module=stem, name=match["name"], file=where)
        if match and _MODULE.fullmatch(where):
            return cls(module=where, name=match["name"])
        raise ArgumentError(f"function is {text!r}", expected=_FORMS)


def name_of_function(function: Callable[..., Any]) -> str:
    """Return a function as ``path/to/file.py:function``.

    :raises ArgumentError: the driver could not have it under that name.
    """
    name = getattr(function, "__qualname__", "")
    shown = name_of_callable(function)
    if not inspect.isfunction(function) or not name.isidentifier():
        raise ArgumentError(
            f"function is {shown}, which is a lambda, a method, or is defined inside something else",
            expected="a function at the top level of a module, which can be found there by its name",
            hint="define it with def at the top of a file of its own",
        )
    _check_arguments(function, shown)
    module = sys.modules.get(function.__module__)
    if getattr(module, name, None) is not function:
        raise ArgumentError(
            f"function is {shown}, and {function.__module__!r} has another {name!r}, or none",
            expected="a function that is found in its module by its name",
            hint="a decorator may have replaced it; name the one that is there",
        )
    file = getattr(module, "__file__", None)
    if function.__module__ == "__main__" or not file or not str(file).endswith(PYTHON_FILE):
        raise ArgumentError(
            f"function is {shown}, which was typed in or is the main program",
            expected="a function of a module whose source is a file, which is shipped to Spark",
            hint="move it to a file of its own",
        )
    text = f"{file}:{name}"
    FunctionName.parse(text)
    check_source(inspect.getsource(module), file=str(file), name=name)  # type: ignore[arg-type]
    return text


def check_source(source: str, *, file: str, name: str | None = None) -> None:
    """Refuse a file that cannot run where it is shipped to, as far as reading it tells.

    :param source: what is in it.
    :param file: its name, for the error.
    :param name: the function that must be at its top level; None if there need not be any.
    :raises ArgumentError: with what to do.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ArgumentError(
            f"the file {file!r} is no Python: {error.msg} (line {error.lineno})", expected="a module"
        ) from None
    for node in tree.body:
        _check_import(node, file)
    if name is None or any(_binds(node, name) for node in tree.body):
        return
    raise ArgumentError(
        f"the file {file!r} has no function {name!r} at its top level",
        expected=_SIGNATURE,
        hint=f"it has {', '.join(repr(n.name) for n in tree.body if isinstance(n, ast.FunctionDef)) or 'none'}",
    )


def _check_import(node: ast.stmt, file: str) -> None:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        if node.level:
            raise ArgumentError(
                f"line {node.lineno} of {file!r} imports from the package that the file is in, and the file is shipped alone",
                expected="a file that needs nothing of its package",
                hint="name the function 'package.module:function' and ship the package with py_files",
            )
        names = [node.module or ""]
    for name in names:
        if name.partition(".")[0] in ("airflow", "airflow_incremental"):
            raise ArgumentError(
                f"line {node.lineno} of {file!r} imports {name!r}, and there is no Airflow where Spark runs it",
                expected="a file that runs without Airflow",
                hint="move the function to a file of its own, and name that: function='path/to/file.py:function'",
            )


def _binds(node: ast.stmt, name: str) -> bool:
    """Say whether a statement may give the module that name: a definition, an import or an assignment."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return node.name == name
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name) in (name, "*") for alias in node.names)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(target, ast.Name) and target.id == name for target in targets)
    return isinstance(node, (ast.If, ast.Try, ast.With)) and any(
        isinstance(inner, ast.stmt) and _binds(inner, name) for inner in ast.iter_child_nodes(node)
    )


def _check_stem(stem: str, file: str) -> None:
    if is_template(file):
        return
    if not stem.isidentifier() or stem in _TAKEN:
        raise ArgumentError(
            f"the file {file!r} would be shipped to Spark as a module {stem!r}",
            expected="a name that Python can import, and that neither Python nor Spark has already",
            hint="rename the file",
        )


def _check_arguments(function: Callable[..., Any], shown: str) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        raise ArgumentError(
            f"the transform {shown} takes {signature}: {error}",
            expected=_SIGNATURE,
            hint="sources maps each source's name to its rows as a DataFrame; plan says what is computed",
        ) from None
