"""Which lines are Criteo rows: the one grammar of files, clients and served graphs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, COLUMNS, DENSE_FIELDS, LABEL
from tf_compemb.data.errors import shorten

# Skipped once at the beginning of a file; anywhere else it is part of a field.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_FEATURES = (*DENSE_FIELDS, *CATEGORICAL_FIELDS)


def _numbers_up_to(largest: str) -> str:
    """A regular expression of the numbers from 1 to `largest` without leading zeros."""
    fewer_digits = f"[1-9][0-9]{{0,{len(largest) - 2}}}"
    as_many = [
        f"{largest[:i]}[{least}-{int(digit) - 1}][0-9]{{{len(largest) - i - 1}}}"
        for i, digit in enumerate(largest)
        if digit > (least := "0" if i else "1")
    ]
    return "|".join([fewer_digits, *as_many, largest])


# An integer of 64 bits, as a regular expression in the common language of Python and of TensorFlow:
# by no conversion, as Python's is refused above 4,300 digits and TensorFlow's takes "+5" and tabs.
# Spaces around are let pass, and leading zeros, as Arrow does.
INTEGER = rf" *(?:-?0*(?:0|{_numbers_up_to(str(2**63 - 1))})|-0*{2**63}) *"
_INTEGER = re.compile(INTEGER.encode())


def split_lines(text: bytes) -> list[bytes]:
    r"""The lines without their ends, LF or CRLF.

    >>> split_lines(b"a\r\nb\rc\n")
    [b'a', b'b\rc']
    """
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def check_line(text: bytes) -> str | None:
    """Returns what is wrong with a line (given without its line end), or None.

    >>> check_line(b"2" + 39 * b"\\t")
    "field label must be 0 or 1, but is '2'"
    >>> check_line(b"1" + 39 * b"\\t")
    """
    fields = text.split(b"\t")
    if len(fields) != len(COLUMNS):
        return _wrong_field_count(len(fields))
    reason = _wrong_text(text, COLUMNS, fields)
    return reason or _wrong_label(fields[0]) or _wrong_integer(fields[1:])


def check_features(text: bytes, fields: Sequence[bytes]) -> str | None:
    """Returns what is wrong with the 39 features at the end of a line, or None."""
    return _wrong_text(text, _FEATURES, fields) or _wrong_integer(fields)


def _wrong_field_count(count: int) -> str:
    reason = f"the line has {count} tab-separated fields instead of {len(COLUMNS)}"
    if count == len(COLUMNS) - 1:
        reason += " (a test file without labels, as Kaggle's test.txt, cannot be used)"
    return reason


def _wrong_text(text: bytes, names: Sequence[str], fields: Sequence[bytes]) -> str | None:
    if b"\r" in text:
        return "a carriage return stands within the line"
    if _is_text(text):
        return None
    for name, value in zip(names, fields, strict=True):
        if not _is_text(value):
            return f"field {name} is not valid UTF-8: {shorten(value)}"
    return None


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _wrong_label(value: bytes) -> str | None:
    if value in (b"0", b"1"):
        return None
    return f"field {LABEL} must be 0 or 1, but is {shorten(value.decode())}"


def _wrong_integer(features: Sequence[bytes]) -> str | None:
    for name, value in zip(DENSE_FIELDS, features, strict=False):
        if value and not _INTEGER.fullmatch(value):
            shown = shorten(value.decode())
            return f"field {name} must be a 64-bit integer or empty, but is {shown}"
    return None
