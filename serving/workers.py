"""The threads that answer requests, and the bound on how many requests there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tf_compemb.serving.status_codes import resource_exhausted

Result = TypeVar("Result")


class Workers:
    """Runs functions in threads, for coroutines of one event loop.

    Args:
        threads: Requests that run at the same time.
        most_requests: Requests that run or wait; one more is refused.
    """

    def __init__(self, threads: int, most_requests: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="requests")
        self._most = most_requests
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Runs a function; when the caller is cancelled, the function goes on and still counts.

        Raises:
            NativeError: RESOURCE_EXHAUSTED: too many requests.
        """
        if self._busy >= self._most:
            raise resource_exhausted(
                f"The server has {self._most} requests, as many as it takes; try again later"
            )
        self._busy += 1
        self._idle.clear()
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()
        if not future.cancelled():
            future.exception()  # Seen: a cancelled caller does not ask.

    async def idle(self) -> None:
        """Returns when no request is left."""
        await self._idle.wait()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True)
