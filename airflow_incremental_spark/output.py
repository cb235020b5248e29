"""What a transform returned, made to fit the target: columns by name, types without loss, or an error that shows the difference.

Spark casts while it writes, in ANSI mode: a value that the target's column cannot hold stops the job. What it would change without
a word (digits cut off, a zone lost) is refused before, by type.
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

from airflow_incremental_spark.document import quote
from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.settings import functions_of

_INTEGERS = {"byte": 3, "short": 5, "integer": 10, "long": 19}
_TEXT = frozenset({"string", "varchar", "char"})
_FLOATS = ("float", "double")
#: Integers that a float holds exactly.
_EXACT = {"float": ("byte", "short"), "double": ("byte", "short", "integer")}
_TIMES = frozenset({"timestamp", "timestamp_ntz"})

#: A column (or a field inside one), the type that was returned and the type of the target; None where there is none.
Mismatch = Tuple[str, Optional[Any], Optional[Any]]


def is_frame(value: Any) -> bool:
    """Say whether a value is a DataFrame of Spark, of whichever kind."""
    return hasattr(value, "writeTo") and hasattr(value, "schema")


def fitted(frame: Any, target: Any) -> Any:
    """Return a DataFrame with the target's columns in its order.

    :param target: schema of the target.
    :raises DriverError: with a table of every column that is missing, unexpected or of a type that does not fit.
    """
    have = [(f.name, f.dataType) for f in frame.schema.fields]
    names = [name.lower() for name, _ in have]
    doubled = sorted({name for name, _ in have if names.count(name.lower()) > 1})
    if doubled:
        names_of = ", ".join(repr(d) for d in doubled)
        raise DriverError(
            f"the transform returns {names_of} more than once",
            expected="every column once",
            hint="name columns with AS",
            where="transform",
        )
    wrong: list[Mismatch] = []
    by_name = _fields(have, [(f.name, f.dataType) for f in target.fields], "", wrong)
    if wrong:
        raise _mismatch(wrong)
    functions = functions_of(frame)
    return frame.select(*[functions.col(quote(by_name[f.name])).alias(f.name) for f in target.fields])


def _fields(
    have: list[tuple[str, Any]], want: list[tuple[str, Any]], prefix: str, wrong: list[Mismatch]
) -> dict[str, str]:
    """Match fields by name, as Spark does without regard to case, and return what each wanted one is called."""
    left = {name.lower(): (name, kind) for name, kind in have}
    found = {}
    for name, kind in want:
        given, source = left.pop(name.lower(), (None, None))
        if given is None:
            wrong.append((prefix + name, None, kind))
        else:
            found[name] = given
            _compare(source, kind, prefix + name, wrong)
    wrong += [(prefix + name, kind, None) for name, kind in left.values()]
    return found


def _compare(have: Any, want: Any, path: str, wrong: list[Mismatch]) -> None:
    kinds = (have.typeName(), want.typeName())
    if kinds == ("struct", "struct"):
        fields = [[(f.name, f.dataType) for f in side.fields] for side in (have, want)]
        _fields(fields[0], fields[1], path + ".", wrong)
    elif kinds == ("array", "array"):
        _compare(have.elementType, want.elementType, path + ".element", wrong)
    elif kinds == ("map", "map"):
        _compare(have.keyType, want.keyType, path + ".key", wrong)
        _compare(have.valueType, want.valueType, path + ".value", wrong)
    elif not _fits(have, want):
        wrong.append((path, have, want))


def _fits(have: Any, want: Any) -> bool:
    """Whether every value of one type is a value of another, or stops the job because it is none."""
    a, b = have.typeName(), want.typeName()
    if a in {"void", "null"} or have.simpleString() == want.simpleString():
        return True
    if a in _TEXT and b in _TEXT:
        return True
    if a in _INTEGERS:
        return b in _INTEGERS or b == "decimal" or a in _EXACT.get(b, ())
    if a == "decimal":
        return (b == "decimal" and have.scale <= want.scale) or (b in _INTEGERS and have.scale == 0)
    return a in _FLOATS and b in _FLOATS and _FLOATS.index(a) <= _FLOATS.index(b)


def _mismatch(wrong: list[Mismatch]) -> DriverError:
    rows = [("column", "transform returns", "target has")]
    rows += [
        (c, "(missing)" if a is None else a.simpleString(), "(no such column)" if b is None else b.simpleString())
        for c, a, b in wrong
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
    top = [(c, a, b) for c, a, b in wrong if "." not in c]
    hints = [
        f"return {_advice(c, a, b)} AS {c}" for c, a, b in top if a is not None and b is not None and _advice(c, a, b)
    ]
    more = [c for c, a, _ in top if a is None]
    less = [c for c, _, b in top if b is None]
    hints += ["return {} too".format(", ".join(more))] if more else []
    hints += ["leave {} out".format(", ".join(less))] if less else []
    return DriverError(
        f"the transform's columns do not fit the target:\n{table}\n",
        expected="the target's columns by name, in any order, with types that fit without loss",
        hint=", ".join(hints) or "return exactly the target's columns, or change the target's schema",
        where="transform",
    )


def _advice(column: str, have: Any, want: Any) -> str:
    nested = {"struct", "array", "map"}
    if {have.typeName(), want.typeName()} & nested:
        return ""
    if {have.typeName(), want.typeName()} == _TIMES:
        return f"CAST({column} AS {want.simpleString()}) (times without zone are taken as UTC)"
    return f"CAST({column} AS {want.simpleString()})"
