"""Raw rows in the ids of a data set that was prepared before, a part of the file at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS
from tf_compemb.data.encoders import make_encoder
from tf_compemb.data.line_checks import parse_block, parse_block_skipping
from tf_compemb.data.raw_reader import RawFile, find_raw_files
from tf_compemb.data.staging import encode_table

# Blocks that are numbered together: about a million rows, for which each vocabulary is read once.
_BLOCKS_AT_ONCE = 32


class Numbering(Protocol):
    """Which ids categories have: a prepared data set, or a run's copy of its encoder."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Under `"encoder"`, the encoder's name and settings."""

    def vocabulary(self, field: str) -> pa.Array:
        """The categories of a field: id `i` is the one at position `i - 1`."""


def encode_raw(path: str, dataset: Numbering, skip_bad_lines: bool) -> Iterator[np.ndarray]:
    """Rows of a raw file, with categories numbered as in a prepared data set.

    A category that the data set's vocabulary does not hold gets id 0, as in its own validation and
    test rows.

    Args:
        path: Raw file, plain or gzip, or a glob.
        dataset: Its encoder is used.
        skip_bad_lines: Whether malformed lines are left out; otherwise they are an error.

    Yields:
        Records as of `tf_compemb.data.criteo_format.record_dtype`, shape (rows,), in the file's
        order. Memory is bounded by about a million rows.

    Raises:
        DataError: The file cannot be read; the message names file and line.
    """
    blocks = _encoded_blocks(path, dataset, skip_bad_lines)
    while part := list(itertools.islice(blocks, _BLOCKS_AT_ONCE)):
        rows = np.concatenate([block.rows for block in part])
        _number_categories(rows, part, dataset)
        yield rows


def _encoded_blocks(path: str, dataset: Numbering, skip: bool) -> Iterator[Any]:
    settings = dict(dataset.manifest["encoder"])
    encoder = make_encoder(settings.pop("name"), **settings)
    for file in find_raw_files(path):
        for block in RawFile(file, file.name).blocks(keep_truncated=skip):
            table = parse_block_skipping(block)[0] if skip else parse_block(block)
            yield encode_table(table, encoder)


def _number_categories(rows: np.ndarray, blocks: list[Any], dataset: Numbering) -> None:
    """Replaces each block's local codes by the data set's ids, a field at a time."""
    row_starts = np.cumsum([0, *(len(block.rows) for block in blocks)])
    for i, field in enumerate(CATEGORICAL_FIELDS):
        ids = _known_ids([block.kept[i] for block in blocks], field, dataset)
        entry = 0
        for block, start in zip(blocks, row_starts, strict=False):
            codes = block.rows["categorical"][:, i]
            rows["categorical"][start : start + len(codes), i] = ids[entry + codes]
            entry += len(block.kept[i])


def _known_ids(kept: list[Any], field: str, dataset: Numbering) -> np.ndarray:
    """The data set's id of each distinct value that the blocks kept, one block after another."""
    values = pa.chunked_array(kept)
    if pa.types.is_integer(values.type):  # The hash encoder has made them ids already.
        return values.to_numpy()
    known = pc.index_in(values, value_set=dataset.vocabulary(field).cast(values.type))
    return pc.add(pc.fill_null(known, -1), 1).to_numpy()
