"""Lines of progress for logs and pipes, where no bar can be drawn."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType

_FIRST_SECONDS = 10.0
_LONGEST_SECONDS = 60.0


class ProgressLines:
    """Says on standard error what is being done: after 10, 30 and 70 seconds, then every minute.

    Short work says nothing.

    Args:
        text: What is being done now; empty text is not shown.
        enabled: False says nothing at all.
    """

    def __init__(self, text: Callable[[], str], *, enabled: bool = True) -> None:
        self._text = text
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True) if enabled else None

    def __enter__(self) -> ProgressLines:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _talk(self) -> None:
        seconds = _FIRST_SECONDS
        while not self._ended.wait(seconds):
            if text := self._text():
                print(text, file=sys.stderr, flush=True)
            seconds = min(2 * seconds, _LONGEST_SECONDS)
