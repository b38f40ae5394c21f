"""What a preparation has finished, line by line, so that a killed one can go on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tf_compemb.data.manifest import WORK_FOLDER

JOURNAL_FILE = "journal.jsonl"


class CannotResumeError(Exception):
    """What an earlier run left does not fit the input or is damaged; the message says which."""


class Journal:
    """The finished steps of a preparation, in the folder of its working files.

    A line is written when what it tells of is on disk. A line that a kill cut off does not count.

    Args:
        folder: the unfinished data set; holds what an earlier run left, or nothing.
        identity: what must be equal for an earlier run's work to be of use, as JSON values.

    Attributes:
        work: the folder for working files; exists.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self._folder = folder
        self._identity = json.loads(json.dumps(identity))
        self.work = folder / WORK_FOLDER
        self._path = self.work / JOURNAL_FILE
        self._lines = self._read()

    def begin(self) -> bool:
        """Prepares to record steps; returns whether an earlier run has recorded some.

        Raises:
            CannotResumeError: an earlier run had other input or options, or left no journal.
        """
        if self._lines:
            if self._lines[0] != self._identity:
                raise CannotResumeError("its input or its options were others")
        elif any(self._folder.iterdir()):
            raise CannotResumeError("it is not known how far it had come")
        else:
            self.work.mkdir()
            self._append(self._identity)
        return len(self._lines) > 1

    def start_afresh(self) -> None:
        """Removes all that an earlier run left, and begins."""
        for entry in self._folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._lines = []
        self.begin()

    def remove(self) -> None:
        """Removes the working files; the journal itself last, because it says what is finished."""
        for entry in self.work.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != self._path:
                entry.unlink()
        shutil.rmtree(self.work)

    def records(self, step: str) -> list[dict[str, Any]]:
        """What was recorded of a step, in order."""
        return [line for line in self._lines[1:] if line["step"] == step]

    def add(self, step: str, **content: Any) -> None:
        """Records that something is finished."""
        self._append({"step": step, **content})

    def _append(self, line: dict[str, Any]) -> None:
        with open(self._path, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines.append(line)

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            os.truncate(self._path, len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            return []
