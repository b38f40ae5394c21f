"""Checks of arguments: each gives the value in its own type, or raises one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def positive_integer(name: str, value: Any, most: int | None = None) -> int:
    """`value` as an int from 1 on, up to `most` if there is one.

    Raises:
        ValueError: It is not; the message names the argument.
    """
    if not _is_integer(value) or value < 1 or (most is not None and value > most):
        wanted = "a positive integer" if most is None else f"an integer from 1 to {most}"
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={shown(value)}")
    return int(value)


def natural_number(name: str, value: Any) -> int:
    """`value` as an int from 0 on.

    Raises:
        ValueError: It is not; the message names the argument.
    """
    if not _is_integer(value) or value < 0:
        raise ValueError(
            f"`{name}` must be 0 or a positive integer. Received: {name}={shown(value)}"
        )
    return int(value)


def integer(name: str, value: Any) -> int:
    """`value` as an int of any sign.

    Raises:
        ValueError: It is not an integer; the message names the argument.
    """
    if not _is_integer(value):
        raise ValueError(f"`{name}` must be an integer. Received: {name}={shown(value)}")
    return int(value)


def positive_integers(name: str, value: Any, least: int = 0) -> tuple[int, ...]:
    """A list of integers from 1 on, at least so many; one number is a list of one.

    Raises:
        ValueError: It is neither; the message names the argument.

    >>> positive_integers("hidden_units", 16), positive_integers("hidden_units", [8, 4])
    ((16,), (8, 4))
    """
    numbers = [value] if _is_integer(value) else value
    if (
        not _is_list(numbers)
        or len(numbers) < least
        or not all(_is_integer(n) and n > 0 for n in numbers)
    ):
        raise ValueError(
            f"`{name}` must be a positive integer or a list of them. "
            f"Received: {name}={shown(value)}"
        )
    return tuple(int(n) for n in numbers)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool: text such as "no" is not taken for true.

    Raises:
        ValueError: It is neither True nor False; the message names the argument.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={shown(value)}")
    return bool(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """`value`, which is one of several names.

    Raises:
        ValueError: It is none of them; the message lists them.
    """
    if not isinstance(value, str) or value not in known:
        names = ", ".join(map(repr, known))
        wanted = " or ".join(map(repr, known)) if len(known) < 3 else f"one of {names}"
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={shown(value)}")
    return value


def finite_number(name: str, value: Any) -> float:
    """`value` as a float that is neither NaN nor infinite.

    Raises:
        ValueError: It is not a finite number; the message names the argument.
    """
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number. Received: {name}={shown(value)}")
    return float(value)


def mapping(name: str, value: Any) -> dict[Any, Any]:
    """`value`, a mapping, as a new dictionary.

    Raises:
        ValueError: It is none; the message names the argument.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"`{name}` must be a mapping. Received: {name}={shown(value)}")
    return dict(value)


def shown(value: Any) -> str:
    """How a value is written in a message: on one line, and not all of a long one."""
    text = " ".join(repr(_plain(value)).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _plain(value: Any) -> Any:
    """Lists and mappings as Python's own: TensorFlow wraps those that a layer holds."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
