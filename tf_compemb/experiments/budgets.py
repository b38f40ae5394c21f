"""One byte budget for all fields: which options of a method each field gets."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tf_compemb.training.options import TrainingOptions

# Of the range between the ratio that surely fits and twice it, to use what coarse settings leave.
_HALVINGS = 6


class BudgetError(ValueError):
    """A method cannot be so small; the message says what it needs."""


class _Choice(NamedTuple):
    """What a field gets: `overrides` of the collection, and served bytes."""

    override: dict[str, Any]
    bytes: int


_Fit = Callable[[int, int], "_Choice | None"]


def overrides_within(
    options: TrainingOptions, cardinalities: Sequence[int], divisor: float, full_share: float
) -> dict[str, dict[str, Any]]:
    """Settings of each field, so that all together are within a budget and near it.

    The fields with the fewest ids keep full tables, as far as these take `full_share` of the
    budget. All others get a common share of their full tables' bytes, as large as the budget
    allows; a field whose method needs more than its share gets the least that the method needs, or
    a full table where that is smaller. What settings in coarse steps leave of the budget goes to
    the largest fields.

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
    from tf_compemb.training.build import method_options

    full_bytes = [4 * n * options.dim for n in cardinalities]
    budget = int(sum(full_bytes) / divisor)
    kept_full = _full_fields(full_bytes, full_share * budget)
    rest = [n for i, n in enumerate(cardinalities) if i not in kept_full]
    fields = _Fields(
        _fitting(options.embedding[0], options.dim, json.dumps(method_options(options))),
        rest,
        4 * options.dim,
    )
    kept_bytes = sum(full_bytes[i] for i in kept_full)
    choices = iter(fields.within(budget - kept_bytes, kept_bytes, budget))
    return {
        f"C{i + 1}": {"embedding": "full"} if i in kept_full else next(choices).override
        for i in range(len(cardinalities))
    }


def _full_fields(full_bytes: Sequence[int], at_most: float) -> set[int]:
    """The smallest fields, as many as together take at most so many bytes."""
    found, total = set(), 0
    for i in sorted(range(len(full_bytes)), key=full_bytes.__getitem__):
        total += full_bytes[i]
        if total > at_most:
            break
        found.add(i)
    return found


@functools.cache
def _fitting(name: str, dim: int, fixed: str) -> _Fit:
    """A function from rows and bytes to the largest layer within them, or None; it remembers."""
    from tf_compemb.layers.registry import get_method

    method: Any = get_method(name)
    settings = json.loads(fixed)

    @functools.cache
    def fit(rows: int, at_most: int) -> _Choice | None:
        try:
            arguments = method.for_budget(rows, dim, at_most, **settings)
        except ValueError:
            return None
        size = method(rows, dim, **arguments).footprint().inference_bytes
        return _Choice({"embedding": name, "options": arguments, "threshold": 0}, size)

    return fit


class _Fields:
    """The fields that share a budget.

    Args:
        fit: Of `_fitting`.
        rows: Ids of each field.
        row_bytes: Of a full table.
    """

    def __init__(self, fit: _Fit, rows: Sequence[int], row_bytes: int) -> None:
        self._fit = fit
        self._rows = rows
        self._row_bytes = row_bytes

    def within(self, left: int, kept_bytes: int, budget: int) -> list[_Choice]:
        """Choices of all fields.

        Args:
            left: Bytes for these fields.
            kept_bytes: Bytes of the fields that keep full tables, and
            budget: of all, for the message.

        Raises:
            BudgetError: The method needs more.
        """
        choices, ratio = self._first_that_fits(left)
        if choices is None:
            needs = kept_bytes + sum(self._least(rows).bytes for rows in self._rows)
            raise BudgetError(f"needs {needs:,} bytes, the budget is {budget:,}")
        low, high = ratio, 2 * ratio
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            larger = self._choices(middle)
            if _total(larger) <= left:
                choices, low = larger, middle
            else:
                high = middle
        return self._topped_up(choices, left)

    def _topped_up(self, choices: list[_Choice], left: int) -> list[_Choice]:
        """What settings in coarse steps leave goes to the largest fields first."""
        choices = list(choices)
        for i in sorted(range(len(choices)), key=lambda i: -self._rows[i]):
            spare = left - _total(choices)
            choices[i] = self._choose(self._rows[i], choices[i].bytes + spare)
        return choices

    def _first_that_fits(self, left: int) -> tuple[list[_Choice] | None, float]:
        """Shares what fields with too small a share leave to the others, until all fits."""
        shared = [rows * self._row_bytes for rows in self._rows]
        ratio = left / sum(shared) if shared else 1.0
        while True:
            choices = self._choices(ratio)
            if _total(choices) <= left:
                return choices, ratio
            above = [c.bytes > ratio * full for c, full in zip(choices, shared, strict=True)]
            taken = sum(c.bytes for c, is_above in zip(choices, above, strict=True) if is_above)
            sharing = sum(n for n, is_above in zip(shared, above, strict=True) if not is_above)
            if not sharing or taken >= left:
                return None, 0.0
            ratio = (left - taken) / sharing

    def _choices(self, ratio: float) -> list[_Choice]:
        return [self._choose(rows, int(ratio * rows * self._row_bytes)) for rows in self._rows]

    def _choose(self, rows: int, at_most: int) -> _Choice:
        full = rows * self._row_bytes
        if at_most >= full:
            return self._full(rows)
        return self._fit(rows, at_most) or self._least(rows)

    def _full(self, rows: int) -> _Choice:
        return _Choice({"embedding": "full"}, rows * self._row_bytes)

    def _least(self, rows: int) -> _Choice:
        """The smallest layer of the method, or the full table where that is not larger."""
        below, above = 0, rows * self._row_bytes - 1
        if self._fit(rows, above) is None:
            return self._full(rows)
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if self._fit(rows, middle) is None else (below, middle)
        return self._fit(rows, above) or self._full(rows)


def _total(choices: Sequence[_Choice]) -> int:
    return sum(choice.bytes for choice in choices)
