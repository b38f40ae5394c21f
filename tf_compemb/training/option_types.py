"""What a command line's values may be, as argparse types: argparse's messages name them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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
    return _integer(text, 1, LARGEST_INTEGER)


def natural_number(text: str) -> int:
    """0, 1, ..., 2**62."""
    return _integer(text, 0, LARGEST_INTEGER)


def seed(text: str) -> int:
    """0, 1, ..., 2**32 - 1."""
    return _integer(text, 0, LARGEST_SEED)


def seed_count(text: str) -> int:
    """1, 2, ..., 10000."""
    return _integer(text, 1, MOST_SEEDS)


def thread_count(text: str) -> int:
    """1, 2, ..., 4096."""
    return _integer(text, 1, MOST_THREADS)


def _integer(text: str, least: int, most: int) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
    if value > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, not {text}")
    return value


def modulus(text: str) -> int | str:
    """A positive integer, or `large`."""
    return text if text == "large" else positive_integer(text)


def positive_number(text: str) -> float:
    """A finite number above 0, as float32 has them."""
    value = float(text)
    if not LEAST_NUMBER <= value <= LARGEST_NUMBER:
        raise argparse.ArgumentTypeError(
            f"must be a positive number from {LEAST_NUMBER:g} to {LARGEST_NUMBER:g}, not {text}"
        )
    return value


def temperature(text: str) -> float:
    """A number from 0.001 to 1000, by which logits can be divided."""
    value = float(text)
    if not 0.001 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"must be from 0.001 to 1000, not {text}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def method_list(text: str) -> list[str]:
    """Different names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"must be different names with commas, not {text!r}")
    return names


def assignment(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` with the value read as JSON where it is JSON, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def field_settings(text: str) -> dict[str, Any]:
    """A mapping from fields to their settings, as JSON or the path of a file of it."""
    try:
        found = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"is neither JSON nor a file with JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise argparse.ArgumentTypeError(
            'must be like {"C3": {"embedding": "qr", "options": {"collisions": 60}}}'
        )
    return found
