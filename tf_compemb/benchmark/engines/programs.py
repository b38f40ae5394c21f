"""The data program, run as a user runs it, and the reading of what it prepared."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("pyarrow", "tensorflow", "numpy")


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """Generates the raw rows; the call runs "prepare" or "read" on them.

    Both find `rows_per_second`, `seconds` and `peak_rss_bytes`.
    """
    rows, encoder = settings["rows"], settings["encoder"]
    _raw_rows(rows)
    if task == "prepare":
        return lambda: _prepare(rows, encoder)
    return lambda: _read(rows, encoder)


def _prepare(rows: int, encoder: str) -> dict[str, float]:
    program = [sys.executable, "-m", "tf_compemb.data", "prepare", str(_raw_rows(rows))]
    started = time.perf_counter()
    peak = _run([*program, "--encoder", encoder, "--out", str(_prepared_path(rows, encoder))])
    seconds = time.perf_counter() - started
    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_rss_bytes": peak}


def _read(rows: int, encoder: str) -> dict[str, float]:
    path = _prepared_path(rows, encoder)
    if not path.exists():
        _prepare(rows, encoder)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        program = [sys.executable, "-m", "tf_compemb.benchmark.engines.read_epoch"]
        peak = _run([*program, str(path), str(answer)])
        return {**json.loads(answer.read_text()), "peak_rss_bytes": peak}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    """Kept until the process ends."""
    return tempfile.TemporaryDirectory(prefix="tf_compemb_benchmark_")


def _prepared_path(rows: int, encoder: str) -> Path:
    return Path(_folder().name) / f"{rows}_{encoder}"


@functools.cache
def _raw_rows(rows: int) -> Path:
    path = Path(_folder().name) / f"{rows}.txt"
    program = [sys.executable, "-m", "tf_compemb.data", "generate", "--rows", str(rows)]
    _run([*program, "--cardinalities", "kaggle", "--out", str(path)])
    return path


def _run(command: list[str]) -> int:
    """Runs a program; its peak resident memory in bytes.

    Linux counts in the peak what this process had when it started the program, so nothing large
    may be imported here.

    Raises:
        RuntimeError: It failed; the message is its last line.
    """
    package = Path(__file__).resolve().parents[3]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"{command[3]} failed")
    return usage.ru_maxrss if sys.platform == "darwin" else 1024 * usage.ru_maxrss
