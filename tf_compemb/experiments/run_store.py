"""Finished and unfinished runs on disk, by key: what is done is never done again."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from tf_compemb.training.run_directory import RunDirectory

_KEPT = ("config.json", "metrics.json", "history.csv")


class RunStore:
    """A folder with one run directory for each key.

    Of a finished run the configuration, the metrics and the history are kept; the model and the
    checkpoints, many times larger, are not. A run is claimed by a lock that its own process holds
    too: it stays claimed for the moment that this takes to end when the program that started it
    was killed, and several programs can work on one store.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def directory(self, key: str) -> RunDirectory:
        """Of a run."""
        return RunDirectory(self.path / key)

    def log(self, key: str) -> Path:
        """What a run's process prints."""
        return self.path / f"{key}.log"

    def is_finished(self, key: str) -> bool:
        """Whether a run's metrics are there."""
        return self.directory(key).metrics.exists()

    def metrics(self, key: str) -> dict[str, Any] | None:
        """Of a finished run; None of one that is not."""
        return self.directory(key).read_metrics() if self.is_finished(key) else None

    def claim(self, key: str) -> int | None:
        """Takes the lock of a run for this process and those that inherit it.

        Returns:
            A file descriptor that holds the lock as long as any process has it open; None while
            another process works on the run.
        """
        folder = self.directory(key).path
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def can_resume(self, key: str) -> bool:
        """Whether an earlier process got as far as the run's configuration; if not, clears it.

        To be called by who has claimed the run.
        """
        run = self.directory(key)
        if run.config.exists():
            return True
        self.clear(key)
        return False

    def clear(self, key: str) -> None:
        """Removes what is in a run's directory. To be called by who has claimed the run."""
        self._remove(key, keep=())

    def finish(self, key: str) -> None:
        """Removes what a finished run need not keep. To be called by who has claimed the run."""
        self._remove(key, keep=_KEPT)
        self.log(key).unlink(missing_ok=True)

    def _remove(self, key: str, keep: tuple[str, ...]) -> None:
        for path in self.directory(key).path.iterdir():
            if path.name in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
