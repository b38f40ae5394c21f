"""Raw files cut into ranges that different processes read at the same time.

A plain file is cut at any byte: a range has the lines that begin in it. A gzip file is one range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tf_compemb.data.errors import DataError
from tf_compemb.data.line_grammar import BYTE_ORDER_MARK
from tf_compemb.data.raw_reader import LONGEST_LINE, RawFile, TextBlock, check_format, is_gzip


@dataclass(frozen=True)
class RawRange:
    """Bytes `[start, stop)` of a raw file; all of it where `stop` is None."""

    path: Path
    start: int = 0
    stop: int | None = None


def cut_into_ranges(paths: list[Path], range_bytes: int) -> list[RawRange]:
    """Returns the ranges of all files, in order."""
    ranges = []
    for path in paths:
        size = path.stat().st_size
        if size <= range_bytes or is_gzip(path):
            ranges.append(RawRange(path))
        else:
            starts = range(0, size, range_bytes)
            ranges += [RawRange(path, at, min(at + range_bytes, size)) for at in starts]
    return ranges


def range_blocks(
    raw: RawRange, block_bytes: int, *, keep_truncated: bool = False
) -> Iterator[TextBlock]:
    """Yields the lines that begin in a range in blocks, with line numbers from its own first line.

    Args:
        raw: the range.
        block_bytes: about how many bytes of text a block has.
        keep_truncated: as of `RawFile.blocks`.

    Raises:
        DataError: as of `RawFile.blocks`.
    """
    if raw.stop is None:
        file = RawFile(raw.path, raw.path.name, block_bytes=block_bytes)
        yield from file.blocks(keep_truncated=keep_truncated)
        return
    try:
        with open(raw.path, "rb") as disk:
            begin, end = (_line_start(disk, at) for at in (raw.start, raw.stop))
            disk.seek(begin)
            yield from _plain_blocks(raw.path, disk, begin, end, block_bytes)
    except OSError as error:
        raise DataError(f"{raw.path}: cannot be read ({error.strerror or error}).") from error


def _line_start(disk: BinaryIO, at: int) -> int:
    """Where the first line begins that begins at `at` or later."""
    if at == 0:
        return 0
    disk.seek(at - 1)
    while chunk := disk.read(1 << 16):
        found = chunk.find(b"\n")
        if found >= 0:
            return disk.tell() - len(chunk) + found + 1
    return disk.tell()


def _plain_blocks(
    path: Path, disk: BinaryIO, at: int, end: int, block_bytes: int
) -> Iterator[TextBlock]:
    line, rest = 1, b""
    while at < end:
        chunk = disk.read(min(block_bytes, end - at))
        if not chunk:
            raise DataError(f"{path}: became shorter while it was read; read it again.")
        if at == 0:
            chunk_text = chunk.removeprefix(BYTE_ORDER_MARK)
            check_format(path, chunk_text)
        else:
            chunk_text = chunk
        at += len(chunk)
        text = rest + chunk_text
        cut = len(text) if at >= end else text.rfind(b"\n") + 1
        text, rest = text[:cut], text[cut:]
        if text:
            yield TextBlock(path, line, text)
        line += text.count(b"\n")
        if len(rest) > LONGEST_LINE:
            raise DataError(
                f"{path}: byte {at} is in a line longer than {LONGEST_LINE} bytes, so this is not "
                "Criteo's format; give a tab-separated file with one row a line."
            )
