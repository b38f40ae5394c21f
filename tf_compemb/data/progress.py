"""A progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tf_compemb.progress_lines import ProgressLines


class Progress:
    """Bytes done of all bytes, and rows a second, on standard error.

    Args:
        title: what is being done.
        total_bytes: bytes there are to do; None when unknown.
        enabled: False shows nothing.
    """

    def __init__(self, title: str, total_bytes: int | None, *, enabled: bool = True):
        self._title = title
        self._total = total_bytes
        self._bar: Any = None
        self._task: Any = None
        self._bytes = self._rows = 0
        self._is_read = False
        self._started = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self._draws = enabled and on_terminal
        self._lines = ProgressLines(self._text, enabled=enabled and not on_terminal)

    def __enter__(self) -> Progress:
        if self._draws:
            self._start()
        self._lines.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._lines.__exit__(kind, error, trace)

    def add_bytes(self, count: int) -> None:
        """Moves the bar."""
        self._bytes += count
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def add_rows(self, count: int) -> None:
        """Counts rows, for the rate."""
        self._rows += count
        if self._bar is not None:
            self._bar.update(self._task, note=self._note())

    def show(self, title: str) -> None:
        """Names the step that runs now."""
        self._title, self._is_read = title, True
        if self._bar is not None:
            self._bar.update(self._task, description=title)

    def _note(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        return f"{self._rows:,} rows, {self._rows / seconds:,.0f} rows/s"

    def _text(self) -> str:
        """A line, for where there is no bar."""
        if self._is_read:
            return f"{self._title} {self._rows:,} rows"
        done = f"{self._bytes / 1e6:,.0f} MB"
        if self._total is not None:
            done = f"{self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
        return f"{self._title}: {done}, {self._note()}"

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
