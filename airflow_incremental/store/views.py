"""Views for people who ask the store in SQL; a migration makes them, on both databases in the same words."""

from __future__ import annotations

#: View -> (what it says, its query).
VIEWS: dict[str, tuple[str, str]] = {
    "incremental_signal_lineage": (
        (
            "One row per signal and what it released (kind wait) or started (kind match): signal, seq, its emitter, and the "
            "task or run it led to, whose state is that of the wait, or claimed or unclaimed. Join it to itself on the run."
        ),
        """
        SELECT n.name AS signal, s.seq, s.created_at, s.dag_id AS from_dag, s.run_id AS from_run, s.task_id AS from_task,
               'wait' AS kind, w.id AS target, w.state AS state, w.deployment AS to_deployment, w.dag_id AS to_dag,
               w.run_id AS to_run, w.task_id AS to_task, w.closed_at AS happened_at
          FROM incremental_wait_signal ws
          JOIN incremental_wait w ON w.id = ws.wait_id
          JOIN incremental_signal s ON s.name_id = ws.name_id AND s.seq = ws.seq
          JOIN incremental_signal_name n ON n.id = s.name_id
        UNION
        SELECT n.name, s.seq, s.created_at, s.dag_id, s.run_id, s.task_id, 'match', m.id,
               CASE WHEN m.claimed_at IS NULL THEN 'unclaimed' ELSE 'claimed' END, m.deployment, m.dag_id,
               m.run_id, m.task_id, m.claimed_at
          FROM incremental_match_signal ms
          JOIN incremental_match m ON m.id = ms.match_id
          JOIN incremental_signal s ON s.name_id = ms.name_id AND s.seq = ms.seq
          JOIN incremental_signal_name n ON n.id = s.name_id
        """,
    ),
    "incremental_subscription_state": (
        (
            "One row per dependency of each open subscription: the signal, how far it was looked at, how many signals are ahead of "
            "that, and how many wait for their partners."
        ),
        """
        SELECT u.name AS subscription, c.position, c.signal, c.seq AS looked_through,
               COALESCE(n.last_seq, 0) - c.seq AS ahead,
               (SELECT COUNT(*) FROM incremental_candidate d WHERE d.subscription_id = u.id AND d.position = c.position) AS waiting,
               u.polled_at
          FROM incremental_subscription u
          JOIN incremental_checkpoint c ON c.subscription_id = u.id
          LEFT JOIN incremental_signal_name n ON n.name = c.signal
         WHERE u.state = 'open'
        """,
    ),
}


def create_view(name: str) -> str:
    """Return the statement that makes a view."""
    return f"CREATE VIEW {name} AS {VIEWS[name][1]}"
