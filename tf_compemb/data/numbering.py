"""The ids of one field's entries, from what all blocks kept of it, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from tf_compemb.data.distinct import find_distinct
from tf_compemb.data.encoders import Encoder, HashEncoder, VocabularyEncoder
from tf_compemb.data.errors import DataError
from tf_compemb.data.field_files import FieldFiles
from tf_compemb.data.spilled_numbering import SpilledNumbering, count_ids

DEFAULT_MEMORY = 1 << 30
# What numbering takes, measured, for each byte that the field has on disk.
MEMORY_A_BYTE = 8
# Each share has a few open files, of which a process may have about 1000.
MOST_SHARES = 200
LARGEST_CARDINALITY = 2**31


class Entries(Protocol):
    """What was kept of a field, in pieces that fit in memory; can be gone through again."""

    @property
    def size(self) -> int:
        """Bytes on disk."""

    def __iter__(self) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """Yields pieces: entries, and int32 in how many training rows each occurs."""


def memory_of(entries: Entries) -> int:
    """Bytes that numbering a field takes where nothing bounds them."""
    return entries.size * MEMORY_A_BYTE


def number_field(
    name: str, entries: Entries, encoder: Encoder, files: FieldFiles, folder: Path, memory: int
) -> int:
    """Writes a field's ids, frequencies and vocabulary.

    The result does not depend on `memory`.

    Args:
        name: `"C1"` to `"C26"`.
        entries: what all blocks kept of the field.
        encoder: which ids.
        files: takes the results.
        folder: an empty one for temporary files.
        memory: about how many bytes this may take.

    Returns:
        The cardinality: ids are in `[0, cardinality)`.

    Raises:
        DataError: the field has more categories than 32-bit ids.
    """
    shares = max(1, min(-(-memory_of(entries) // memory), MOST_SHARES))
    if isinstance(encoder, HashEncoder):
        count_ids(entries, encoder, files, folder, shares)
        return encoder.buckets
    assert isinstance(encoder, VocabularyEncoder)
    if shares == 1:
        categories = _number_in_memory(entries, encoder.min_count, files)
    else:
        spilled = SpilledNumbering(encoder.min_count, files, folder, shares)
        categories = spilled.number(entries)
    if categories >= LARGEST_CARDINALITY:
        raise DataError(
            f"Field {name} has {categories} categories, more than 32-bit ids can tell apart; "
            "raise min_count or use the hash encoder."
        )
    return 1 + categories


def _number_in_memory(entries: Entries, min_count: int, files: FieldFiles) -> int:
    """Numbers the categories of a vocabulary and returns how many there are."""
    pieces, train_counts = zip(*entries, strict=True)
    found = find_distinct(pa.chunked_array(pieces), np.concatenate(train_counts))
    frequent = found.counts >= min_count
    ids = np.where(frequent, np.cumsum(frequent), 0).astype(np.int32)
    files.add_counts(found.counts[~frequent].sum(dtype=np.int64, keepdims=True))
    files.add_counts(found.counts[frequent])
    files.add_categories(found.values.filter(pa.array(frequent)))
    files.add_ids(ids[found.codes])
    return int(np.count_nonzero(frequent))
