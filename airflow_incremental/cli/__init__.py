"""The command line, ``airflow-incremental``.

It runs where Airflow is configured, as the ``airflow`` command does: connections are found in the environment, in secrets backends
and in Airflow's own database.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout

import typer
from rich.console import Console

from airflow_incremental.core.errors import IncrementalError

app = typer.Typer(
    name="airflow-incremental",
    help="Loads, what people do to them by hand, maintenance, signals and the session log of airflow-incremental.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; what is wrong is said in a sentence, with exit code 1."""
    # Airflow's code looks for connections in its own database only where it is told that it may.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    # It logs to what the standard output is when it is imported, and that is where the answer of a command goes.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    with redirect_stdout(sys.stderr):
        from airflow_incremental.cli import maintain, plan, rollback, session, signals, store, subscriptions, watermark

    app.command()(plan.plan)
    app.add_typer(store.app, name="store")
    app.add_typer(signals.app, name="signals")
    app.add_typer(subscriptions.app, name="subscriptions")
    app.command("rollback")(rollback.rollback)
    app.add_typer(watermark.app, name="watermark")
    app.add_typer(session.app, name="session")
    app.command("maintain")(maintain.maintain)
    try:
        app()
    except IncrementalError as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"Error: {error}", style="red", markup=False, highlight=False, emoji=False)
        sys.exit(1)
