from __future__ import annotations

import attrs
import pytest

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import read_dependencies
from airflow_incremental.store.database import Store
from airflow_incremental.store.searching import since
from airflow_incremental.store.waits import (
    BYPASS,
    bypass,
    close_wait,
    find_waits,
    open_wait,
    release,
    signals_of_wait,
    wait_id,
)
from tests.support.stores import TASK, say

WANTED = read_dependencies([{"name": "a"}, {"name": "b"}])
ID = wait_id(TASK, clear_number=0)


def test_tries_share_a_wait_and_clears_do_not() -> None:
    assert wait_id(attrs.evolve(TASK, try_number=2, source="x"), clear_number=0) == ID
    others = {
        wait_id(TASK, clear_number=1),
        wait_id(attrs.evolve(TASK, map_index=1), clear_number=0),
        wait_id(attrs.evolve(TASK, run_id="other"), clear_number=0),
        wait_id(attrs.evolve(TASK, deployment="other"), clear_number=0),
    }
    assert len(others | {ID}) == 5


def test_a_wait_is_released_once_and_keeps_what_released_it(store: Store) -> None:
    assert open_wait(store, ID, WANTED, TASK).state == "open"
    first = [say(store, "a", n=1).signal, say(store, "b", n=1).signal]
    other = [say(store, "a", n=2).signal, say(store, "b", n=2).signal]

    assert release(store, ID, first).state == "released"
    assert release(store, ID, other).state == "released"
    assert open_wait(store, ID, WANTED, TASK).state == "released", "a later try finds it"
    with store.read() as conn:
        assert signals_of_wait(conn, ID) == first
        (found,) = find_waits(conn, dag_id="dag", run_id="run", task_id="task")
    assert (found.task, found.state) == (attrs.evolve(TASK, source="task"), "released")
    assert close_wait(store, ID, "timed_out").state == "released"


def test_one_that_was_given_up_is_opened_again(store: Store) -> None:
    open_wait(store, ID, WANTED, TASK)
    assert close_wait(store, ID, "timed_out").state == "timed_out"
    assert open_wait(store, ID, WANTED[:1], TASK).state == "open"
    with store.read() as conn:
        (found,) = find_waits(conn, state="open")
    assert found.dependencies == [WANTED[0].to_json()]


def test_a_bypass_is_kept_with_who_and_why_and_pollers_hear_of_it(store: Store) -> None:
    open_wait(store, ID, WANTED, TASK)

    found = bypass(store, ID, by="anna", reason="the source is late, and we know")

    assert (found.state, found.closed_by, found.reason) == ("bypassed", "anna", "the source is late, and we know")
    with store.read() as conn:
        (said,) = since(conn, {BYPASS: 0}, limit=10)
        assert signals_of_wait(conn, ID) == []
    assert said.params == {"wait": ID}
    assert release(store, ID, []).state == "bypassed"
    with pytest.raises(ArgumentError, match="is bypassed"):
        bypass(store, ID, by="anna", reason="again")


def test_a_bypass_says_who_and_why_and_of_what(store: Store) -> None:
    with pytest.raises(ArgumentError, match="there is no wait nowhere"):
        bypass(store, "nowhere", by="anna", reason="why not")
    with pytest.raises(ArgumentError, match="no author or no reason"):
        bypass(store, ID, by="anna", reason=" ")
