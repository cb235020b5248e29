"""Templates and the files they are in, read when the DAG file is imported: what Jinja cannot read is found before a task runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_incremental.audits import Expectations, audit_from_dict
from airflow_incremental.compat import mask_secret
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.operators.arguments import SQL_FILE, is_open
from airflow_incremental.spark.secrets import is_secret

if TYPE_CHECKING:
    from jinja2 import Environment

_MARKS = ("{{", "{%", "{#")


def check_templates(value: Any, env: Environment, *, what: str) -> None:
    """Let Jinja read every template in ``value``, as Airflow will when the task runs, and see that files are there.

    :raises ArgumentError: one cannot be read.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_templates(inner, env, what=f"{name!r} in {what}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_templates(inner, env, what=what)
    elif isinstance(value, str) and (value.endswith(SQL_FILE) or any(mark in value for mark in _MARKS)):
        _compile(value, env, what)


def with_suite_files(audits: Any, env: Environment) -> Any:
    """Return plain audits, those that name the file of a suite with what is in it; Airflow itself reads no files so deep.

    :raises ArgumentError: a file is not there, or holds no suite.
    """
    if is_open(audits) or not isinstance(audits, (list, tuple)):
        return audits
    folders = tuple(getattr(env.loader, "searchpath", ()))
    return [_with_suite(a, folders) if _is_suite(a) else a for a in audits]


def hide_secrets(transform: Any) -> None:
    """Let Airflow mask what of a transform's rendered arguments for Spark is a secret, wherever it is shown."""
    if not isinstance(transform, Mapping):
        return
    for name in ("catalog_conf", "conf", "env_vars"):
        given = transform.get(name)
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if isinstance(value, str) and is_secret(str(key)):
                mask_secret(value)


def _is_suite(audit: Any) -> bool:
    return isinstance(audit, Mapping) and audit.get("type") == Expectations.type


def _with_suite(plain: Mapping[str, Any], folders: Sequence[str]) -> Mapping[str, Any]:
    audit = audit_from_dict(plain)
    return audit.with_file(folders).as_dict() if isinstance(audit, Expectations) and audit.file is not None else plain


def _compile(text: str, env: Environment, what: str) -> None:
    from jinja2 import TemplateNotFound, TemplateSyntaxError

    try:
        if text.endswith(SQL_FILE):
            env.get_template(text)
        else:
            env.compile(text)
    except TemplateNotFound:
        folders = getattr(env.loader, "searchpath", ())
        raise ArgumentError(
            f"{what} names the file {text!r}, which is not there",
            expected=f"a file in one of the folders {', '.join(map(str, folders))}",
            hint="give its path from the folder of the DAG file, or name its folder in the DAG's template_searchpath",
        ) from None
    except TemplateSyntaxError as error:
        raise ArgumentError(
            f"{what} is no template that Jinja can read: {error.message} (line {error.lineno})",
            expected="Jinja, as in WHERE region = '{{ params.region }}'",
            hint="correct it",
        ) from None
