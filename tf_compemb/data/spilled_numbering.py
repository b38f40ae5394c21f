"""Numbering of a field that memory does not hold, over files that are read from front to back.

The entries are split by value into shares, each of which fits. All entries of a value lie in
one share, so its training rows are counted there. The shares' categories are then merged in the
order of first sight, which numbers them, and the numbers go back to the entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tf_compemb.data.distinct import find_distinct, share_of
from tf_compemb.data.encoders import HashEncoder
from tf_compemb.data.field_files import FieldFiles

Pieces = Iterable[tuple[pa.Array, np.ndarray]]

_ENTRIES = pa.schema([("value", pa.large_string()), ("train", pa.int32())])
_CATEGORIES = pa.schema(
    [("place", pa.int32()), ("count", pa.int64()), ("value", pa.large_string())]
)


class SpilledNumbering:
    """Numbers the categories of one vocabulary.

    A share has these files: `entries`, its entries with their training rows, a batch for each piece
    of the field; `places`, where in its piece each entry stands; `codes`, which of the share's
    distinct values it is; `categories`, the values that get an id, a batch for each piece in which
    they are first seen; `numbers`, their ids; `ids`, the ids of the entries.

    Args:
        min_count: training rows that a category needs for an id of its own.
        files: takes the results.
        folder: an empty one for temporary files.
        shares: how many.
    """

    def __init__(self, min_count: int, files: FieldFiles, folder: Path, shares: int):
        self._min_count = min_count
        self._files = files
        self._folder = folder
        self._shares = shares

    def number(self, pieces: Pieces) -> int:
        """Writes ids, frequencies and vocabulary; returns how many categories have an id."""
        sizes = self._split(pieces)
        frequent, rows_of_rare = [], 0
        for share in range(self._shares):
            mask, rows = self._count(share, sizes[:, share])
            frequent.append(np.packbits(mask))
            rows_of_rare += rows
        self._files.add_counts(np.array([rows_of_rare], dtype=np.int64))
        categories = self._merge_categories(len(sizes))
        for share in range(self._shares):
            self._number_entries(share, frequent[share])
        self._merge_ids(sizes)
        return categories

    def _split(self, pieces: Pieces) -> np.ndarray:
        """Writes the shares' entries; returns how many each piece has, `[pieces, shares]`."""
        sizes = []
        with ExitStack() as stack:
            writers = [
                stack.enter_context(pa.ipc.new_stream(str(path), _ENTRIES))
                for path in self._paths("entries")
            ]
            places = self._open(stack, "places", "wb")
            for values, train_counts in pieces:
                share = share_of(values, self._shares)
                # Stable: within a share entries keep their order.
                order = np.argsort(share, kind="stable").astype(np.int32)
                columns = [values.take(pa.array(order)), pa.array(train_counts[order], pa.int32())]
                batch = pa.record_batch(columns, schema=_ENTRIES)
                sizes.append(np.bincount(share, minlength=self._shares))
                start = 0
                for writer, file, size in zip(writers, places, sizes[-1], strict=True):
                    writer.write_batch(batch.slice(start, size))
                    order[start : start + size].tofile(file)
                    start += size
        return np.array(sizes)

    def _count(self, share: int, sizes: np.ndarray) -> tuple[np.ndarray, int]:
        """Counts a share's values and writes its categories.

        Returns:
            Which of the values get an id, bool `[values]`, and the training rows of the others.
        """
        with pa.OSFile(str(self._path(share, "entries"))) as file:
            table = pa.ipc.open_stream(file).read_all()
        found = find_distinct(table.column("value"), table.column("train").to_numpy())
        found.codes.astype(np.int32).tofile(self._path(share, "codes"))
        frequent = found.counts >= self._min_count
        first = found.first[frequent]
        places = np.fromfile(self._path(share, "places"), np.int32)[first]
        columns = [
            pa.array(places),
            pa.array(found.counts[frequent]),
            found.values.filter(pa.array(frequent)),
        ]
        batch = pa.record_batch(columns, schema=_CATEGORIES)
        stops = np.searchsorted(first, np.cumsum(sizes))
        with pa.ipc.new_stream(str(self._path(share, "categories")), _CATEGORIES) as writer:
            for start, stop in zip([0, *stops], stops, strict=False):
                writer.write_batch(batch.slice(start, stop - start))
        self._path(share, "entries").unlink()
        return frequent, int(found.counts[~frequent].sum())

    def _merge_categories(self, pieces: int) -> int:
        """Numbers the shares' categories in the order of first sight; returns their number."""
        numbered = 0
        with ExitStack() as stack:
            readers = [
                pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(path))))
                for path in self._paths("categories")
            ]
            numbers = self._open(stack, "numbers", "wb")
            for _ in range(pieces):
                batches = [reader.read_next_batch() for reader in readers]
                piece = pa.Table.from_batches(batches).combine_chunks()
                order = np.argsort(piece.column("place").to_numpy())
                piece = piece.take(pa.array(order)).combine_chunks()
                self._files.add_counts(piece.column("count").to_numpy())
                self._files.add_categories(pa.concat_arrays(piece.column("value").chunks))
                ids = np.empty(len(order), dtype=np.int32)
                ids[order] = np.arange(numbered + 1, numbered + 1 + len(order))
                stops = np.cumsum([len(batch) for batch in batches])[:-1]
                for file, of_share in zip(numbers, np.split(ids, stops), strict=True):
                    of_share.tofile(file)
                numbered += len(order)
        return numbered

    def _number_entries(self, share: int, frequent: np.ndarray) -> None:
        numbers = np.fromfile(self._path(share, "numbers"), np.int32)
        codes = np.fromfile(self._path(share, "codes"), np.int32)
        mask = np.unpackbits(frequent, count=codes.max(initial=-1) + 1).astype(bool)
        ids = np.zeros(len(mask), dtype=np.int32)
        ids[mask] = numbers
        ids[codes].tofile(self._path(share, "ids"))

    def _merge_ids(self, sizes: np.ndarray) -> None:
        with ExitStack() as stack:
            places = self._open(stack, "places", "rb")
            ids = self._open(stack, "ids", "rb")
            for of_piece in sizes:
                merged = np.empty(of_piece.sum(), dtype=np.int32)
                for place, of_share, size in zip(places, ids, of_piece, strict=True):
                    where = np.fromfile(place, np.int32, size)
                    merged[where] = np.fromfile(of_share, np.int32, size)
                self._files.add_ids(merged)

    def _path(self, share: int, what: str) -> Path:
        return self._folder / f"{what}-{share:03d}"

    def _paths(self, what: str) -> Iterator[Path]:
        return (self._path(share, what) for share in range(self._shares))

    def _open(self, stack: ExitStack, what: str, mode: str) -> list[Any]:
        return [stack.enter_context(open(path, mode)) for path in self._paths(what)]


def count_ids(
    pieces: Pieces, encoder: HashEncoder, files: FieldFiles, folder: Path, shares: int
) -> None:
    """Writes a field's ids, which are known, and the training rows of those that occur.

    A share is a range of ids.
    """
    width = -(-encoder.buckets // shares)
    paths = [folder / f"counts-{share:03d}" for share in range(shares)]
    with ExitStack() as stack:
        opened = [stack.enter_context(open(path, "wb")) for path in paths]
        for kept, train_counts in pieces:
            ids = kept.to_numpy()
            files.add_ids(ids.astype(encoder.id_type))
            occurring, counts = _sum_by_id(ids[train_counts > 0], train_counts[train_counts > 0])
            stops = np.searchsorted(occurring, width * np.arange(1, shares, dtype=np.int64))
            pairs = np.stack([occurring, counts], axis=1)
            for file, of_share in zip(opened, np.split(pairs, stops), strict=True):
                of_share.tofile(file)
    for path in paths:
        pairs = np.fromfile(path, np.int64).reshape(-1, 2)
        files.add_counts(np.stack(_sum_by_id(pairs[:, 0], pairs[:, 1]), axis=1))


def _sum_by_id(ids: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    occurring, position = np.unique(ids, return_inverse=True)
    sums = np.zeros(len(occurring), dtype=np.int64)
    np.add.at(sums, position, counts)
    return occurring, sums
