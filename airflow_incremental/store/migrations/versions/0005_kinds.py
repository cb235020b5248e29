"""What people do by hand is in the session log too; a wait lasts until its task is cleared, and long joins are kept as a hash."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

_COMMENTS = {
    ("incremental_session", "kind"): "load, positions, reload or restatement; by hand: rollback, set or reset",
    ("incremental_wait", "id"): "of the wait; the same for all tries of a task until it is cleared",
    ("incremental_candidate", "join_value"): "JSON of the encoded values of the join's parameters, or its hash",
}


def upgrade() -> None:
    """Say so; only comments change."""
    if op.get_bind().dialect.name == "postgresql":
        for (table, column), comment in _COMMENTS.items():
            op.alter_column(table, column, comment=comment)
