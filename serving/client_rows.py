"""Criteo lines as the inputs of the `raw` signature, with or without a label."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, DENSE_FIELDS
from tf_compemb.data.errors import DataError
from tf_compemb.data.line_grammar import BYTE_ORDER_MARK, check_features, split_lines
from tf_compemb.data.raw_reader import RawFile, find_raw_files

STDIN = "-"
_FEATURES = len(DENSE_FIELDS) + len(CATEGORICAL_FIELDS)


@dataclass(frozen=True)
class RawRow:
    """The features of one line: 13 integers as they stood there, 26 categories; empty: missing."""

    integers: tuple[bytes, ...]
    categories: tuple[bytes, ...]


def read_rows(path: str) -> Iterator[RawRow]:
    """Rows of a file, plain or gzip, or of standard input for `-`, read as they are asked for.

    Raises:
        DataError: The file cannot be read, or a line is wrong; the message names file and line.
    """
    if path == STDIN:
        rows = _parse_lines("standard input", 1, _lines_of_stdin())
        first = next(rows, None)
        if first is None:
            raise DataError("standard input: it is empty; give Criteo rows.")
        yield first
        yield from rows
        return
    for file in find_raw_files(path):
        for block in RawFile(Path(file), path).blocks():
            yield from _parse_lines(str(file), block.first_line, split_lines(block.text))


def batches(rows: Iterator[RawRow], size: int) -> Iterator[list[RawRow]]:
    """The rows in lists of `size`, the last one perhaps shorter."""
    while part := list(itertools.islice(rows, size)):
        yield part


def parse_line(text: bytes) -> RawRow:
    r"""One line without its end: 39 features, or a label before them, which is not looked at.

    The features are what `tf_compemb.data` takes of a file, and nothing else.

    Raises:
        ValueError: The line is no Criteo row; the message says why, not where.

    >>> parse_line(b"1\t5" + 12 * b"\t" + b"\t68fd1e64" + 25 * b"\t").categories[:2]
    (b'68fd1e64', b'')
    """
    fields = text.split(b"\t")
    if len(fields) not in (_FEATURES, _FEATURES + 1):
        raise ValueError(
            f"the line has {len(fields)} tab-separated fields instead of {_FEATURES}, or "
            f"{_FEATURES + 1} with a label"
        )
    features = fields[-_FEATURES:]
    reason = check_features(text, features)
    if reason is not None:
        raise ValueError(reason)
    return RawRow(tuple(features[: len(DENSE_FIELDS)]), tuple(features[len(DENSE_FIELDS) :]))


def raw_inputs(rows: Sequence[RawRow]) -> dict[str, np.ndarray]:
    """Inputs of the `raw` signature: `integers` `[rows, 13]` and `categories` `[rows, 26]`.

    Both are bytes: a missing integer is empty text, for which an integer type has no value.
    """
    return {
        "integers": np.array([row.integers for row in rows], dtype=object),
        "categories": np.array([row.categories for row in rows], dtype=object),
    }


def _lines_of_stdin() -> Iterator[bytes]:
    for number, line in enumerate(sys.stdin.buffer):
        yield from split_lines(line if number else line.removeprefix(BYTE_ORDER_MARK))


def _parse_lines(name: str, first: int, lines: Iterable[bytes]) -> Iterator[RawRow]:
    for number, line in enumerate(lines, start=first):
        try:
            yield parse_line(line)
        except ValueError as error:
            raise DataError(f"{name}:{number}: {error}; correct or remove the line.") from error
