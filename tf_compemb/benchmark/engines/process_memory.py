"""What the tables and the optimiser's state of a collection take in this process."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tf_compemb.benchmark.engines import keras_tensorflow

PACKAGES = keras_tensorflow.PACKAGES
_SMALL_ROWS = 1_000
_STEPS = 3


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """Loads what a step needs, on small tables; the call then makes the large ones."""
    del task
    step = _make_step({**settings, "rows": _SMALL_ROWS})[1]
    step()
    return lambda: _measure(settings)


def _measure(settings: dict[str, Any]) -> dict[str, float]:
    from tf_compemb import optimizers

    before = resident_bytes()
    layer, step = _make_step(settings)
    tables = resident_bytes()
    for _ in range(_STEPS):
        step()
    after = resident_bytes()
    size = layer.footprint()
    slots = optimizers.slots_per_parameter(settings["optimizer"], settings["dim"])
    return {
        "rss_bytes": tables - before,
        "footprint_bytes": size.training_bytes,
        "state_rss_bytes": after - tables,
        "state_bytes": size.optimizer_bytes(slots),
    }


def _make_step(settings: dict[str, Any]) -> tuple[Any, Callable[[], Any]]:
    layer, ids = keras_tensorflow.layer_and_ids(settings)
    steps: list[Callable[[], Any]] = []

    def step() -> None:
        if not steps:
            steps.append(keras_tensorflow.embedding_step(layer, ids, settings))
        steps[0]()

    return layer, step


def resident_bytes() -> int:
    """Anonymous resident memory of this process, once what is free was given back.

    Raises:
        OSError: The system is not Linux.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
