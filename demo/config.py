"""The configuration of a small Airflow of one's own: loopback only, quick to notice work, and one known user."""

from __future__ import annotations

import base64
import configparser
import io
import json
import secrets
import socket
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The only user; its password is made anew for every home folder.
USER = "admin"


@attrs.frozen(kw_only=True)
class StackConfig:
    """Where a stack lives and what it is called with.

    :param home: Airflow's home: configuration, logs, and the database unless ``database`` says otherwise.
    :param dags: folder of DAG files.
    :param database: SQLAlchemy URL of Airflow's own database (``postgresql+psycopg2://...``); default is SQLite in
        the home.
    :param port: of the API server.
    :param password: of the only user.
    :param options: more of ``airflow.cfg``, as section -> option -> value; wins over what is chosen here.
    """

    home: Path
    dags: Path
    port: int
    password: str
    database: str | None = None
    options: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)

    @property
    def url(self) -> str:
        """Return the address of the UI and the REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> Path:
        """Return the folder of all logs, of the components and of the tasks."""
        return self.home / "logs"

    def sections(self) -> dict[str, dict[str, str]]:
        """Return what is written to ``airflow.cfg``."""
        chosen = {
            "core": {
                "dags_folder": str(self.dags),
                "load_examples": "False",
                "executor": "LocalExecutor",
                # Forked when the scheduler starts, and idle until needed; more than a demonstration runs at once.
                "parallelism": "4",
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
                "simple_auth_manager_users": f"{USER}:admin",
                "simple_auth_manager_passwords_file": str(self.home / "passwords.json"),
                "execution_api_server_url": f"{self.url}/execution/",
            },
            "database": {"sql_alchemy_conn": self.database or f"sqlite:///{self.home / 'airflow.db'}"},
            "api": {
                "host": "127.0.0.1",
                "port": str(self.port),
                "base_url": self.url,
                "secret_key": secrets.token_hex(16),
                "workers": "1",
            },
            # Components are separate processes: without a shared secret each makes up its own and refuses the others.
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            # A changed DAG file is noticed within seconds; an unchanged one is parsed again every half minute, because a watcher
            # starts when its file is parsed while its DAG is not paused and its asset is known to be in use.
            "scheduler": {"scheduler_idle_sleep_time": "0.5", "parsing_cleanup_interval": "10"},
            "dag_processor": {
                "refresh_interval": "5",
                "bundle_refresh_check_interval": "2",
                "min_file_process_interval": "30",
                "parsing_processes": "1",
            },
            # A busy machine may answer late; by default a task gives its API server five times five seconds, then
            # fails.
            "workers": {"execution_api_timeout": "30"},
            "logging": {"base_log_folder": str(self.logs)},
            "usage_data_collection": {"enabled": "False"},
        }
        for section, options in self.options.items():
            chosen.setdefault(section, {}).update(options)
        return chosen

    def write(self) -> None:
        """Write ``airflow.cfg`` and the password file, readable by their owner only.

        With these files in place any ``airflow`` command works on the stack: ``AIRFLOW_HOME=<home> airflow dags list``.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        parser = configparser.RawConfigParser()
        # Airflow expands % in values that it reads from the file.
        for section, options in self.sections().items():
            parser[section] = {option: value.replace("%", "%%") for option, value in options.items()}
        text = io.StringIO()
        parser.write(text)
        for name, content in (("airflow.cfg", text.getvalue()), ("passwords.json", json.dumps({USER: self.password}))):
            path = self.home / name
            path.touch(mode=0o600)
            path.write_text(content, encoding="utf-8")


def free_port() -> int:
    """Return a loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
