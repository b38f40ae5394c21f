"""The largest setting of a method within a number of bytes: one search for all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_compemb._signatures import STATISTICS


@dataclass(frozen=True)
class Settings:
    """Settings of a method in order of size.

    Attributes:
        count: How many there are, at least 1.
        arguments: From a setting's number, in `[0, count)`, to arguments of the constructor. The
            layer of a higher number is not smaller.
    """

    count: int
    arguments: Callable[[int], dict[str, Any]]


def only(arguments: dict[str, Any]) -> Settings:
    """A grid of one setting."""
    return Settings(1, lambda number: arguments)


def within_budget(
    cls: Any,
    dims: tuple[int, int],
    budget: int,
    grid: Iterable[Settings],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Arguments of the constructor whose layer is the largest within a budget.

    Args:
        cls: The method's class.
        dims: `input_dim` and `output_dim`.
        budget: Bytes of the form that is served, at most.
        grid: Settings to choose from, the best first: the first of which any fits is taken.
        options: Arguments that are fixed, whatever the grid says.

    Raises:
        ValueError: Nothing fits; the message says what the smallest setting needs.
    """
    sizing = {name: value for name, value in options.items() if name not in STATISTICS}

    def size(setting: Mapping[str, Any]) -> int:
        layer = cls(*dims, **{"name": "sized", **setting, **sizing})
        return layer.footprint().inference_bytes

    smallest = []
    for settings in grid:
        smallest.append(size(settings.arguments(0)))
        if smallest[-1] <= budget:
            return {**_largest(settings, size, budget), **options}
    raise ValueError(
        f"{cls.__name__} with input_dim={dims[0]} and output_dim={dims[1]} needs {min(smallest)} "
        f"bytes at least, and the budget is {budget}."
    )


def _largest(
    settings: Settings, size: Callable[[Mapping[str, Any]], int], budget: int
) -> dict[str, Any]:
    number = largest_fitting(lambda n: size(settings.arguments(n)) <= budget, settings.count)
    return settings.arguments(number)


def largest_fitting(fits: Callable[[int], bool], count: int) -> int:
    """The largest number in `[0, count)` that fits, where each below one that fits does, and 0.

    >>> largest_fitting(lambda number: number**2 <= 50, 100)
    7
    """
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
