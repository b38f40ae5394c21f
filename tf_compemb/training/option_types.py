"""What a command line's values may be, as argparse types: argparse's messages name them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def positive_integer(text: str) -> int:
    """1, 2, ..."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def natural_number(text: str) -> int:
    """0, 1, ..."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def modulus(text: str) -> int | str:
    """A positive integer, or `large`."""
    return text if text == "large" else positive_integer(text)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text}")
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
