from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_incremental.triggers.within import within


def test_it_returns_what_is_there_in_time() -> None:
    async def scene() -> int:
        return await within(60, asyncio.sleep(0, 7))

    assert asyncio.run(scene()) == 7


def test_an_error_comes_through() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(within(60, fails()))


def test_what_takes_too_long_is_cancelled() -> None:
    async def scene() -> bool:
        slow = asyncio.ensure_future(asyncio.sleep(60))
        with pytest.raises(asyncio.TimeoutError):
            await within(0.01, slow)
        await asyncio.sleep(0)
        return slow.cancelled()

    assert asyncio.run(scene())


@pytest.mark.parametrize("done", [False, True], ids=["while it waits", "in the moment in which it is done"])
def test_a_wait_that_is_cancelled_hears_it(*, done: bool) -> None:
    async def scene() -> None:
        awaited: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waits = asyncio.ensure_future(within(60, awaited))
        await asyncio.sleep(0)
        if done:
            awaited.set_result(1)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert awaited.done()

    asyncio.run(scene())
