"""The working files of a preparation: rows with local codes, and each field's distinct values."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tf_compemb.data.manifest import sha256_of

# Blocks of a part: about 2 million rows, what a killed preparation does again at most.
PART_BLOCKS = 64
ROWS = "rows.bin"
BLOCKS = "blocks.npy"


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
    """The working files of a preparation, in parts of `PART_BLOCKS` blocks.

    A part is a folder: `rows.bin`, the records with local codes; for each field a stream of what
    was kept of its values and in how many rows each occurs, a batch a block; `blocks.npy`, int64
    `[1 + 26, blocks]`, rows and entries of each block. Parts are written once and not changed.

    Args:
        folder: an existing folder.
        encoder: says what is kept of a field and how wide ids are.
    """

    def __init__(self, folder: Path, encoder: Encoder):
        self._folder = folder
        self.dtype = record_dtype(encoder.id_type)
        self._schema = pa.schema([("kept", encoder.kept_type), ("count", pa.int32())])
        self._sizes: list[np.ndarray] = []
        self._open_files: list[Any] = []
        self._open_sizes: list[list[int]] = []

    @property
    def parts(self) -> int:
        """Parts there are."""
        return len(self._sizes)

    @property
    def open_blocks(self) -> int:
        """Blocks of the part that is open."""
        return len(self._open_sizes)

    @property
    def open_rows(self) -> int:
        """Rows of the part that is open."""
        return sum(sizes[0] for sizes in self._open_sizes)

    @property
    def rows(self) -> int:
        """Rows of all closed parts."""
        return int(sum(sizes[0].sum() for sizes in self._sizes))

    def block_sizes(self, part: int) -> np.ndarray:
        """Rows and, of each field, entries of a part's blocks: int64 `[1 + 26, blocks]`."""
        return self._sizes[part]

    def append(self, block: EncodedBlock) -> None:
        """Writes a block to the part that is open, or opens one; one without rows is left out."""
        if not len(block.rows):
            return
        if not self._open_files:
            self._open_part()
        rows_file, *writers = self._open_files
        rows_file.write(block.rows.data)
        for writer, kept, counts in zip(writers, block.kept, block.counts, strict=True):
            batch = pa.record_batch([kept, pa.array(counts, pa.int32())], schema=self._schema)
            writer.write_batch(batch)
        self._open_sizes.append([len(block.rows), *(len(kept) for kept in block.kept)])

    def close_part(self) -> dict[str, str]:
        """Ends the part that is open, and returns the SHA-256 of its files."""
        self.close()
        folder = self._part_folder(self.parts)
        sizes = np.array(self._open_sizes, dtype=np.int64).T
        np.save(folder / BLOCKS, sizes)
        self._sizes.append(sizes)
        self._open_sizes = []
        return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}

    def close(self) -> None:
        """Closes the files."""
        for file in self._open_files:
            file.close()
        self._open_files = []

    def _open_part(self) -> None:
        folder = self._part_folder(self.parts)
        shutil.rmtree(folder, ignore_errors=True)  # begun by a run that was killed
        folder.mkdir()
        self._open_files = [open(folder / ROWS, "wb")]  # noqa: SIM115 - closed by `close`
        for name in CATEGORICAL_FIELDS:
            self._open_files.append(pa.ipc.new_stream(str(folder / f"{name}.arrows"), self._schema))

    def take_part(self, digests: Mapping[str, str]) -> bool:
        """Takes the next part as an earlier run left it, if its files are still what they were.

        Args:
            digests: the SHA-256 of the files that are needed, by name.
        """
        folder = self._part_folder(self.parts)
        for name, digest in digests.items():
            if not (folder / name).is_file() or sha256_of(folder / name) != digest:
                return False
        self._sizes.append(np.load(folder / BLOCKS))
        return True

    def read_rows(self, part: int) -> Iterator[np.ndarray]:
        """Yields the records of a part's blocks."""
        with open(self._part_folder(part) / ROWS, "rb") as file:
            for rows in self._sizes[part][0]:
                yield np.fromfile(file, self.dtype, rows)

    def read_codes(self, part: int, start: int, rows: int) -> np.ndarray:
        """Returns the local codes `[rows, 26]` of records from the part's record `start` on."""
        path = self._part_folder(part) / ROWS
        offset = start * self.dtype.itemsize
        return np.fromfile(path, self.dtype, rows, offset=offset)["categorical"]

    def drop_rows(self, part: int) -> None:
        """Removes a part's records, which are not needed any more."""
        (self._part_folder(part) / ROWS).unlink(missing_ok=True)

    def field(self, index: int, train_stop: int) -> StagedField:
        """What was kept of a field.

        Args:
            index: 0 for C1.
            train_stop: rows before this one are for training.
        """
        return StagedField(self, index, train_stop)

    def field_path(self, part: int, index: int) -> Path:
        """The stream of a field's values in a part."""
        return self._part_folder(part) / f"{CATEGORICAL_FIELDS[index]}.arrows"

    def _part_folder(self, part: int) -> Path:
        return self._folder / f"part-{part:06d}"


class StagedField:
    """What was kept of one field, a part at a time; may be gone through several times.

    Args: as of `Stage.field`.
    """

    def __init__(self, stage: Stage, index: int, train_stop: int):
        self._stage = stage
        self._index = index
        self._train_stop = train_stop
        self._paths = [stage.field_path(part, index) for part in range(stage.parts)]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self._paths)

    def __iter__(self) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """Yields, for each part, the entries, and int32 how many training rows each occurs in."""
        start = 0
        for part, path in enumerate(self._paths):
            with pa.OSFile(str(path)) as file:
                table = pa.ipc.open_stream(file).read_all()
            counts = self._train_counts(part, start, table.column("count"))
            yield table.column("kept").combine_chunks(), counts
            start += int(self._stage.block_sizes(part)[0].sum())

    def drop(self) -> None:
        """Removes the files."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _train_counts(self, part: int, start: int, counted: pa.ChunkedArray) -> np.ndarray:
        counts = np.array(counted.to_numpy(), dtype=np.int32)
        entry, record = 0, 0
        for rows, entries in self._stage.block_sizes(part)[[0, 1 + self._index]].T:
            if start + rows > self._train_stop:
                train = max(0, self._train_stop - start)
                codes = self._stage.read_codes(part, record, train)[:, self._index]
                counts[entry : entry + entries] = np.bincount(codes, minlength=entries)
            start, entry, record = start + rows, entry + entries, record + rows
        return counts
