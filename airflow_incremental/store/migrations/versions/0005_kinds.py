"""What people do by hand is in the session log as well."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Say which kinds of sessions there are; only a comment changes."""
    if op.get_bind().dialect.name == "postgresql":
        comment = "load, positions, reload or restatement; by hand: rollback, set or reset"
        op.alter_column("incremental_session", "kind", comment=comment)
