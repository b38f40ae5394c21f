"""Raw Criteo files as a stream of text blocks cut at line ends, in bounded memory.

Files are plain or gzip (told apart by their first bytes, not by their names). While a file is read
its size and SHA-256 are taken of the bytes as they lie on disk.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tf_compemb.data.criteo_format import COLUMNS
from tf_compemb.data.errors import DataError
from tf_compemb.data.line_grammar import BYTE_ORDER_MARK

BLOCK_BYTES = 8 << 20
# A Criteo row has about 250 bytes. A "line" this long is a file without lines.
LONGEST_LINE = 1 << 20

PathLike = str | os.PathLike[str]

_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_MAGIC = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass(frozen=True)
class TextBlock:
    """Whole lines of one raw file.

    Attributes:
        path: the raw file.
        first_line: number of the first line, counted from 1.
        text: the lines as bytes, each with its line end (the file's last line may lack it).
        truncated: True where the file's gzip stream ended early, so that the last line is not
            to be trusted.
    """

    path: Path
    first_line: int
    text: bytes
    truncated: bool = False


@dataclass(frozen=True)
class RawSource:
    """A raw file as it was read: its name, bytes on disk and their SHA-256 (hexadecimal)."""

    name: str
    size: int
    sha256: str


def find_raw_files(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    """Returns the files that `paths` names: one path, one glob, or several of either.

    A glob's matches are sorted by name; the order of several arguments is kept. The order matters,
    because the split is by time.

    Raises:
        DataError: a path does not exist, is not a file, cannot be read, or a glob has no match.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    files = [path for entry in paths for path in _expand(os.fspath(entry))]
    if not files:
        raise DataError("No raw file was given; name at least one Criteo file.")
    for path in files:
        _check_readable(path)
    return files


def name_sources(paths: Sequence[Path]) -> list[str]:
    """Returns the files' names below their common folder, so that no machine's paths are kept."""
    parents = [str(path.absolute().parent) for path in paths]
    common = os.path.commonpath(parents)
    return [Path(os.path.relpath(path.absolute(), common)).as_posix() for path in paths]


class RawFile:
    """One raw file, to be read once from its first to its last block.

    Args:
        path: a plain or gzip file.
        name: how the file is named in a manifest.
        block_bytes: about how many bytes of text a block has.
        report: called with the number of bytes just read from disk.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        block_bytes: int = BLOCK_BYTES,
        report: Callable[[int], None] | None = None,
    ):
        self.path = path
        self.name = name
        self._block_bytes = block_bytes
        self._report = report or (lambda _: None)
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def source(self) -> RawSource:
        """The file's size and hash; complete when `blocks` is exhausted."""
        return RawSource(self.name, self._size, self._digest.hexdigest())

    def blocks(self, *, keep_truncated: bool = False) -> Iterator[TextBlock]:
        """Yields the file's lines in blocks.

        Args:
            keep_truncated: when a gzip stream ends early, yield what was read of it as a last
                block marked `truncated` instead of raising.

        Raises:
            DataError: the file is empty, of another format, has no lines, cannot be read, or is a
                damaged or truncated gzip stream.
        """
        try:
            with open(self.path, "rb") as disk:
                yield from self._text_blocks(disk, keep_truncated)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}).") from error

    def _text_blocks(self, disk: BinaryIO, keep_truncated: bool) -> Iterator[TextBlock]:
        line, rest, is_first = 1, b"", True
        for chunk, truncated in self._chunks(disk, keep_truncated):
            if is_first and chunk:
                chunk = chunk.removeprefix(BYTE_ORDER_MARK)
                check_format(self.path, chunk)
            is_first = False
            text = rest + chunk
            cut = len(text) if truncated else text.rfind(b"\n") + 1
            text, rest = text[:cut], text[cut:]
            if text or truncated:
                yield TextBlock(self.path, line, text, truncated)
            line += text.count(b"\n")
            if len(rest) > LONGEST_LINE:
                raise DataError(
                    f"{self.path}:{line}: the line is longer than {LONGEST_LINE} bytes, so this is "
                    "not Criteo's format; give a tab-separated file with one row a line."
                )
        if is_first:
            raise DataError(f"{self.path}: the file is empty; give a file with Criteo rows.")
        if rest:
            yield TextBlock(self.path, line, rest)

    def _chunks(self, disk: BinaryIO, keep_truncated: bool) -> Iterator[tuple[bytes, bool]]:
        """Yields decompressed bytes, and whether the gzip stream broke off after them."""
        compressed = self._read(disk)
        if not compressed.startswith(_GZIP_MAGIC):
            while compressed:
                yield compressed, False
                compressed = self._read(disk)
            return
        pieces = _gunzip(compressed, lambda: self._read(disk), self._block_bytes)
        lines = 0
        while True:
            try:
                piece = next(pieces, b"")
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                if isinstance(error, EOFError) and keep_truncated:
                    yield b"", True
                    return
                raise self._gzip_error(error, lines + 1) from error
            if not piece:
                return
            lines += piece.count(b"\n")
            yield piece, False

    def _read(self, disk: BinaryIO) -> bytes:
        data = disk.read(self._block_bytes)
        self._size += len(data)
        self._digest.update(data)
        self._report(len(data))
        return data

    def _gzip_error(self, error: Exception, line: int) -> DataError:
        if isinstance(error, EOFError):
            return DataError(
                f"{self.path}:{line}: the gzip stream is truncated, it ends within or before this "
                "line; download the file again."
            )
        return DataError(
            f"{self.path}:{line}: the gzip stream is damaged from about this line on ({error}); "
            "download the file again."
        )


def is_gzip(path: Path) -> bool:
    """Whether a file begins as a gzip stream does."""
    with open(path, "rb") as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def check_format(path: Path, text: bytes) -> None:
    """Raises a `DataError` if a file whose text begins so cannot be Criteo rows at all."""
    other = _other_format(text[:65536])
    if other:
        raise DataError(
            f"{path}: this looks like {other}, not Criteo's format; give a plain or gzip "
            f"file of {len(COLUMNS)} tab-separated columns without a header."
        )


def _gunzip(first: bytes, read: Callable[[], bytes], piece_bytes: int) -> Iterator[bytes]:
    """Yields the text of all members of a gzip stream, at most `piece_bytes` at a time.

    By zlib and not by `gzip.open`, which hands out what it has of a truncated stream only in part.

    Raises:
        EOFError: the stream ends within a member.
        zlib.error: it is damaged.
        gzip.BadGzipFile: something else than another member follows a member.
    """
    compressed = first
    while compressed:
        if not compressed.startswith(_GZIP_MAGIC[: len(compressed)]):
            if compressed.strip(b"\0"):
                raise gzip.BadGzipFile("bytes that are not gzip follow the stream")
            compressed = read()  # zeros after the stream are padding, as gzip itself holds
            continue
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not compressed:
                raise EOFError("the gzip stream ends early")
            piece = member.decompress(compressed, piece_bytes)
            if piece:
                yield piece
            compressed = member.unconsumed_tail or (b"" if member.eof else read())
        compressed = member.unused_data or read()


def _expand(entry: str) -> list[Path]:
    if os.path.exists(entry) or not glob.has_magic(entry):
        return [Path(entry)]
    matches = sorted(match for match in glob.glob(entry, recursive=True) if os.path.isfile(match))
    if not matches:
        raise DataError(f"{entry}: no file matches this pattern; check the folder and the name.")
    return [Path(match) for match in matches]


def _check_readable(path: Path) -> None:
    from tf_compemb.data.manifest import MANIFEST_FILE

    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path.")
    if (path / MANIFEST_FILE).is_file():
        raise DataError(
            f"{path}: this is a prepared data set; give it alone, or the raw files it was made of."
        )
    if path.is_dir():
        raise DataError(
            f"{path}: this is a folder without a prepared data set; give raw Criteo files, a "
            "pattern such as 'folder/day_*.gz', or a folder that `prepare` has written."
        )
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its rights.") from error


def _other_format(head: bytes) -> str | None:
    """Names what a file is whose decompressed text begins with `head`, or None for tab-separated.

    Only what cannot be Criteo rows at all; a wrong line is reported with its number later.
    """
    for magic, name in _OTHER_MAGIC.items():
        if head.startswith(magic):
            return name
    if head.startswith(_GZIP_MAGIC):
        return "a gzip file within a gzip file"
    lines = head.split(b"\n")
    if any(line.count(b"\t") >= len(COLUMNS) // 2 for line in lines):
        return None
    if b"\0" in head:
        return "a binary file"
    start = head.lstrip()[:1]
    if start == b"<":
        return "an HTML or XML page"
    if start in (b"{", b"["):
        return "a JSON file"
    if lines[0].count(b",") >= len(COLUMNS) // 2:
        return "a CSV file with commas"
    if b"\t" not in lines[0]:
        return "text without tabs"
    return None
