"""The data program, run as a user runs it, and the reading of what it prepared."""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tf_compemb.benchmark.engines.child_program import run_program

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
    arguments = ("prepare", _raw_rows(rows), "--encoder", encoder)
    started = time.perf_counter()
    peak = run_program("tf_compemb.data", *arguments, "--out", _prepared_path(rows, encoder))
    seconds = time.perf_counter() - started
    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_rss_bytes": peak}


def _read(rows: int, encoder: str) -> dict[str, float]:
    path = _prepared_path(rows, encoder)
    if not path.exists():
        _prepare(rows, encoder)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        peak = run_program("tf_compemb.benchmark.engines.read_epoch", path, answer)
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
    arguments = ("generate", "--rows", str(rows), "--cardinalities", "kaggle")
    run_program("tf_compemb.data", *arguments, "--out", path)
    return path
