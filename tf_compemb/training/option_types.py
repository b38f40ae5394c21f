"""What a command line's values may be, as argparse types that say what is wrong themselves.

Of a type that raises a ValueError, argparse would show the function's name.
"""

from __future__ import annotations

import argparse
import json
import reprlib
from pathlib import Path
from typing import Any

from tf_compemb.json_text import read_json

# What TensorFlow counts in 64 bits has room to be added to.
LARGEST_INTEGER = 2**62
# NumPy's and Keras' generators take 32 bits.
LARGEST_SEED = 2**32 - 1
MOST_SEEDS = 10_000
MOST_THREADS = 4096
# float32's normal numbers: smaller ones would count as 0, larger ones as infinite.
LEAST_NUMBER, LARGEST_NUMBER = 1.2e-38, 3.4e38


def positive_integer(text: str) -> int:
    """1, 2, ..., 2**62."""
    return _whole_number(text, 1, LARGEST_INTEGER)


def natural_number(text: str) -> int:
    """0, 1, ..., 2**62."""
    return _whole_number(text, 0, LARGEST_INTEGER)


def seed(text: str) -> int:
    """0, 1, ..., 2**32 - 1."""
    return _whole_number(text, 0, LARGEST_SEED)


def seed_count(text: str) -> int:
    """1, 2, ..., 10000."""
    return _whole_number(text, 1, MOST_SEEDS)


def thread_count(text: str) -> int:
    """1, 2, ..., 4096."""
    return _whole_number(text, 1, MOST_THREADS)


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
    """A finite number above 0, as float32 has them."""
    value = _number(text)
    if not LEAST_NUMBER <= value <= LARGEST_NUMBER:
        raise argparse.ArgumentTypeError(
            f"must be a positive number from {LEAST_NUMBER:g} to {LARGEST_NUMBER:g}, not "
            f"{reprlib.repr(text)}"
        )
    return value


def temperature(text: str) -> float:
    """A number from 0.001 to 1000, by which logits can be divided."""
    value = _number(text)
    if not 0.001 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"must be from 0.001 to 1000, not {reprlib.repr(text)}")
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
        return name, read_json(value)
    except json.JSONDecodeError:
        return name, value
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} cannot be read: {error}") from None


def field_settings(text: str) -> dict[str, Any]:
    """A mapping from fields to their settings, as JSON or the path of a file of it."""
    try:
        found = read_json(text if text.lstrip().startswith("{") else Path(text).read_text())
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
