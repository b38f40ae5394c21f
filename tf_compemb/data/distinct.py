"""Distinct values among a field's entries, and shares of values that can be counted one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Distinct:
    """The distinct values among entries, in the order of first sight.

    Attributes:
        values: the values.
        codes: int32 `[entries]`, positions in `values`.
        first: int64, the entry at which each value is first seen.
        counts: int64, training rows of each value.
    """

    values: pa.Array
    codes: np.ndarray
    first: np.ndarray
    counts: np.ndarray


def find_distinct(entries: pa.ChunkedArray, train_counts: np.ndarray) -> Distinct:
    """Finds and counts the distinct values among entries.

    >>> found = find_distinct(pa.chunked_array([["b", "a"], ["b"]]), np.array([2, 0, 1]))
    >>> found.values.to_pylist(), found.codes.tolist(), found.first.tolist(), found.counts.tolist()
    (['b', 'a'], [0, 1, 0], [0, 1], [3, 0])
    """
    # A table of empty batches has no chunk at all.
    chunks = entries.dictionary_encode().chunks or [pa.array([], entries.type).dictionary_encode()]
    # All chunks have the same dictionary, in the order of first sight.
    values = chunks[-1].dictionary
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    counts = sum_counts(codes, train_counts, len(values))
    first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
    return Distinct(values, codes, first, counts)


def sum_counts(codes: np.ndarray, counts: np.ndarray, length: int) -> np.ndarray:
    """Returns the sum of the counts of each code, int64 `[length]`.

    >>> sum_counts(np.array([0, 2, 0]), np.array([1, 5, 3]), 3).tolist()
    [4, 0, 5]
    """
    # In float64, but exact: counts are of rows, of which there are fewer than 2^53.
    return np.bincount(codes, counts, minlength=length).astype(np.int64)


def share_of(values: pa.Array, shares: int) -> np.ndarray:
    """Returns which share each string belongs to, int64 `[n]`: a hash that never changes.

    >>> share_of(pa.array(["68fd1e64", "", "68fd1e64"], pa.large_string()), 4).tolist()
    [1, 0, 1]
    """
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    text = np.frombuffer(values.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    # A polynomial in the bytes; sums of ranges are differences of one running sum, modulo 2^64.
    base = np.full(int(lengths.max(initial=0)) + 1, 0x9E3779B97F4A7C15, dtype=np.uint64)
    powers = np.multiply.accumulate(base)
    place = np.arange(len(text)) - np.repeat(starts, lengths)
    sums = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum((text + np.uint64(1)) * powers[place], out=sums[1:])
    hashed = sums[starts + lengths] - sums[starts]
    hashed = (hashed ^ (hashed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((hashed >> np.uint64(32)) % np.uint64(shares)).astype(np.int64)
