"""Text blocks to Arrow tables; where that fails, the exact line, field and value that is wrong.

The fast path parses a whole block with `pyarrow.csv`. Only a block which that refuses, or whose
values fail a check, is gone through line by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, COLUMNS, DENSE_FIELDS, LABEL
from tf_compemb.data.errors import DataError, shorten
from tf_compemb.data.line_grammar import BYTE_ORDER_MARK, check_line, split_lines
from tf_compemb.data.raw_reader import TextBlock

# The label is read as text: as a number it would also take "01", " 1" and "0x1".
COLUMN_TYPES = {
    LABEL: pa.dictionary(pa.int32(), pa.string()),
    **{name: pa.int64() for name in DENSE_FIELDS},
    **{name: pa.string() for name in CATEGORICAL_FIELDS},
}
_PARSE = pa_csv.ParseOptions(
    delimiter="\t",
    quote_char=False,
    double_quote=False,
    escape_char=False,
    ignore_empty_lines=False,
)
_CONVERT = pa_csv.ConvertOptions(
    column_types=COLUMN_TYPES, null_values=[""], strings_can_be_null=False
)
# Arrow reads hexadecimal numbers, which `line_grammar` does not know.
_HEXADECIMAL = (b"0x", b"0X")


@dataclass(frozen=True)
class BadLine:
    """A line that was left out: where it stood, why, and its bytes without the line end."""

    path: Path
    line: int
    reason: str
    text: bytes


def parse_block(block: TextBlock) -> pa.Table:
    """Returns a block's rows as a table of the 40 columns, missing integers as nulls.

    Raises:
        DataError: a line is wrong; the message has file, line, field, value and what to do.
    """
    table = _parse_fast(block.text)
    if table is not None:
        return table
    bad = _find_bad_lines(block, stop_at_first=True)
    if bad:
        raise bad_line_error(bad[0])
    return _parse_checked(block, block.text)


def bad_line_error(bad: BadLine) -> DataError:
    """The error that says which line is bad and what to do."""
    return DataError(
        f"{bad.path}:{bad.line}: {bad.reason}; correct or remove the line, or skip "
        "such lines with bad_lines='skip' (--bad-lines skip)."
    )


def parse_block_skipping(block: TextBlock) -> tuple[pa.Table, list[BadLine]]:
    """Returns the table of a block's good lines, and its bad lines in order."""
    table = _parse_fast(block.text)
    if table is not None and not block.truncated:
        return table, []
    bad = _find_bad_lines(block, stop_at_first=False)
    wrong = {line.line - block.first_line for line in bad}
    good = [text for i, text in enumerate(split_lines(block.text)) if i not in wrong]
    return _parse_checked(block, b"".join(text + b"\n" for text in good)), bad


def _find_bad_lines(block: TextBlock, *, stop_at_first: bool) -> list[BadLine]:
    bad: list[BadLine] = []
    lines = split_lines(block.text) or [b""]
    for i, text in enumerate(lines):
        reason = check_line(text)
        if block.truncated and i == len(lines) - 1:
            reason = "the gzip stream is truncated within or before this line; the rest is lost"
        if reason is not None:
            bad.append(BadLine(block.path, block.first_line + i, reason, text))
            if stop_at_first:
                break
    return bad


def _parse_fast(text: bytes) -> pa.Table | None:
    """The block's table, or None where a closer look is needed."""
    # Arrow skips a byte order mark; a file's own is gone by now.
    if text.startswith(BYTE_ORDER_MARK) or any(mark in text for mark in _HEXADECIMAL):
        return None
    try:
        table = _read_csv(text)
    except pa.ArrowInvalid:
        return None
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    # Arrow takes a lone carriage return for a line end, and an empty line for a row of nulls.
    if table.num_rows != lines or not _labels_are_valid(table):
        return None
    return table


def _parse_checked(block: TextBlock, text: bytes) -> pa.Table:
    """Parses lines that passed `check_line`."""
    if not text:
        return pa.schema(list(COLUMN_TYPES.items())).empty_table()
    try:
        return _read_csv(text)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{block.path}:{block.first_line}: the rows from this line on cannot be parsed "
            f"({shorten(str(error), 200)}); please report this with the lines."
        ) from error


def _read_csv(text: bytes) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(text),
        read_options=pa_csv.ReadOptions(
            column_names=list(COLUMNS), use_threads=False, block_size=len(text) + 1
        ),
        parse_options=_PARSE,
        convert_options=_CONVERT,
    ).combine_chunks()


def _labels_are_valid(table: pa.Table) -> bool:
    labels = table.column(LABEL).chunk(0)
    return labels.null_count == 0 and set(labels.dictionary.to_pylist()) <= {"0", "1"}
