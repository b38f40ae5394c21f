"""Tables of a suite for the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_compemb.benchmark.cases import CaseResult, Suite
from tf_compemb.benchmark.engines import ENGINES
from tf_compemb.benchmark.engines.keras_tensorflow import NATIVE_KERNELS
from tf_compemb.benchmark.other_load import HARMLESS_SHARE
from tf_compemb.benchmark.runner import GroupResult
from tf_compemb.benchmark.summary import Spread, Verdict, ratios, spread_of, verdicts
from tf_compemb.benchmark.units import SECONDS, quantity, words

_RATIO_HEADINGS = {"baseline": "/ base", "limit": "/ limit", "yard": "/ network"}
_VERDICT = {True: "met", False: "NOT MET", None: "unknown"}


def print_suite(suite: Suite, groups: Sequence[GroupResult], write: Callable[[str], Any]) -> None:
    """Prints what was found.

    Args:
        suite: The suite.
        groups: Its groups, as far as they were run.
        write: Takes lines without an end; `print`.
    """
    write("")
    write(suite.title)
    write(suite.about)
    reason = shared_reason(groups)
    if reason:
        write(f"\nnot run: {reason}")
        return
    for group in groups:
        write("")
        write(group.group.name)
        print_table(_table(suite, group), write)
        for line in _not_measured(group):
            write(f"  {line}")
        if group.other_share is not None and group.other_share > HARMLESS_SHARE:
            write(
                f"  other programs took {group.other_share:.0%} of the processors meanwhile: the "
                "ratios mean little, those to torch, FBGEMM and torchrec nothing"
            )
        for verdict in verdicts(group):
            write(f"  {verdict_line(verdict)}")


def kernel_lines(versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What the processes that run our layers said of the compiled kernels.

    Args:
        versions: By engine, what each reported.

    >>> kernel_lines({"tf_keras": {"native kernels": "used"}, "torch": {"torch": "2.13"}})
    ['compiled kernels (tf_compemb.native_kernels): used']
    """
    ours = [of for engine, of in versions.items() if not ENGINES[engine].is_peer]
    found = {of[NATIVE_KERNELS] for of in ours if NATIVE_KERNELS in of}
    heading = "compiled kernels (tf_compemb.native_kernels)"
    return [f"{heading}: {' and '.join(sorted(found))}"] if found else []


def shared_reason(groups: Sequence[GroupResult]) -> str | None:
    """Why no case at all was run, where that is one reason."""
    results = [result for group in groups for result in group.results]
    reasons = {result.reason for result in results}
    nothing = all(result.status != "measured" for result in results)
    return reasons.pop() if nothing and len(reasons) == 1 else None


def print_table(rows: Sequence[Sequence[str]], write: Callable[[str], Any]) -> None:
    """Prints rows in columns, the first to the left; by rich where it is installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            write("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    console = Console(width=max(120, *itertools.chain.from_iterable(_widths(rows))))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().strip("\n").splitlines():
        write(line.rstrip())


def _widths(rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """A page on which no row is cut."""
    return [[sum(len(cell) + 2 for cell in row)] for row in rows]


def _table(suite: Suite, group: GroupResult) -> list[list[str]]:
    found = {result.case.name: ratios(result, group) for result in group.results if result.turns}
    shown = [key for key in _RATIO_HEADINGS if any(key in of_case for of_case in found.values())]
    measures = list(suite.measures)
    headings = [heading for measure in measures for heading in _headings(measure, group)]
    rows = [["", *headings, *(_RATIO_HEADINGS[key] for key in shown)]]
    for result in group.results:
        if result.status != "measured":
            continue
        cells = [cell for measure in measures for cell in _cells(result, measure, group)]
        of_case = found[result.case.name]
        cells += [f"{of_case[key].median:.2f}" if key in of_case else "" for key in shown]
        rows.append([result.case.name, *cells])
    return rows


def _not_measured(group: GroupResult) -> list[str]:
    """One line for each reason why cases were not measured."""
    names: dict[tuple[str, str], list[str]] = {}
    for result in group.results:
        if result.status != "measured":
            names.setdefault((result.status, result.reason), []).append(result.case.name)
    return [f"{status}: {'; '.join(cases)} ({reason})" for (status, reason), cases in names.items()]


def _headings(measure: str, group: GroupResult) -> list[str]:
    if measure != SECONDS:
        return [words(measure)]
    return ["time"] if group.group.once else ["median", "quartiles"]


def _cells(result: CaseResult, measure: str, group: GroupResult) -> list[str]:
    if measure not in result.turns[0][0]:
        return [""] * len(_headings(measure, group))
    found = spread_of(result, measure)
    median = quantity(measure, found.median)
    return [median, _range(found)] if measure == SECONDS and not group.group.once else [median]


def _range(found: Spread) -> str:
    lower, upper = quantity(SECONDS, found.lower), quantity(SECONDS, found.upper)
    number, unit = lower.split(" ")
    return f"{number}-{upper}" if upper.endswith(f" {unit}") else f"{lower} - {upper}"


def verdict_line(verdict: Verdict) -> str:
    """One line about a bound."""
    state = f"{_VERDICT[verdict.is_met]:8}{verdict.bound.text}"
    if verdict.value is None:
        return f"{state}: {verdict.missing} was not measured"
    value = verdict.value
    if verdict.bound.over is None:
        return f"{state}: {quantity(verdict.bound.measure, value.median)}"
    quartiles = f" ({value.lower:.2f}-{value.upper:.2f})" if value.values > 1 else ""
    return f"{state}: {value.median:.2f}{quartiles}"
