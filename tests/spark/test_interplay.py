"""What others do with Spark to the target and the source of a session while it is open: compaction, expiry, deletes, updates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.errors import PlanExpired, SourceRewritten, TargetChanged
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Finished, Session
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.runners import SharedRunner
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.victims import prepared, sql_of
from tests.spark.support.writers import MERGE_ON_READ, SparkWriter
from tests.support.world import SOURCE, TARGET, World, hour

#: Moments of a session at which something else happens: it is planned; the application was told what to read; it has written and
#: nothing is taken of it yet; it is sealed.
PLANNED, TOLD, WRITTEN, SEALED = "planned", "told", "written", "sealed"
MOMENTS = (PLANNED, TOLD, WRITTEN, SEALED)
FAR = "TIMESTAMP '2999-01-01 00:00:00'"


@attrs.define(kw_only=True)
class _Interrupted(SharedRunner):
    """Lets something happen before and after a job."""

    at: Callable[[str], None]

    def run(self, job: Mapping[str, Any]) -> None:
        self.at(TOLD)
        super().run(job)
        self.at(WRITTEN)


@attrs.frozen(kw_only=True)
class Scene:
    """A world with something to load, and Spark for others to use."""

    world: World
    catalog: SharedCatalog
    spark: SparkProcess

    @property
    def source(self) -> SparkWriter:
        """Writes to the source."""
        return SparkWriter(world=self.world, catalog=self.catalog, spark=self.spark)

    def sql(self, *statements: str) -> None:
        """Run statements."""
        self.spark.sql(self.catalog, *statements)

    def call(self, procedure: str, *arguments: str) -> None:
        """Call one of Iceberg's procedures for the target."""
        given = ", ".join([f"table => '{TARGET}'", *arguments])
        self.sql(f"CALL {self.catalog.name}.system.{procedure}({given})")

    def compact(self) -> None:
        """Write the target's data files anew."""
        self.call("rewrite_data_files", "options => map('rewrite-all', 'true')")

    def expire(self) -> None:
        """Forget all snapshots of the target but the heads of branches, and delete the files that only they had."""
        self.call("expire_snapshots", f"older_than => {FAR}", "retain_last => 1")

    def delete(self, where: str) -> None:
        """Delete rows of the target, by files of position deletes."""
        self.sql(
            f"ALTER TABLE {TARGET} SET TBLPROPERTIES ('write.delete.mode' = '{MERGE_ON_READ}')",
            f"DELETE FROM {TARGET} WHERE {where}",
        )

    def session(self, happens: Mapping[str, Callable[[], None]]) -> Finished:
        """Run a session, in which things happen at some moments."""
        left = dict(happens)

        def at(moment: str) -> None:
            if moment in left:
                left.pop(moment)()

        runner = _Interrupted(shared=self.catalog, transform=sql_of(self.world), spark=self.spark, at=at)
        session = plan(self.world.process(transform=runner))
        assert isinstance(session, Session)
        at(PLANNED)
        sealed = steps.load(session)
        at(SEALED)
        finished = steps.publish(session, steps.audit(session, sealed))
        assert not left
        return finished


@pytest.fixture
def scene(tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog) -> Callable[..., Scene]:
    """Make a scene."""
    return lambda mode, **options: Scene(
        world=prepared(tmp_path, mode, spark, jdbc_catalog, **options), catalog=jdbc_catalog, spark=spark
    )


def nothing_left(world: World) -> None:
    """Assert that the target is right, and that there is nothing to do."""
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do"


@pytest.mark.parametrize("mode", ["append", "stateful in steps", "merge"])
def test_the_target_is_compacted_all_the_time(scene: Callable[..., Scene], mode: str) -> None:
    found = scene(mode, target_fields=()) if mode == "append" else scene(mode)
    assert found.session(dict.fromkeys(MOMENTS, found.compact)).did_publish
    nothing_left(found.world)


@pytest.mark.parametrize("mode", ["overwrite", "merge"])
def test_snapshots_of_the_target_expire_all_the_time(scene: Callable[..., Scene], mode: str) -> None:
    found = scene(mode)
    assert found.session(dict.fromkeys(MOMENTS, found.expire)).did_publish
    nothing_left(found.world)


@pytest.mark.parametrize("moment", [TOLD, WRITTEN, SEALED])
def test_the_target_is_compacted_and_what_the_session_stands_on_expires(
    scene: Callable[..., Scene], moment: str
) -> None:
    """What was planned on is gone before the session is over: the session ends, and the next one starts over."""
    found = scene("overwrite")
    # The tag of the watermark holds on to what was published.
    found.compact()

    def happens() -> None:
        found.compact()
        found.expire()

    if moment == TOLD:
        # The branch of the attempt holds on to it until the rows are taken.
        assert found.session({moment: happens}).did_publish
    else:
        with pytest.raises(TargetChanged, match="has been expired"):
            found.session({moment: happens})
        assert steps.run(found.world.process()).did_publish
    nothing_left(found.world)


@pytest.mark.parametrize(
    ("mode", "where", "moments"),
    [
        ("append", "id = 2", [PLANNED, WRITTEN]),
        ("merge", "region = 'us'", [SEALED]),
    ],
)
def test_rows_of_the_target_that_a_session_does_not_replace_are_deleted(
    scene: Callable[..., Scene], mode: str, where: str, moments: list[str]
) -> None:
    """By position, in files that hold rows which are replaced as well: none of them comes back."""
    found = scene(mode, target_fields=())
    world = found.world
    before = world.target_rows()
    gone: Counter[tuple[Any, ...]] = Counter()

    def happens() -> None:
        now = world.target_rows()
        found.delete(where)
        gone.update(now - world.target_rows())

    if mode == "merge":
        # Whose rows are deleted by position is not looked up: the session gives way, and the next one writes the file anew.
        with pytest.raises(TargetChanged):
            found.session(dict.fromkeys(moments, happens))
        assert steps.run(world.process()).did_publish
    else:
        assert found.session(dict.fromkeys(moments, happens)).did_publish
    assert gone
    assert gone <= before
    assert world.target_rows() == world.oracle(world.source_rows()) - gone


@pytest.mark.parametrize(
    ("mode", "where", "moment"),
    [
        ("overwrite", "hour_ts = TIMESTAMP '2024-01-01 00:00:00' AND region = 'eu'", WRITTEN),
        ("stateful", "ts >= TIMESTAMP '2024-01-01 01:00:00'", PLANNED),
        ("merge", "region = 'eu'", SEALED),
    ],
)
def test_rows_of_the_target_that_a_session_replaces_are_deleted(
    scene: Callable[..., Scene], mode: str, where: str, moment: str
) -> None:
    """The session gives way; the next one computes them again."""
    found = scene(mode)
    with pytest.raises(TargetChanged):
        found.session({moment: lambda: found.delete(where)})
    assert steps.run(found.world.process()).did_publish
    nothing_left(found.world)


@pytest.mark.parametrize(
    ("mode", "policies", "moment"),
    [
        ("append", {}, WRITTEN),
        ("append", {"on_rewrite": "overwrite"}, TOLD),
        ("stateful in steps", {}, PLANNED),
        ("merge", {}, TOLD),
    ],
)
def test_rows_of_the_source_change_and_go(
    scene: Callable[..., Scene], mode: str, policies: Mapping[str, Any], moment: str
) -> None:
    """By position, with later compaction: the session loads what it was planned for, and the next one what came of it."""
    found = scene(mode, policies=policies)
    world, source = found.world, found.source
    planned = world.source_rows()

    def happens() -> None:
        source.mode(MERGE_ON_READ)
        source.update("v = v + 100, ts = ts + INTERVAL 1 HOUR", "id IN (2, 7)")
        source.delete("id IN (1, 8)")
        assert world.source.inspect.delete_files().num_rows

    assert found.session({moment: happens}).did_publish
    world.check(rows=planned)
    if mode == "append" and not policies:
        before = world.target_rows()
        with pytest.raises(SourceRewritten):
            steps.run(world.process())
        assert world.target_rows() == before
        return
    source.append(3, 4.5)
    assert found.session({moment: source.compact}).did_publish
    nothing_left(world)


@pytest.mark.parametrize(("mode", "moment"), [("overwrite", PLANNED), ("stateful", TOLD), ("merge", TOLD)])
def test_the_snapshot_that_was_planned_on_expires(scene: Callable[..., Scene], mode: str, moment: str) -> None:
    """With the files that only it had: the session ends, and the next one starts from the same watermark."""
    found = scene(mode)
    world, source = found.world, found.source
    planned = world.source.metadata.current_snapshot_id

    def happens() -> None:
        source.compact()
        source.append(5.5)
        source.sql(
            f"CALL {found.catalog.name}.system.expire_snapshots(table => '{SOURCE}', snapshot_ids => ARRAY({planned}L))"
        )
        assert planned not in {s.snapshot_id for s in world.source.metadata.snapshots}

    with pytest.raises(PlanExpired):
        found.session({moment: happens})
    assert steps.run(world.process()).did_publish
    nothing_left(world)


def test_others_append_to_the_target(scene: Callable[..., Scene]) -> None:
    found = scene("overwrite")
    insert = f"INSERT INTO {TARGET} VALUES (TIMESTAMP '2024-02-01 00:00:00', 'zz', 0, 0)"
    assert found.session(dict.fromkeys(MOMENTS, lambda: found.sql(insert))).did_publish
    rows = found.world.target_rows()
    assert rows - found.world.oracle(found.world.source_rows()) == {(hour(31 * 24), "zz", 0, 0): len(MOMENTS)}
