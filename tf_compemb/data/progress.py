"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Bytes done of all bytes, and rows a second, on standard error when that is a terminal.

    Args:
        title: what is being done.
        total_bytes: bytes there are to do; None when unknown.
        enabled: False shows nothing even on a terminal.
    """

    def __init__(self, title: str, total_bytes: int | None, *, enabled: bool = True):
        self._title = title
        self._total = total_bytes
        self._bar: Any = None
        self._task: Any = None
        self._rows = 0
        self._enabled = enabled and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self._enabled:
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add_bytes(self, count: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def add_rows(self, count: int) -> None:
        """Counts rows, for the rate."""
        self._rows += count
        if self._bar is not None:
            seconds = max(self._bar.tasks[0].elapsed or 0.0, 1e-3)
            note = f"{self._rows:,} rows, {self._rows / seconds:,.0f} rows/s"
            self._bar.update(self._task, note=note)

    def show(self, title: str) -> None:
        """Names the step that runs now."""
        if self._bar is not None:
            self._bar.update(self._task, description=title)

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TextColumn("{task.fields[note]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total, note="")
