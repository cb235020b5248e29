"""Folders for a database and what it spills, which do not outlive the process by more than one run.

A process that is killed cannot remove its folder, and a spilled sort can fill a disk. So each folder holds a file that
its process keeps locked as long as it lives, and whoever makes the next folder removes those nobody holds any more.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "airflow-incremental-"
_ALIVE = "alive.lock"


@contextmanager
def work_directory(parent: Path | None, kind: str) -> Iterator[Path]:
    """Make a folder for as long as the context is open; remove what killed processes left beside it.

    :param parent: where it is made; made itself if it does not exist. Default is the system's folder for temporary files.
    :param kind: part of its name, for people.
    """
    root = Path(tempfile.gettempdir() if parent is None else parent)
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{kind}-", dir=root) as made:
        directory = Path(made)
        # Locked before it gets the name that a sweep looks for, so that no sweep can come between.
        starting = directory / "starting"
        with starting.open("w") as file:
            if _lock(file.fileno()):
                starting.rename(directory / _ALIVE)
            yield directory


def _sweep(root: Path) -> None:
    for alive in root.glob(f"{_PREFIX}*/{_ALIVE}"):
        try:
            with alive.open() as file:
                if _lock(file.fileno()):
                    shutil.rmtree(alive.parent)
                    log.info("removed %s, which a killed process left", alive.parent)
        except OSError:  # another user's, or its owner or another sweep is removing it right now
            continue


def _lock(descriptor: int) -> bool:
    """Lock a file if nobody has; False too where the file system has no locks, and then nothing is ever swept."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
