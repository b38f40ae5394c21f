"""Memory that several threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedMemoryBound:
    """Hands out bytes; who asks for more than is left waits until others are done.

    Args:
        total: bytes to hand out.
    """

    def __init__(self, total: int):
        self._total = self._left = total
        self._freed = threading.Condition()

    @contextmanager
    def share(self, wanted: int) -> Iterator[int]:
        """Gives as many bytes as wanted, or all that there are, while the context lasts.

        >>> with SharedMemoryBound(100).share(30) as granted:
        ...     granted
        30
        >>> with SharedMemoryBound(100).share(130) as granted:
        ...     granted
        100
        """
        # At least one byte, which `number_field` divides by.
        granted = max(1, min(wanted, self._total))
        with self._freed:
            self._freed.wait_for(lambda: self._left >= granted)
            self._left -= granted
        try:
            yield granted
        finally:
            with self._freed:
                self._left += granted
                self._freed.notify_all()
