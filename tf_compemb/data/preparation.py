"""Raw Criteo files to a prepared data set, in one pass over the text and in bounded memory.

1. `reading`: blocks of text are parsed and each column is coded by the block's own distinct values,
   in parallel; the records and the distinct values go to disk.
2. `writing`: several fields at a time, the blocks' distinct values become ids (see `numbering`).
3. `writing`: the records are gone through once more and their local codes replaced by ids.

The number of rows, and with it the end of the training rows, is known after step 1; counts over
the training rows are sums of whole blocks and of a part of one. A journal says which parts of each
step are finished.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tf_compemb
from tf_compemb.data import manifest as manifests
from tf_compemb.data.criteo_format import split_rows
from tf_compemb.data.encoders import DEFAULT_HASH_BUCKETS, Encoder, make_encoder
from tf_compemb.data.errors import DataError
from tf_compemb.data.journal import CannotResumeError, Journal
from tf_compemb.data.new_folder import new_folder, require_absent
from tf_compemb.data.numbering import DEFAULT_MEMORY
from tf_compemb.data.prepared_dataset import PreparedDataset
from tf_compemb.data.progress import Progress
from tf_compemb.data.raw_reader import (
    BLOCK_BYTES,
    PathLike,
    RawFile,
    find_raw_files,
    name_sources,
)
from tf_compemb.data.reading import read_text
from tf_compemb.data.writing import number_fields, replace_codes


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
    memory: int = DEFAULT_MEMORY,
    block_bytes: int = BLOCK_BYTES,
) -> PreparedDataset:
    """Reads raw Criteo files once and writes a prepared data set, whole or not at all.

    The same files and options give the same bytes, whatever the number of threads and the memory,
    and whether or not the preparation was killed meanwhile: called again with the same arguments it
    goes on where it was.

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
        progress: say on standard error how far it is: a bar on a terminal, lines elsewhere.
        synthetic: what `generate` returned, when the rows are not real; without it, a truth file
            that lies beside a raw file says so.
        memory: about how many bytes the numbering may take, of all fields together; a field that
            needs more goes through temporary files.
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
    if memory < 1:
        raise DataError(f"`memory` must be at least 1 byte. Received: memory={memory}")
    files = find_raw_files(paths)
    steps = _Steps(
        files, chosen, bad_lines == "skip", max_bad_share, memory, block_bytes, synthetic
    )
    total = sum(path.stat().st_size for path in files)
    with new_folder(target) as folder:
        journal = Journal(folder, steps.identity())
        try:
            if journal.begin():
                print(f"{target}: going on where an earlier run was stopped.", file=sys.stderr)
            with Progress("reading", total, enabled=progress) as bar:
                steps.run(folder, journal, bar)
        except CannotResumeError as reason:
            print(
                f"{target}: an earlier run was stopped, but {reason}; starting afresh.",
                file=sys.stderr,
            )
            journal.start_afresh()
            with Progress("reading", total, enabled=progress) as bar:
                steps.run(folder, journal, bar)
    return PreparedDataset(target)


@dataclass(frozen=True)
class _Steps:
    """The steps of one preparation; attributes as of `prepare`."""

    files: list[Path]
    encoder: Encoder
    skip_bad_lines: bool
    max_bad_share: float
    memory: int
    block_bytes: int
    synthetic: Mapping[str, Any] | None

    def identity(self) -> dict[str, Any]:
        """What must be equal for the work of a stopped run to be of use."""
        stamps = [(path, path.stat()) for path in self.files]
        return {
            "format_version": manifests.FORMAT_VERSION,
            "program": tf_compemb.__version__,
            "files": [[str(p.absolute()), stat.st_size, stat.st_mtime_ns] for p, stat in stamps],
            "encoder": self.encoder.settings(),
            "skip_bad_lines": self.skip_bad_lines,
            "max_bad_share": self.max_bad_share,
            "block_bytes": self.block_bytes,
        }

    def run(self, folder: Path, journal: Journal, bar: Progress) -> None:
        """Does what no earlier run has done."""
        if not journal.records("complete"):
            self._write_dataset(folder, journal, bar)
            journal.add("complete")
        journal.remove()

    def _write_dataset(self, folder: Path, journal: Journal, bar: Progress) -> None:
        raw = [
            RawFile(path, name, block_bytes=self.block_bytes, report=bar.add_bytes)
            for path, name in zip(self.files, name_sources(self.files), strict=True)
        ]
        read = read_text(
            raw,
            folder,
            self.encoder,
            journal,
            bar,
            skip_bad_lines=self.skip_bad_lines,
            max_bad_share=self.max_bad_share,
        )
        synthetic = self.synthetic
        if synthetic is None:
            synthetic = manifests.find_truth(self.files, read.sources)
        splits = split_rows(read.stage.rows)
        bar.show("numbering")
        cardinalities, digests = number_fields(
            folder, read.stage, self.encoder, journal, splits["train"][1], self.memory
        )
        bar.show("writing")
        rows_digest = replace_codes(folder, read.stage, self.encoder, journal)
        manifests.write_manifest(
            folder,
            rows=read.stage.rows,
            splits=splits,
            cardinalities=cardinalities,
            encoder=self.encoder.settings(),
            id_type=self.encoder.id_type,
            sources=read.sources,
            bad_lines=read.bad_lines,
            synthetic=synthetic,
            digests={**digests, manifests.ROWS_FILE: rows_digest},
        )
