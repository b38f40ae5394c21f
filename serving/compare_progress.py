"""How far a comparison is: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tf_compemb.serving.compare import Progress


class TerminalProgress(Progress):
    """Shows the step that runs now, on standard error."""

    def __enter__(self) -> TerminalProgress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start(self, steps: int) -> None:
        """Makes the bar."""
        self._task = self._bar.add_task("", total=steps)
        self._next = 0

    def step(self, what: str) -> None:
        """Shows a step; those before it are done."""
        self._bar.update(self._task, description=what, completed=self._next)
        self._next += 1
