"""How far a grid is: a bar on a terminal, a line a run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tf_compemb.experiments.plan import Run


class GridProgress:
    """Follows all runs of a command.

    Args:
        total: Runs.
        describe: What became of a run, in a few words.
    """

    def __init__(self, total: int, describe: Callable[[Run], str]) -> None:
        console = Console(stderr=True)
        self._describe = describe
        self._console = console
        self._total = total
        self._done = self._computed = 0
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remains]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("runs", total=total, remains="")

    def finished(self, run: Run, seconds: float) -> None:
        """Counts a run.

        Args:
            run: The run.
            seconds: It took; 0 for one that was done before.
        """
        self._done += 1
        self._computed += seconds > 0
        remains = self._remains()
        self._progress.update(self._task, completed=self._done, remains=remains)
        if seconds > 0:
            text = f"[{self._done}/{self._total}] {self._describe(run)}, {seconds:.0f} s"
            if not self._console.is_terminal and remains:
                text += f"; {remains}"
            self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _remains(self) -> str:
        left = self._total - self._done
        if not self._computed or not left:
            return ""
        rate = (time.monotonic() - self._started) / self._computed
        return f"about {duration(left * rate)} left"

    def __enter__(self) -> GridProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(40), duration(600), duration(5400), duration(300_000)
    ('40 s', '10 min', '1.5 h', '3.5 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
