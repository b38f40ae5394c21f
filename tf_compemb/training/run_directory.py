"""The run directory: where a run's files lie, and how they are written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_compemb.json_text import read_json
from tf_compemb.training.errors import UserError


class RunDirectory:
    """Paths of one training run.

    Args:
        path: The directory given as `--out`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.json"
        self.history = self.path / "history.csv"
        self.evaluation = self.path / "evaluation.json"
        self.checkpoints = self.path / "checkpoints"
        self.encoder = self.path / "encoder"
        self.logs = self.path / "logs"
        self.profile = self.path / "profile"
        self.model = self.path / "model"
        self.loss_plot = self.path / "loss.png"

    def check_new(self) -> None:
        """Makes sure that a run can be written here, without writing.

        Raises:
            UserError: The directory has files in it, is a file, or cannot be written.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(
                f"The run directory {self.path} is not empty: use --resume to go on with the run "
                "in it, or another --out."
            )
        check_writable(self.path)

    def create(self) -> None:
        """Makes the directory."""
        self.path.mkdir(parents=True, exist_ok=True)

    def read_config(self) -> dict[str, Any]:
        """What `config.json` holds.

        Raises:
            UserError: There is no run here, or its configuration is unreadable.
        """
        return self._read(self.config, "no run to read")

    def read_single_config(self) -> dict[str, Any]:
        """What `config.json` of one run holds, with `data`.

        Raises:
            UserError: As of `read_config`, or the directory holds a comparison of runs.
        """
        config = self.read_config()
        if "data" not in config:
            found = sorted(str(path.parent) for path in self.path.rglob("metrics.json"))
            named = ", ".join(found) or "none is finished"
            raise UserError(f"{self.path} compares several runs; give one of them: {named}.")
        return config

    def read_metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds.

        Raises:
            UserError: The run has not been finished.
        """
        return self._read(self.metrics, "no finished run; finish it with --resume")

    def finished_model(self) -> Path:
        """The file of the trained model.

        Raises:
            UserError: The run has not been finished.
        """
        file = self.model / "model.keras"
        if not file.exists():
            raise UserError(f"{self.path} has no finished run; finish it with --resume.")
        return file

    def _read(self, path: Path, otherwise: str) -> dict[str, Any]:
        try:
            return read_json(path.read_text())
        except OSError as error:
            raise UserError(f"{self.path} has no {path.name}: there is {otherwise}.") from error
        except ValueError as error:
            raise UserError(f"{path} is not valid JSON ({error}); it was damaged.") from error


def check_writable(path: Path, option: str = "--out") -> None:
    """Makes sure that a directory can be made or written at `path`, without making it.

    Args:
        path: The directory.
        option: What the user changes to get another one.

    Raises:
        UserError: It cannot; the message says why.
    """
    ancestor = path.absolute()
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise UserError(
            f"Cannot write to {path}: {ancestor} is not a directory. Use another {option}."
        )
    try:
        # Permissions do not tell all: a file system may be read-only, full, or not a real one.
        with tempfile.TemporaryDirectory(prefix=".tf_compemb-", dir=ancestor):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot write to {path}: {error.strerror} in {ancestor}. Use another {option}."
        ) from error


def default_out(model: str, method: str) -> str:
    """A new directory's name under `runs/`, with the time in it."""
    return str(Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{model}-{method}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` if no error comes up."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people to read, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a table, whole or not at all; None is an empty cell."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a table that `write_csv` wrote."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
