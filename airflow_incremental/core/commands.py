"""Command lines that errors name, spelled so that they can be pasted into a shell."""

from __future__ import annotations

import shlex


def abandon_command(target: str, process: str) -> str:
    """Return the command that ends the open session of a process."""
    return _command("session", "abandon", target, *_named(target, process), "--reason", ...)


def rollback_command(target: str, process: str, session: str) -> str:
    """Return the command that takes a target back to before a session."""
    return _command("rollback", target, *_named(target, process), "--to", session, "--reason", ...)


def list_command(target: str, process: str) -> str:
    """Return the command that lists the sessions of a process."""
    return _command("session", "list", target, *_named(target, process))


def watermark_command(verb: str, target: str, process: str) -> str:
    """Return the beginning of a command on the watermark of a process: ``show``, ``set`` or ``reset``."""
    return _command("watermark", verb, target, *_named(target, process))


def _named(target: str, process: str) -> list[str]:
    return [] if process == target else [process]


def _command(*words: object) -> str:
    said = " ".join("..." if word is ... else shlex.quote(str(word)) for word in words)
    return f"'airflow-incremental {said}'"
