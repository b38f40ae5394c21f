"""Ctrl-C and kill while training: the run ends after its current step and a checkpoint."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class TrainingInterrupted(Exception):  # noqa: N818  Not an error.
    """The run was asked to end before it was done.

    Attributes:
        signal_number: What asked for it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class InterruptionGuard:
    """Context in which the first SIGINT or SIGTERM is noted and the second ends at once.

    Attributes:
        received: Number of the noted signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal_number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> InterruptionGuard:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
