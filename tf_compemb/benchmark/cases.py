"""The vocabulary of a benchmark: a case is timed, a group is compared, a suite is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_compemb.benchmark.units import SECONDS, quantity, words


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    Attributes:
        name: Its name in the table, unique in its group.
        engine: Key of `engines.ENGINES`: who runs it.
        task: What the engine's `prepare` is asked for, such as "step".
        settings: The task's arguments, ready for JSON.
        yard: Name of the case of the same group that is the part of this one which no embedding
            changes (the network alone), or None.
    """

    name: str
    engine: str
    task: str
    settings: Mapping[str, Any]
    yard: str | None = None


@dataclass(frozen=True)
class Bound:
    """A measure, or a ratio of two cases of a group, that is to be no larger than a number.

    Attributes:
        of: Name of the case above the line.
        over: Name of the case below the line; None bounds the measure itself.
        at_most: The largest value that meets the bound.
        measure: What is compared.
    """

    of: str
    over: str | None
    at_most: float
    measure: str = SECONDS

    @property
    def text(self) -> str:
        """The bound in words.

        >>> Bound("qr", "full", 1.1).text
        'qr / full <= 1.1'
        """
        prefix = "" if self.measure == SECONDS else f"{words(self.measure)}: "
        if self.over is None:
            return f"{prefix}{self.of} <= {quantity(self.measure, self.at_most)}"
        return f"{prefix}{self.of} / {self.over} <= {self.at_most:g}"


@dataclass(frozen=True)
class Group:
    """Cases that run in turns, each for itself, and are compared.

    Attributes:
        name: What the cases have in common, such as "batch 128, adagrad".
        cases: In the order of the table.
        baseline: Name of the case that the ratios are to, or None.
        limit: Name of the case that shows what the machine can do at best, or None.
        bounds: What the ratios are promised to be.
        once: Whether each case is called once, without warm-up, instead of in turns.
        fresh: Whether the group's processes are its own, and with `once` each case's.
    """

    name: str
    cases: Sequence[Case]
    baseline: str | None = None
    limit: str | None = None
    bounds: Sequence[Bound] = ()
    once: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Suite:
    """Groups that are run by one name and reported in one table, file and plot.

    Attributes:
        name: As on the command line.
        title: Heading of the table and the plot.
        about: Sentences on what is measured and what the columns mean.
        groups: In the order of the table.
        measures: The measures that are shown.
        plot: "bars" of the first measure, "points" of all, which have one unit, or "lines" of the
            first over the number of rows.
    """

    name: str
    title: str
    about: str
    groups: Sequence[Group]
    measures: Sequence[str] = (SECONDS,)
    plot: str = "bars"


@dataclass
class CaseResult:
    """What was measured of a case.

    Attributes:
        case: The case.
        turns: For each turn, one mapping from measure to value for each call.
        status: "measured", "not installed", "skipped" or "failed".
        reason: Why a case was not measured, and what to do about it.
    """

    case: Case
    turns: list[list[dict[str, float]]] = field(default_factory=list)
    status: str = "measured"
    reason: str = ""
