"""Steps 2 and 3 of a preparation: ids for the staged values, and the records with them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tf_compemb.data import manifest as manifests
from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS
from tf_compemb.data.encoders import Encoder
from tf_compemb.data.field_files import field_files, ids_path
from tf_compemb.data.journal import CannotResumeError, Journal
from tf_compemb.data.manifest import sha256_of
from tf_compemb.data.new_folder import sync_folder
from tf_compemb.data.numbering import memory_of, number_field
from tf_compemb.data.reading import THREADS
from tf_compemb.data.shared_memory_bound import SharedMemoryBound
from tf_compemb.data.staging import Stage, StagedField


def number_fields(
    folder: Path, stage: Stage, encoder: Encoder, journal: Journal, train_stop: int, memory: int
) -> tuple[list[int], dict[str, str]]:
    """Step 2: writes vocabulary and frequencies of each field and, for step 3, the staged ids.

    Returns:
        The cardinalities, and the SHA-256 of the data set's files.

    Raises:
        DataError: a field has too many categories.
        CannotResumeError: what an earlier run left is damaged.
    """
    finished = {record["name"]: record for record in journal.records("field")}
    has_vocabulary = encoder.name == "vocabulary"
    names = ("frequencies", "vocabulary") if has_vocabulary else ("frequencies",)
    for name in names:
        (folder / name).mkdir(exist_ok=True)
    rest = {}
    for index, name in enumerate(CATEGORICAL_FIELDS):
        entries = stage.field(index, train_stop)
        if name in finished:
            _compare(folder, finished[name]["files"])
            entries.drop()
        else:
            rest[name] = entries
    work = _FieldWork(folder, journal.work, encoder, SharedMemoryBound(memory))
    for name, cardinality, files in _in_threads(work, rest):
        journal.add("field", name=name, cardinality=cardinality, files=files)
        rest[name].drop()
        finished[name] = journal.records("field")[-1]
    for name in names:
        sync_folder(folder / name)
    records = [finished[name] for name in CATEGORICAL_FIELDS]
    digests = {name: digest for record in records for name, digest in record["files"].items()}
    return [record["cardinality"] for record in records], digests


@dataclass(frozen=True)
class _FieldWork:
    """Numbers fields, several at a time; attributes as of `number_fields`."""

    folder: Path
    work: Path
    encoder: Encoder
    memory: SharedMemoryBound

    def number(self, name: str, entries: StagedField) -> tuple[str, int, dict[str, str]]:
        """Writes a field's files; returns its name and cardinality, and the files' SHA-256."""
        spill = self.work / f"spill-{name}"
        shutil.rmtree(spill, ignore_errors=True)
        spill.mkdir()
        with (
            self.memory.share(memory_of(entries)) as memory,
            field_files(self.folder, self.work, name, self.encoder) as files,
        ):
            cardinality = number_field(name, entries, self.encoder, files, spill, memory)
        shutil.rmtree(spill)
        written = [ids_path(self.work, name), self.folder / manifests.frequencies_file(name)]
        if self.encoder.name == "vocabulary":
            written.append(self.folder / manifests.vocabulary_file(name))
        digests = {path.relative_to(self.folder).as_posix(): sha256_of(path) for path in written}
        return name, cardinality, digests


def _in_threads(
    work: _FieldWork, fields: dict[str, StagedField]
) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Yields what `work.number` gives of each field as soon as it is there.

    The fields with most entries first, lest one of them is left alone at the end.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        order = sorted(fields, key=lambda name: -fields[name].size)
        futures = [pool.submit(work.number, name, fields[name]) for name in order]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _compare(folder: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise CannotResumeError("its working files are damaged")


def replace_codes(folder: Path, stage: Stage, encoder: Encoder, journal: Journal) -> str:
    """Step 3: writes the records with ids for codes, part by part; each part's codes then go.

    Returns:
        The SHA-256 of the file.

    Raises:
        CannotResumeError: what an earlier run left is damaged.
    """
    path = folder / manifests.ROWS_FILE
    path.touch()
    digest = hashlib.sha256()
    done = journal.records("rows")
    with ExitStack() as files:
        file = files.enter_context(open(path, "rb+"))
        ids = _StagedIds(journal.work, encoder, files)
        for part in range(stage.parts):
            sizes = stage.block_sizes(part)
            if part < len(done):
                ids.skip(sizes)
                _read_part(file, sizes[0] * stage.dtype.itemsize, digest, done[part]["sha256"])
            else:
                written = _write_part(file, stage, part, ids, digest)
                journal.add("rows", sha256=written)
            stage.drop_rows(part)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


class _StagedIds:
    """The ids of the staged entries of all fields, read from front to back.

    Not mapped: mapped pages would count as our memory.
    """

    def __init__(self, work: Path, encoder: Encoder, files: ExitStack):
        self._type = np.dtype(encoder.id_type)
        self._files = [
            files.enter_context(ids_path(work, name).open("rb")) for name in CATEGORICAL_FIELDS
        ]

    def skip(self, sizes: np.ndarray) -> None:
        """Leaves a part out, given its `block_sizes`."""
        for file, entries in zip(self._files, sizes[1:].sum(axis=1), strict=True):
            file.seek(int(entries) * self._type.itemsize, os.SEEK_CUR)

    def replace(self, codes: np.ndarray, sizes: np.ndarray) -> None:
        """Puts ids in the place of a block's codes `[rows, 26]`, given its entries `[26]`."""
        for index, (file, entries) in enumerate(zip(self._files, sizes, strict=True)):
            codes[:, index] = np.fromfile(file, self._type, entries)[codes[:, index]]


def _read_part(file: BinaryIO, sizes: np.ndarray, digest: Any, expected: str) -> None:
    of_part = hashlib.sha256()
    for size in sizes:
        data = file.read(size)
        digest.update(data)
        of_part.update(data)
    if of_part.hexdigest() != expected:
        raise CannotResumeError("its working files are damaged")


def _write_part(file: BinaryIO, stage: Stage, part: int, ids: _StagedIds, digest: Any) -> str:
    of_part = hashlib.sha256()
    entries = stage.block_sizes(part)[1:]
    with ThreadPoolExecutor(2) as pool:
        for block, rows in enumerate(stage.read_rows(part)):
            ids.replace(rows["categorical"], entries[:, block])
            hashing = [pool.submit(each.update, rows.data) for each in (digest, of_part)]
            file.write(rows.data)
            for future in hashing:
                future.result()
    file.flush()
    return of_part.hexdigest()
