"""The preparation as an Apache Beam pipeline, for data that one machine does not hold.

Two pipelines. The first reads ranges of the raw files in parallel and stages blocks with local
codes. Between them the order (file, offset) of the blocks gives each its place, and the end of the
training rows is known. The second counts each field's values, by shares of the values; sorts those
that get an id by the row at which they are first seen, in buckets of rows, which numbers them; and
joins the numbers back to the blocks' records. The files are those of `prepare`, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tf_compemb.data import manifest as manifests
from tf_compemb.data.bad_line_log import BadLineLog
from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, split_rows
from tf_compemb.data.encoders import DEFAULT_HASH_BUCKETS, Encoder, HashEncoder, make_encoder
from tf_compemb.data.errors import DataError
from tf_compemb.data.field_files import field_files
from tf_compemb.data.journal import CannotResumeError, Journal
from tf_compemb.data.line_checks import BadLine, bad_line_error
from tf_compemb.data.new_folder import new_folder, require_absent, sync_file
from tf_compemb.data.numbering import DEFAULT_MEMORY, LARGEST_CARDINALITY
from tf_compemb.data.prepared_dataset import PreparedDataset
from tf_compemb.data.raw_ranges import RawRange, cut_into_ranges
from tf_compemb.data.raw_reader import (
    BLOCK_BYTES,
    PathLike,
    RawSource,
    find_raw_files,
    name_sources,
)
from tf_compemb.missing_packages import MODULES, require

RANGE_BYTES = 64 << 20
# So that the numbering has work for several machines.
FEWEST_SHARES = 4


def prepare_with_beam(
    paths: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    encoder: Literal["vocabulary", "hash"] = "vocabulary",
    min_count: int = 1,
    hash_buckets: int = DEFAULT_HASH_BUCKETS,
    bad_lines: Literal["error", "skip"] = "error",
    max_bad_share: float = 0.01,
    synthetic: Mapping[str, Any] | None = None,
    memory: int = DEFAULT_MEMORY,
    beam_options: Sequence[str] = (),
    block_bytes: int = BLOCK_BYTES,
    range_bytes: int = RANGE_BYTES,
) -> PreparedDataset:
    """Writes the data set that `prepare` writes, byte for byte, by an Apache Beam pipeline.

    The raw files and `out` must be at the same paths on all workers. A run that was stopped is not
    gone on with.

    Args:
        paths, out, encoder, min_count, hash_buckets, bad_lines, max_bad_share, synthetic: as of
            `prepare`.
        memory: about how many bytes a worker's numbering may take.
        beam_options: Beam's own, such as `["--runner=FlinkRunner"]`; by default its DirectRunner.
        block_bytes: bytes of text parsed at a time.
        range_bytes: bytes of a plain file that one worker reads.

    Raises:
        DataError: a file, a line, an option or the output is at fault.
        MissingPackageError: Apache Beam is not installed.
    """
    target = Path(out).absolute()
    require_absent(target)
    require("The Beam runner", MODULES["beam"], "beam")
    _import_beam_quietly()
    chosen = make_encoder(encoder, min_count=min_count, hash_buckets=hash_buckets)
    if bad_lines not in ("error", "skip"):
        raise DataError(f"`bad_lines` must be 'error' or 'skip'. Received: {bad_lines!r}")
    files = [path.absolute() for path in find_raw_files(paths)]
    for path in files:
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty; give a file with Criteo rows.")
    with new_folder(target) as folder:
        journal = Journal(folder, {"runner": "beam"})
        try:
            if journal.begin():
                journal.start_afresh()
        except CannotResumeError:
            journal.start_afresh()
        run = _BeamRun(folder, journal.work, chosen, list(beam_options), memory)
        ranges = cut_into_ranges(files, range_bytes)
        run.stage(files, ranges, block_bytes, skip_bad_lines=bad_lines == "skip")
        log = BadLineLog(folder, max_bad_share, dict(zip(files, name_sources(files), strict=True)))
        with closing(log):
            blocks = run.order_blocks(ranges, log if bad_lines == "skip" else None)
        rows = blocks[-1].start + blocks[-1].rows if blocks else 0
        if not rows:
            raise DataError(f"{files[0]}: no row is left; give a file with Criteo rows.")
        splits = split_rows(rows)
        run.encode(blocks, splits["train"][1], sum(path.stat().st_size for path in files))
        cardinalities = run.write_fields()
        digest = run.write_rows()
        sources = run.sources(files)
        manifests.write_manifest(
            folder,
            rows=rows,
            splits=splits,
            cardinalities=cardinalities,
            encoder=chosen.settings(),
            id_type=chosen.id_type,
            sources=sources,
            bad_lines=log.count,
            synthetic=manifests.find_truth(files, sources) if synthetic is None else synthetic,
            digests={manifests.ROWS_FILE: digest},
        )
        journal.remove()
    return PreparedDataset(out)


def _import_beam_quietly() -> None:
    """Imports Beam without the warnings of Google's packages, which nothing here needs."""
    before = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        import apache_beam  # noqa: F401
    finally:
        logging.disable(before)


class _BeamRun:
    """One preparation; `folder` becomes the data set, `work` holds what workers exchange."""

    def __init__(self, folder: Path, work: Path, encoder: Encoder, options: list[str], memory: int):
        self._folder = folder
        self._work = work
        self._encoder = encoder
        self._options = options
        self._memory = memory

    def stage(
        self, files: list[Path], ranges: list[RawRange], block_bytes: int, *, skip_bad_lines: bool
    ) -> None:
        """The first pipeline: text to staged blocks; and the files' checksums."""
        import apache_beam as beam

        from tf_compemb.data import beam_steps as steps

        read = steps.StageRange(self._work, self._encoder, block_bytes, skip_bad_lines)
        with self._pipeline() as pipeline:
            _ = (
                pipeline
                | "ranges" >> beam.Create(list(enumerate(ranges)))
                | "spread ranges" >> beam.Reshuffle()
                | "stage" >> beam.ParDo(read)
            )
            _ = (
                pipeline
                | "files" >> beam.Create(list(enumerate(files)))
                | "spread files" >> beam.Reshuffle()
                | "hash" >> beam.Map(steps.hash_source, self._work)
            )

    def order_blocks(self, ranges: list[RawRange], log: BadLineLog | None) -> list[Any]:
        """Returns the blocks in the order of the input, each with its first row.

        Raises:
            DataError: what is wrong first in that order.
        """
        from tf_compemb.data.beam_steps import Block

        blocks, start, lines = [], 0, 0
        for number, raw in enumerate(ranges):
            lines = 0 if raw.start == 0 else lines
            read = json.loads((self._work / f"read-{number:06d}.json").read_bytes())
            for block in read["blocks"]:
                bad = [
                    BadLine(raw.path, lines + line, reason, bytes.fromhex(text))
                    for line, reason, text in block["bad"]
                ]
                if log is not None:
                    log.add(block["rows"], bad)
                elif bad:
                    raise bad_line_error(bad[0])
                if block["rows"]:
                    blocks.append(Block(block["name"], start, block["rows"]))
                start += block["rows"]
            if read["error"] is not None:
                raise DataError(read["error"])
            lines += read["lines"]
        if log is not None:
            log.check_share()
        return blocks

    def encode(self, blocks: list[Any], train_stop: int, raw_bytes: int) -> None:
        """The second pipeline: staged blocks to records, categories and counts."""
        import apache_beam as beam

        with self._pipeline() as pipeline:
            staged = (
                pipeline | "blocks" >> beam.Create(blocks) | "spread blocks" >> beam.Reshuffle()
            )
            # A field's values are at most about a tenth of the text.
            shares = max(FEWEST_SHARES, raw_bytes // self._memory)
            if isinstance(self._encoder, HashEncoder):
                self._hash(staged, train_stop, shares)
            else:
                self._number(staged, train_stop, shares)

    def _hash(self, staged: Any, train_stop: int, shares: int) -> None:
        import apache_beam as beam

        from tf_compemb.data import beam_steps as steps

        assert isinstance(self._encoder, HashEncoder)
        width = -(-self._encoder.buckets // shares)
        _ = (
            staged
            | "rows" >> beam.ParDo(steps.HashRows(self._work, self._encoder, train_stop, width))
            | "count" >> beam.CombinePerKey(steps.SumById())
            | "write counts" >> beam.Map(steps.write_counts, self._work)
        )

    def _number(self, staged: Any, train_stop: int, shares: int) -> None:
        import apache_beam as beam

        from tf_compemb.data import beam_steps as steps

        encoder, work = self._encoder, self._work
        min_count = int(str(encoder.settings()["min_count"]))
        pieces = staged | "split" >> beam.ParDo(
            steps.SplitValues(work, encoder, train_stop, shares)
        )
        counted = (
            pieces
            | "by share" >> beam.GroupByKey()
            | "count" >> beam.ParDo(steps.CountShare(min_count)).with_outputs("rare", main="main")
        )
        _ = (
            counted.rare
            | "sum rare" >> beam.CombinePerKey(sum)
            | "write rare" >> beam.Map(steps.write_rare, work)
        )
        bases = (
            counted.main
            | "sizes" >> beam.MapTuple(lambda key, found: (key, len(found.counts)))
            | "size of bucket" >> beam.CombinePerKey(sum)
            | "all sizes" >> beam.combiners.ToList()
            | "first ids" >> beam.Map(steps.number_buckets)
        )
        ids = (
            counted.main
            | "by bucket" >> beam.GroupByKey()
            | "number" >> beam.ParDo(steps.NumberBucket(work), beam.pvalue.AsSingleton(bases))
        )
        numbered = (
            {"pieces": pieces, "ids": ids}
            | "join shares" >> beam.CoGroupByKey()
            | "number entries" >> beam.ParDo(steps.NumberEntries())
        )
        _ = (
            {"blocks": staged | beam.Map(lambda block: (block.start, block)), "ids": numbered}
            | "join blocks" >> beam.CoGroupByKey()
            | "rows" >> beam.ParDo(steps.WriteRows(work, encoder))
        )

    def write_fields(self) -> list[int]:
        """Puts the files of each field together; returns the cardinalities.

        Raises:
            DataError: a field has more categories than 32-bit ids.
        """
        has_vocabulary = self._encoder.name == "vocabulary"
        for name in ("frequencies", "vocabulary") if has_vocabulary else ("frequencies",):
            (self._folder / name).mkdir()
        return [
            self._write_vocabulary(name) if has_vocabulary else self._write_counts(name)
            for name in CATEGORICAL_FIELDS
        ]

    def _write_vocabulary(self, name: str) -> int:
        categories = 0
        with field_files(self._folder, self._work, name, self._encoder) as files:
            rare = np.fromfile(self._work / f"rare-{name}.bin", np.int64)
            files.add_counts(rare)
            for path in sorted(self._work.glob(f"categories-{name}-*.arrow")):
                batch = pa.ipc.open_stream(path.read_bytes()).read_next_batch()
                files.add_counts(batch.column("count").to_numpy())
                files.add_categories(batch.column("category"))
                categories += len(batch)
        if categories >= LARGEST_CARDINALITY:
            raise DataError(
                f"Field {name} has {categories} categories, more than 32-bit ids can tell apart; "
                "raise min_count or use the hash encoder."
            )
        return 1 + categories

    def _write_counts(self, name: str) -> int:
        assert isinstance(self._encoder, HashEncoder)
        with field_files(self._folder, self._work, name, self._encoder) as files:
            for path in sorted(self._work.glob(f"counts-{name}-*.bin")):
                files.add_counts(np.fromfile(path, np.int64))
        return self._encoder.buckets

    def write_rows(self) -> str:
        """Puts the records together; returns the SHA-256 of the file."""
        digest = hashlib.sha256()
        target = self._folder / manifests.ROWS_FILE
        with open(target, "wb") as file:
            for path in sorted(self._work.glob("rows-*.bin")):
                content = path.read_bytes()
                file.write(content)
                digest.update(content)
                path.unlink()
        sync_file(target)
        return digest.hexdigest()

    def sources(self, files: list[Path]) -> list[RawSource]:
        """Names, sizes and checksums of the raw files."""
        read = [
            json.loads((self._work / f"source-{number:06d}.json").read_bytes())
            for number in range(len(files))
        ]
        return [
            RawSource(name, **source)
            for name, source in zip(name_sources(files), read, strict=True)
        ]

    def _pipeline(self) -> Any:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        return beam.Pipeline(options=PipelineOptions(self._options))
