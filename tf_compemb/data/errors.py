"""The one error that bad data, bad paths and bad options raise."""

from __future__ import annotations


class DataError(ValueError):
    """Something about the data that the user can put right.

    The message is one sentence: what is wrong, where (file, line, field, value), what to do.
    """


class BeingPreparedError(DataError):
    """Another process is preparing the same data set at this moment."""


def shorten(value: object, limit: int = 40) -> str:
    """Returns `repr(value)`, cut in the middle when it is longer than `limit` characters.

    >>> shorten("68fd1e64")
    "'68fd1e64'"
    >>> shorten("x" * 100, limit=12)
    "'xxxx...xxx'"
    """
    text = repr(value)
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 2
    return f"{text[: limit - 3 - tail]}...{text[-tail:]}"
