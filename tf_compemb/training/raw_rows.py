"""Raw rows in the ids of a data set that was prepared before."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb.training.errors import UserError


def encode_raw(path: str, dataset: Any, bad_lines: str | None = None) -> np.ndarray:
    """All rows of a raw file, with categories numbered as in a prepared data set.

    A category that the data set's vocabulary does not hold gets id 0, as in its own validation and
    test rows. The rows are kept in memory, about 200 bytes each.

    Args:
        path: Raw file, plain or gzip, or a glob.
        dataset: `PreparedDataset` whose encoder is used.
        bad_lines: "skip" leaves malformed lines out; otherwise they are an error.

    Returns:
        Records as of `tf_compemb.data.criteo_format.record_dtype`, shape (rows,).

    Raises:
        UserError: The file cannot be read; the message names file and line.
    """
    from tf_compemb.data import DataError
    from tf_compemb.data.encoders import make_encoder
    from tf_compemb.data.line_checks import parse_block, parse_block_skipping
    from tf_compemb.data.raw_reader import RawFile, find_raw_files
    from tf_compemb.data.staging import encode_table

    skip = bad_lines == "skip"
    settings = dict(dataset.manifest["encoder"])
    encoder = make_encoder(settings.pop("name"), **settings)
    blocks = []
    try:
        for file in find_raw_files(path):
            for block in RawFile(file, file.name).blocks(keep_truncated=skip):
                table = parse_block_skipping(block)[0] if skip else parse_block(block)
                blocks.append(encode_table(table, encoder))
    except DataError as error:
        raise UserError(str(error)) from error
    rows = np.concatenate([block.rows for block in blocks])
    if not len(rows):
        raise UserError(f"{path}: no row is left; give a file with Criteo rows.")
    _number_categories(rows, blocks, dataset)
    return rows


def _number_categories(rows: np.ndarray, blocks: list[Any], dataset: Any) -> None:
    """Replaces each block's local codes by the data set's ids, a field at a time."""
    from tf_compemb.data import CATEGORICAL_FIELDS

    row_starts = np.cumsum([0, *(len(block.rows) for block in blocks)])
    for i, field in enumerate(CATEGORICAL_FIELDS):
        ids = _known_ids([block.kept[i] for block in blocks], field, dataset)
        entry = 0
        for block, start in zip(blocks, row_starts, strict=False):
            codes = block.rows["categorical"][:, i]
            rows["categorical"][start : start + len(codes), i] = ids[entry + codes]
            entry += len(block.kept[i])


def _known_ids(kept: list[Any], field: str, dataset: Any) -> np.ndarray:
    """The data set's id of each distinct value that the blocks kept, one block after another."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pa.chunked_array(kept)
    if pa.types.is_integer(values.type):  # The hash encoder has made them ids already.
        return values.to_numpy()
    known = pc.index_in(values, value_set=dataset.vocabulary(field).cast(values.type))
    return pc.add(pc.fill_null(known, -1), 1).to_numpy()
