"""Which columns a row condition reads, and whether it judges each row by itself."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any

#: What a text for ``DataFrame.query`` may be made of, so that a row is picked for what it holds and not for where it stands.
_PLAIN = (
    ast.Expression,
    ast.BoolOp,
    ast.boolop,
    ast.UnaryOp,
    ast.unaryop,
    ast.BinOp,
    ast.operator,
    ast.Compare,
    ast.cmpop,
    ast.Name,
    ast.expr_context,
    ast.Constant,
    ast.List,
    ast.Tuple,
)


def columns_of_condition(condition: Any, known: Collection[str]) -> tuple[str, ...] | None:
    """Return the columns a row condition reads; None for a text that may do more than look at values of one row.

    :param condition: in its JSON form, or as text in Great Expectations' own or in pandas' language.
    :param known: names of the columns there are.
    """
    if condition is None:
        return ()
    if isinstance(condition, str):
        return _names(condition, known)
    if not isinstance(condition, Mapping):
        return None
    if "pass_through_filter" in condition:
        return _names(str(condition["pass_through_filter"]), known)
    if isinstance(condition.get("conditions"), (list, tuple)):
        each = [columns_of_condition(c, known) for c in condition["conditions"]]
        return None if None in each else tuple(dict.fromkeys(name for names in each for name in names or ()))
    column = condition.get("column")
    name = column.get("name") if isinstance(column, Mapping) else None
    return (name,) if isinstance(name, str) else None


def _names(text: str, known: Collection[str]) -> tuple[str, ...] | None:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return None
    nodes = list(ast.walk(tree))
    names = tuple(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name)))
    return names if all(isinstance(n, _PLAIN) for n in nodes) and set(names) <= set(known) else None
