"""The side file of lines that were left out, and the share above which that is an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tf_compemb.data.errors import DataError
from tf_compemb.data.journal import CannotResumeError
from tf_compemb.data.line_checks import BadLine

FILE_NAME = "bad_lines.tsv"
# Below so many lines the share says little; at the end it is checked whatever their number.
LINES_BEFORE_EARLY_STOP = 100_000


class BadLineLog:
    """Writes bad lines to `FOLDER/bad_lines.tsv`: file, line number, reason, the line as it was.

    The file exists only when there is such a line.

    Args:
        folder: where the side file is written.
        max_share: above this share of all lines, from 0 to 1, it is an error.
        names: how each raw file is named in the side file.
        state: what `state` gave in an earlier run, which this one goes on with.

    Raises:
        DataError: `max_share` is out of range.
        CannotResumeError: the side file of the earlier run is damaged.
    """

    def __init__(
        self,
        folder: Path,
        max_share: float,
        names: dict[Path, str],
        state: Mapping[str, Any] | None = None,
    ):
        if not 0 <= max_share <= 1:
            raise DataError(f"`max_bad_share` must be from 0 to 1. Received: {max_share}")
        self._path = folder / FILE_NAME
        self._max_share = max_share
        self._names = names
        self._file: BinaryIO | None = None
        self._first: tuple[str, int, str] | None = None
        self._lines = 0
        self.count = 0
        if state is not None:
            self._go_on(state)
        else:
            self._path.unlink(missing_ok=True)

    def add(self, good_lines: int, bad: list[BadLine]) -> None:
        """Counts a block's lines and writes its bad ones; stops early when there are far too many.

        Raises:
            DataError: the share of bad lines is above the maximum already.
        """
        if bad and self._file is None:
            self._file = open(self._path, "ab")  # noqa: SIM115 - closed by `close`
            self._first = self._first or (str(bad[0].path), bad[0].line, bad[0].reason)
        for line in bad:
            assert self._file is not None
            head = f"{self._names[line.path]}\t{line.line}\t{line.reason}\t"
            self._file.write(head.encode() + line.text + b"\n")
        self._lines += good_lines + len(bad)
        self.count += len(bad)
        if self._lines >= LINES_BEFORE_EARLY_STOP:
            self.check_share()

    def check_share(self) -> None:
        """Raises a `DataError` if the share of bad lines so far is above the maximum."""
        if self._first is not None and self.count > self._max_share * self._lines:
            path, line, reason = self._first
            raise DataError(
                f"{path}: {self.count} of {self._lines} lines are bad, more than "
                f"max_bad_share={self._max_share} allows (the first is line {line}: {reason}); "
                "correct the file or raise max_bad_share (--max-bad-share)."
            )

    def state(self) -> dict[str, Any]:
        """Where the log is, as JSON values; what was added is on its way to the disk."""
        if self._file is not None:
            self._file.flush()
        size = self._path.stat().st_size if self.count else 0
        return {"lines": self._lines, "bad": self.count, "bytes": size, "first": self._first}

    def _go_on(self, state: Mapping[str, Any]) -> None:
        self._lines, self.count = state["lines"], state["bad"]
        if not self.count:
            self._path.unlink(missing_ok=True)
            return
        self._first = tuple(state["first"])
        if not self._path.is_file() or self._path.stat().st_size < state["bytes"]:
            raise CannotResumeError(f"{self._path.name} is damaged")
        os.truncate(self._path, state["bytes"])

    def close(self) -> None:
        """Closes the side file."""
        if self._file is not None:
            self._file.close()
