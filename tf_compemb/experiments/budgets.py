"""One byte budget for all fields: which options of a method each field gets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tf_compemb.training.options import TrainingOptions

# Of the range of the ratio's logarithm: to within 0.1 %.
_HALVINGS = 14


class BudgetError(ValueError):
    """A method cannot be so small; the message says what it needs."""


class _Choice(NamedTuple):
    """What a field gets: `overrides` of the collection, and served bytes."""

    override: dict[str, Any]
    bytes: int


def overrides_within(
    options: TrainingOptions, cardinalities: Sequence[int], divisor: float, full_share: float
) -> dict[str, dict[str, Any]]:
    """Settings of each field, so that all together are within a budget and near it.

    The fields with the fewest ids keep full tables, as far as these take `full_share` of the
    budget. All others get a common share of their full tables' bytes, the largest that the budget
    allows; a field whose method needs more than its share gets the least that the method needs, or
    a full table where that is smaller.

    Args:
        options: Method, width and the method's settings.
        cardinalities: Ids of the fields C1, C2, ...
        divisor: The budget is the bytes of all full tables over this.
        full_share: In [0, 1].

    Returns:
        `overrides` of an `EmbeddingCollection`, for every field.

    Raises:
        BudgetError: The method needs more.
    """
    from tf_compemb.layers.registry import get_method
    from tf_compemb.training.build import method_options

    (name,) = options.embedding
    fixed = method_options(options)
    full_bytes = [4 * n * options.dim for n in cardinalities]
    budget = int(sum(full_bytes) / divisor)
    full = _full_fields(full_bytes, full_share * budget)
    rest = [i for i in range(len(cardinalities)) if i not in full]
    left = budget - sum(full_bytes[i] for i in full)
    fit = functools.cache(functools.partial(_fit, get_method(name), name, options.dim, fixed))
    least = {i: _least(fit, cardinalities[i], full_bytes[i]) for i in rest}

    def choices(ratio: float) -> dict[int, _Choice]:
        return {i: _choose(fit, cardinalities[i], full_bytes[i], ratio, least[i]) for i in rest}

    smallest = sum(choice.bytes for choice in choices(0.0).values())
    if smallest > left:
        needs = smallest + budget - left
        raise BudgetError(f"needs {needs:,} bytes, the budget is {budget:,}")
    ratio = _largest_ratio(lambda r: sum(c.bytes for c in choices(r).values()) <= left)
    chosen = {i: c.override for i, c in choices(ratio).items()}
    return {f"C{i + 1}": chosen.get(i, {"embedding": "full"}) for i in range(len(cardinalities))}


def _full_fields(full_bytes: Sequence[int], at_most: float) -> set[int]:
    """The smallest fields, as many as together take at most so many bytes."""
    found, total = set(), 0
    for i in sorted(range(len(full_bytes)), key=full_bytes.__getitem__):
        total += full_bytes[i]
        if total > at_most:
            break
        found.add(i)
    return found


def _fit(
    method: Any, name: str, dim: int, fixed: dict[str, Any], rows: int, at_most: int
) -> _Choice | None:
    """The largest layer within so many bytes, or None."""
    try:
        arguments = method.for_budget(rows, dim, at_most, **fixed)
    except ValueError:
        return None
    size = method(rows, dim, **arguments).footprint().inference_bytes
    override = {"embedding": name, "options": arguments, "threshold": 0}
    return _Choice(override, size)


def _least(fit: Callable[[int, int], _Choice | None], rows: int, full: int) -> _Choice | None:
    """The smallest layer that is smaller than the full table, or None."""
    if fit(rows, full - 1) is None:
        return None
    below, above = 0, full - 1
    while above - below > 1:
        middle = (below + above) // 2
        if fit(rows, middle) is None:
            below = middle
        else:
            above = middle
    return fit(rows, above)


def _choose(
    fit: Callable[[int, int], _Choice | None],
    rows: int,
    full: int,
    ratio: float,
    least: _Choice | None,
) -> _Choice:
    choice = fit(rows, min(int(ratio * full), full - 1)) or least
    return _Choice({"embedding": "full"}, full) if choice is None or ratio >= 1 else choice


def _largest_ratio(fits: Callable[[float], bool]) -> float:
    """The largest ratio found by halving in the logarithm; 0 where only the least layers fit."""
    if fits(1.0):
        return 1.0
    low, high = math.log(1e-7), 0.0
    if not fits(math.exp(low)):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(math.exp(middle)) else (low, middle)
    return math.exp(low)
