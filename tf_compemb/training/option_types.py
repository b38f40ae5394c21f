"""What a command line's values may be, as argparse types that say what is wrong themselves.

Of a type that raises a ValueError, argparse would show the function's name.
"""

from __future__ import annotations

import argparse
import json
import reprlib
from pathlib import Path
from typing import Any

_LARGEST = 2**63 - 1  # Of the integers that files and TensorFlow hold.


def positive_integer(text: str) -> int:
    """1, 2, ..."""
    return _whole_number(text, 1, _LARGEST)


def natural_number(text: str) -> int:
    """0, 1, ..."""
    return _whole_number(text, 0, _LARGEST)


def port(text: str) -> int:
    """The number of a port; 0 is any that is free."""
    return _whole_number(text, 0, 65535)


def positive_integers(text: str) -> list[int]:
    """Positive integers with commas between them, each once, in order."""
    try:
        return sorted({positive_integer(one) for one in text.split(",")})
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 1 on with commas, not {reprlib.repr(text)}"
        ) from None


def modulus(text: str) -> int | str:
    """A positive integer, or `large`."""
    return text if text == "large" else positive_integer(text)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {reprlib.repr(text)}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {reprlib.repr(text)}")
    return value


def _whole_number(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, not {reprlib.repr(text)}"
        ) from None
    if not least <= value <= most:
        bound = f"at least {least}" if value < least else f"at most {most}"
        raise argparse.ArgumentTypeError(f"must be {bound}, not {reprlib.repr(value)}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {reprlib.repr(text)}") from None


def method_list(text: str) -> list[str]:
    """Different names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"must be different names with commas, not {reprlib.repr(text)}"
        )
    return names


def assignment(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` with the value read as JSON where it is JSON, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {reprlib.repr(text)}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def field_settings(text: str) -> dict[str, Any]:
    """A mapping from fields to their settings, as JSON or the path of a file of it."""
    try:
        found = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise argparse.ArgumentTypeError(
            f"is neither JSON nor a file with JSON: {reprlib.repr(text)} ({reason})"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise argparse.ArgumentTypeError(
            'must be like {"C3": {"embedding": "qr", "options": {"collisions": 60}}}'
        )
    return found
