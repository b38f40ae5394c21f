"""One plot for each suite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_compemb.benchmark.cases import CaseResult, Suite
from tf_compemb.benchmark.methods import EVERY_METHOD, METHODS
from tf_compemb.benchmark.runner import GroupResult
from tf_compemb.benchmark.summary import spread_of
from tf_compemb.benchmark.units import SECONDS, words

_OURS, _THEIRS, _LIMIT = "tab:blue", "tab:gray", "tab:orange"
_MOST_COLUMNS = 2


def plot_suite(suite: Suite, groups: Sequence[GroupResult], path: Path) -> None:
    """Draws a suite into a PNG.

    Args:
        suite: The suite.
        groups: Its groups; cases that were not measured are left out.
        path: The file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    shown = [group for group in groups if any(r.status == "measured" for r in group.results)]
    {"bars": _bars, "points": _points, "lines": _lines}[suite.plot](figure, suite, shown)
    figure.suptitle(suite.title)
    figure.savefig(path, dpi=110, format="png")


def _panels(
    figure: Any, groups: Sequence[GroupResult], measure: str
) -> Iterator[tuple[Any, GroupResult, list[CaseResult]]]:
    """A panel for each group, and its cases, from top to bottom, that measured something."""
    columns = min(_MOST_COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    tallest = max(len(group.results) for group in groups)
    figure.set_size_inches(6.5 * columns, rows * (0.24 * tallest + 1.1) + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, group in zip(panels, groups, strict=False):
        measured = [r for r in group.results if r.status == "measured" and measure in r.turns[0][0]]
        yield panel, group, measured
        panel.invert_yaxis()
        panel.set_title(group.group.name, fontsize="medium")
        panel.grid(alpha=0.3, axis="x")
        panel.tick_params(axis="y", labelsize="small")
    for panel in panels[len(groups) :]:
        panel.set_visible(False)


def _bars(figure: Any, suite: Suite, groups: Sequence[GroupResult]) -> None:
    """One panel for each group, one bar for each case."""
    measure = suite.measures[0]
    scale, unit = _scale(measure)
    for panel, group, measured in _panels(figure, groups, measure):
        found = [spread_of(result, measure) for result in measured]
        medians = [scale * spread.median for spread in found]
        errors = [
            [scale * (spread.median - spread.lower) for spread in found],
            [scale * (spread.upper - spread.median) for spread in found],
        ]
        names = [result.case.name for result in measured]
        colors = [_color(result, group) for result in measured]
        if max(medians) > 20 * min(medians):
            # Points: on a logarithmic axis the length of a bar means nothing.
            panel.set_xscale("log")
            panel.errorbar(medians, names, xerr=errors, fmt="none", ecolor="black", elinewidth=1)
            panel.scatter(medians, names, c=colors, s=28, zorder=3)
        else:
            panel.barh(names, medians, xerr=errors, color=colors, error_kw={"elinewidth": 1})
        panel.set_xlabel(_label(measure, unit))


def _points(figure: Any, suite: Suite, groups: Sequence[GroupResult]) -> None:
    """One panel for each group, in it a column of points for each measure."""
    for panel, group, measured in _panels(figure, groups, suite.measures[0]):
        names = [result.case.name for result in measured]
        for i, measure in enumerate(suite.measures):
            scale, _ = _scale(measure)
            values = [scale * spread_of(result, measure).median for result in measured]
            # A formula's value is a ring around what was measured beside it.
            panel.scatter(
                values,
                names,
                s=24 if "rss" in measure else 90,
                facecolors=f"C{i // 2}" if "rss" in measure else "none",
                edgecolors=f"C{i // 2}",
                label=words(measure),
            )
        panel.set_xscale("log")
        panel.set_xlabel(_scale(suite.measures[0])[1])
        if group is groups[0]:
            figure.legend(loc="outside lower center", ncols=len(suite.measures), fontsize="small")


def _lines(figure: Any, suite: Suite, groups: Sequence[GroupResult]) -> None:
    """Time against rows: one panel for each runtime and batch, one line for each group."""
    panels: dict[str, list[GroupResult]] = {}
    for group in groups:
        runtime, _, _, batch = group.group.name.split(", ")
        panels.setdefault(f"{runtime}, {batch}", []).append(group)
    columns = min(_MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure.set_size_inches(7.5 * columns, 4.6 * rows)
    for panel, (title, members) in zip(
        figure.subplots(rows, columns, squeeze=False).flatten(), panels.items(), strict=False
    ):
        optimizers = list(dict.fromkeys(g.group.name.split(", ")[2] for g in members))
        for group in members:
            _, method, optimizer, _ = group.group.name.split(", ")
            measured = [r for r in group.results if r.status == "measured"]
            panel.plot(
                [r.case.settings["rows"] for r in measured],
                [1e3 * spread_of(r).median for r in measured],
                "o-" if method == "full" else "s--",
                color=f"C{optimizers.index(optimizer)}",
                markersize=4,
                label=f"{method}, {optimizer}",
            )
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel("rows of all tables")
        panel.set_ylabel("ms, median")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def _scale(measure: str) -> tuple[float, str]:
    """By what a measure is multiplied, and its unit."""
    if measure == SECONDS:
        return 1e3, "ms"
    return (1e-6, "MB") if measure.endswith("_bytes") else (1.0, "")


def _label(measure: str, unit: str) -> str:
    if measure == SECONDS:
        return f"{unit}, median and quartiles"
    return f"{words(measure)} ({unit})" if unit else words(measure)


def _color(result: CaseResult, group: GroupResult) -> str:
    if result.case.name == group.group.limit:
        return _LIMIT
    own = {*METHODS, *EVERY_METHOD}
    is_ours = "encoder" in result.case.settings or result.case.settings.get("method") in own
    return _OURS if is_ours else _THEIRS
