"""Step 1 of a preparation: text to staged rows, each part of them once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tf_compemb.data import staging
from tf_compemb.data.bad_line_log import BadLineLog
from tf_compemb.data.encoders import Encoder
from tf_compemb.data.errors import DataError
from tf_compemb.data.journal import CannotResumeError, Journal
from tf_compemb.data.line_checks import BadLine, parse_block, parse_block_skipping
from tf_compemb.data.progress import Progress
from tf_compemb.data.raw_reader import RawFile, RawSource, TextBlock
from tf_compemb.data.staging import EncodedBlock, Stage, encode_table

# Of each step of a preparation.
THREADS = min(4, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ReadText:
    """What step 1 leaves.

    Attributes:
        stage: the staged rows.
        sources: the raw files as they were read.
        bad_lines: lines that were left out.
    """

    stage: Stage
    sources: list[RawSource]
    bad_lines: int


@dataclass(frozen=True)
class _Numbered:
    """A block of text with its number from 1 on, and a digest of the input up to its end."""

    number: int
    input: str
    text: TextBlock


def read_text(
    raw: list[RawFile],
    folder: Path,
    encoder: Encoder,
    journal: Journal,
    progress: Progress,
    *,
    skip_bad_lines: bool,
    max_bad_share: float,
) -> ReadText:
    """Reads what no earlier run has read.

    What an earlier run has is compared with its checksums. Its text is read again, which costs
    little beside parsing it, for the checksum of the whole file and because it may have changed.

    Raises:
        DataError: a file or a line is at fault.
        CannotResumeError: the input has changed, or the working files are damaged.
    """
    stage = Stage(journal.work, encoder)
    parts = journal.records("part")
    for record, needed in zip(parts, _needed_files(journal), strict=True):
        if not stage.take_part(needed):
            raise CannotResumeError("its working files are damaged")
        progress.add_rows(record["rows"])
    finished = journal.records("read")
    if finished:
        sources = [RawSource(**source) for source in finished[0]["sources"]]
        return ReadText(stage, sources, finished[0]["bad"])
    names = {file.path: file.name for file in raw}
    log = BadLineLog(folder, max_bad_share, names, parts[-1]["bad"] if parts else None)
    with closing(log), closing(stage):
        _read_rest(raw, stage, encoder, journal, progress, log if skip_bad_lines else None)
    journal.add("read", sources=[asdict(file.source) for file in raw], bad=log.count)
    return ReadText(stage, [file.source for file in raw], log.count)


def _needed_files(journal: Journal) -> Iterator[dict[str, str]]:
    """Yields for each part the checksums of those of its files that later steps still read."""
    numbered = {f"{record['name']}.arrows" for record in journal.records("field")}
    replaced = len(journal.records("rows"))
    for part, record in enumerate(journal.records("part")):
        dropped = numbered | ({staging.ROWS} if part < replaced else set())
        yield {name: digest for name, digest in record["files"].items() if name not in dropped}


def _read_rest(
    raw: list[RawFile],
    stage: Stage,
    encoder: Encoder,
    journal: Journal,
    progress: Progress,
    log: BadLineLog | None,
) -> None:
    def encode(block: _Numbered) -> tuple[_Numbered, EncodedBlock, list[BadLine]]:
        if log is None:
            return block, encode_table(parse_block(block.text), encoder), []
        table, bad = parse_block_skipping(block.text)
        return block, encode_table(table, encoder), bad

    def close_part(at: _Numbered) -> None:
        rows = stage.open_rows
        if rows:
            state = None if log is None else log.state()
            files = stage.close_part()
            journal.add("part", rows=rows, files=files, blocks=at.number, input=at.input, bad=state)

    at = None
    blocks = _unread_blocks(raw, journal, keep_truncated=log is not None)
    for at, block, bad in _map_in_order(encode, blocks, THREADS):
        stage.append(block)
        progress.add_rows(len(block.rows))
        if log is not None:
            log.add(len(block.rows), bad)
        if stage.open_blocks >= staging.PART_BLOCKS:
            close_part(at)
    if log is not None:
        log.check_share()
    if at is not None:
        close_part(at)
    if not stage.rows:
        raise DataError(f"{raw[0].path}: no row is left; give a file with Criteo rows.")


def _unread_blocks(
    raw: list[RawFile], journal: Journal, *, keep_truncated: bool
) -> Iterator[_Numbered]:
    """Yields the blocks after those that an earlier run has staged."""
    parts = journal.records("part")
    done, expected = (parts[-1]["blocks"], parts[-1]["input"]) if parts else (0, "")
    number = 0
    for index, file in enumerate(raw):
        for text in file.blocks(keep_truncated=keep_truncated):
            number += 1
            if number < done:
                continue
            block = _Numbered(number, f"{index}:{file.source.sha256}", text)
            if number > done:
                yield block
            elif block.input != expected:
                raise CannotResumeError("its input has changed since")
    if number < done:
        raise CannotResumeError("its input has changed since")


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
