"""When the chunks of a load may be computed side by side: checked where the DAG is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import conf
from airflow_incremental.core.chunks import CUT_MODES
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.operators.load import OF_LOADS

if TYPE_CHECKING:
    from airflow_incremental.compat import TaskGroup


def check_parallel(group: TaskGroup, parallel_chunks: Any, *, mode: Any, transform: Any) -> None:
    """Refuse chunks side by side where there are none.

    :param parallel_chunks: how many at a time.
    :raises ArgumentError: with what it takes.
    """
    name = f"the group {group.group_id!r} has parallel_chunks={parallel_chunks!r}"
    if isinstance(parallel_chunks, bool) or not isinstance(parallel_chunks, int) or parallel_chunks < 1:
        raise ArgumentError(name, expected="a whole number, 1 or more: how many chunks are computed at a time; or None")
    if isinstance(mode, str) and not is_template(mode) and mode not in CUT_MODES:
        raise ArgumentError(
            f"{name} and mode={mode!r}",
            expected=f"mode {' or '.join(map(repr, CUT_MODES))}: others are computed in order, or by key",
            hint="leave parallel_chunks out; a stateful load keeps its finished steps (step=) all the same",
        )
    if transform is None or isinstance(transform, (SparkTransform, dict)):
        raise ArgumentError(
            f"{name} and {'no transform' if transform is None else 'a transform on Spark'}",
            expected="SQL or a callable that runs on the worker",
            hint="leave parallel_chunks out; "
            + (
                "share the work out in tasks of your own"
                if transform is None
                else "Spark shares its work out by itself"
            ),
        )
    if any(True for _ in group.iter_mapped_task_groups()):
        raise ArgumentError(
            f"{name} inside a mapped task group",
            expected="a group that is not mapped: Airflow maps no task twice",
            hint="leave parallel_chunks out, or make one group for each of the values in a loop",
        )


def check_alike(operator_args: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how rows are made: by the mapped tasks, and by the one that seals, which computes what these leave.

    :param operator_args: as the author gave them.
    :raises ArgumentError: the two are given different values.
    """
    of_load, of_seal = operator_args.get("load", {}), operator_args.get("seal", {})
    for name in sorted(OF_LOADS & of_load.keys() & of_seal.keys()):
        if of_load[name] != of_seal[name]:
            raise ArgumentError(
                f"operator_args sets {name!r} to {of_load[name]!r} for 'load' and to {of_seal[name]!r} for 'seal'",
                expected="one value: what chunks leave, 'seal' computes in the same way",
                hint="set it for 'load' alone",
            )
    given = {**operator_args.get("*", {}), **of_load, **of_seal}
    return {name: value for name, value in given.items() if name in OF_LOADS}


def check_mappable(group: TaskGroup, most: int) -> None:
    """Refuse more chunks than Airflow maps a task over.

    :param most: chunks of a plan at most, as its task has it, wherever that was said.
    :raises ArgumentError: with how many it does.
    """
    limit = conf.getint("core", "max_map_length")
    if most > limit:
        raise ArgumentError(
            f"the group {group.group_id!r} has parallel_chunks and max_chunks={most}, and this Airflow maps a task "
            f"over {limit} values at most",
            expected=f"max_chunks of {limit} or less",
            hint="lower max_chunks, or raise [core] max_map_length",
        )
