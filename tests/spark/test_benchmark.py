"""The benchmark of DuckDB against Spark runs, in tiny sizes, and checks what it measures. Never: how fast."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.__main__ import main


def test_the_benchmark_runs_and_says_where_the_time_went(tmp_path: Path) -> None:
    main(["spark", "--quick", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "spark.json").read_text())
    one, sessions = found["tables"].values()
    (session,) = [case for case in one if case["labels"]["what"] == "session on Spark"]
    phases = {name: seconds for name, seconds in session["counts"].items() if name != "executors"}
    assert min(phases.values()) > 0
    assert sum(phases.values()) * 1000 > 0.9 * session["timings"]["all"]["median_wall_ms"]
    assert [case["labels"]["load"] for case in sessions] == ["first load", "tick"]
    assert all(case["ratios"]["Spark / DuckDB"] > 0 for case in sessions)
    assert found["aims"]
