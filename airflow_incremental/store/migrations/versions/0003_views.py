"""The views for people: what signals led to, and how far subscriptions are."""

from __future__ import annotations

from alembic import op

from airflow_incremental.store.views import VIEWS, create_view

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the views. A later version that changes one makes it anew."""
    for name, (comment, _) in VIEWS.items():
        op.execute(create_view(name))
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"COMMENT ON VIEW {name} IS '{comment}'")
