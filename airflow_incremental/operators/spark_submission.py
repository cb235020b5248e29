"""The official provider's operator for ``spark-submit``, as a load uses it: its log is looked at, and a retry may find it again."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import attrs
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

from airflow_incremental.compat import AirflowException
from airflow_incremental.spark.diagnosis import Transcript

log = logging.getLogger(__name__)

#: Key in Airflow's store of a task's state: whose application the provider keeps the id of.
_TRACE = "incremental_spark_job"
_STORE = "task_state_store"


@attrs.frozen(kw_only=True)
class Trace:
    """What tells one application of a load from another.

    :param branch: that it writes to.
    :param fingerprint: of what it runs.
    """

    branch: str
    fingerprint: str


class Submission(SparkSubmitOperator):
    """The provider's operator, whose log is looked at while it passes.

    :param transcript: what is kept of the log.
    """

    def __init__(self, *, transcript: Transcript, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._transcript = transcript
        self.durable = False

    def submit(self, context: Any, trace: Trace) -> None:
        """Run the application to its end, as ``execute`` does.

        :param trace: kept with the application's id, where the provider keeps that.
        """
        self._hook = self._get_hook()
        self.durable = self._is_durable(context)
        if self.durable:
            # Else the provider would go on with the application of an earlier attempt, which writes to another branch.
            store = context[_STORE]
            for key in (self.external_id_key, self._K8S_DRIVER_STATUS_KEY):
                store.delete(key)
            store.set(_TRACE, attrs.asdict(trace))
        # Airflow takes a call of execute itself for a mistake: it belongs to a task of its own.
        inspect.unwrap(SparkSubmitOperator.execute)(self, context)

    def rejoin(self, context: Any, trace: Trace) -> bool:
        """Wait for an application that an earlier try has submitted; say whether there is one and it ended well."""
        self._hook = self._get_hook()
        if not self._is_durable(context) or context[_STORE].get(_TRACE) != attrs.asdict(trace):
            return False
        job_id = context[_STORE].get(self.external_id_key)
        if not job_id:
            return False
        try:
            status = self.get_job_status(job_id, context)
            log.info("an earlier try has submitted %s, whose status is %s", job_id, status)
            if self.is_job_active(status):
                self.poll_until_complete(job_id, context)
                return True
            return self.is_job_succeeded(status)
        except (AirflowException, OSError, RuntimeError) as error:
            log.warning("%s did not end well, or cannot be asked about: %s", job_id, error)
            return False

    def _is_durable(self, context: Any) -> bool:
        """Say whether the provider can find an application again: it submits, lets go, and asks the cluster from then on."""
        hook = self._hook
        if hook is None or context.get(_STORE) is None or not hasattr(SparkSubmitOperator, "get_job_status"):
            return False
        on_yarn = getattr(hook, "_is_yarn_cluster_mode", False) and getattr(hook, "_yarn_track_via_rm_api", False)
        on_kubernetes = getattr(hook, "_should_track_driver_via_k8s_api", bool)()
        return bool(on_yarn or on_kubernetes)

    def _get_hook(self) -> SparkSubmitHook:
        hook = super()._get_hook()
        process = hook._process_spark_submit_log  # noqa: SLF001  (the only place where the provider sees the log)
        hook._process_spark_submit_log = lambda lines: process(self._watch(lines))  # type: ignore[assignment,method-assign]  # noqa: SLF001
        return hook

    def _watch(self, lines: Iterator[Any]) -> Iterator[Any]:
        for line in lines:
            self._transcript.see(str(line).rstrip("\n"))
            yield line
