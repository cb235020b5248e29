"""Many small runs on one database: it is opened once, and each run finds it as if it were new."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest

from airflow_incremental.core.errors import TransformError
from airflow_incremental.engines import duckdb as engine
from airflow_incremental.engines.worker import TransformInterrupted
from tests.unit.engines.support import ENGINE, hours, plan, read_of, run
from tests.unit.engines.test_interrupt import FOREVER

ONE, TWO = pa.table({"id": [1]}), pa.table({"id": [2, 2], "more": pa.array(["x", "y"], pa.large_string())})


def test_it_is_opened_once_and_closed(tmp_path: Path) -> None:
    with patch.object(engine, "open_connection", wraps=engine.open_connection) as opened:
        with ENGINE.kept_open(tmp_path):
            for rows in (ONE, TWO, ONE):
                assert run("SELECT * FROM src", read_of(rows), work_dir=tmp_path / "elsewhere").equals(rows)
            assert len(list(tmp_path.iterdir())) == 1
        assert opened.call_count == 1
        assert list(tmp_path.iterdir()) == []
        assert run("SELECT * FROM src", read_of(TWO)).equals(TWO)
        assert opened.call_count == 2, "afterwards each run has its own again"


@pytest.mark.parametrize("order_by", [(), ("n",)])
def test_no_run_sees_what_another_one_had_or_made(order_by: tuple[str, ...]) -> None:
    def careless(relations: Any, _: Any) -> Any:
        relations["src"].create("left_behind")
        return relations["src"].query("src_", "SELECT count(*) AS n FROM left_behind")

    with ENGINE.kept_open():
        for _ in range(2):
            assert run(careless, read_of(ONE), read_of(TWO, "other"), order_by=order_by)["n"].to_pylist() == [1]
        for name in ("left_behind", "other"):
            with pytest.raises(TransformError, match=f"{name}"):
                run(f"SELECT * FROM {name}", read_of(ONE))
        ranges = run("SELECT count(*) AS n FROM plan_ranges", read_of(ONE), of=plan(replaced=hours(1, 3)))
        assert ranges["n"].to_pylist() == [2]


def test_a_run_that_fails_leaves_the_next_one_alone() -> None:
    with ENGINE.kept_open():
        for wrong in ("SELECT 1 / 0 FROM nowhere", "SELECT error('no') AS n FROM src", lambda *_: 1 / 0):
            with pytest.raises(TransformError):
                run(wrong, read_of(ONE))
            assert run("SELECT * FROM src", read_of(ONE)).equals(ONE)
        with ENGINE.run("SELECT * FROM src", [read_of(ONE)], plan(), target_schema=None):
            pass  # nobody pulls the rows
        assert run("SELECT * FROM src", read_of(ONE)).equals(ONE)


def test_it_can_be_stopped() -> None:
    with ENGINE.kept_open():
        threading.Timer(0.3, ENGINE.interrupt).start()
        with pytest.raises(TransformInterrupted):
            run(FOREVER, read_of(ONE))
        assert run("SELECT * FROM src", read_of(ONE)).equals(ONE)


def test_times_are_in_utc_and_variables_out_of_reach() -> None:
    invisible = ONE  # noqa: F841
    with ENGINE.kept_open():
        rows = run("SELECT current_setting('TimeZone') AS zone FROM src", read_of(ONE))
        assert rows["zone"].to_pylist() == ["UTC"]
        with pytest.raises(TransformError, match="invisible"):
            run("SELECT * FROM invisible", read_of(ONE))


def test_the_database_does_not_grow_with_the_runs(tmp_path: Path) -> None:
    rows = pa.table({"id": [n * 2_654_435_761 % 2**40 for n in range(1_000_000)]})  # too mixed to be compressed
    sizes = []
    with ENGINE.kept_open(tmp_path):
        for _ in range(6):
            assert run("SELECT count(DISTINCT id) AS n FROM src", read_of(rows))["n"].to_pylist() == [1_000_000]
            sizes.append(sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()))
    assert 1_000_000 < sizes[-1] <= 2 * sizes[0], sizes
