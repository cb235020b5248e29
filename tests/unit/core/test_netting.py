"""The net effect of snapshots on files, and what of it changed rows that were there before."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_incremental.core.netting import Net, RowDeletes, Step, net


def step(
    number: int,
    added: str = "",
    removed: str = "",
    *,
    replaces: bool = False,
    deletes: Iterable[tuple[str, str | None]] = (),
) -> Step[str]:
    """One snapshot; each letter is a file, and deletes are (delete file, letters it can touch or None)."""
    return Step(
        snapshot_id=number,
        replaces=replaces,
        added={f: f"{f}+" for f in added},
        removed={f: f"{f}-" for f in removed},
        deletes=tuple(RowDeletes(name, None if touches is None else frozenset(touches)) for name, touches in deletes),
    )


def names(found: Net[str]) -> tuple[str, str]:
    return "".join(sorted(found.added)), "".join(sorted(found.removed))


def test_appends_add_up() -> None:
    found = net([step(1, "ab"), step(2, "c")])
    assert names(found) == ("abc", "")
    assert not found.rewrites


def test_what_came_and_went_is_nothing() -> None:
    found = net([step(1, "ab"), step(2, removed="a")])
    assert names(found) == ("b", "")
    assert not found.rewrites


def test_rewriting_only_new_rows_is_no_rewrite() -> None:
    found = net([step(1, "ab"), step(2, "c", removed="a")])
    assert names(found) == ("bc", "")
    assert not found.rewrites


def test_removing_old_files_is_a_rewrite() -> None:
    found = net([step(1, "x", removed="o")])
    assert names(found) == ("x", "o")
    assert found.removed == {"o": "o-"}
    assert set(found.rewrites) == {1}
    assert (found.rewrites[1].added, found.rewrites[1].removed) == ({"x": "x+"}, {"o": "o-"})


def test_compaction_of_old_files_is_nothing() -> None:
    found = net([step(1, "c", "op", replaces=True)])
    assert names(found) == ("", "")
    assert not found.rewrites


def test_compaction_of_new_files_puts_the_new_file_in_their_place() -> None:
    assert names(net([step(1, "ab"), step(2, "c", "ab", replaces=True)])) == ("c", "")
    chain = [step(1, "ab"), step(2, "c", "ab", replaces=True), step(3, "d"), step(4, "e", "cd", replaces=True)]
    assert names(net(chain)) == ("e", "")


def test_compaction_of_new_and_old_files_keeps_the_new_ones() -> None:
    assert names(net([step(1, "a"), step(2, "c", "ao", replaces=True)])) == ("a", "")
    twice = [step(1, "a"), step(2, "c", "ao", replaces=True), step(3, "d", "c", replaces=True)]
    assert names(net(twice)) == ("a", "")


def test_removing_a_mixed_compaction_removes_old_rows() -> None:
    found = net([step(1, "a"), step(2, "c", "ao", replaces=True), step(3, "d", "c")])
    assert names(found) == ("ad", "c")
    assert set(found.rewrites) == {3}
    assert not found.rewrites[3].unread


def test_compaction_that_leaves_nothing_of_new_files_adds_nothing() -> None:
    assert names(net([step(1, "a"), step(2, "", "a", replaces=True)])) == ("", "")


def test_a_rewritten_file_that_is_rewritten_again_nets_out() -> None:
    found = net([step(1, "x", "o"), step(2, "y", "x")])
    assert names(found) == ("y", "o")
    assert set(found.rewrites) == {1, 2}


def test_new_rows_in_a_rewrite_are_still_unread() -> None:
    found = net([step(1, "a"), step(2, "x", "ao")])
    assert names(found) == ("x", "o")
    assert found.rewrites[2].unread == {"a": "a+"}


def test_deletes_on_new_files_alone_are_no_rewrite() -> None:
    found = net([step(1, "ab"), step(2, "c", deletes=[("d", "a")])])
    assert names(found) == ("abc", "")
    assert (found.deletes, dict(found.rewrites)) == ((), {})


def test_deletes_on_old_or_unknown_files_are_a_rewrite() -> None:
    for touches in ("o", None, "ao"):
        found = net([step(1, "a"), step(2, "x", deletes=[("d", touches)])])
        assert found.deletes == ("d",)
        assert found.rewrites[2].deletes == ("d",)
        assert found.rewrites[2].added == {"x": "x+"}


def test_a_file_that_is_taken_out_and_put_back_is_both() -> None:
    found = net([step(1, removed="o"), step(2, "o")])
    assert names(found) == ("o", "o")
