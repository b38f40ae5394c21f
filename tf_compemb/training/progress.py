"""How far a training run is: a bar on a terminal, lines elsewhere."""

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

from tf_compemb.progress_lines import ProgressLines


class StepProgress:
    """A bar over the steps, with the last interval's loss; a line now and then without a terminal.

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
        self._text = f"{label}: step 0 of {total:,}"
        self._total = total
        self._label = label
        self._lines = ProgressLines(
            lambda: self._text, enabled=not quiet and not console.is_terminal
        )

    def show(self, step: int, loss: float) -> None:
        """Moves the bar to a finished step; NaN is the loss until there is one."""
        shown = "" if math.isnan(loss) else f"loss {loss:.4f}"
        self._progress.update(self._task, completed=step, loss=shown)
        text = f"{self._label}: step {step:,} of {self._total:,}"
        self._text = f"{text}, {shown}" if shown else text

    def __enter__(self) -> StepProgress:
        self._progress.start()
        self._lines.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._lines.__exit__(kind, error, traceback)
