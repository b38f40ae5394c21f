"""How far a comparison is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tf_compemb.progress_lines import ProgressLines
from tf_compemb.serving.compare import Progress


class ShownProgress(Progress):
    """Shows the step that runs now, on standard error."""

    def __enter__(self) -> ShownProgress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        on_terminal = sys.stderr.isatty()
        self._steps = self._next = 0
        self._what = "starting"
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not on_terminal,
        )
        self._lines = ProgressLines(self._text, enabled=not on_terminal)
        self._bar.start()
        self._lines.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._lines.__exit__(kind, error, trace)

    def start(self, steps: int) -> None:
        """Makes the bar."""
        self._steps = steps
        self._task = self._bar.add_task("", total=steps)

    def step(self, what: str) -> None:
        """Shows a step; those before it are done."""
        self._bar.update(self._task, description=what, completed=self._next)
        self._next += 1
        self._what = what

    def _text(self) -> str:
        return f"[{self._next}/{self._steps}] {self._what}" if self._steps else self._what
