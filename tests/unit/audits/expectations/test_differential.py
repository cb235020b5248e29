"""The fast path against Great Expectations itself: over random tables and suites they say the same, to the last count."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_incremental.audits.expectations.fast import FORMS
from tests.unit.audits.expectations.cases import case
from tests.unit.audits.expectations.judges import differences

#: Expectations of each table: Great Expectations takes most of its time to set up a validation.
_EACH = 21


def test_both_paths_find_the_same_over_random_tables_and_suites() -> None:
    asked: Counter[str] = Counter()
    decided: Counter[str] = Counter()

    @settings(
        max_examples=settings.default.max_examples // 4,
        phases=[Phase.explicit, Phase.generate],  # nothing to shrink: a case is all of one number
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(seed=st.integers(0, 2**64))
    def judge(seed: int) -> None:
        table, expectations = case(seed, _EACH)
        found, by_duckdb = differences(table, expectations)
        assert not found, "\n".join([f"seed {seed}", *found])
        asked.update(e.type for e in expectations)
        decided.update(by_duckdb)

    judge()
    assert asked.total() >= 500
    assert decided.total() > 0.5 * asked.total()
    assert set(decided) == set(FORMS)  # each was compared, not only left alone
