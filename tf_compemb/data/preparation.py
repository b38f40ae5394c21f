"""Raw Criteo files to a prepared data set, in one pass over the text and in bounded memory.

1. Blocks of text are parsed and each column is coded by the block's own distinct values, in
   parallel; the records and the distinct values go to disk.
2. Field by field, the blocks' distinct values become ids (see `encoders`).
3. The records are gone through once more and their local codes replaced by ids.

The number of rows, and with it the end of the training rows, is known after step 1; counts over
the training rows are sums of whole blocks and of a part of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from tf_compemb.data import manifest as manifests
from tf_compemb.data.bad_line_log import BadLineLog
from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, record_dtype, split_rows
from tf_compemb.data.encoders import DEFAULT_HASH_BUCKETS, Encoder, FinishedField, make_encoder
from tf_compemb.data.errors import DataError
from tf_compemb.data.line_checks import BadLine, parse_block, parse_block_skipping
from tf_compemb.data.new_folder import new_folder, require_absent, sync_file, sync_folder
from tf_compemb.data.prepared_dataset import PreparedDataset
from tf_compemb.data.progress import Progress
from tf_compemb.data.raw_reader import (
    BLOCK_BYTES,
    PathLike,
    RawFile,
    TextBlock,
    find_raw_files,
    name_sources,
)
from tf_compemb.data.staging import EncodedBlock, Stage, encode_table

PARSER_THREADS = min(4, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")


def prepare(
    paths: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    encoder: Literal["vocabulary", "hash"] = "vocabulary",
    min_count: int = 1,
    hash_buckets: int = DEFAULT_HASH_BUCKETS,
    bad_lines: Literal["error", "skip"] = "error",
    max_bad_share: float = 0.01,
    progress: bool = True,
    synthetic: Mapping[str, Any] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> PreparedDataset:
    """Reads raw Criteo files once and writes a prepared data set, whole or not at all.

    The same files and options give the same bytes, whatever the number of threads.

    Args:
        paths: raw files, plain or gzip, in the order of time: a path, a glob, or a list of them.
        out: the folder to make; it must not exist.
        encoder: `"vocabulary"`, ids in the order of first sight in training; or `"hash"`,
            FarmHash64 modulo `hash_buckets`.
        min_count: vocabulary: training rows that a category needs for an id of its own.
        hash_buckets: hash: ids of each field.
        bad_lines: `"error"` stops at the first bad line; `"skip"` leaves bad lines out and writes
            them to `OUT/bad_lines.tsv`.
        max_bad_share: above this share of bad lines skipping stops with an error.
        progress: show a progress bar when standard error is a terminal.
        synthetic: what `generate` returned, when the rows are not real; without it, a truth file
            that lies beside a raw file says so.
        block_bytes: bytes of text parsed at a time.

    Raises:
        DataError: a file, a line, an option or the output is at fault.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> row = "\\t".join(["1"] + 13 * ["3"] + 26 * ["68fd1e64"])
    >>> _ = (folder / "train.txt").write_text(7 * (row + "\\n"))
    >>> dataset = prepare(folder / "train.txt", folder / "prepared")
    >>> dataset.rows, dataset.cardinalities[:3], dataset.splits["test"]
    (7, (2, 2, 2), (6, 7))
    """
    target = Path(out)
    require_absent(target)
    chosen = make_encoder(encoder, min_count=min_count, hash_buckets=hash_buckets)
    if bad_lines not in ("error", "skip"):
        raise DataError(f"`bad_lines` must be 'error' or 'skip'. Received: {bad_lines!r}")
    files = find_raw_files(paths)
    total = sum(path.stat().st_size for path in files)
    with (
        new_folder(target) as folder,
        Progress("reading", total, enabled=progress) as bar,
    ):
        raw = [
            RawFile(path, name, block_bytes=block_bytes, report=bar.add_bytes)
            for path, name in zip(files, name_sources(files), strict=True)
        ]
        log = BadLineLog(folder, max_bad_share, {file.path: file.name for file in raw})
        with closing(log):
            stage = _read_rows(raw, folder, chosen, log if bad_lines == "skip" else None, bar)
        bar.show("writing")
        _write_dataset(folder, stage, chosen, raw, log.count, synthetic)
    return PreparedDataset(target)


def _read_rows(
    raw: list[RawFile], folder: Path, encoder: Encoder, log: BadLineLog | None, bar: Progress
) -> Stage:
    """Step 1: text to staged rows."""

    def encode(block: TextBlock) -> tuple[EncodedBlock, list[BadLine]]:
        if log is None:
            return encode_table(parse_block(block), encoder), []
        table, bad = parse_block_skipping(block)
        return encode_table(table, encoder), bad

    (folder / "stage").mkdir()
    blocks = (block for file in raw for block in file.blocks(keep_truncated=log is not None))
    with closing(Stage(folder / "stage", folder / manifests.ROWS_FILE, encoder)) as stage:
        for block, bad in _map_in_order(encode, blocks, PARSER_THREADS):
            stage.append(block)
            bar.add_rows(len(block.rows))
            if log is not None:
                log.add(len(block.rows), bad)
        if log is not None:
            log.check_share()
        if not stage.rows:
            raise DataError(f"{raw[0].path}: no row is left; give a file with Criteo rows.")
    return stage


def _map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yields `function(item)` in order, at most `2 * threads` ahead.

    When `items` itself raises, the results before come first, so that the earliest error is the
    one that is seen.
    """
    pending: deque[Future[Result]] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(threads) as pool:
        iterator = iter(items)
        while True:
            try:
                pending.append(pool.submit(function, next(iterator)))
            except StopIteration:
                break
            except DataError as error:
                failure = error
                break
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    if failure is not None:
        raise failure


def _write_dataset(
    folder: Path,
    stage: Stage,
    encoder: Encoder,
    raw: list[RawFile],
    bad_lines: int,
    synthetic: Mapping[str, Any] | None,
) -> None:
    """Steps 2 and 3, and the manifest."""
    sources = [file.source for file in raw]
    if synthetic is None:
        synthetic = manifests.find_truth([file.path for file in raw], sources)
    splits = split_rows(stage.rows)
    cardinalities, entries = _finish_fields(folder, stage, encoder, splits["train"][1])
    rows_digest = _replace_codes(folder, stage, encoder, entries)
    shutil.rmtree(folder / "stage")
    manifests.write_manifest(
        folder,
        rows=stage.rows,
        splits=splits,
        cardinalities=cardinalities,
        encoder=encoder.settings(),
        id_type=encoder.id_type,
        sources=sources,
        bad_lines=bad_lines,
        synthetic=synthetic,
        digests={manifests.ROWS_FILE: rows_digest},
    )


def _finish_fields(
    folder: Path, stage: Stage, encoder: Encoder, train_stop: int
) -> tuple[list[int], np.ndarray]:
    """Step 2: writes vocabulary and frequencies of each field and, staged, the ids of its codes.

    Returns:
        The cardinalities, and how many staged ids each block has of each field, `[26, blocks]`.
    """
    (folder / "frequencies").mkdir()
    if encoder.name == "vocabulary":
        (folder / "vocabulary").mkdir()
    cardinalities, entries = [], []
    for index, name in enumerate(CATEGORICAL_FIELDS):
        kept, train_counts = stage.read_field(index, train_stop)
        finished = encoder.finish_field(name, kept, train_counts)
        entries.append([len(chunk) for chunk in kept.chunks])
        finished.ids.tofile(folder / "stage" / f"{name}.ids")
        _write_field(folder, name, finished)
        cardinalities.append(finished.cardinality)
    for part in ("frequencies", "vocabulary"):
        if (folder / part).is_dir():
            sync_folder(folder / part)
    return cardinalities, np.array(entries)


def _write_field(folder: Path, name: str, finished: FinishedField) -> None:
    frequencies = folder / manifests.frequencies_file(name)
    np.save(frequencies, finished.frequencies)
    sync_file(frequencies)
    if finished.vocabulary is not None:
        vocabulary = folder / manifests.vocabulary_file(name)
        table = pa.table({"category": finished.vocabulary})
        with pa.ipc.new_file(str(vocabulary), table.schema) as writer:
            writer.write_table(table)
        sync_file(vocabulary)


def _replace_codes(folder: Path, stage: Stage, encoder: Encoder, entries: np.ndarray) -> str:
    """Step 3: rewrites the records in place and returns the SHA-256 of the file."""
    dtype = record_dtype(encoder.id_type)
    digest = hashlib.sha256()
    with ExitStack() as files:
        file = files.enter_context(open(folder / manifests.ROWS_FILE, "rb+"))
        # Read from front to back and not mapped: mapped pages would count as our memory.
        staged = [
            files.enter_context(open(folder / "stage" / f"{name}.ids", "rb"))
            for name in CATEGORICAL_FIELDS
        ]
        for block, (start, stop) in enumerate(stage.block_ranges()):
            file.seek(start * dtype.itemsize)
            rows = np.fromfile(file, dtype, stop - start)
            columns = rows["categorical"]
            for index in range(len(CATEGORICAL_FIELDS)):
                ids = np.fromfile(staged[index], encoder.id_type, entries[index, block])
                columns[:, index] = ids[columns[:, index]]
            file.seek(start * dtype.itemsize)
            file.write(rows.data)
            digest.update(rows.data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
