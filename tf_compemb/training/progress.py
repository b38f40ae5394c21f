"""The progress bar of a training run."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class StepProgress:
    """A bar over the steps, with the last interval's loss; nothing where there is no terminal.

    Args:
        label: What is trained.
        total: Steps of the whole run.
        quiet: Show nothing.
    """

    def __init__(self, label: str, total: int, quiet: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task(label, total=total, loss="")

    def show(self, step: int, loss: float) -> None:
        """Moves the bar to a finished step; NaN is the loss until there is one."""
        shown = "" if math.isnan(loss) else f"loss {loss:.4f}"
        self._progress.update(self._task, completed=step, loss=shown)

    def __enter__(self) -> StepProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
