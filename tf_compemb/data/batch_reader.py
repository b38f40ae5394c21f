"""Batches of a prepared data set as tf.data, faster than any training step takes them.

Rows are read with plain reads and not through a memory map, so that the data set's pages do not
count as memory of the training process. TensorFlow asks for several batches at once and cuts them
apart itself: a call from TensorFlow into Python costs more than a small batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_compemb.data.batch_order import RowOrder, Window

if TYPE_CHECKING:
    import tensorflow as tf

# Rows handed to TensorFlow at once (one batch if that is larger): 6 MB.
ROWS_A_CALL = 16_384

Features = tuple[dict[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class BatchReader:
    """Reads one split of a file of records, batch by batch.

    Args:
        path: the records.
        dtype: one record: label, dense, categorical.
        first_row: where the split begins in the file.
        order: the order of the split's rows.
        batch_size: rows of a batch.
        steps: batches in an epoch; the last may be smaller.
    """

    path: Path
    dtype: np.dtype
    first_row: int
    order: RowOrder
    batch_size: int
    steps: int

    def stacks(self, start_step: int) -> Iterator[Features]:
        """Yields stacks of batches, `[batches, rows, ...]`, from batch `start_step` on.

        All batches of a stack have the same number of rows; a smaller last one is a stack of one.
        """
        size = self.batch_size
        left = min(self.order.rows, self.steps * size) - start_step * size
        per_stack = max(1, ROWS_A_CALL // size) * size
        pieces: list[np.ndarray] = []
        held = 0
        for rows in self._windows(start_step * size):
            pieces.append(rows[: max(0, left - held)])
            held += len(pieces[-1])
            while held >= per_stack or (held == left and held > 0):
                joined = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
                whole = min(per_stack, held // size * size) or held
                yield stack_rows(joined[:whole], min(size, whole))
                pieces, held, left = [joined[whole:]], held - whole, left - whole
            if not left:
                return

    def _windows(self, first: int) -> Iterator[np.ndarray]:
        with open(self.path, "rb", buffering=0) as file:
            for window in self.order.windows(first):
                yield self._read_window(file, window)

    def _read_window(self, file: FileIO, window: Window) -> np.ndarray:
        rows = sum(stop - start for start, stop in window.ranges)
        records = np.empty(rows, dtype=self.dtype)
        filled = records.view(np.uint8).data
        at = 0
        for start, stop in window.ranges:
            file.seek((self.first_row + start) * self.dtype.itemsize)
            end = at + (stop - start) * self.dtype.itemsize
            while at < end:
                count = file.readinto(filled[at:end])
                if not count:
                    raise EOFError(f"{self.path}: the file became shorter while it was read")
                at += count
        if window.permutation is None:
            return records[window.skip :]
        # Rows as plain words: taking whole words is faster than taking structures.
        words = records.view("<u4").reshape(rows, -1)
        return np.take(words, window.permutation[window.skip :], axis=0).view(self.dtype)[:, 0]


def stack_rows(records: np.ndarray, batch_size: int) -> Features:
    """Returns records `[n * batch_size]` as features and labels `[n, batch_size, ...]`."""
    records = records.reshape(-1, batch_size)
    features = {
        "dense": np.ascontiguousarray(records["dense"]),
        "categorical": records["categorical"].astype(np.int64),
    }
    return features, np.ascontiguousarray(records["label"])[:, :, None]


def make_dataset(
    reader: BatchReader, start_step: int, *, full_batches: bool, prefetch: int | None = None
) -> tf.data.Dataset:
    """Returns the reader's batches from `start_step` on as a `tf.data.Dataset`.

    The auto-sharding policy is DATA: a batch is global, every worker reads the same order (there
    are no files to share out) and takes its part of each batch.

    Args:
        reader: gives the batches.
        start_step: the first batch.
        full_batches: every batch has `batch_size` rows, which then is a static shape.
        prefetch: batches to have ready; None leaves the number to TensorFlow.
    """
    import tensorflow as tf

    rows = reader.batch_size if full_batches else None
    fields = {name: reader.dtype[name].shape[0] for name in ("dense", "categorical")}
    signature = (
        {
            "dense": tf.TensorSpec((None, rows, fields["dense"]), tf.float32),
            "categorical": tf.TensorSpec((None, rows, fields["categorical"]), tf.int64),
        },
        tf.TensorSpec((None, rows, 1), tf.float32),
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: reader.stacks(start_step), output_signature=signature
    )
    dataset = dataset.prefetch(1).unbatch()
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality(max(0, reader.steps - start_step))
    )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(prefetch or tf.data.AUTOTUNE).with_options(options)
