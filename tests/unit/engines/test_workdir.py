"""Folders for what is spilled: gone with the context, and, after a kill, with the next one that is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from airflow_incremental.engines.workdir import work_directory

HOLD = """
import sys, time
from pathlib import Path
from airflow_incremental.engines.workdir import work_directory
with work_directory(Path(sys.argv[1]), "load") as made:
    (made / "spill").write_text("much")
    print(made, flush=True)
    time.sleep(600)
"""


def hold(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_gone_with_the_context(tmp_path: Path) -> None:
    with work_directory(tmp_path / "deep" / "down", "load") as made:
        assert made.parent == tmp_path / "deep" / "down"
        (made / "spill").write_text("much")
    assert not made.exists()


def test_what_a_killed_process_left_goes_and_what_others_hold_stays(tmp_path: Path) -> None:
    (tmp_path / "airflow-incremental-load-by-hand").mkdir()
    alive, kept = hold(tmp_path)
    asleep, held = hold(tmp_path)
    killed, left = hold(tmp_path)
    try:
        os.kill(asleep.pid, signal.SIGSTOP)
        killed.kill()
        killed.wait()
        assert left.exists()
        with work_directory(tmp_path, "audit") as mine:
            assert not left.exists()
            assert (kept / "spill").exists()
            assert (held / "spill").exists()
            with work_directory(tmp_path, "load"):
                assert mine.exists(), "of this very process"
        assert (tmp_path / "airflow-incremental-load-by-hand").exists(), "nobody said that it is held"
    finally:
        for process in (alive, asleep, killed):
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
