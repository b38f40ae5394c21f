"""What the machine can do at best: NumPy reads the same rows of one table, and nothing else.

The table has a row for each id of all fields. "lookup" gathers the batch's rows into an array that
exists already, in one thread or in one for each core, whichever is faster. "step" does that, and
then reads and writes each distinct row once, which any update must.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from tf_compemb.benchmark import inputs

PACKAGES = ("numpy",)


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], None]:
    """A function that gathers one batch's rows ("lookup"), and updates them ("step")."""
    sizes = inputs.scaled_cardinalities(settings["rows"])
    batches = inputs.id_batches(sizes, settings["batch"]) + inputs.offsets(sizes)
    flat = [batch.reshape(-1) for batch in batches]
    table = np.ones((sum(sizes), settings["dim"]), np.float32)
    out = np.empty((len(flat[0]), settings["dim"]), np.float32)
    gather = _fastest_gather(table, flat, out)
    if task == "lookup":
        batch_of_turn = cycle(flat)
        return lambda: gather(next(batch_of_turn))
    pairs = cycle([(ids, np.unique(ids)) for ids in flat])

    def step() -> None:
        ids, distinct = next(pairs)
        gather(ids)
        rows = out[: len(distinct)]
        np.take(table, distinct, axis=0, out=rows, mode="clip")
        table[distinct] = rows

    return step


def _fastest_gather(
    table: np.ndarray, batches: list[np.ndarray], out: np.ndarray
) -> Callable[[np.ndarray], None]:
    def one_thread(ids: np.ndarray) -> None:
        # Not mode="raise", which would gather into a copy first.
        np.take(table, ids, axis=0, out=out, mode="clip")

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(cores)
    bounds = np.linspace(0, len(out), (cores or 1) + 1).astype(int)
    parts = [slice(a, b) for a, b in pairwise(bounds)]

    def all_cores(ids: np.ndarray) -> None:
        def gather(part: slice) -> None:
            np.take(table, ids[part], axis=0, out=out[part], mode="clip")

        list(pool.map(gather, parts))

    return min((one_thread, all_cores), key=lambda gather: _seconds(gather, batches))


def _seconds(gather: Callable[[np.ndarray], None], batches: list[np.ndarray]) -> float:
    times = []
    for ids in batches:
        started = time.perf_counter()
        gather(ids)
        times.append(time.perf_counter() - started)
    return float(np.median(times))
