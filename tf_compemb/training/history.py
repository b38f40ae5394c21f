"""The course of a run: loss over intervals of steps, as CSV and for TensorBoard."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tf_compemb.training.run_directory import RunDirectory, read_csv, write_csv

COLUMNS = (
    "step",
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_auc",
    "validation_accuracy",
)


def _write_scalar(tag: str, value: float, step: int) -> None:
    """`tf.summary.scalar`, which would need TensorBoard installed only to write its file."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    )
    tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=metadata)


class History:
    """Rows of `history.csv`.

    `step` counts finished steps from the run's beginning, `epoch` is from 1, `train_loss` is the
    mean cross entropy (nats) over the rows since the row before; the validation columns are empty
    where none took place, and where the validation part does not define them.

    Args:
        run: The run's directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self.rows: list[list[Any]] = []

    @functools.cached_property
    def _writer(self) -> Any:
        """Of TensorBoard's file, which is made with the first row: before it there is no run."""
        return tf.summary.create_file_writer(str(self._run.logs))

    def restore(self, step: int) -> None:
        """Reads the rows up to and including a step that an earlier process wrote."""
        if self._run.history.exists():
            rows = [[row[name] for name in COLUMNS] for row in read_csv(self._run.history)]
            self.rows = [row for row in rows if int(row[0]) <= step]

    def add(
        self,
        step: int,
        epoch: int,
        train_loss: float,
        validation: dict[str, float | None] | None,
    ) -> None:
        """Adds a row.

        Args:
            step: Finished steps.
            epoch: Number of the epoch, from 1.
            train_loss: Mean over the interval.
            validation: `quality` of the validation part, or None.
        """
        measured = validation or {}
        found = [measured.get(name) for name in ("loss", "auc", "accuracy")]
        self.rows.append([step, epoch, train_loss, *found])
        with self._writer.as_default():
            _write_scalar("loss/train", train_loss, step)
            for name, value in measured.items():
                if value is not None:
                    _write_scalar(f"{name}/validation", value, step)

    def write(self) -> None:
        """Writes `history.csv` and what TensorBoard reads."""
        write_csv(self._run.history, COLUMNS, self.rows)
        self._writer.flush()

    def close(self) -> None:
        """Ends TensorBoard's file."""
        self._writer.close()
