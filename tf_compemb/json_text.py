"""JSON that a user wrote: whatever is wrong with it is one kind of error, in words of its own."""

from __future__ import annotations

import json
from typing import Any


def read_json(text: str) -> Any:
    """The value that a text is.

    Raises:
        ValueError: It is no JSON, or more deeply nested or with longer integers than Python reads;
            a `json.JSONDecodeError` only in the first case.

    >>> read_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it holds an integer of thousands of digits") from None
