"""Workers over one iterator: N requests in flight with N tasks, however many numbers there are."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable


async def in_lanes(
    connections: int, nums: Iterable[int], fetch: Callable[[int], Awaitable[None]]
) -> None:
    """Call `fetch` for every number, at most `connections` at a time, in as many tasks."""
    shared = iter(nums)

    async def lane() -> None:
        for num in shared:
            await fetch(num)

    await asyncio.gather(*(lane() for _ in range(connections)))
