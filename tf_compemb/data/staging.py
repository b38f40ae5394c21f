"""The working files of a preparation: rows with local codes, and each field's distinct values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tf_compemb.data.criteo_format import (
    CATEGORICAL_FIELDS,
    DENSE_FIELDS,
    LABEL,
    record_dtype,
    transform_dense,
)
from tf_compemb.data.encoders import Encoder, encode_column


@dataclass(frozen=True)
class EncodedBlock:
    """A block of rows on its way to the stage.

    Attributes:
        rows: records `[rows]` whose ids are local codes.
        kept: for each field, what the encoder keeps of the block's distinct values.
        counts: for each field, the rows of each distinct value.
    """

    rows: np.ndarray
    kept: list[pa.Array]
    counts: list[np.ndarray]


def encode_table(table: pa.Table, encoder: Encoder) -> EncodedBlock:
    """Returns a parsed block (its columns of one chunk each) as records with local codes."""
    rows = np.empty(table.num_rows, dtype=record_dtype(encoder.id_type))
    label = table.column(LABEL).chunk(0)
    is_click = np.array([value == "1" for value in label.dictionary.to_pylist()], dtype=np.float32)
    rows["label"] = is_click[label.indices.to_numpy()]
    for i, name in enumerate(DENSE_FIELDS):
        values = table.column(name).chunk(0).fill_null(0).to_numpy()
        rows["dense"][:, i] = transform_dense(values)
    kept, counts = [], []
    for i, name in enumerate(CATEGORICAL_FIELDS):
        codes, distinct, count = encode_column(table.column(name).chunk(0))
        rows["categorical"][:, i] = codes
        kept.append(encoder.keep(distinct))
        counts.append(count)
    return EncodedBlock(rows, kept, counts)


class Stage:
    """Writes encoded blocks one after another, then gives them back field by field.

    Args:
        folder: an existing empty folder for the fields' values.
        rows_path: the file for the records.
        encoder: says what is kept of a field and how wide ids are.
    """

    def __init__(self, folder: Path, rows_path: Path, encoder: Encoder):
        self._folder = folder
        self._rows_path = rows_path
        self._dtype = record_dtype(encoder.id_type)
        self._schema = pa.schema([("kept", encoder.kept_type), ("count", pa.int32())])
        self._block_stops: list[int] = []
        self._rows_file = open(rows_path, "wb")  # noqa: SIM115 - closed by `close`
        self._fields = [
            pa.ipc.new_stream(str(self._field_path(name)), self._schema)
            for name in CATEGORICAL_FIELDS
        ]

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._block_stops[-1] if self._block_stops else 0

    def append(self, block: EncodedBlock) -> None:
        """Writes a block; one without rows is left out."""
        if not len(block.rows):
            return
        self._rows_file.write(block.rows.data)
        for writer, kept, counts in zip(self._fields, block.kept, block.counts, strict=True):
            writer.write_batch(
                pa.record_batch([kept, pa.array(counts, pa.int32())], schema=self._schema)
            )
        self._block_stops.append(self.rows + len(block.rows))

    def close(self) -> None:
        """Closes the files; nothing can be appended afterwards, reading begins."""
        self._rows_file.close()
        for writer in self._fields:
            writer.close()

    def block_ranges(self) -> list[tuple[int, int]]:
        """The `[start, stop)` rows of each block."""
        return list(zip([0, *self._block_stops], self._block_stops, strict=False))

    def read_field(self, index: int, train_stop: int) -> tuple[pa.ChunkedArray, np.ndarray]:
        """Returns what was kept of a field, a chunk a block, and counts over the training rows.

        Args:
            index: 0 for C1.
            train_stop: rows before this one are for training.

        Returns:
            The kept entries, and int32 `[entries]`: in how many training rows each occurs.
        """
        path = str(self._field_path(CATEGORICAL_FIELDS[index]))
        table = pa.ipc.open_stream(pa.memory_map(path)).read_all()
        counts = []
        for (start, stop), chunk in zip(
            self.block_ranges(), table.column("count").chunks, strict=True
        ):
            if stop <= train_stop:
                counts.append(chunk.to_numpy())
            elif start < train_stop:
                codes = self._read_rows(start, train_stop)["categorical"][:, index]
                counts.append(np.bincount(codes, minlength=len(chunk)).astype(np.int32))
            else:
                counts.append(np.zeros(len(chunk), dtype=np.int32))
        return table.column("kept"), np.concatenate(counts)

    def _read_rows(self, start: int, stop: int) -> np.ndarray:
        return np.fromfile(
            self._rows_path, self._dtype, stop - start, offset=start * self._dtype.itemsize
        )

    def _field_path(self, name: str) -> Path:
        return self._folder / f"{name}.arrows"
