"""The threads that answer requests, and the bounds on how many and how large they may be."""

from __future__ import annotations

import asyncio
import functools
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
        most_bytes: Bytes of all these requests together; more are refused.
    """

    def __init__(self, threads: int, most_requests: int, most_bytes: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="requests")
        self._most, self._most_bytes = most_requests, most_bytes
        self._busy = self._bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(
        self, function: Callable[..., Result], *arguments: object, size: int = 0
    ) -> Result:
        """Runs a function; when the caller is cancelled, the function goes on and still counts.

        Args:
            function: What answers the request.
            *arguments: Its arguments.
            size: Bytes of the request.

        Raises:
            NativeError: RESOURCE_EXHAUSTED: too many requests, or too large ones.
        """
        if self._busy >= self._most:
            raise resource_exhausted(
                f"The server has {self._most} requests, as many as it takes; try again later"
            )
        if self._bytes + size > self._most_bytes:
            raise resource_exhausted(
                f"The server has {self._bytes} bytes of requests, and takes {self._most_bytes} at "
                "the same time; try again later"
            )
        self._busy += 1
        self._bytes += size
        self._idle.clear()
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        future.add_done_callback(functools.partial(self._done, size))
        return await asyncio.shield(future)

    def _done(self, size: int, future: asyncio.Future[Any]) -> None:
        self._busy -= 1
        self._bytes -= size
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
