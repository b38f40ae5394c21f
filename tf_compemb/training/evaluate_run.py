"""A finished run's quality on another file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb.data import DataError, encode_raw
from tf_compemb.training.environment import peak_rss_bytes
from tf_compemb.training.errors import UserError
from tf_compemb.training.evaluation import Evaluator
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory, write_json
from tf_compemb.training.run_encoder import encoder_of_run
from tf_compemb.training.saved_runs import load_run

_BATCH_SIZE = 2048


def evaluate_run(run: RunDirectory, path: str, options: TrainingOptions) -> dict[str, Any]:
    """Evaluates the run's model on raw rows and writes `evaluation.json`.

    The rows are encoded as the run's own training data were. All keys are those of
    `metrics.json`: `test_*`, `examples_per_second` (reading included) and `peak_rss_bytes` are of
    this evaluation, the rest is the run's. `evaluated_file` and `evaluated_rows` say what was read.

    Args:
        run: A finished run.
        path: Raw file, plain or gzip, or a glob.
        options: Their `bad_lines` says what becomes of malformed lines.

    Raises:
        UserError: The run is not finished, its encoder is gone, or the file is at fault.
    """
    metrics = run.read_metrics()
    encoder = encoder_of_run(run)
    model = load_run(run.path)
    started = time.perf_counter()
    batches = _Batches(encode_raw(path, encoder, options.bad_lines == "skip"))
    try:
        found = Evaluator(model)(iter(batches))
    except DataError as error:
        raise UserError(str(error)) from error
    if not batches.rows:
        raise UserError(f"{path}: no row is left; give a file with Criteo rows.")
    seconds = time.perf_counter() - started
    metrics.update(
        {f"test_{name}": value for name, value in found.items()},
        examples_per_second=batches.rows / seconds,
        peak_rss_bytes=peak_rss_bytes(),
        wall_seconds=seconds,
        evaluated_file=str(path),
        evaluated_rows=batches.rows,
    )
    write_json(run.evaluation, metrics)
    return metrics


class _Batches:
    """Batches of encoded rows, counted as they go.

    Attributes:
        rows: How many rows there have been.
    """

    def __init__(self, parts: Iterator[np.ndarray]) -> None:
        self._parts = parts
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[dict[str, tf.Tensor], tf.Tensor]]:
        for part in self._parts:
            self.rows += len(part)
            for start in range(0, len(part), _BATCH_SIZE):
                batch = part[start : start + _BATCH_SIZE]
                features = {
                    "dense": tf.constant(batch["dense"]),
                    "categorical": tf.constant(batch["categorical"], tf.int64),
                }
                yield features, tf.constant(batch["label"].reshape(-1, 1))
