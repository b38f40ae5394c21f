"""Medians, spreads, ratios and bounds of what was measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tf_compemb.benchmark.cases import Bound, CaseResult
from tf_compemb.benchmark.runner import GroupResult
from tf_compemb.benchmark.units import SECONDS


class Spread(NamedTuple):
    """Median and quartiles of a measure, or of a ratio, and of how many values."""

    median: float
    lower: float
    upper: float
    values: int


def spread_of(result: CaseResult, measure: str = SECONDS) -> Spread:
    """Over all calls of a case."""
    return _spread([call[measure] for turn in result.turns for call in turn])


def ratio_of(above: CaseResult, below: CaseResult, measure: str = SECONDS) -> Spread:
    """Of the cases' medians in each round.

    Turns of the same round follow each other, so what slows the machine for a while slows both.

    >>> from tf_compemb.benchmark.cases import Case
    >>> case = Case("any", "numpy", "lookup", {})
    >>> slow = CaseResult(case, [[{"seconds": 2.0}], [{"seconds": 9.0}]])
    >>> fast = CaseResult(case, [[{"seconds": 1.0}], [{"seconds": 3.0}]])
    >>> ratio_of(slow, fast)
    Spread(median=2.5, lower=2.25, upper=2.75, values=2)
    """
    pairs = zip(above.turns, below.turns, strict=True)
    return _spread([_median(a, measure) / _median(b, measure) for a, b in pairs])


def _median(turn: list[dict[str, float]], measure: str) -> float:
    return float(np.median([call[measure] for call in turn]))


def _spread(values: list[float]) -> Spread:
    lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
    return Spread(median, lower, upper, len(values))


class Verdict(NamedTuple):
    """What became of a bound.

    Attributes:
        bound: The bound.
        value: What was found, or None.
        missing: Why nothing was found: the case that was not measured.
    """

    bound: Bound
    value: Spread | None
    missing: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median is within the bound; None where nothing was found."""
        return None if self.value is None else self.value.median <= self.bound.at_most


def verdicts(result: GroupResult) -> list[Verdict]:
    """What became of each bound of a group."""
    return [_verdict(bound, result) for bound in result.group.bounds]


def _verdict(bound: Bound, result: GroupResult) -> Verdict:
    for name in filter(None, (bound.of, bound.over)):
        if result.of(name) is None:
            return Verdict(bound, None, name)
    of, over = result.of(bound.of), result.of(bound.over)
    assert of is not None
    if over is None:
        return Verdict(bound, spread_of(of, bound.measure))
    return Verdict(bound, ratio_of(of, over, bound.measure))


def ratios(case: CaseResult, result: GroupResult) -> dict[str, Spread]:
    """A case's time over that of the baseline, the limit and its yard, where there are such."""
    references = {
        "baseline": result.group.baseline,
        "limit": result.group.limit,
        "yard": case.case.yard,
    }
    found = {name: result.of(reference) for name, reference in references.items()}
    return {name: ratio_of(case, over) for name, over in found.items() if over is not None}


def group_to_json(result: GroupResult) -> dict[str, Any]:
    """All that was found of a group, without the single calls."""
    return {
        "name": result.group.name,
        "baseline": result.group.baseline,
        "limit": result.group.limit,
        "other_programs_share_of_cores": result.other_share,
        "cases": [_case_to_json(case, result) for case in result.results],
        "bounds": [
            {
                "text": verdict.bound.text,
                "met": verdict.is_met,
                **({"value": verdict.value._asdict()} if verdict.value else {}),
                **({"missing": verdict.missing} if verdict.missing else {}),
            }
            for verdict in verdicts(result)
        ],
    }


def _case_to_json(case: CaseResult, result: GroupResult) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": case.case.name,
        "engine": case.case.engine,
        "task": case.case.task,
        "settings": dict(case.case.settings),
        "status": case.status,
    }
    if case.status != "measured":
        return {**described, "reason": case.reason}
    measures = case.turns[0][0]
    described["measures"] = {name: spread_of(case, name)._asdict() for name in measures}
    if SECONDS in measures:
        described["fastest_seconds"] = min(call[SECONDS] for turn in case.turns for call in turn)
        described["ratios"] = {k: v._asdict() for k, v in ratios(case, result).items()}
    return described
