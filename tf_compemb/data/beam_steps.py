"""The steps of a preparation as an Apache Beam pipeline; `beam_preparation` puts them together.

Workers and the process that starts the pipeline share a folder for working files. A step that is
run again writes the same files again.
"""

# ruff: noqa: D102 - Beam's own documentation says what these methods of its classes are for.

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, record_dtype
from tf_compemb.data.distinct import find_distinct, share_of, sum_counts
from tf_compemb.data.encoders import Encoder
from tf_compemb.data.errors import DataError
from tf_compemb.data.line_checks import parse_block_skipping
from tf_compemb.data.manifest import sha256_of
from tf_compemb.data.raw_ranges import RawRange, range_blocks
from tf_compemb.data.staging import EncodedBlock, encode_table

# Rows whose first sights are sorted together.
BUCKET_ROWS = 1 << 22


@dataclass(frozen=True)
class Block:
    """A staged block: its name, and where its rows are in the whole."""

    name: str
    start: int
    rows: int


@dataclass(frozen=True)
class Piece:
    """Some of a block's distinct values of a field.

    Attributes:
        start: the block's first row.
        codes: which of the block's values these are.
        values: the values.
        train_counts: in how many training rows each occurs.
        first_rows: the row at which the block first has each.
    """

    start: int
    codes: np.ndarray
    values: pa.Array
    train_counts: np.ndarray
    first_rows: np.ndarray


class StageRange(beam.DoFn):
    """(number, range) to staged blocks, and to a file that says what was read.

    Args:
        work: the shared folder.
        encoder: says what is kept of the values.
        block_bytes: bytes of text of a block.
        keep_truncated: as of `RawFile.blocks`.
    """

    def __init__(self, work: Path, encoder: Encoder, block_bytes: int, keep_truncated: bool):
        self._work = work
        self._encoder = encoder
        self._block_bytes = block_bytes
        self._keep_truncated = keep_truncated

    def process(self, element: tuple[int, RawRange]) -> None:
        number, raw = element
        read: dict[str, Any] = {"blocks": [], "lines": 0, "error": None}
        blocks = range_blocks(raw, self._block_bytes, keep_truncated=self._keep_truncated)
        try:
            for index, text in enumerate(blocks):
                table, bad = parse_block_skipping(text)
                name = f"{number:06d}-{index:06d}"
                write_staged(self._work, name, encode_table(table, self._encoder), self._encoder)
                lines = [[line.line, line.reason, line.text.hex()] for line in bad]
                read["blocks"].append({"name": name, "rows": table.num_rows, "bad": lines})
                read["lines"] += text.text.count(b"\n")
        except DataError as error:
            read["error"] = str(error)
        write_whole(self._work / f"read-{number:06d}.json", json.dumps(read).encode())


def hash_source(element: tuple[int, Path], work: Path) -> None:
    """Writes size and SHA-256 of a raw file."""
    number, path = element
    source = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    write_whole(work / f"source-{number:06d}.json", json.dumps(source).encode())


class SplitValues(beam.DoFn):
    """A block to `((field, share), Piece)`."""

    def __init__(self, work: Path, encoder: Encoder, train_stop: int, shares: int):
        self._work = work
        self._encoder = encoder
        self._train_stop = train_stop
        self._shares = shares

    def process(self, block: Block) -> Iterator[tuple[tuple[int, int], Piece]]:
        rows, kept = read_staged(self._work, block.name, self._encoder)
        train = min(max(0, self._train_stop - block.start), block.rows)
        for field, values in enumerate(kept):
            codes = rows["categorical"][:, field]
            counts = np.bincount(codes[:train], minlength=len(values))
            # Codes are in the order of first sight.
            first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
            share = share_of(values, self._shares)
            for one in np.unique(share):
                chosen = np.flatnonzero(share == one)
                yield (
                    (field, int(one)),
                    Piece(
                        block.start,
                        chosen,
                        values.take(pa.array(chosen)),
                        counts[chosen],
                        block.start + first[chosen],
                    ),
                )


@dataclass(frozen=True)
class Categories:
    """Values of one share that get an id: their first rows (ascending), counts, values."""

    share: int
    first_rows: np.ndarray
    counts: np.ndarray
    values: pa.Array


class CountShare(beam.DoFn):
    """The pieces of a share to `((field, bucket of rows), Categories)`.

    Tagged `rare`: the field, and the training rows of the share's values without an id.
    """

    def __init__(self, min_count: int):
        self._min_count = min_count

    def process(self, element: tuple[tuple[int, int], Iterable[Piece]]) -> Iterator[Any]:
        (field, share), pieces = element
        ordered = sorted(pieces, key=lambda piece: piece.start)
        found, first_rows = _distinct_of(ordered)
        frequent = found.counts >= self._min_count
        yield beam.pvalue.TaggedOutput("rare", (field, int(found.counts[~frequent].sum())))
        first, counts = first_rows[frequent], found.counts[frequent]
        values = found.values.filter(pa.array(frequent))
        bucket = first // BUCKET_ROWS
        for one in np.unique(bucket):
            start, stop = np.searchsorted(bucket, [one, one + 1])
            part = slice(start, stop)
            kept = values.take(pa.array(np.arange(start, stop)))
            yield (field, int(one)), Categories(share, first[part], counts[part], kept)


class NumberBucket(beam.DoFn):
    """A bucket's categories in the order of first sight: to a file, and `((field, share), ids)`.

    The ids are pairs: first rows, ascending, and the id of the category that is first seen there.
    """

    def __init__(self, work: Path):
        self._work = work

    def process(
        self,
        element: tuple[tuple[int, int], Iterable[Categories]],
        bases: dict[tuple[int, int], int],
    ) -> Iterator[tuple[tuple[int, int], tuple[np.ndarray, np.ndarray]]]:
        (field, bucket), found = element
        parts = list(found)
        first_rows = np.concatenate([part.first_rows for part in parts])
        order = np.argsort(first_rows)
        ids = np.empty(len(order), dtype=np.int64)
        ids[order] = bases[field, bucket] + np.arange(len(order))
        counts = np.concatenate([part.counts for part in parts])[order]
        values = pa.concat_arrays([part.values for part in parts]).take(pa.array(order))
        batch = pa.record_batch([values, pa.array(counts)], names=["category", "count"])
        name = f"categories-{CATEGORICAL_FIELDS[field]}-{bucket:08d}.arrow"
        write_whole(self._work / name, _as_stream(batch))
        at = 0
        for part in parts:
            yield (field, part.share), (part.first_rows, ids[at : at + len(part.first_rows)])
            at += len(part.first_rows)


class NumberEntries(beam.DoFn):
    """A share's pieces and its categories' ids to `(a block's first row, (field, codes, ids))`."""

    def process(self, element: tuple[tuple[int, int], dict[str, Any]]) -> Iterator[Any]:
        (field, _), joined = element
        pieces = sorted(joined["pieces"], key=lambda piece: piece.start)
        found, first_rows = _distinct_of(pieces)
        ids = np.zeros(len(first_rows), dtype=np.int32)
        for known_rows, known_ids in joined["ids"]:
            ids[np.searchsorted(first_rows, known_rows)] = known_ids
        at = 0
        for piece in pieces:
            entries = found.codes[at : at + len(piece.codes)]
            yield piece.start, (field, piece.codes, ids[entries])
            at += len(piece.codes)


class WriteRows(beam.DoFn):
    """A block with the ids of its codes to a file of records."""

    def __init__(self, work: Path, encoder: Encoder):
        self._work = work
        self._encoder = encoder

    def process(self, element: tuple[int, dict[str, Any]]) -> None:
        start, joined = element
        [block] = joined["blocks"]
        rows, kept = read_staged(self._work, block.name, self._encoder)
        tables = [np.empty(len(values), dtype=np.int32) for values in kept]
        for field, codes, ids in joined["ids"]:
            tables[field][codes] = ids
        write_rows(self._work, start, rows, tables)


class HashRows(beam.DoFn):
    """A block to a file of records, and to `((field, share), (ids, training rows))`."""

    def __init__(self, work: Path, encoder: Encoder, train_stop: int, width: int):
        self._work = work
        self._encoder = encoder
        self._train_stop = train_stop
        self._width = width

    def process(self, block: Block) -> Iterator[Any]:
        rows, kept = read_staged(self._work, block.name, self._encoder)
        train = min(max(0, self._train_stop - block.start), block.rows)
        tables = [values.to_numpy() for values in kept]
        for field, ids in enumerate(tables):
            codes = rows["categorical"][:train, field]
            counts = np.bincount(codes, minlength=len(ids))
            share = ids // self._width
            for one in np.unique(share[counts > 0]):
                chosen = (share == one) & (counts > 0)
                yield (field, int(one)), (ids[chosen], counts[chosen])
        write_rows(self._work, block.start, rows, tables)


class SumById(beam.CombineFn):
    """Pairs of arrays (ids, counts) to one pair with each id once, ascending."""

    def create_accumulator(self) -> tuple[np.ndarray, np.ndarray]:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

    def add_input(self, sums: Any, pair: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.merge_accumulators([sums, pair])

    def merge_accumulators(self, accumulators: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
        ids, counts = (np.concatenate(arrays) for arrays in zip(*accumulators, strict=True))
        occurring, position = np.unique(ids, return_inverse=True)
        return occurring, sum_counts(position, counts, len(occurring))

    def extract_output(self, sums: Any) -> tuple[np.ndarray, np.ndarray]:
        return sums


def write_counts(element: Any, work: Path) -> None:
    """Writes the pairs (id, training rows) of a share of ids."""
    (field, share), pair = element
    name = f"counts-{CATEGORICAL_FIELDS[field]}-{share:08d}.bin"
    write_whole(work / name, np.stack(pair, axis=1).astype(np.int64).tobytes())


def write_rare(element: tuple[int, int], work: Path) -> None:
    """Writes in how many training rows a field has id 0."""
    field, rows = element
    write_whole(work / f"rare-{CATEGORICAL_FIELDS[field]}.bin", np.int64(rows).tobytes())


def number_buckets(sizes: list[tuple[tuple[int, int], int]]) -> dict[tuple[int, int], int]:
    """The first id of each (field, bucket), given how many categories each has.

    >>> number_buckets([((0, 7), 2), ((1, 0), 4), ((0, 3), 5)])
    {(0, 3): 1, (0, 7): 6, (1, 0): 1}
    """
    bases, following = {}, dict.fromkeys(range(len(CATEGORICAL_FIELDS)), 1)
    for (field, bucket), size in sorted(sizes):
        bases[field, bucket] = following[field]
        following[field] += size
    return bases


def write_staged(work: Path, name: str, block: EncodedBlock, encoder: Encoder) -> None:
    """Writes a block's records with local codes, and what was kept of its values."""
    columns = [
        pa.ListArray.from_arrays(pa.array([0, len(kept)], pa.int32()), kept) for kept in block.kept
    ]
    batch = pa.record_batch(columns, names=list(CATEGORICAL_FIELDS))
    write_whole(work / f"values-{name}.arrow", _as_stream(batch))
    write_whole(work / f"codes-{name}.bin", block.rows.tobytes())


def read_staged(work: Path, name: str, encoder: Encoder) -> tuple[np.ndarray, list[pa.Array]]:
    """Returns the records and the kept values of a block."""
    batch = pa.ipc.open_stream((work / f"values-{name}.arrow").read_bytes()).read_next_batch()
    rows = np.fromfile(work / f"codes-{name}.bin", record_dtype(encoder.id_type))
    return rows, [column.flatten() for column in batch.columns]


def write_rows(work: Path, start: int, rows: np.ndarray, tables: list[np.ndarray]) -> None:
    """Writes a block's records with ids, given each field's ids of its codes."""
    for field, ids in enumerate(tables):
        rows["categorical"][:, field] = ids[rows["categorical"][:, field]]
    write_whole(work / f"rows-{start:015d}.bin", rows.tobytes())


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all, even when two workers write it."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _as_stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _distinct_of(pieces: list[Piece]) -> tuple[Any, np.ndarray]:
    """The distinct values among pieces in the order of rows, and the first row of each."""
    train_counts = np.concatenate([piece.train_counts for piece in pieces])
    found = find_distinct(pa.chunked_array([piece.values for piece in pieces]), train_counts)
    return found, np.concatenate([piece.first_rows for piece in pieces])[found.first]
