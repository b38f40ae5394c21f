"""Where a training step's time goes: a TensorBoard trace of a few steps, and a table of it.

The trace has an event for each run of a TensorFlow operation on a CPU, with the operation's scope.
The table adds them up by scope and kind. Operations run side by side on several threads, so the sum
is the threads' time, not the step's; the step's own duration is measured beside it. Operations on a
GPU are in the trace but not in the table.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_compemb._keras import keras

# The first execution traces the graph, the second still allocates.
WARM_UP_EXECUTIONS = 2
PROFILED_STEPS = 32

INPUT = "input: waiting for the next batch"
LOOKUP = "embedding lookup"
LOOKUP_GRADIENT = "embedding gradient"
NETWORK = "network forward"
NETWORK_GRADIENT = "network gradient"
ROW_UPDATE = "update: rows of tables read, merged, written"
UPDATE = "update: arithmetic, rows and network"
OTHER = "other"
PARTS = (INPUT, LOOKUP, LOOKUP_GRADIENT, NETWORK, NETWORK_GRADIENT, ROW_UPDATE, UPDATE, OTHER)

_OPERATION = re.compile(r"([\w./-]+):_?([A-Za-z]\w*)")
_LOOP = re.compile(r"while/body/_\d+/|while/")
# They contain other operations.
_CONTAINERS = {"While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall"}
_CONTAINERS |= {"StatefulPartitionedCall"}
# What only a row-sparse update does.
_ROW_OPERATIONS = {"Unique", "UniqueV2", "SparseTensorDenseMatMul", "ScatterNd", "GatherV2"}


class ProfileCallback(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Traces some steps once the first executions are over.

    Args:
        folder: Takes the trace, in the layout that TensorBoard's profile plugin reads.

    Attributes:
        steps: Steps that were traced; 0 where the training was too short.
        seconds: Their duration.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._executions = 0
        self._tracing = False
        self._begun = 0.0
        self._first = 0
        self.steps = 0
        self.seconds = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the trace when it is time."""
        if self._executions == WARM_UP_EXECUTIONS and not self.steps:
            tf.profiler.experimental.start(str(self._folder))
            self._tracing = True
        self._first = batch
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the execution, and stops the trace when it has enough."""
        self._executions += 1
        if self._tracing:
            self.seconds += time.perf_counter() - self._begun
            self.steps += batch - self._first + 1
            if self.steps >= PROFILED_STEPS:
                self._stop()

    def on_train_end(self, logs: Any = None) -> None:
        """Stops the trace of a training that was too short for all of it."""
        if self._tracing:
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._tracing = False


def summarize(callback: ProfileCallback, folder: Path, tables: str, optimizer: str) -> Any:
    """What a trace says of a step.

    Args:
        callback: Has written the trace.
        folder: Where.
        tables: Name of the embedding layer.
        optimizer: Name of the optimiser.

    Returns:
        `steps`, `step_milliseconds`, and `thread_milliseconds` of each of `PARTS`, a step.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    # Folders are named by time; a resumed run has more than one.
    path = max(folder.rglob("*.xplane.pb"))
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    totals = add_up(_events(space), tables, optimizer)
    return {
        "steps": callback.steps,
        "step_milliseconds": 1e3 * callback.seconds / callback.steps,
        "thread_milliseconds": {part: totals[part] / callback.steps for part in PARTS},
    }


def add_up(events: Iterable[tuple[str, float]], tables: str, optimizer: str) -> dict[str, float]:
    """Adds the events' durations up by `PARTS`; events that are no operation are left out.

    >>> events = [("while/dlrm/tables/Gather:ResourceGather", 2.0), ("train", 9.0)]
    >>> add_up(events, "tables", "Adagrad")["embedding lookup"]
    2.0
    """
    totals = dict.fromkeys(PARTS, 0.0)
    for name, duration in events:
        part = _part_of(name, tables, optimizer)
        if part is not None:
            totals[part] += duration
    return totals


def _part_of(name: str, tables: str, optimizer: str) -> str | None:
    if name == "IteratorGetNextOp::DoCompute":
        return INPUT
    operation = _OPERATION.fullmatch(name)
    if operation is None or operation[2] in _CONTAINERS or operation[2] == "PyFunc":
        return None
    scopes = _LOOP.sub("", operation[1]).split("/")
    if scopes[0] == "gradient_tape":
        return LOOKUP_GRADIENT if tables in scopes else NETWORK_GRADIENT
    if tables in scopes:
        return LOOKUP
    if optimizer in scopes:
        by_rows = operation[2] in _ROW_OPERATIONS or operation[2].startswith("Resource")
        return ROW_UPDATE if by_rows else UPDATE
    return NETWORK if len(scopes) > 2 else OTHER


def _events(space: Any) -> Iterable[tuple[str, float]]:
    """Name and milliseconds of all events on the host."""
    for plane in space.planes:
        if plane.name.startswith("/host:CPU"):
            for line in plane.lines:
                for event in line.events:
                    yield plane.event_metadata[event.metadata_id].name, event.duration_ps / 1e9
