"""Requests that arrive together run together: one run of the session for many small requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_compemb.native_session import NativeError, NativeSession
from tf_compemb.serving.status_codes import invalid_argument

Key = tuple[Any, ...]


@dataclass(frozen=True)
class BatchingOptions:
    """Bounds of a batch.

    Attributes:
        max_batch_size: Rows of a batch, and of a request.
        timeout_seconds: How long the first request of a batch waits for others.
    """

    max_batch_size: int
    timeout_seconds: float


@dataclass(eq=False)
class _Batch:
    requests: list[_Request] = field(default_factory=list)
    rows: int = 0
    full: bool = False


@dataclass(eq=False)
class _Request:
    inputs: dict[str, np.ndarray]
    rows: int
    outputs: dict[str, np.ndarray] | None = None
    error: Exception | None = None
    done: bool = False


class Batcher:
    """Puts requests for one version together.

    Requests share a batch when signature, outputs, dtypes and all sizes but the first agree. The
    thread of a batch's first request waits for others and runs it. When a batch fails, each of its
    requests runs alone, so that a wrong id in one is no error of the others.

    Args:
        session: The model.
        options: Bounds of a batch.
    """

    def __init__(self, session: NativeSession, options: BatchingOptions) -> None:
        self._session, self._options = session, options
        self._open: dict[Key, _Batch] = {}
        self._changed = threading.Condition()

    def run(
        self, signature_name: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """As `NativeSession.run`; all inputs and outputs have the rows as their first axis.

        Raises:
            NativeError: INVALID_ARGUMENT: inputs without or with different numbers of rows, or more
                rows than a batch has; otherwise as `NativeSession.run`.
        """
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        request = _Request(arrays, self._rows(arrays))
        shapes = [(name, a.dtype.name, a.shape[1:]) for name, a in sorted(arrays.items())]
        key = (signature_name, tuple(outputs or ()), tuple(shapes))
        with self._changed:
            batch = self._open.get(key)
            leads = batch is None or batch.rows + request.rows > self._options.max_batch_size
            if batch is None or leads:
                if batch is not None:
                    self._close(key, batch)
                batch = self._open[key] = _Batch()
            batch.requests.append(request)
            batch.rows += request.rows
            if batch.rows == self._options.max_batch_size:
                self._close(key, batch)
            if leads:
                self._wait_for_others(key, batch)
        if leads:
            self._run(batch, signature_name, outputs)
        with self._changed:
            self._changed.wait_for(lambda: request.done)
        if request.error is not None:
            raise request.error
        assert request.outputs is not None
        return request.outputs

    def _rows(self, arrays: Mapping[str, np.ndarray]) -> int:
        sizes = {array.shape[0] if array.ndim else None for array in arrays.values()}
        if len(sizes) != 1 or None in sizes:
            raise invalid_argument(
                "Batching input tensors must all have the same 0th dimension. Received: "
                + ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            )
        (rows,) = sizes
        if rows is None or rows > self._options.max_batch_size:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size "
                f"{self._options.max_batch_size}"
            )
        return rows

    def _close(self, key: Key, batch: _Batch) -> None:
        batch.full = True
        if self._open.get(key) is batch:
            del self._open[key]
        self._changed.notify_all()

    def _wait_for_others(self, key: Key, batch: _Batch) -> None:
        deadline = time.monotonic() + self._options.timeout_seconds
        self._changed.wait_for(lambda: batch.full, max(deadline - time.monotonic(), 0))
        self._close(key, batch)

    def _run(self, batch: _Batch, signature_name: str, outputs: Sequence[str] | None) -> None:
        try:
            if len(batch.requests) > 1 and self._run_together(batch, signature_name, outputs):
                return
            for request in batch.requests:
                try:
                    request.outputs = self._session.run(signature_name, request.inputs, outputs)
                except Exception as error:
                    request.error = error
        finally:
            with self._changed:
                for request in batch.requests:
                    request.done = True
                self._changed.notify_all()

    def _run_together(
        self, batch: _Batch, signature_name: str, outputs: Sequence[str] | None
    ) -> bool:
        names = batch.requests[0].inputs
        joined = {
            name: np.concatenate([request.inputs[name] for request in batch.requests])
            for name in names
        }
        try:
            results = self._session.run(signature_name, joined, outputs)
        except NativeError:
            return False
        if any(array.ndim == 0 or len(array) != batch.rows for array in results.values()):
            return False
        first = 0
        for request in batch.requests:
            last = first + request.rows
            request.outputs = {name: array[first:last] for name, array in results.items()}
            first = last
        return True
