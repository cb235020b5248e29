"""Talking to Airflow's REST API: logging in, requests, errors, and waiting for what takes time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class AirflowError(Exception):
    """Airflow refused a request, or something did not happen in time; the message holds what Airflow said.

    :param status: HTTP status of the refusal, or None.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RestClient:
    """Calls ``/api/v2`` of one Airflow as one user.

    :param url: address of the API server, without a path.
    :param user: a user of the simple auth manager.
    :param password: its password.
    """

    def __init__(self, *, url: str, user: str, password: str) -> None:
        self.url = url
        self._credentials = {"username": user, "password": password}
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Send one request and return the decoded answer.

        :param path: below ``/api/v2``, starting with a slash.
        :raises AirflowError: Airflow answered with an error.
        """
        response = self._send(method, path, json=json, params=params)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # The first call, or the token has expired.
            self._log_in()
            response = self._send(method, path, json=json, params=params)
        if response.is_error:
            msg = f"{method} {path} answered {response.status_code}: {response.text[:2000]}"
            raise AirflowError(msg, status=response.status_code)
        return response.json() if response.content else None

    def exists(self, path: str) -> bool:
        """Say whether a GET of this path finds something; an answer other than found and not found is an error."""
        try:
            self.call("GET", path)
        except AirflowError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    @staticmethod
    def wait_until(look: Callable[[], Any], *, timeout: float, what: str, every: float = 0.5) -> Any:
        """Call ``look`` until it returns something true, and return that.

        :raises AirflowError: it did not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            if found := look():
                return found
            if time.monotonic() > deadline:
                msg = f"waited {timeout:.0f} s in vain for {what}"
                raise AirflowError(msg)
            time.sleep(every)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._http.request(method, f"/api/v2{path}", **options)

    def _log_in(self) -> None:
        response = self._http.post("/auth/token", json=self._credentials)
        if response.is_error:
            msg = f"logging in at {self.url} failed with {response.status_code}: {response.text[:500]}"
            raise AirflowError(msg)
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
