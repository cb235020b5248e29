"""The command line, ``airflow-incremental``."""

from __future__ import annotations

import typer

app = typer.Typer(name="airflow-incremental", no_args_is_help=True, add_completion=False)


def main() -> None:
    """Run the command line."""
    app()
