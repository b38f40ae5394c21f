"""What a preparation writes of one field, a piece at a time: ids, frequencies, vocabulary.

The bytes do not depend on how the pieces were cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from tf_compemb.data import manifest as manifests
from tf_compemb.data.encoders import Encoder
from tf_compemb.data.new_folder import sync_file

# Categories of a record batch of the vocabulary's file.
CATEGORIES_A_BATCH = 1 << 20


class FieldFiles:
    """Takes the pieces in order; used inside `field_files`.

    Args:
        ids: takes the ids of the staged entries.
        counts: takes the frequencies, without their header.
        vocabulary: takes the categories; None where no vocabulary is kept.
    """

    def __init__(self, ids: Path, counts: Path, vocabulary: Path | None, stack: ExitStack):
        self._ids = stack.enter_context(ids.open("wb"))
        self._counts = stack.enter_context(counts.open("wb"))
        self._writer = None
        if vocabulary is not None:
            schema = pa.schema([("category", pa.large_string())])
            self._writer = stack.enter_context(pa.ipc.new_file(str(vocabulary), schema))
        self._held: list[pa.Array] = []
        self._held_categories = 0

    def add_ids(self, ids: np.ndarray) -> None:
        """Appends the ids of the next staged entries."""
        self._ids.write(np.ascontiguousarray(ids).data)

    def add_counts(self, counts: np.ndarray) -> None:
        """Appends frequencies, int64 `[n]` or pairs `[n, 2]`."""
        self._counts.write(np.ascontiguousarray(counts).data)

    def add_categories(self, categories: pa.Array) -> None:
        """Appends categories in the order of their ids."""
        self._held.append(categories)
        self._held_categories += len(categories)
        if self._held_categories >= CATEGORIES_A_BATCH:
            self._write_batches(CATEGORIES_A_BATCH)

    def finish(self) -> None:
        """Writes what is held back."""
        if self._writer is not None and self._held_categories:
            self._write_batches(1)

    def _write_batches(self, at_least: int) -> None:
        assert self._writer is not None
        held = pa.concat_arrays(self._held)
        while len(held) >= at_least:
            batch, held = _compact(held[:CATEGORIES_A_BATCH]), held[CATEGORIES_A_BATCH:]
            self._writer.write_batch(pa.record_batch([batch], names=["category"]))
        self._held, self._held_categories = [held], len(held)


def _compact(strings: pa.Array) -> pa.Array:
    """The same strings in buffers of their own; those of a slice would show in the file."""
    _, offsets, text = strings.buffers()
    ends = np.frombuffer(offsets, np.int64)[strings.offset :][: len(strings) + 1]
    data = (text or pa.py_buffer(b""))[ends[0] : ends[-1]]
    buffers = [None, pa.py_buffer(ends - ends[0]), data]
    return pa.Array.from_buffers(pa.large_string(), len(strings), buffers)


@contextmanager
def field_files(folder: Path, work: Path, name: str, encoder: Encoder) -> Iterator[FieldFiles]:
    """Gives the writer of a field's files, which are complete when the block ends.

    Args:
        folder: the data set; `frequencies/` and, if there is one, `vocabulary/` exist.
        work: takes the ids, and what is not complete.
        name: `"C1"` to `"C26"`.
        encoder: whether there is a vocabulary; without one frequencies are pairs (id, count).
    """
    has_vocabulary = encoder.name == "vocabulary"
    vocabulary = folder / manifests.vocabulary_file(name) if has_vocabulary else None
    counts = work / f"{name}.counts"
    with ExitStack() as stack:
        files = FieldFiles(ids_path(work, name), counts, vocabulary, stack)
        yield files
        files.finish()
    frequencies = folder / manifests.frequencies_file(name)
    _as_npy(counts, frequencies, () if has_vocabulary else (2,))
    counts.unlink()
    sync_file(frequencies)
    if vocabulary is not None:
        sync_file(vocabulary)


def ids_path(work: Path, name: str) -> Path:
    """The file with the ids of a field's staged entries."""
    return work / f"{name}.ids"


def _as_npy(raw: Path, target: Path, row: tuple[int, ...]) -> None:
    """Copies int64 numbers to a file as `np.save` writes it, without holding them."""
    length = raw.stat().st_size // (8 * int(np.prod(row)))
    header = {"descr": "<i8", "fortran_order": False, "shape": (length, *row)}
    with open(raw, "rb") as source, open(target, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(source, file, 1 << 22)
